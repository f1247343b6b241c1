"""Read an annotation file in one of three ways and say what that took; for `bench_loader.py`.

    python scripts/read_annotations.py json.load|pycocotools|dyhead-det FILE

The last line is JSON: seconds, CPU seconds, the peak of memory in MiB, and the MiB that a worker
process takes of its own by asking for the boxes of every image (None where nothing can be asked).
Memory is read from Linux's /proc; elsewhere it is None.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

Read = Callable[[], Callable[[], object] | None]


def main() -> None:
    """Read, ask, and tell."""
    read = READERS[sys.argv[1]](sys.argv[2])
    before = time.perf_counter(), time.process_time()
    ask_for_all = read()
    seconds, cpu_seconds = time.perf_counter() - before[0], time.process_time() - before[1]
    peak = mib("/proc/self/status", "VmHWM")
    worker = None if ask_for_all is None or peak is None else mib_of_a_worker(ask_for_all)
    sys.stdout.write("\n" + json.dumps([seconds, cpu_seconds, peak, worker]) + "\n")


def json_reader(path: str) -> Read:
    """Python's own reader: no table, only the parsed file."""

    def read() -> None:
        with Path(path).open("rb") as file:
            json.load(file)

    return read


def pycocotools_reader(path: str) -> Read:
    """The usual one."""
    from pycocotools.coco import COCO  # noqa: PLC0415 - each reader imports its own

    def read() -> Callable[[], object]:
        table = COCO(path)
        return lambda: [len(table.loadAnns(table.getAnnIds(key))) for key in table.imgs]

    return read


def our_reader(path: str) -> Read:
    """Checked and repaired, as columns."""
    from dyhead_det.data.coco.dataset import load_coco  # noqa: PLC0415 - each reader imports its own

    def read() -> Callable[[], object]:
        table = load_coco(Path(path), Path(), split="train")
        return lambda: [len(table.target(row)["labels"]) for row in range(len(table))]

    return read


READERS = {"json.load": json_reader, "pycocotools": pycocotools_reader, "dyhead-det": our_reader}


def mib_of_a_worker(ask_for_all: Callable[[], object]) -> float:
    """Fork as a loader does; return the memory that the child does not share in the end."""
    out_of, into = os.pipe()
    if os.fork() == 0:
        ask_for_all()
        os.write(into, str(mib("/proc/self/smaps_rollup", "Private")).encode())
        os._exit(0)
    os.wait()
    return float(os.read(out_of, 100))


def mib(path: str, key: str) -> float | None:
    """Sum the entries of one of Linux's tables that begin with `key`."""
    if not Path(path).is_file():
        return None
    lines = Path(path).read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


if __name__ == "__main__":
    main()

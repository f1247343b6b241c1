"""The journal of a prediction: one JSON line per image, in order, on disk as soon as it is there.

A killed run goes on behind its last whole line. Beside the lines lies the call, all that results
depend on, so that a run is never continued by a different one. Tables are made from the journal.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dyhead_det.errors import ConfigError
from dyhead_det.escaping import printable
from dyhead_det.evaluation.evaluate import write_json
from dyhead_det.prediction.outputs.lines import Line

LINES, CALL = "predictions.jsonl", "predict.json"
# A power loss costs no more than what was found in this time.
_SECONDS_BETWEEN_SYNCS = 5.0
_MOST_CHARACTERS = 80

Call = Mapping[str, Any]


class Journal:
    """The file of lines, open to append to.

    Use it as a context: at the end all lines are on the disk.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LINES
        self._file = self.path.open("ab")
        self._synced_at = time.monotonic()

    def append(self, lines: Sequence[Line]) -> None:
        """Write lines, and force them to the disk now and then.

        Raises:
            OSError: Naming the file.
        """
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        try:
            self._file.write(text.encode())
            self._file.flush()
            if time.monotonic() - self._synced_at > _SECONDS_BETWEEN_SYNCS:
                self._sync()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        try:
            self._sync()
            self._file.close()
        except OSError:
            if error is None:
                raise


def start_journal(folder: Path, call: Call) -> None:
    """Begin anew: without a line, with this call.

    Raises:
        OSError: If the disk is full.
    """
    (folder / LINES).unlink(missing_ok=True)
    write_json(folder / CALL, call, indent=2)
    (folder / LINES).touch()


def resume_journal(
    folder: Path, call: Call, *, batch_size: int, fits: Callable[[int, Line], bool]
) -> int | None:
    """Return how many images are done, None where there is nothing to go on with.

    Half a line at the end is dropped, and so are the last lines that fill no batch: images of a
    batch go through the detector together, and shall do so again.

    Args:
        folder: Of the results.
        call: All that results depend on, by names that people know.
        batch_size: Images of a batch; the last batch of all may have fewer.
        fits: Whether a line is of the image at a position.

    Raises:
        ConfigError: If the journal is that of a different call, naming what differs.
    """
    earlier = read_call(folder)
    if earlier is None or not (folder / LINES).exists():
        return None
    _require_same(folder, earlier, json.loads(json.dumps(call)))
    ends = [0]  # of each line, in bytes
    for position, (line, end) in enumerate(_whole_lines(folder / LINES)):
        if not fits(position, line):
            break
        ends.append(end)
    num_done = len(ends) - 1
    if num_done < call["images"]:
        num_done -= num_done % batch_size
    os.truncate(folder / LINES, ends[num_done])
    return num_done


def read_call(folder: Path) -> dict[str, Any] | None:
    """Return the call of the results in a folder, None where there is none that can be read."""
    try:
        call = json.loads((folder / CALL).read_bytes())
    except (OSError, ValueError):
        return None
    return call if isinstance(call, dict) else None


def read_lines(folder: Path) -> Iterator[Line]:
    """Yield the lines of a journal, one at a time."""
    return (line for line, _ in _whole_lines(folder / LINES))


def count_lines(folder: Path) -> int:
    """Return the number of images that a journal has, 0 where there is none."""
    try:
        with (folder / LINES).open("rb") as file:
            return sum(text.endswith(b"\n") for text in file)
    except OSError:
        return 0


def _whole_lines(path: Path) -> Iterator[tuple[Line, int]]:
    """Yield each line and where it ends, up to the first that is none, as after a power loss."""
    end = 0
    with path.open("rb") as file:
        for text in file:
            end += len(text)
            try:
                line = json.loads(text)
            except ValueError:
                return
            if not text.endswith(b"\n") or not isinstance(line, dict):
                return
            yield line, end


def _require_same(folder: Path, earlier: Call, now: Call) -> None:
    names = dict.fromkeys((*earlier, *now))
    differences = [
        f"{printable(name)} was {_shown(earlier, name)}, is {_shown(now, name)}"
        for name in names
        if earlier.get(name) != now.get(name)
    ]
    if differences:
        raise ConfigError(
            f"{folder} holds results of a different call: {'; '.join(differences)}; "
            "repeat that call to go on with it, or give another folder by --out"
        )


def _shown(call: Call, name: str) -> str:
    return printable(json.dumps(call.get(name)), max_length=_MOST_CHARACTERS)

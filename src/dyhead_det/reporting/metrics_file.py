"""metrics.jsonl: one row of losses every few steps, one row of COCO numbers per evaluation."""

import errno
import json
import logging
import os
from pathlib import Path

from dyhead_det.distributed.rank_zero import main_only
from dyhead_det.evaluation.coco_scores import EvalResult
from dyhead_det.files import written_whole

logger = logging.getLogger(__name__)

Row = dict[str, float | int | None]


def evaluation_row(result: EvalResult, raw: EvalResult | None) -> Row:
    """Return the numbers of an evaluation by name, without step and epoch.

    Args:
        result: of the detector, or of the average of its weights.
        raw: with an average, of the weights that are trained, if they were evaluated.
    """
    return {
        **result.metrics,
        "num_images": result.num_images,
        "num_boxes": result.num_boxes,
        "num_unreadable_images": result.num_unreadable_images,
        **{f"AP/{line.name}": line.AP for line in result.classes},
        **({} if raw is None else {f"raw/{name}": value for name, value in raw.metrics.items()}),
    }


class MetricsFile:
    """Rows on their way to the file; what a full disk refuses waits in memory and comes later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[Row] = []

    @main_only
    def append(self, row: Row) -> None:
        """Add a row at the end, or warn and write it with a later one."""
        self._waiting.append(row)
        try:
            self.write()
        except OSError as error:
            if len(self._waiting) == 1:
                logger.warning("%s: rows wait to be written: %s", self.path, error.strerror)

    @main_only
    def write(self, *, durable: bool = False) -> None:
        """Write the rows that wait, all or none; on request force the file to the disk.

        Raises:
            OSError: If they cannot be written; they go on waiting.
        """
        with self.path.open("ab", buffering=0) as file:
            _append_or_leave(file.fileno(), _to_lines(self._waiting))
            self._waiting.clear()
            if durable:
                os.fsync(file.fileno())


def read_rows(path: Path) -> list[Row]:
    """Return the rows, without a last one that was cut off by a crash."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # no JSON, or no text at all
            break
    return rows


@main_only
def drop_rows_after(path: Path, *, last_step: int, evaluated_step: int) -> None:
    """Drop what a resumed run will write again: rows after the checkpoint it continues from."""
    remaining = [
        row
        for row in read_rows(path)
        if (row["step"] or 0) <= (evaluated_step if "AP" in row else last_step)
    ]
    with written_whole(path, durable=True) as unfinished:
        unfinished.write_bytes(_to_lines(remaining))


def _to_lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _append_or_leave(descriptor: int, content: bytes) -> None:
    """Write at the end of a file; a part that fits on the disk is taken back."""
    size = os.fstat(descriptor).st_size
    try:
        if os.write(descriptor, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.ftruncate(descriptor, size)
        raise

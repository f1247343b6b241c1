"""TensorBoard event files with the numbers of metrics.jsonl (TensorBoard is an extra)."""

from collections.abc import Iterable
from pathlib import Path

from dyhead_det.escaping import printable
from dyhead_det.reporting.metrics_file import Row


class TensorBoardLog:
    """Event files with the content of metrics.jsonl, no step missing and none twice.

    A resumed run goes back to its checkpoint and repeats what came after it, so event files cannot
    just be continued: they are written anew from the rows that remain.
    """

    def __init__(self, folder: Path, rows: Iterable[Row]) -> None:
        """Write the rows so far.

        Args:
            folder: a folder of this run alone; event files in it are emptied.
            rows: of metrics.jsonl.
        """
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra

        # An open TensorBoard does not get over a file that is gone, but goes on after an empty one,
        # and forgets what it has read from `purge_step` on.
        for old in folder.glob("events.out.tfevents.*"):
            old.write_bytes(b"")
        self._writer = SummaryWriter(str(folder), purge_step=0, flush_secs=30)
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Add the numbers of a row at its step."""
        for name, value in row.items():
            if name not in ("step", "epoch") and value is not None:
                self._writer.add_scalar(_tag(name), value, global_step=row["step"])

    def close(self, *, is_finished: bool) -> None:  # noqa: ARG002 - see `Tracker`
        """Write what is still in memory."""
        self._writer.close()


def _tag(name: str) -> str:
    """Return a name with its group: TensorBoard makes a section of what comes before a slash."""
    name = printable(name)
    if name.startswith("loss"):
        return f"losses/{name}"
    if name.startswith("AP/"):
        return name.replace("AP/", "AP by class/", 1)
    if "/" in name:
        return name
    return f"{'COCO' if name.startswith(('AP', 'AR')) else 'run'}/{name}"

"""What a prediction has left: the tables that were asked for, and what went wrong."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dyhead_det.contracts import CategoryMap
from dyhead_det.distributed.stopping import StopRequested
from dyhead_det.errors import DatasetError, OutputError, StoppedError
from dyhead_det.escaping import listed, printable
from dyhead_det.files import written_whole
from dyhead_det.prediction.options import Output
from dyhead_det.prediction.outputs.journal import LINES, read_lines
from dyhead_det.prediction.outputs.tables import (
    DETECTIONS,
    IMAGES,
    TABLE,
    write_detections,
    write_detections_csv,
    write_images,
)

CLASSES = "classes.txt"
_MOST_NAMED = 10


def write_tables(out: Path, outputs: Sequence[Output], categories: CategoryMap) -> None:
    """Write the tables that are asked for, of the images that are done."""
    if "json" in outputs:
        write_detections(out / DETECTIONS, read_lines(out))
        write_images(out / IMAGES, read_lines(out), categories)
    if "csv" in outputs:
        write_detections_csv(out / TABLE, read_lines(out))
    if "yolo" in outputs:
        with written_whole(out / CLASSES) as unfinished:
            names = "".join(f"{printable(name)}\n" for name in categories.names)
            unfinished.write_text(names, encoding="utf-8")


@dataclass(slots=True)
class _Names:
    """Images with the same fate: how many, and the first of them."""

    number: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.number += 1
        if self.number <= _MOST_NAMED:
            self.first.append(name)

    def __str__(self) -> str:
        more = self.number - len(self.first)
        return listed(self.first) + (f" and {more} more" if more else "")


@dataclass(slots=True)
class PredictSummary:
    """What a run over images has left in a folder.

    num_images: asked for; num_done: read or not, with a line in the journal; unread, failed: images
    that could not be read, or pass through the detector; unwritten: files of images, and why.
    """

    out: Path
    num_images: int
    num_done: int = 0
    num_detections: int = 0
    unread: _Names = field(default_factory=_Names)
    failed: _Names = field(default_factory=_Names)
    unwritten: _Names = field(default_factory=_Names)
    unwritten_because: str = ""

    @property
    def results(self) -> Path:
        """The file of all detections."""
        has_table = (self.out / DETECTIONS).exists()
        return self.out / (DETECTIONS if has_table else LINES)

    def raise_problems(self, stopped_by: StopRequested | None) -> None:
        """Raise what went wrong, if anything did, the gravest in the exit code.

        Raises:
            StoppedError: If a signal ended the run.
            OutputError: If files of images could not be written.
            DatasetError: If images could not be read or the detector failed in them.
        """
        problems = []
        if self.unwritten.number:
            problems.append(
                f"files of {self.unwritten.number} of {self.num_done} images could not be written: "
                f"{self.unwritten} ({self.unwritten_because})"
            )
        for verb, names in {
            "be read": self.unread,
            "pass through the detector": self.failed,
        }.items():
            if names.number:
                problems.append(
                    f"{names.number} of {self.num_images} images could not {verb}: {names}"
                )
        if problems and self.num_done > self.unread.number + self.failed.number:
            problems[-1] += f"; what was found in the others is in {self.out}"
        if stopped_by is not None:
            raise StoppedError(
                f"stopped by {stopped_by} after {self.num_done} of {self.num_images} images; what "
                f"was found in them is in {self.out}; --resume goes on",
                *problems,
                signal_number=stopped_by.signal_number,
            )
        if self.unwritten.number:
            raise OutputError(*problems)
        if problems:
            raise DatasetError(*problems)


def summarize(out: Path, num_images: int) -> PredictSummary:
    """Count what the journal of a folder holds."""
    summary = PredictSummary(out, num_images)
    for line in read_lines(out):
        summary.num_done += 1
        summary.num_detections += len(line.get("detections", ()))
        if line.get("failed_at") == "read":
            summary.unread.add(line["file_name"])
        elif line.get("failed_at") == "detect":
            summary.failed.add(line["file_name"])
        for folder, reason in line.get("unwritten", {}).items():
            summary.unwritten.add(f"{line['file_name']} in {folder}")
            summary.unwritten_because = summary.unwritten_because or reason
    return summary

"""`data check`: all that training would refuse, repair or end on, found before it costs time."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations, starmap
from pathlib import Path
from typing import Any, Literal

from dyhead_det.config.schema import DataConfig, ValidationConfig
from dyhead_det.data.build_datasets import REQUIREMENTS, held_out_images
from dyhead_det.data.class_choice import choose_classes
from dyhead_det.data.coco.box_frames import CORNERS, RELATIVE
from dyhead_det.data.coco.dataset import CocoDataset, missing_images, require_images
from dyhead_det.data.coco.problems import AnnotationProblems
from dyhead_det.data.coco.records import Flags
from dyhead_det.data.formats.read import read_annotations
from dyhead_det.data.formats.source import Source
from dyhead_det.data.images import WrongSizeError
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import listed
from dyhead_det.inspection.between_parts import PartContent, compare_parts, shared_images
from dyhead_det.inspection.findings import Finding, findings_of, write_findings
from dyhead_det.inspection.opened_images import open_images, report_opened
from dyhead_det.inspection.same_pictures import Fingerprint, equal_files, near_duplicates
from dyhead_det.inspection.suspicions import add_suspicions
from dyhead_det.inspection.targets import Target


@dataclass(frozen=True)
class DatasetCheck:
    """The result of a check of an annotation file and its images.

    Attributes:
        name: what messages call it: its annotations, and the split where these hold several.
        dataset: what can be used of it.
        problems: by kind, those of the images included.
        unmet: why training would not start although every record can be read.
        fingerprints: of the images that could be read, by position.
        num_opened: images that were opened.
        unreadable: names of the image files that are missing or cannot be read.
    """

    name: str
    dataset: CocoDataset
    problems: AnnotationProblems
    unmet: tuple[Finding, ...]
    fingerprints: dict[int, Fingerprint]
    num_opened: int
    unreadable: frozenset[str]

    @property
    def findings(self) -> list[Finding]:
        """All that was found in this file and its images alone, the worst first."""
        found = findings_of(self.problems, self.name)
        num_errors = len(self.problems.refused)
        return [*found[:num_errors], *self.unmet, *found[num_errors:]]

    def description(self) -> str:
        """Return in one line what there is."""
        dataset = self.dataset
        return (
            f"{self.name}: {len(dataset)} images ({self.num_opened} opened), "
            f"{len(dataset.labels)} boxes, {int(dataset.is_crowd.sum())} of them crowds, "
            f"{len(dataset.categories)} categories: "
            f"{listed(dataset.categories.names, max_named=100)}"
        )

    def content(self, name: str | None = None, *, rows: Flags | None = None) -> PartContent:
        """Return what other parts are compared with, or some images of it, (N,)."""
        shown = [i for i in self.fingerprints if rows is None or rows[i]]
        return PartContent(
            name or self.name,
            self.dataset.categories,
            [self.dataset.file_names[i] for i in shown],
            [self.fingerprints[i] for i in shown],
        )

    def to_plain(self) -> dict[str, Any]:
        """Return what there is as plain values."""
        return {
            "split": self.dataset.split,
            "annotations": str(self.dataset.annotations_path),
            "images": str(self.dataset.images),
            "num_images": len(self.dataset),
            "num_opened": self.num_opened,
            "num_boxes": len(self.dataset.labels),
            "num_crowds": int(self.dataset.is_crowd.sum()),
            "categories": list(self.dataset.categories.names),
        }


@dataclass(frozen=True)
class Check:
    """Checks of one or several parts of a data set, and what was found between them."""

    parts: tuple[DatasetCheck, ...]
    between: tuple[Finding, ...] = ()

    @property
    def findings(self) -> list[Finding]:
        """All that was found, part by part."""
        return [finding for part in self.parts for finding in part.findings] + [*self.between]

    def text(self) -> str:
        """Return one line for every kind of finding and for every part."""
        lines = []
        for part in self.parts:
            lines += [*(finding.line() for finding in part.findings), part.description()]
        return "\n".join([*lines, *(finding.line() for finding in self.between)])

    def write(self, folder: Path) -> None:
        """Write all findings with all ids and names to `check.json` and `check.csv`."""
        write_findings(folder, self.findings, [part.to_plain() for part in self.parts])

    def require_usable(self, *, advice: str = "") -> None:
        """Refuse what training would refuse.

        Args:
            advice: the end of the message.

        Raises:
            DatasetError: with the number of reasons, which `text` lists.
        """
        errors = [finding for finding in self.findings if finding.severity == "error"]
        if errors:
            names = ", ".join(dict.fromkeys(finding.where for finding in errors))
            raise DatasetError(
                f"{names} cannot be trained on as it is; correct what is called an error above "
                f"({len(errors)} in all){advice}"
            )


def check_target(target: Target, *, opens_images: bool = True) -> Check:
    """Check all parts of a data set, and look for images that several of them have.

    Args:
        target: what to look at.
        opens_images: read the images too, not only look whether they are there.

    Raises:
        DatasetError: if a file is no COCO annotation file.
    """
    parts = [
        check_dataset(
            part.source,
            split=part.split,
            skips_broken=target.skips_broken,
            opens_images=opens_images,
        )
        for part in target.parts
    ]
    together, data = check_together(parts), target.config.data
    known = parts[0].dataset.categories.label_of_name
    if unknown := tuple(name for name in data.classes or () if name not in known):
        finding = Finding("error", parts[0].name, "data.classes that there are not", unknown)
        return Check(together.parts, (*together.between, finding))
    if data.val is not None and data.val.share is not None and not parts[0].problems.refused:
        return Check(together.parts, tuple(_shared_with_share(parts[0], data, data.val)))
    return together


def check_dataset(
    source: Source,
    *,
    split: Literal["train", "val"] = "train",
    skips_broken: bool = False,
    opens_images: bool = True,
) -> DatasetCheck:
    """Read a data set as training does, and every image in it.

    Args:
        source: annotations in any format, and their images.
        split: the part of a data set that this is.
        skips_broken: images that cannot be read are no errors.
        opens_images: read the images too, not only look whether they are there.

    Raises:
        DatasetError: if the file is no COCO annotation file, or the folder no data set.
    """
    dataset, problems, found, titles = read_annotations(
        source, part=split, broken_images="skip" if skips_broken else "error"
    )
    try:
        missing, absence = missing_images(dataset), None
    except DatasetError as error:
        missing, absence = [*dataset.file_names], str(error)
    name = str(dataset.annotations_path)
    if found.format != "coco":
        name = f"{name} ({found.split})"
    unmet = _unmet(dataset, absence or missing, name, skips_broken=skips_broken)
    if skips_broken and absence is None:
        problems.repair(f"images that are not in {dataset.images}, left out", missing)
    # Boxes that are no pixels would all look odd.
    if len(dataset) and not any(k.startswith((RELATIVE, CORNERS)) for k in problems.refused):
        add_suspicions(dataset, problems, titles)
    num_opened, unreadable = 0, [*missing]
    fingerprints: dict[int, Fingerprint] = {}
    if opens_images:
        is_missing = {"", *missing}  # "" was no name of a file, and refused as such
        there = [i for i, name in enumerate(dataset.file_names) if name not in is_missing]
        fingerprints, broken = _open_all(dataset, there, problems, skips_broken=skips_broken)
        unreadable += broken
        num_opened = len(there)
        _report_duplicates(dataset, fingerprints, problems)
    return DatasetCheck(
        name, dataset, problems, tuple(unmet), fingerprints, num_opened, frozenset(unreadable)
    )


def check_together(parts: Sequence[DatasetCheck]) -> Check:
    """Compare the parts of a data set: the images that several have, the classes that one lacks."""
    contents = [part.content() for part in parts]
    pairs = combinations(contents, 2)
    return Check(tuple(parts), tuple(chain.from_iterable(starmap(compare_parts, pairs))))


def _shared_with_share(
    part: DatasetCheck, config: DataConfig, val: ValidationConfig
) -> list[Finding]:
    """Find images that the share of the training data that is held out and the rest both have."""
    dataset = part.dataset
    if config.classes is not None:
        dataset = choose_classes(dataset, config.classes, option="data.classes")
    is_held_out = held_out_images(dataset, val)
    sides = [
        part.content(f"{part.name} {words}", rows=rows)
        for words, rows in (("to train on", ~is_held_out), ("held out by data.val", is_held_out))
    ]
    return shared_images(sides[0], sides[1])


def _unmet(
    dataset: CocoDataset, missing: Sequence[str] | str, where: str, *, skips_broken: bool
) -> list[Finding]:
    """Return why training would not start although every record can be read.

    Args:
        dataset: what can be used.
        missing: the names of images that are not there; or why none is.
        where: what messages call the data set.
        skips_broken: images that are not there are no errors.
    """
    found = []
    if isinstance(missing, str):
        found.append(Finding("error", where, missing))
    elif not skips_broken and missing:
        there = {name: dataset.images.in_another_case(name) for name in missing}
        items = (f"{name} (there is {other})" if other else name for name, other in there.items())
        found.append(
            Finding("error", where, f"images that are not in {dataset.images}", tuple(items))
        )
    for requirement in REQUIREMENTS:
        if requirement is require_images:  # which names the first few only
            continue
        try:
            requirement(dataset)
        except DatasetError as error:
            found.append(Finding("error", where, str(error)))
    return found


def _open_all(
    dataset: CocoDataset, indices: list[int], problems: AnnotationProblems, *, skips_broken: bool
) -> tuple[dict[int, Fingerprint], list[str]]:
    """Open images, add what is wrong with them, and return fingerprints; and names without any."""
    fingerprints, unreadable = {}, []
    for index, opened in zip(indices, open_images(dataset, indices), strict=True):
        file, name = dataset.image_file(index), dataset.file_names[index]
        report_opened(opened, file, name, problems, skips_broken=skips_broken)
        if opened.fingerprint is not None:
            fingerprints[index] = opened.fingerprint
        elif not isinstance(opened.error, WrongSizeError):
            unreadable.append(name)
    return fingerprints, unreadable


def _report_duplicates(
    dataset: CocoDataset, fingerprints: dict[int, Fingerprint], problems: AnnotationProblems
) -> None:
    # A file that is listed twice is told of as such.
    first = {dataset.file_names[index]: index for index in reversed(fingerprints)}
    indices = sorted(first.values())
    prints = [fingerprints[index] for index in indices]
    for kind, groups in (
        ("images whose files are equal", equal_files(prints)),
        ("images that nearly show the same", near_duplicates(prints)),
    ):
        names = [[dataset.file_names[indices[i]] for i in group] for group in groups]
        problems.repair(f"{kind}, all of them kept", map(" = ".join, names))

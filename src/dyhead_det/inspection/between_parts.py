"""What is wrong between the parts of a data set: images that both have, classes that one lacks."""

from collections.abc import Sequence
from typing import NamedTuple

from dyhead_det.contracts import CategoryMap
from dyhead_det.inspection.findings import Finding
from dyhead_det.inspection.same_pictures import Fingerprint, equal_files, near_duplicates


class PartContent(NamedTuple):
    """A part as it is compared with others.

    name: what messages call it; file_names and fingerprints: of its images, in one order.
    """

    name: str
    categories: CategoryMap
    file_names: Sequence[str]
    fingerprints: Sequence[Fingerprint]


def compare_parts(one: PartContent, other: PartContent) -> list[Finding]:
    """Return what is wrong between two parts."""
    return [*shared_images(one, other), *_different_classes(one, other)]


def shared_images(one: PartContent, other: PartContent) -> list[Finding]:
    """Find images that two parts have: what is learned by heart is no measure of a detector."""
    titles = [part.name.rpartition("/")[2] for part in (one, other)]
    if titles[0] == titles[1]:
        titles = [one.name, other.name]
    names = [
        f"{title}: {name}"
        for title, part in zip(titles, (one, other), strict=True)
        for name in part.file_names
    ]
    fingerprints = [*one.fingerprints, *other.fingerprints]
    found = []
    for kind, groups in (
        ("images in both parts (equal files)", equal_files(fingerprints)),
        ("images in both parts (nearly the same picture)", near_duplicates(fingerprints)),
    ):
        shared = tuple(
            " = ".join(names[i] for i in group)
            for group in groups
            if group[0] < len(one.fingerprints) <= group[-1]
        )
        if shared:
            where = f"{one.name}, {other.name}"
            found.append(Finding("warning", where, f"{kind}, scores will be too good", shared))
    return found


def _different_classes(one: PartContent, other: PartContent) -> list[Finding]:
    """Tell of classes that one of two parts lacks; without a common one nothing can be scored."""
    where = f"{one.name}, {other.name}"
    found = []
    for part, rest in ((one, other), (other, one)):
        own = part.categories.names
        lacking = tuple(name for name in own if name not in rest.categories.label_of_name)
        if own and len(lacking) == len(own):
            return [Finding("error", where, "the parts have no class in common")]
        if lacking:
            found.append(Finding("warning", where, f"classes that {rest.name} lacks", lacking))
    return found

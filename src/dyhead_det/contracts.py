"""Data types shared by all modules: image, target, prediction and category map.

* An image enters a model as float RGB, shape (3, H, W), values in [0, 1].
* Boxes are ``xyxy``, absolute pixels, float32, of the image the caller gave.
* Labels are 0..K-1 everywhere outside ``models/detectors.py``.
* A pyramid is an ordered dict of maps (B, C, H_l, W_l), fine to coarse.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NotRequired, TypedDict

from torch import Tensor


class Target(TypedDict):
    """What is in one training image.

    boxes: (N, 4) float32; labels: (N,) int64 in 0..K-1; image_id: the data set's own id.
    Crowd regions are not in it: they are ignored in training and honored in evaluation.
    """

    boxes: Tensor
    labels: Tensor
    image_id: NotRequired[int]


class Prediction(TypedDict):
    """What a detector found in one image, best first.

    boxes: (N, 4) float32; scores: (N,) float32 in [0, 1]; labels: (N,) int64 in 0..K-1.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Category:
    """One class: its name and the id that the data set uses for it (any integer, gaps allowed)."""

    name: str
    dataset_id: int


@dataclass(frozen=True)
class CategoryMap(Sequence[Category]):
    """The classes of a detector in label order: the label of a category is its position."""

    categories: tuple[Category, ...]

    def __len__(self) -> int:
        return len(self.categories)

    def __getitem__(self, label: int) -> Category:  # type: ignore[override]  # no slices
        return self.categories[label]

    def __iter__(self) -> Iterator[Category]:
        return iter(self.categories)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in label order."""
        return tuple(category.name for category in self.categories)

    @cached_property
    def label_of_dataset_id(self) -> dict[int, int]:
        """From the data set's category ids to labels 0..K-1."""
        return {category.dataset_id: label for label, category in enumerate(self.categories)}

    @cached_property
    def label_of_name(self) -> dict[str, int]:
        """From category names to labels 0..K-1."""
        return {category.name: label for label, category in enumerate(self.categories)}

    def split_names(self, values: Iterable[str]) -> list[str]:
        """Take apart what was typed for classes: names separated by commas, which names may hold.

        The longest known name counts: ``"sign, stop,cat"`` is "sign, stop" and "cat" where there
        is such a class, else "sign", "stop" and "cat".
        """
        names: list[str] = []
        for value in values:
            parts = value.split(",")
            while parts:
                lengths = range(len(parts), 0, -1)
                spellings = {n: ",".join(parts[:n]) for n in lengths}
                known = (n for n in lengths if self._known(spellings[n]) is not None)
                length = next(known, 1)
                names.append(self._known(spellings[length]) or spellings[length].strip())
                del parts[:length]
        return names

    def _known(self, spelling: str) -> str | None:
        """Return the class that is called so, with or without space around it."""
        names = (spelling, spelling.strip())
        return next((name for name in names if name in self.label_of_name), None)

    def to_plain(self) -> list[dict[str, str | int]]:
        """Return plain values, as they are stored in a checkpoint."""
        return [
            {"name": category.name, "dataset_id": category.dataset_id, "label": label}
            for label, category in enumerate(self.categories)
        ]

    @classmethod
    def from_plain(cls, plain: Sequence[dict[str, str | int]]) -> "CategoryMap":
        """Read what `to_plain` wrote."""
        ordered = sorted(plain, key=lambda entry: int(entry["label"]))
        return cls(
            tuple(Category(str(entry["name"]), int(entry["dataset_id"])) for entry in ordered)
        )

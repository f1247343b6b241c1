"""AP by crowding: of images with few and with many objects."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dyhead_det.evaluation.analysis.curves import average_precision
from dyhead_det.evaluation.matching import Matches

# Objects of an image, from and to.
GROUPS: tuple[tuple[int, int | None], ...] = ((1, 1), (2, 4), (5, 9), (10, 19), (20, None))


@dataclass(frozen=True, slots=True)
class CrowdingGroup:
    """Images with so many objects; `most` is None where there is no upper bound."""

    least: int
    most: int | None
    num_images: int
    num_objects: int
    AP: float
    AP50: float

    @property
    def name(self) -> str:
        """Name the group by its numbers."""
        if self.most is None:
            return f"{self.least} or more"
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


def ap_by_crowding(matches: Matches) -> list[CrowdingGroup]:
    """Return AP over the images of each group that there is, with the objects of these images."""
    image_of_object = matches.objects.image[~matches.is_ignored]
    objects = np.bincount(image_of_object, minlength=len(matches.image_ids))
    groups = []
    for least, most in GROUPS:
        is_in = (objects >= least) & (objects <= (np.inf if most is None else most))
        if not is_in.any():
            continue
        aps = _average_precisions(matches, is_in)
        groups.append(
            CrowdingGroup(
                least=least,
                most=most,
                num_images=int(is_in.sum()),
                num_objects=int(objects[is_in].sum()),
                AP=float(aps.mean()),
                AP50=float(aps[0]),
            )
        )
    return groups


def _average_precisions(matches: Matches, is_in: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return AP at each IoU threshold over some of the images, (T,)."""
    is_positive = ~matches.is_ignored & is_in[matches.objects.image]
    counts = np.bincount(matches.objects.label[is_positive], minlength=len(matches.category_ids))
    is_true = matches.is_true
    aps = []
    for rows, number in zip(matches.best_first(), counts.tolist(), strict=True):
        if number:
            of_images = rows[is_in[matches.detections.image[rows]]]
            counted = ~matches.is_detection_ignored[:, of_images]
            right = is_true[:, of_images]
            aps.append(
                [
                    average_precision(flags[is_counted], number)
                    for flags, is_counted in zip(right, counted, strict=True)
                ]
            )
    return np.array(aps).mean(axis=0)  # type: ignore[no-any-return]

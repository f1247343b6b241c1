"""Random choices of a detector made image by image, so that they do not depend on the batch.

Torchvision draws from one stream, image after image: what an image gets depends on those before
it. With a seed for every image a batch may be taken in micro-batches, or spread over processes, and
each image still gets the same training size and the same sample of anchors and proposals.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from dyhead_det.contracts import Target


class ImageSeeds:
    """The seeds of the images that a detector has before it; none until `start`."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self._sizes_to_choose: Iterator[int] = iter(())

    def start(self, seed: int | None, targets: Sequence[Target]) -> None:
        """Give every image of a batch a seed.

        Args:
            seed: What the choices follow from, with the id of the image (without one, its
                position); None leaves them to PyTorch's global generator.
            targets: Of the images.
        """
        ids = (target.get("image_id", index) for index, target in enumerate(targets))
        self.seeds = [] if seed is None else [mix_seeds(seed, image_id) for image_id in ids]
        self._sizes_to_choose = iter(self.seeds)

    def choose_size(self, sizes: Sequence[int]) -> int:
        """Choose the short edge of the next image; torchvision asks in the order of the images."""
        seed = next(self._sizes_to_choose, None)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        # Torchvision's formula, so that without seeds the global generator is used as it does.
        return sizes[int(torch.empty(1).uniform_(0.0, float(len(sizes)), generator=generator))]


class SeededSampler(BalancedPositiveNegativeSampler):  # type: ignore[misc]  # untyped base
    """Torchvision's choice of foreground and background samples, seeded by image."""

    def __init__(
        self, image_seeds: ImageSeeds, *, batch_size_per_image: int, positive_fraction: float
    ) -> None:
        super().__init__(batch_size_per_image, positive_fraction)
        self.image_seeds = image_seeds

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the masks of chosen positives and of chosen negatives of every image.

        Args:
            matched_idxs: Per image (A,): 1 or more for positives, 0 for negatives, else ignored.
        """
        if not self.image_seeds.seeds:
            chosen: tuple[list[Tensor], list[Tensor]] = super().__call__(matched_idxs)
            return chosen
        pairs = [
            self._choose(labels, seed)
            for labels, seed in zip(matched_idxs, self.image_seeds.seeds, strict=True)
        ]
        return [positive for positive, _ in pairs], [negative for _, negative in pairs]

    def _choose(self, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator(labels.device).manual_seed(seed)
        positives, negatives = (
            condition.nonzero().flatten() for condition in (labels >= 1, labels == 0)
        )
        most_positives = int(self.batch_size_per_image * self.positive_fraction)
        num_positives = min(len(positives), most_positives)
        counts = (num_positives, self.batch_size_per_image - num_positives)
        masks = []
        for candidates, count in zip((positives, negatives), counts, strict=True):
            order = torch.randperm(len(candidates), generator=generator, device=labels.device)
            mask = torch.zeros_like(labels, dtype=torch.uint8)
            mask[candidates[order[:count]]] = 1
            masks.append(mask)
        return masks[0], masks[1]


def seed_by_image(model: nn.Module) -> ImageSeeds:
    """Let a torchvision detector draw by the seeds that are returned, in place."""
    image_seeds = ImageSeeds()
    transform: GeneralizedRCNNTransform = model.transform
    transform.torch_choice = image_seeds.choose_size
    if isinstance(model, GeneralizedRCNN):
        for stage in (model.rpn, model.roi_heads):
            stage.fg_bg_sampler = SeededSampler(
                image_seeds,
                batch_size_per_image=stage.fg_bg_sampler.batch_size_per_image,
                positive_fraction=stage.fg_bg_sampler.positive_fraction,
            )
    return image_seeds


def mix_seeds(*seeds: int) -> int:
    """Return one seed of 63 bits that follows from several, of any sign and size."""
    entropy = [2 * seed if seed >= 0 else -2 * seed - 1 for seed in seeds]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)

"""How the parts of a detector train: gradient norms, relative steps and clipping, part by part.

A part that learns has a step of about a thousandth of its weights; a part far below stands still,
one far above is thrown about. Adam's step does not follow the gradient's size, so both are needed.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from dyhead_det.models.detectors import Detector
from dyhead_det.training.optim import is_offset_parameter, is_residual_scale


def detector_parts(detector: Detector) -> dict[str, list[nn.Parameter]]:
    """Share out the parameters: backbone, fpn, dyhead, offsets, residual_scale and heads.

    `offsets` are the convolutions for offsets and masks. A part without a parameter is left out.
    """
    backbone = detector.backbone
    part_of = {id(parameter): "backbone" for parameter in backbone.body.parameters()}
    part_of |= {id(parameter): "fpn" for parameter in backbone.fpn.parameters()}
    if backbone.dyhead is not None:
        for name, parameter in backbone.dyhead.named_parameters():
            part = "dyhead"
            if is_offset_parameter(name):
                part = "offsets"
            elif is_residual_scale(name):
                part = "residual_scale"
            part_of[id(parameter)] = part
    parts: dict[str, list[nn.Parameter]] = {}
    for parameter in detector.parameters():
        parts.setdefault(part_of.get(id(parameter), "heads"), []).append(parameter)
    return parts


class PartLog:
    """Measures each part around a step of the optimizer."""

    def __init__(self, detector: Detector, *, clip_norm: float | None) -> None:
        """Watch a detector.

        Args:
            detector: What is trained.
            clip_norm: To which norm of all of them gradients are shortened; None for never.
        """
        self._parts = detector_parts(detector)
        self._clip_norm = math.inf if clip_norm is None else clip_norm

    @contextmanager
    def around_step(self, values: dict[str, float]) -> Iterator[None]:
        """Measure the step that a block does, and add what was found to its values.

        `grad_norm/<part>` is the norm of the gradients before they were clipped. `clipped` is 1
        where they were. `update_ratio/<part>` is the norm of the step over that of the weights
        after it: after it, since offsets start at zero.

        Args:
            values: Of the step; `grad_norm`, of all gradients together, is among them. A step that
                is left out, with 1 under `skipped`, is not measured.
        """
        if values.get("skipped"):
            yield
            return
        shortened = max(1.0, values["grad_norm"] / self._clip_norm)
        values["clipped"] = float(shortened > 1)
        trained = {
            part: with_gradient
            for part, parameters in self._parts.items()
            if (with_gradient := [each for each in parameters if each.grad is not None])
        }
        for part, parameters in trained.items():
            gradients = [each.grad for each in parameters if each.grad is not None]
            values[f"grad_norm/{part}"] = shortened * float(get_total_norm(gradients))
        before = {part: _copied(parameters) for part, parameters in trained.items()}
        yield
        for part, parameters in trained.items():
            after = [each.detach() for each in parameters]
            step = [new - old for new, old in zip(after, before[part], strict=True)]
            norm = float(get_total_norm(after))
            values[f"update_ratio/{part}"] = float(get_total_norm(step)) / norm if norm else 0.0


def _copied(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [each.detach().clone() for each in parameters]

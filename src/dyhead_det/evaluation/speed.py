"""Time of an image in each stage of an evaluation: decode, preprocess, model, postprocess.

Nothing waits for a GPU to be able to measure it: there the stages are bounded by events, which are
read when the detections are on the CPU anyway.
"""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

Batch = TypeVar("Batch")
Mark = float | torch.cuda.Event

# The stages inside of a batch, in their order.
_PREPROCESS, _MODEL, _POSTPROCESS = range(3)


@dataclass(frozen=True, slots=True)
class Speed:
    """Milliseconds of an image in each stage, on average; the first batch is not counted.

    decode: until the images are there; with workers, which decode meanwhile, only the waiting.
    preprocess: to the device, resized, normalized and padded.
    model: from the backbone to the last layer of the heads.
    postprocess: from its output to boxes on the CPU.
    batch_size: images that went through the detector together, on average.
    """

    decode: float
    preprocess: float
    model: float
    postprocess: float
    num_images: int
    batch_size: float

    @property
    def total(self) -> float:
        """Milliseconds of an image in all stages together."""
        return self.decode + self.preprocess + self.model + self.postprocess

    def text(self) -> str:
        """Return the numbers in a line."""
        stages = ", ".join(
            f"{name} {getattr(self, name):.1f}"
            for name in ("decode", "preprocess", "model", "postprocess")
        )
        return f"{self.total:.1f} ms ({stages})"


class SpeedMeter:
    """Measures the stages of batches that go through a detector; see `Speed`.

    A detector that is none of torchvision's kind has no bounds inside: all its time is the model's.
    One that asks several `detectors` in turn, as test-time augmentation does, gets the sums of
    their stages.
    """

    def __init__(self, detector: nn.Module, device: torch.device) -> None:
        self._detector = detector
        self._device = device
        self._waited = 0.0  # for the batch that is under way
        self._batches: list[tuple[int, float, float, float, float]] = []  # size, seconds of stages

    def waits(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Give the same batches, and measure how long each takes to come."""
        iterator = iter(batches)
        while True:
            started_at = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited = time.perf_counter() - started_at
            yield batch

    @contextmanager
    def batch(self, images: Sequence[Tensor]) -> Iterator[None]:
        """Measure a block that brings images to the device, detects and brings boxes to the CPU."""
        # Each mark with the stage that ends there.
        marks = [(_PREPROCESS, self._now())]
        modules = self._last_modules()
        handles = [
            module.register_forward_hook(
                lambda *_call, stage=stage: marks.append((stage, self._now()))
            )
            for stage, module in modules
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        marks.append((_POSTPROCESS if modules else _MODEL, self._now()))
        seconds = [0.0, 0.0, 0.0]
        for (_, started), (stage, ended) in itertools.pairwise(marks):
            seconds[stage] += self._seconds(started, ended)
        preprocess, model, postprocess = seconds
        self._batches.append((len(images), self._waited, preprocess, model, postprocess))

    def speed(self) -> Speed | None:
        """Return the means; None where no image went through the detector."""
        counted = self._batches[1:] or self._batches  # the first one waits for caches and workers
        num_images = sum(size for size, *_ in counted)
        if not num_images:
            return None
        means = [1000 * sum(column) / num_images for column in zip(*counted, strict=True)][1:]
        decode, preprocess, model, postprocess = means
        return Speed(decode, preprocess, model, postprocess, num_images, num_images / len(counted))

    def _last_modules(self) -> list[tuple[int, nn.Module]]:
        """Return each stage with the module that ends it, for each detector that is asked."""
        modules: list[tuple[int, nn.Module]] = []
        for detector in getattr(self._detector, "detectors", [self._detector]):
            network = getattr(detector, "network", detector)
            transform = getattr(network, "transform", None)
            heads = getattr(getattr(network, "roi_heads", None), "box_predictor", None)
            heads = heads or getattr(network, "head", None)
            if isinstance(transform, nn.Module) and isinstance(heads, nn.Module):
                modules += [(_PREPROCESS, transform), (_MODEL, heads), (_POSTPROCESS, detector)]
        return modules

    def _now(self) -> Mark:
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            return event
        if self._device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter()

    def _seconds(self, one: Mark, other: Mark) -> float:
        if isinstance(one, torch.cuda.Event) and isinstance(other, torch.cuda.Event):
            other.synchronize()  # the boxes are on the CPU, so that it has passed
            return float(one.elapsed_time(other)) / 1000
        return float(other) - float(one)  # type: ignore[arg-type]  # both are of one kind

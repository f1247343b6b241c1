"""Explain one image by a checkpoint: a picture and an npz beside each other in a folder."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dyhead_det.errors import CheckpointError
from dyhead_det.explain.explain import explain, require_dyhead
from dyhead_det.files import require_writable, written_whole
from dyhead_det.models.runtime import pytorch_switches
from dyhead_det.prediction.arguments import MIN_SCORE, MinScore
from dyhead_det.prediction.load import load
from dyhead_det.visualize.attention_picture import draw_attention
from dyhead_det.visualize.evaluation_plots import save_png


class Explained(NamedTuple):
    """What was written."""

    picture: Path
    arrays: Path


def explain_to_folder(
    checkpoint: Path,
    image: Path,
    out: Path,
    *,
    box: int | None = None,
    at: tuple[float, float] | None = None,
    class_name: str | None = None,
    level: str | None = None,
    min_score: MinScore = MIN_SCORE,
) -> Explained:
    """Write `IMAGE_explained.png` and `IMAGE_explained.npz`; earlier ones are replaced.

    Args:
        checkpoint: Of a detector with DyHead.
        image: An image file.
        out: The folder for both, which is tried before the work.
        box: As all that follow, see `explain`.
        at: A pixel.
        class_name: A class.
        level: A level.
        min_score: The least score.

    Raises:
        CheckpointError: If the checkpoint cannot be read, or its detector has no DyHead.
        ConfigError: As `explain`, or if nothing can be written to `out`.
        DatasetError: If the image cannot be read.
    """
    predictor = load(checkpoint)
    try:
        require_dyhead(predictor)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error
    written = Explained(out / f"{image.stem}_explained.png", out / f"{image.stem}_explained.npz")
    require_writable(out, *(path.name for path in written))
    with pytorch_switches(predictor.runtime):
        attention = explain(
            predictor,
            image,
            box=box,
            at=at,
            class_name=class_name,
            level=level,
            min_score=min_score,
        )
    arrays: dict[str, Any] = {**attention.arrays()}
    with written_whole(written.arrays) as npz, written_whole(written.picture) as png:  # or neither
        with npz.open("wb") as file:
            np.savez_compressed(file, **arrays)
        save_png(draw_attention(attention), png)
    return written

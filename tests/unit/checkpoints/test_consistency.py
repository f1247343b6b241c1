"""A checkpoint may not ask for a larger model than its weights are, before anything is built."""

import pytest
import torch

from dyhead_det.checkpoints.checkpoint import Checkpoint
from dyhead_det.checkpoints.consistency import require_consistent
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import CheckpointError
from dyhead_det.models.detectors import build_detector

from conftest import SMALL_DETECTORS, make_config


def checkpoint_of(name, *, num_classes=3, state=None, **changes):
    model = {"detector": SMALL_DETECTORS[name], "channels": 32, **changes}
    config = make_config(model=model)
    categories = CategoryMap(tuple(Category(f"c{n}", n) for n in range(num_classes)))
    if state is None:
        with torch.device("meta"):
            detector = build_detector(
                config.model, num_classes=num_classes, load_backbone_weights=False
            )
        state = detector.state_dict()
    return Checkpoint(config, categories, state, step=0, metrics={})


@pytest.mark.parametrize("name", SMALL_DETECTORS)
def test_what_was_built_is_consistent_and_more_classes_are_not(name):
    whole = checkpoint_of(name)
    require_consistent(whole, source="x.pt")
    other = checkpoint_of(name, num_classes=90_000, state=whole.model)
    with pytest.raises(CheckpointError, match=r"^x.pt: configuration and weights differ; classes"):
        require_consistent(other, source="x.pt")


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"channels": 4096}, "model.channels: 4096 in its configuration, 32 in network.backbone"),
        (
            {"dyhead": {"num_blocks": 64}},
            "model.dyhead.num_blocks: 64 in its configuration, 1 in its weights",
        ),
        (
            {"dyhead": None},
            "model.dyhead.num_blocks: 0 in its configuration, 1 in its weights",
        ),
        (
            {"detector": {**SMALL_DETECTORS["fasterrcnn"], "box_head_channels": 16384}},
            "model.detector.box_head_channels: 16384 in its configuration, 32 in network.roi_head",
        ),
    ],
)
def test_a_larger_model_than_the_weights_is_refused(model, problem):
    state = checkpoint_of("fasterrcnn").model
    with pytest.raises(CheckpointError, match=problem):
        require_consistent(checkpoint_of("fasterrcnn", state=state, **model), source="x.pt")


@pytest.mark.parametrize("tensor", [None, torch.tensor(1.0)])
def test_a_tensor_that_tells_a_size_and_is_not_there_is_told(tensor):
    state = dict(checkpoint_of("atss").model)
    state["network.head.cls_logits.weight"] = tensor
    if tensor is None:
        del state["network.head.cls_logits.weight"]
    with pytest.raises(CheckpointError, match="classes: 3 in its configuration, None in network"):
        require_consistent(checkpoint_of("atss", state=state), source="x.pt")

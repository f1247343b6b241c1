"""Starting from a checkpoint of ours with other classes."""

import logging

import pytest
import torch

from dyhead_det.checkpoints.checkpoint import Checkpoint, save_checkpoint
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import CheckpointError
from dyhead_det.models.detectors import build_detector
from dyhead_det.pretrained.finetune import start_from

from conftest import make_config

OLD = CategoryMap((Category("cat", 1), Category("dog", 2), Category("cow", 3)))
NEW = CategoryMap((Category("Dog", 7), Category("bird", 8)))

# Per detector: its class layer, and the rows of dog in the old one and of Dog in the new one.
# Faster R-CNN has the background in row 0; RetinaNet repeats the classes for its nine anchors.
CLASS_LAYERS = {
    "fasterrcnn": ("roi_heads.box_predictor.cls_score", [2], [1]),
    "retinanet": (
        "head.classification_head.cls_logits",
        [3 * anchor + 1 for anchor in range(9)],
        [2 * anchor for anchor in range(9)],
    ),
    "fcos": ("head.classification_head.cls_logits", [1], [0]),
    "atss": ("head.cls_logits", [1], [0]),
}


def build(name, categories, **model):
    config = make_config(model={"detector": {"name": name}, "channels": 32, **model})
    torch.manual_seed(len(categories))
    detector = build_detector(
        config.model, num_classes=len(categories), load_backbone_weights=False
    )
    return config, detector


@pytest.mark.parametrize("name", CLASS_LAYERS)
def test_what_fits_is_taken_and_classes_go_by_name(name, tmp_path):
    config, old = build(name, OLD)
    state = old.state_dict()
    save_checkpoint(tmp_path / "old.pt", Checkpoint(config, OLD, state, step=1, metrics={}))
    config, new = build(name, NEW)
    fresh = {key: value.clone() for key, value in new.state_dict().items()}
    report = start_from(new, tmp_path / "old.pt", categories=NEW, config=config.model)
    assert report.matched_classes == ("Dog",)
    assert report.fresh_classes == ("bird",)
    assert report.fresh == report.unused == ()
    layer, old_rows, new_rows = CLASS_LAYERS[name]
    weight = f"network.{layer}.weight"
    for key, value in new.state_dict().items():
        if key in report.used:
            assert torch.equal(value, state[key])
    taken, started = new.state_dict()[weight], fresh[weight]
    assert torch.equal(taken[new_rows], state[weight][old_rows])
    is_other = torch.ones(len(taken), dtype=torch.bool)
    is_other[new_rows] = False
    if name == "fasterrcnn":
        is_other[0] = False
        assert torch.equal(taken[0], state[weight][0])
    assert torch.equal(taken[is_other], started[is_other])


def test_a_model_with_other_conventions_is_warned_of(tmp_path, caplog):
    config, old = build("retinanet", OLD, compat="detectron2")
    state = old.state_dict()
    save_checkpoint(tmp_path / "old.pt", Checkpoint(config, OLD, state, step=1, metrics={}))
    logging.getLogger("dyhead_det").propagate = True
    for change, warning in (
        ({}, "its model has other values of model.compat;"),
        # Of no consequence for the meaning of weights.
        ({"compat": "detectron2", "input": {"short_edge": 32, "long_edge": 64}}, ""),
    ):
        config, new = build("retinanet", NEW, **change)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            start_from(new, tmp_path / "old.pt", categories=NEW, config=config.model)
        assert (warning in caplog.text) if warning else (caplog.text == "")


def test_a_body_that_starts_at_random_is_warned_of(tmp_path, caplog):
    config, old = build("atss", OLD)
    state = old.state_dict()
    save_checkpoint(tmp_path / "old.pt", Checkpoint(config, OLD, state, step=1, metrics={}))
    config, new = build("atss", NEW, backbone={"name": "resnet18", "weights": "none"})
    logging.getLogger("dyhead_det").propagate = True
    with caplog.at_level(logging.WARNING):
        start_from(new, tmp_path / "old.pt", categories=NEW, config=config.model)
    assert "nothing in it fits the backbone" in caplog.text
    assert "other values of model.backbone.name" in caplog.text


@pytest.mark.parametrize(
    ("dyhead", "is_warned"),
    [
        ({"residual_scale": 1.0}, True),
        ({"residual": False}, True),
        ({"residual_scale": 0.01}, False),
        (None, False),
    ],
)
def test_a_new_dyhead_that_hides_what_the_weights_find_is_warned_of(
    tmp_path, caplog, dyhead, is_warned
):
    config, old = build("atss", OLD, dyhead=None)
    state = old.state_dict()
    save_checkpoint(tmp_path / "old.pt", Checkpoint(config, OLD, state, step=1, metrics={}))
    config, new = build("atss", NEW, dyhead=dyhead)
    logging.getLogger("dyhead_det").propagate = True
    with caplog.at_level(logging.WARNING):
        start_from(new, tmp_path / "old.pt", categories=NEW, config=config.model)
    assert ("model.dyhead.residual_scale=0.01" in caplog.text) == is_warned


def test_what_does_not_fit_is_refused(tmp_path):
    config, new = build("retinanet", NEW)
    torch.save({"backbone.dyhead_tower.0.offset.bias": torch.ones(27)}, tmp_path / "raw.pth")
    with pytest.raises(CheckpointError, match="dyhead-det weights import"):
        start_from(new, tmp_path / "raw.pth", categories=NEW, config=config.model)
    torch.save(
        {"backbone.body.conv1.weight": torch.ones(1), "backbone.fpn.x": torch.ones(1)},
        tmp_path / "other.pth",
    )
    with pytest.raises(CheckpointError, match="0 of its 2 tensors fit; not those of backbone"):
        start_from(new, tmp_path / "other.pth", categories=NEW, config=config.model)


def test_a_file_of_which_next_to_nothing_fits_is_refused_with_what_does_not(tmp_path):
    config, old = build("atss", OLD)
    state = old.state_dict()
    body = {name: value for name, value in state.items() if ".body." in name}
    fpn = "network.backbone.fpn.inner_blocks.0.0.bias"
    save_checkpoint(
        tmp_path / "old.pt", Checkpoint(config, OLD, body | {fpn: state[fpn]}, step=1, metrics={})
    )
    config, new = build("atss", NEW, backbone={"name": "resnet18", "weights": "none"})
    before = {name: value.clone() for name, value in new.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        start_from(new, tmp_path / "old.pt", categories=NEW, config=config.model)
    assert f"made for another model, 1 of its {len(body) + 1} tensors fit" in str(caught.value)
    assert "(the file's is timm/test_resnet, the model's is resnet18)" in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in new.state_dict().items())


def test_a_file_without_the_backbone_does_not_drop_the_weights_configured_for_it(tmp_path):
    config, old = build("atss", OLD)
    save_checkpoint(
        tmp_path / "old.pt", Checkpoint(config, OLD, old.state_dict(), step=1, metrics={})
    )
    config, new = build("atss", NEW, backbone={"name": "resnet18", "weights": "imagenet"})
    with pytest.raises(
        CheckpointError, match=r"0 of 100 tensors of the backbone fit .*weights \(imagenet\);"
    ):
        start_from(new, tmp_path / "old.pt", categories=NEW, config=config.model)


def test_the_report_is_one_table_of_parts(tmp_path):
    config, old = build("atss", OLD)
    save_checkpoint(
        tmp_path / "old.pt", Checkpoint(config, OLD, old.state_dict(), step=1, metrics={})
    )
    config, new = build("atss", NEW, dyhead={"num_blocks": 2})
    report = start_from(new, tmp_path / "old.pt", categories=NEW, config=config.model)
    names, *rows, classes = str(report).splitlines()
    table = {row.split()[0]: row.split()[1:] for row in rows}
    num_body = sum(".body." in name for name in report.used)
    assert names.split() == ["tensors", "of", "taken", "start", "anew", "not", "used"]
    assert table["backbone.body"] == [str(num_body), "-", "-"]
    num_dyhead = sum(".dyhead." in name for name in old.state_dict())
    num_block = sum(".dyhead.blocks.0." in name for name in old.state_dict())
    assert table["backbone.dyhead"] == [str(num_dyhead), str(num_block), "-"]
    assert classes == "classes taken by name: Dog; classes that start anew: bird"


def test_tensors_of_other_types_are_not_taken(tmp_path):
    config, old = build("atss", OLD)
    state = dict(old.state_dict())
    state["network.head.scales"] = torch.ones(5, dtype=torch.int64)
    state["network.head.cls_logits.weight"] = torch.ones(3, 16, 1, 1, dtype=torch.bool)
    save_checkpoint(tmp_path / "old.pt", Checkpoint(config, OLD, state, step=1, metrics={}))
    config, new = build("atss", NEW)
    report = start_from(new, tmp_path / "old.pt", categories=NEW, config=config.model)
    assert report.fresh == report.unused == ("network.head.scales",)
    assert report.matched_classes == ()

"""Starting from other weights: torchvision's COCO detectors find their own at step 0."""

import logging
import re

import pytest
import torch
from matching import assert_same_detections
from torchvision.models.detection import (
    fasterrcnn_resnet50_fpn,
    fcos_resnet50_fpn,
    retinanet_resnet50_fpn,
)
from torchvision.models.detection._utils import overwrite_eps
from torchvision.ops import FrozenBatchNorm2d

from dyhead_det.config.schema import (
    BackboneConfig,
    DyHeadConfig,
    FasterRCNNConfig,
    FCOSConfig,
    InputConfig,
    ModelConfig,
    RetinaNetConfig,
)
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.models.detectors import build_detector
from dyhead_det.pretrained.coco_categories import COCO_CATEGORIES
from dyhead_det.pretrained.finetune import start_from

BUILDERS = {
    "fasterrcnn": (fasterrcnn_resnet50_fpn, FasterRCNNConfig),
    "retinanet": (retinanet_resnet50_fpn, RetinaNetConfig),
    "fcos": (fcos_resnet50_fpn, FCOSConfig),
}
IS_CATEGORY = torch.tensor([row in {c.dataset_id for c in COCO_CATEGORIES} for row in range(91)])


def trained_by_torchvision(name):
    """Torchvision's detector of 91 rows with random weights that tell places and classes apart.

    As after training on COCO, the rows of ids that COCO does not use never win.
    """
    network = BUILDERS[name][0](weights=None, weights_backbone=None, min_size=96, max_size=160)
    for path, module in list(network.named_modules()):  # frozen where weights are loaded
        if isinstance(module, torch.nn.BatchNorm2d):
            network.set_submodule(path, FrozenBatchNorm2d(module.num_features))
    if name != "fcos":  # as torchvision does after loading its COCO weights
        overwrite_eps(network, 0.0)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(1e-4, 1)
            module.weight.uniform_(0.02, 0.3)
    if name == "fasterrcnn":
        layer = network.roi_heads.box_predictor.cls_score
        is_used = IS_CATEGORY.clone()
        is_used[0] = True
    else:
        layer = network.head.classification_head.cls_logits
        is_used = IS_CATEGORY.repeat(len(layer.bias) // 91)
    with torch.no_grad():
        layer.weight.normal_(std=0.1)
        layer.bias.normal_().masked_fill_(~is_used, -100.0)
    return network.eval()


def as_in_the_published_file(state, name):
    """The names before torchvision put its layers into blocks, which its files still have."""
    old = {}
    for key, value in state.items():
        key = re.sub(r"(inner_blocks|layer_blocks)\.(\d)\.0\.", r"\1.\2.", key)
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        if name == "retinanet":  # convolutions and ReLUs took turns
            key = re.sub(r"_head\.conv\.(\d)\.0\.", lambda m: f"_head.conv.{2 * int(m[1])}.", key)
        old[key] = value
    return old


def build(name, categories, **dyhead):
    config = ModelConfig(
        detector=BUILDERS[name][1](name=name),
        backbone=BackboneConfig(name="resnet50", weights="none"),
        dyhead=DyHeadConfig(num_blocks=1, **dyhead),
        # Torchvision's own padding; DyHead's would be the coarsest stride.
        input=InputConfig(short_edge=96, long_edge=160, pad_to_multiple=32),
    )
    return build_detector(config, num_classes=len(categories), load_backbone_weights=False), config


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
def test_with_gamma_zero_the_pretrained_detections_are_its_own(name, tmp_path):
    theirs = trained_by_torchvision(name)
    published = as_in_the_published_file(theirs.state_dict(), name)
    assert published.keys() != theirs.state_dict().keys()
    torch.save(published, tmp_path / "coco.pth")
    detector, config = build(name, COCO_CATEGORIES, residual_scale=0.0)
    report = start_from(detector, tmp_path / "coco.pth", categories=COCO_CATEGORIES, config=config)
    assert report.matched_classes == COCO_CATEGORIES.names
    assert report.unused == ()
    assert all(".dyhead." in key for key in report.fresh)
    image = torch.rand(3, 75, 110)
    with torch.no_grad():
        expected = theirs([image])[0]
        found = detector.eval()([image])[0]
    assert len(expected["boxes"]) > 20
    ids = torch.tensor([category.dataset_id for category in COCO_CATEGORIES])
    assert_same_detections(
        (expected["boxes"], expected["scores"], expected["labels"]),
        (found["boxes"], found["scores"], ids[found["labels"]]),
        box_tolerance=1e-2,  # the folded epsilon is rounded
        score_tolerance=1e-4,
    )


def test_classes_are_taken_by_name_and_others_start_anew(tmp_path):
    theirs = trained_by_torchvision("fasterrcnn")
    torch.save(theirs.state_dict(), tmp_path / "coco.pth")
    categories = CategoryMap(
        (Category("Platelet", 7), Category("Dog", 8), Category("stop sign", 9))
    )
    detector, config = build("fasterrcnn", categories)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    report = start_from(detector, tmp_path / "coco.pth", categories=categories, config=config)
    assert report.matched_classes == ("Dog", "stop sign")
    assert report.fresh_classes == ("Platelet",)
    head = "roi_heads.box_predictor."
    after, coco = detector.state_dict(), theirs.state_dict()
    scores, boxes = f"{head}cls_score.weight", f"{head}bbox_pred.weight"
    # COCO's ids: dog 18, stop sign 13; background is row 0 on both sides.
    for row, coco_row in ((0, 0), (2, 18), (3, 13)):
        torch.testing.assert_close(after[f"network.{scores}"][row], coco[scores][coco_row])
        torch.testing.assert_close(
            after[f"network.{boxes}"][4 * row : 4 * row + 4],
            coco[boxes][4 * coco_row : 4 * coco_row + 4],
        )
    torch.testing.assert_close(after[f"network.{scores}"][1], before[f"network.{scores}"][1])


def test_the_body_of_another_detector_is_taken_with_a_warning(tmp_path, caplog):
    torch.save(trained_by_torchvision("retinanet").state_dict(), tmp_path / "coco.pth")
    detector, config = build("fcos", COCO_CATEGORIES)
    logging.getLogger("dyhead_det").propagate = True
    with caplog.at_level(logging.WARNING):
        report = start_from(
            detector, tmp_path / "coco.pth", categories=COCO_CATEGORIES, config=config
        )
    assert "its model has other values of model.detector.name;" in caplog.text
    assert "network.backbone.body.conv1.weight" in report.used
    assert report.matched_classes == ()

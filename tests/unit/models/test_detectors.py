"""Detectors: their labels, their levels, and their agreement with torchvision's own builders."""

import pytest
import torch
import torchvision

from dyhead_det.models.detectors import build_detector
from dyhead_det.ops import roi_align
from dyhead_det.ops.gather import products

from conftest import make_config

IMAGES = [torch.rand(3, 60, 64), torch.rand(3, 50, 40)]


def build(num_classes=3, **model):
    return build_detector(
        make_config(model=model).model, num_classes=num_classes, load_backbone_weights=False
    )


def targets():
    return [
        {"boxes": torch.tensor([[5.0, 5, 30, 35]]), "labels": torch.tensor([2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]


RETINANET = {"name": "retinanet", "anchor_sizes": [[8], [16], [32], [64], [128]]}
DETECTORS = [{"name": "fasterrcnn", "box_head_channels": 32}, RETINANET]


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: d["name"])
@pytest.mark.parametrize("dyhead", [{"num_blocks": 1}, None], ids=["dyhead", "plain"])
def test_gradients_reach_every_parameter_even_beside_an_image_without_boxes(detector, dyhead):
    network = build(detector=detector, dyhead=dyhead).train()
    losses = network(IMAGES, targets())
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: d["name"])
def test_a_batch_without_any_box_has_finite_losses_and_gradients(detector):
    network = build(detector=detector).train()
    empty = targets()[1]
    losses = network(IMAGES, [empty, empty])
    sum(losses.values()).backward()
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: d["name"])
def test_predicted_labels_are_0_to_k_minus_1_and_sorted_by_score(detector):
    low = {"box_score_thresh": 0.0} if detector["name"] == "fasterrcnn" else {"score_thresh": 0.0}
    network = build(detector={**detector, **low}).eval()
    with torch.no_grad():
        predictions = network(IMAGES)
    labels = torch.cat([p["labels"] for p in predictions])
    assert set(labels.tolist()) == {0, 1, 2}
    for image, prediction in zip(IMAGES, predictions, strict=True):
        assert torch.equal(prediction["scores"], prediction["scores"].sort(descending=True).values)
        assert prediction["boxes"].min() >= 0
        assert (prediction["boxes"][:, 2] <= image.shape[2]).all()
        assert (prediction["boxes"][:, 3] <= image.shape[1]).all()


def test_labels_shift_only_for_faster_rcnn():
    seen = {}

    def remember(name):
        def hook(_module, arguments):
            seen[name] = arguments[1][0]["labels"].tolist()

        return hook

    for detector in DETECTORS:
        network = build(detector=detector).train()
        network.network.register_forward_pre_hook(remember(detector["name"]))
        network(IMAGES, targets())
    assert seen == {"fasterrcnn": [3], "retinanet": [2]}


def test_targets_are_not_changed():
    given = targets()
    build().train()(IMAGES, given)
    assert given[0]["labels"].tolist() == [2]
    assert given[0]["boxes"].tolist() == [[5, 5, 30, 35]]


def test_training_without_targets_is_refused():
    with pytest.raises(ValueError, match="targets"):
        build().train()(IMAGES)


@pytest.mark.parametrize(
    ("detector", "names", "stride"),
    [
        (DETECTORS[0], ["p2", "p3", "p4", "p5", "p6"], 64),
        (DETECTORS[1], ["p3", "p4", "p5", "p6", "p7"], 128),
    ],
    ids=["fasterrcnn", "retinanet"],
)
def test_images_are_padded_so_that_levels_halve_exactly(detector, names, stride):
    network = build(detector=detector).eval()
    padded = network.network.transform(IMAGES)[0].tensors
    assert padded.shape[2] % stride == 0
    assert padded.shape[3] % stride == 0
    pyramid = network.backbone(padded)
    assert list(pyramid) == names
    sizes = [x.shape[-1] for x in pyramid.values()]
    assert sizes == [padded.shape[3] // s for s in network.spec.levels.strides]


def test_test_size_changes_what_evaluation_resizes_to():
    network = build().eval()
    network.set_test_size(short_edge=100, long_edge=200)
    resized = network.network.transform([torch.rand(3, 50, 80)])[0]
    assert resized.image_sizes == [(100, 160)]


def test_multi_scale_draws_the_sizes_in_training_and_takes_the_short_edge_in_evaluation():
    network = build(input={"short_edge": 64, "long_edge": 128, "multi_scale": [32, 48, 64]})
    transform = network.network.transform
    image = torch.rand(3, 50, 50)
    drawn = {transform.train()([image])[0].image_sizes[0] for _ in range(40)}
    assert drawn == {(32, 32), (48, 48), (64, 64)}
    assert transform.eval()([image])[0].image_sizes == [(64, 64)]


@pytest.mark.parametrize(
    ("name", "builder", "first_label"),
    [
        ("fasterrcnn", torchvision.models.detection.fasterrcnn_resnet50_fpn, 1),
        ("retinanet", torchvision.models.detection.retinanet_resnet50_fpn, 0),
    ],
)
def test_without_dyhead_it_is_torchvisions_detector(name, builder, first_label, monkeypatch):
    """Same weights: same losses, same detections, to the last bit.

    That is with torchvision's RoIAlign and PyTorch's products. The faster ones add in another
    order; then the losses agree to rounding.
    """
    theirs = builder(
        weights=None,
        weights_backbone=None,
        num_classes=3 + first_label,
        min_size=64,
        max_size=96,
    )
    threshold = {"fasterrcnn": "box_score_thresh", "retinanet": "score_thresh"}[name]
    config = make_config(
        model={
            "detector": {"name": name, threshold: 0.0},
            "backbone": {"name": "resnet50", "weights": "none", "norm": "normal"},
            "channels": 256,
            "dyhead": None,
            "input": {"short_edge": 64, "long_edge": 96},
        }
    )
    ours = build_detector(config.model, num_classes=3, load_backbone_weights=False)
    ours.network.load_state_dict(theirs.state_dict())
    (theirs.roi_heads if name == "fasterrcnn" else theirs).score_thresh = 0.0

    torch.manual_seed(1)
    shifted = [{**target, "labels": target["labels"] + first_label} for target in targets()]
    expected_losses = theirs.train()(IMAGES, shifted)
    ours.network.load_state_dict(theirs.state_dict())  # batch norm has moved
    torch.manual_seed(1)
    rounded_losses = ours.train()(IMAGES, targets())
    assert {k: v.item() for k, v in rounded_losses.items()} == pytest.approx(
        {k: v.item() for k, v in expected_losses.items()}, rel=1e-4
    )
    monkeypatch.setattr(roi_align, "is_gathered", lambda _maps: False)
    monkeypatch.setattr(products, "_ONEDNN_LINEAR", None)
    ours.network.load_state_dict(theirs.state_dict())
    torch.manual_seed(1)
    losses = ours.train()(IMAGES, targets())
    ours.network.load_state_dict(theirs.state_dict())
    assert {k: v.item() for k, v in losses.items()} == {
        k: v.item() for k, v in expected_losses.items()
    }
    with torch.no_grad():
        expected, got = theirs.eval()(IMAGES), ours.eval()(IMAGES)
    for one, other in zip(expected, got, strict=True):
        assert len(one["boxes"]) > 50
        assert torch.equal(one["boxes"], other["boxes"])
        assert torch.equal(one["scores"], other["scores"])
        assert torch.equal(one["labels"] - first_label, other["labels"])

"""The edges of what a detector is given: long, thin and tiny images, bad boxes, other numbers."""

import pytest
import torch

from dyhead_det.config.schema import InputConfig, parse_config, to_plain
from dyhead_det.models.detectors import build_detector, build_transform
from dyhead_det.models.matchers import match_atss

from conftest import SMALL_DETECTORS, make_config

NAN, INF = float("nan"), float("inf")


def build(detector, **model):
    sections = {
        "detector": detector,
        "backbone": {"norm": "frozen"},
        "channels": 32,
        "dyhead": None,
        **model,
    }
    config = make_config(model=sections).model
    return build_detector(config, num_classes=2, load_backbone_weights=False)


def target(*boxes):
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.zeros(len(boxes), dtype=torch.int64),
    }


def require_finite_training_and_prediction(detector, size_hw):
    """Train on an image whose only object is the image, and look for objects in it."""
    height, width = size_hw
    image = torch.rand(3, height, width)
    losses = detector.train()([image], [target([0.0, 0.0, width, height])])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    with torch.no_grad():
        (prediction,) = detector.eval()([image])
    assert prediction["boxes"].isfinite().all()
    assert (prediction["boxes"][:, 2:] <= torch.tensor([width, height]) + 1e-3).all()


# With a long edge of 64 the short sides of the first three come to 0.4, 0.02 and 0.6 pixels.
@pytest.mark.parametrize("size_hw", [(1, 160), (4000, 1), (3, 320), (1, 1), (2, 1)])
@pytest.mark.parametrize("compat", ["none", "detectron2", "mmdet"])
def test_no_side_of_a_resized_image_is_zero(compat, size_hw):
    config = InputConfig(short_edge=48, long_edge=64)
    transform = build_transform(config, size_divisible=32, compat=compat).eval()
    batch, _ = transform([torch.rand(3, *size_hw)])
    (resized,) = batch.image_sizes
    assert min(resized) >= 1
    assert max(resized) <= 64
    assert batch.tensors.isfinite().all()


@pytest.mark.parametrize("size_hw", [(1, 160), (160, 1), (1, 1)])
@pytest.mark.parametrize("name", SMALL_DETECTORS)
def test_a_long_thin_image_and_a_single_pixel_are_images_like_others(name, size_hw):
    require_finite_training_and_prediction(build(SMALL_DETECTORS[name]), size_hw)


def test_a_thin_image_costs_the_others_nothing():
    detector = build({"name": "atss", "score_thresh": 0.0}).eval()
    image = torch.rand(3, 64, 64)
    with torch.no_grad():
        alone = detector([image])[0]
        beside = detector([image, torch.rand(3, 1, 160)])[0]
    torch.testing.assert_close(beside["scores"], alone["scores"])


# 32 groups do not divide 16, 24 and 48 channels; with 32 channels a group is one channel, and P7 of
# the padded image of 128 pixels (with DyHead) or of 32 pixels (without) is one pixel.
@pytest.mark.parametrize("channels", [16, 24, 32, 48])
@pytest.mark.parametrize("detector", [{"name": "fcos"}, {"name": "atss", "num_tower_convs": 1}])
def test_towers_take_any_number_of_channels_and_a_map_of_one_pixel(detector, channels):
    dyhead = None if channels % 16 else {"num_blocks": 1}
    model = build(detector, channels=channels, dyhead=dyhead)
    require_finite_training_and_prediction(model, (32, 32))


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("name", SMALL_DETECTORS)
def test_losses_of_a_float64_detector_are_those_in_float32(name, side):
    torch.manual_seed(0)
    detector = build(SMALL_DETECTORS[name]).train()
    image, targets = torch.rand(3, side, side), [target([4.0, 6.0, 28.0, 30.0])]
    expected = detector([image], targets, seed=1)
    doubled = [{**each, "boxes": each["boxes"].double()} for each in targets]
    losses = detector.double()([image.double()], doubled, seed=1)
    for name_of_loss, loss in losses.items():
        torch.testing.assert_close(loss.float(), expected[name_of_loss], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        (prediction,) = detector.eval()([image.double()])
    assert prediction["boxes"].dtype == torch.float64


@pytest.mark.parametrize("name", SMALL_DETECTORS)
@pytest.mark.parametrize(
    "box", [[5.0, 5, 5, 20], [5.0, 20, 9, 5], [5.0, 5, NAN, 20], [5.0, 5, INF, 20]]
)
def test_boxes_without_an_area_that_is_a_number_are_refused_by_all_alike(name, box):
    detector = build(SMALL_DETECTORS[name]).train()
    fine = target([4.0, 6.0, 28.0, 30.0])
    message = (
        r"All bounding boxes should have positive height and width\. "
        r"Found invalid box \[.*\] for target at index 1\."
    )
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    for model in (detector, detector.network):
        if model is detector.network and name != "atss" and not torch.tensor(box).isfinite().all():
            continue  # torchvision's own, which lets these pass
        with pytest.raises(AssertionError, match=message):
            model(images, [fine, target([4.0, 6, 28, 30], box)])


def test_a_configuration_may_have_fcos_with_channels_that_32_does_not_divide():
    config = make_config(model={"detector": {"name": "fcos"}, "channels": 24, "dyhead": None})
    assert parse_config(to_plain(config)).model.channels == 24


def test_anchors_of_a_float64_pyramid_match_float64_boxes():
    anchors = torch.tensor([[0.0, 0, 8, 8]], dtype=torch.float64)
    boxes = torch.tensor([[1.0, 1, 9, 9]], dtype=torch.float64)
    assert match_atss(anchors, boxes, num_anchors_per_level=[1], num_candidates=9).tolist() == [0]


class Resized(torch.nn.Module):
    """What a detector does to the size of an image, for a graph."""

    def __init__(self, transform):
        super().__init__()
        self.transform = transform

    def forward(self, image):
        return self.transform.resize(image)[0]


@pytest.mark.filterwarnings("ignore")  # of the exporter: it notes every size that Python looks at
@pytest.mark.parametrize("compat", ["none", "detectron2", "mmdet"])
def test_thin_images_are_resized_alike_in_an_exported_graph(compat, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    config = InputConfig(short_edge=48, long_edge=64)
    transform = build_transform(config, size_divisible=32, compat=compat).eval()
    path = tmp_path / "resized.onnx"
    torch.onnx.export(
        Resized(transform).eval(),
        (torch.rand(3, 50, 70),),
        path,
        dynamo=False,
        opset_version=19,
        input_names=["image"],
        dynamic_axes={"image": {1: "height", 2: "width"}},
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size_hw in ((40, 61), (1, 160), (4000, 1), (1, 1)):
        image = torch.rand(3, *size_hw)
        expected = transform.resize(image)[0]
        got = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
        assert got.shape == expected.shape
        # Positions up to 4000 are known to 2 ** -12 in float32; noise changes by 1 a pixel.
        torch.testing.assert_close(got, expected, rtol=0, atol=5e-4)

"""A trained detector on what Python holds."""

import re
from inspect import signature

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import nn

from dyhead_det.cli import predict
from dyhead_det.config.schema import InputConfig
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import ConfigError, DatasetError
from dyhead_det.models.detectors import build_detector
from dyhead_det.models.runtime import run_backbone_in
from dyhead_det.prediction import images
from dyhead_det.prediction.arguments import MAX_EDGE
from dyhead_det.prediction.predictor import Predictor

from conftest import SMALL_DETECTORS, make_config

CATEGORIES = CategoryMap((Category("cat", 7), Category("dog", 3), Category("horse", 90)))
CPU = torch.device("cpu")


class FindsThree(nn.Module):
    """Finds a cat, a dog and a cat in any image; the first box is the image's own size."""

    def __init__(self):
        super().__init__()
        self.batch_sizes = []

    def forward(self, images):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.batch_sizes.append(len(images))
        predictions = []
        for image in images:
            assert image.dtype == torch.float32
            height, width = image.shape[1:]
            boxes = [[0, 0, width, height], [1, 2, 3, 4], [2, 2, 5, 5]]
            predictions.append(
                {
                    "boxes": torch.tensor(boxes, dtype=torch.float32),
                    "scores": torch.tensor([0.9, 0.6, 0.3]),
                    "labels": torch.tensor([0, 1, 0]),
                }
            )
        return predictions


@pytest.fixture
def predictor():
    return Predictor(FindsThree(), CATEGORIES, device=CPU)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.new("RGB", (20, 10), (255, 0, 0)).save(path)
    return path


def test_one_image_gives_boxes_scores_labels_and_names(predictor, photo):
    found = predictor.predict(photo)
    assert len(found) == 3
    assert found.names == ("cat", "dog", "cat")
    assert found.boxes.shape == (3, 4)
    assert found.boxes.dtype == np.float32
    assert found.labels.tolist() == [0, 1, 0]
    assert found.scores == pytest.approx([0.9, 0.6, 0.3])


def test_detections_are_iterated_one_object_at_a_time(predictor, photo):
    best, second, _ = predictor.predict(photo)
    assert best.name == "cat"
    assert best.box == (0, 0, 20, 10)
    assert second == ("dog", pytest.approx(0.6), (1, 2, 3, 4), 1)


def test_every_way_to_give_an_image_gives_the_same(predictor, photo):
    with Image.open(photo) as file:
        picture = file.convert("RGB")
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    ways = [photo, str(photo), picture, array, tensor, tensor / 255]
    for found in predictor.predict(ways):
        assert found.boxes[0].tolist() == [0, 0, 20, 10]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_large_image_is_made_smaller_and_its_boxes_are_its_own(monkeypatch, dtype):
    monkeypatch.setattr(images, "LARGE_PIXELS", 1000)
    detector = FindsThree()
    predictor = Predictor(detector, CATEGORIES, device=CPU, resized_to=(25, 40))
    size_hw = []
    detector.register_forward_hook(lambda _, args, __: size_hw.append(tuple(args[0][0].shape[1:])))
    large = torch.arange(3 * 61 * 90).reshape(3, 61, 90) % 2
    found = predictor.predict(large.to(dtype))
    assert size_hw == [(31, 45)]  # by 2, though 5490 pixels would need 3: it is resized to 25 x 37
    assert found[0].box == (0, 0, 90, 61)
    assert found[1].box == (2, 4, 6, 8)
    small = torch.zeros(3, 20, 50, dtype=dtype)
    predictor.predict(small)
    assert size_hw[-1] == (20, 50)


def test_a_list_gives_a_list_even_of_one_or_none(predictor, photo):
    assert [len(found) for found in predictor.predict([photo])] == [3]
    assert [len(found) for found in predictor.predict((photo, photo))] == [3, 3]
    assert predictor.predict([]) == []


def test_a_list_goes_through_the_detector_in_batches(predictor, photo):
    predictor.predict([photo] * 5, batch_size=2)
    assert predictor.detector.batch_sizes == [2, 2, 1]


def test_weak_detections_are_left_out(predictor, photo):
    assert len(predictor.predict(photo, min_score=0.6)) == 2
    assert len(predictor.predict(photo, min_score=0.95)) == 0


def test_only_the_classes_asked_for_are_kept(predictor, photo):
    assert predictor.predict(photo, classes=["dog"]).names == ("dog",)
    assert predictor.predict(photo, classes=["horse"]).names == ()
    assert len(predictor.predict(photo, classes=["dog", "cat"])) == 3


def test_the_best_so_many_are_kept(predictor, photo):
    assert predictor.predict(photo, max_detections=2).names == ("cat", "dog")
    assert predictor.predict(photo, max_detections=1, classes=["cat"]).scores.tolist() == [
        pytest.approx(0.9)
    ]


def test_an_unknown_class_is_an_error_with_a_suggestion(predictor, photo):
    with pytest.raises(ConfigError, match=r"unknown class 'hrose': did you mean 'horse'\?"):
        predictor.predict(photo, classes=["hrose"])
    assert predictor.detector.batch_sizes == []


def test_a_file_that_is_not_there_is_an_error_naming_it(predictor, tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere\.jpg"):
        predictor.predict(tmp_path / "nowhere.jpg")


def test_detections_draw_themselves_on_the_image(predictor):
    gray = torch.full((3, 400, 400), 0.5)
    picture = predictor.predict(gray).draw(gray)
    assert picture.size == (400, 400)
    assert picture.getpixel((200, 200)) == (128, 128, 128)
    assert picture.getpixel((0, 399)) != (128, 128, 128)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("batch_size", value) for value in (0, -1, 1.5, "2", None, True, 10**30)),
        *(("max_detections", value) for value in (0, -1, 2.0, 10**30)),
        *(("min_score", value) for value in (-0.1, 1.1, float("nan"), float("inf"), "high", None)),
    ],
)
def test_an_argument_out_of_range_is_named(predictor, photo, argument, value):
    with pytest.raises(ValueError, match=rf"^{argument} is a .*, not {re.escape(repr(value))}$"):
        predictor.predict(photo, **{argument: value})
    with pytest.raises(ValueError, match=argument):
        predictor.predict([], **{argument: value})
    assert predictor.detector.batch_sizes == []


def test_the_bound_of_edges_is_that_of_the_configuration():
    with pytest.raises(ValidationError):
        InputConfig(short_edge=1, long_edge=MAX_EDGE + 1)
    assert InputConfig(short_edge=1, long_edge=MAX_EDGE).long_edge == MAX_EDGE


@pytest.mark.parametrize("name", SMALL_DETECTORS)
def test_bf16_finds_what_float32_finds_within_its_error(name):
    """Maps err by some eighths of a per cent; what comes after them is float32, boxes too."""
    config = make_config(model={"detector": SMALL_DETECTORS[name]})
    detector = build_detector(config.model, num_classes=3).eval()
    image = torch.rand(3, 64, 64)
    with torch.no_grad():
        exact = detector.backbone(image[None])
        run_backbone_in("bf16", detector, CPU)
        half = detector.backbone(image[None])
    for one, other in zip(exact.values(), half.values(), strict=True):
        assert other.dtype == torch.float32
        assert 0 < float((one - other).norm() / one.norm()) < 0.05
    with torch.no_grad():
        assert detector([image])[0]["boxes"].dtype == torch.float32


def test_auto_takes_the_best_bound_of_each_class(photo):
    bounds = {"horse": 0.1, "cat": 0.5, "dog": 0.7}
    predictor = Predictor(FindsThree(), CATEGORIES, device=CPU, min_scores=bounds)
    assert predictor.predict(photo, min_score="auto").names == ("cat",)
    predictor.min_scores = {"horse": 0.9, "cat": 0.2, "dog": 0.6}
    assert predictor.predict(photo, min_score="auto").names == ("cat", "dog", "cat")


def test_auto_without_bounds_is_one_clear_error(predictor, photo):
    with pytest.raises(ConfigError, match="the checkpoint has no best bounds"):
        predictor.predict(photo, min_score="auto")


def test_python_and_the_command_line_have_one_default_of_min_score(predictor, photo):
    command = signature(predict.predict).parameters
    python = signature(Predictor.predict).parameters
    assert float(command["min_score"].default) == python["min_score"].default == 0.3
    # 0.3 in single precision is above 0.3 in double.
    assert len(predictor.predict(photo)) == 3


def test_numpy_s_integers_are_whole_numbers(predictor, photo):
    assert len(predictor.predict(photo, max_detections=np.int64(2))) == 2


def test_a_single_class_needs_no_list(predictor, photo):
    assert predictor.predict(photo, classes="dog").names == ("dog",)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["cat,dog"], ["cat", "dog"]),
        (["cat", "dog"], ["cat", "dog"]),
        (["cat, dog"], ["cat", "dog"]),
        (["sign, stop"], ["sign, stop"]),
        (["cat,sign, stop,dog"], ["cat", "sign, stop", "dog"]),
        ([" sign, stop "], ["sign, stop"]),
        (["sign, cat"], ["sign", "cat"]),
        (["stop"], ["stop"]),  # unknown: that is for `predict` to say
        (["a,,b"], ["a", "", "b"]),
        ([], []),
    ],
)
def test_typed_classes_are_the_longest_names_there_are(typed, expected):
    names = ("cat", "dog", "sign, stop", "sign")
    categories = CategoryMap(tuple(Category(name, i) for i, name in enumerate(names)))
    assert Predictor(FindsThree(), categories, device=CPU).split_classes(typed) == expected


def test_a_predictor_says_what_it_knows(predictor):
    assert predictor.names == ("cat", "dog", "horse")
    assert repr(predictor) == "<Predictor of 3 classes on cpu: cat, dog, horse>"

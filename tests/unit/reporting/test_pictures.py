"""The first batch is shown as the detector gets it, detections by what became of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.models.detectors import build_detector
from dyhead_det.reporting.pictures import (
    _spread,
    call_with_next_batch,
    draw_batch,
    draw_validation,
)
from dyhead_det.visualize.draw import class_color
from dyhead_det.visualize.sheet import STYLES

from conftest import make_config


@pytest.fixture
def detector():
    model = make_config(model={"input": {"short_edge": 64, "long_edge": 64}}).model
    return build_detector(model, num_classes=2, load_backbone_weights=False).train()


def batch_inside(detector, images, targets):
    """Train on a batch and return what the hook is called with."""
    caught = []
    call_with_next_batch(detector, caught.append)
    for _ in range(2):
        detector(images, targets)
    assert len(caught) == 1  # the second batch is not shown any more
    return caught[0]


def test_a_batch_is_drawn_after_resizing_and_padding_in_its_own_colors(detector):
    red, blue = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])
    images = [red[:, None, None].expand(3, 32, 64), blue[:, None, None].expand(3, 128, 128)]
    targets = [
        {"boxes": torch.tensor([[16.0, 8, 48, 24]]), "labels": torch.tensor([0])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    batch = batch_inside(detector, images, targets)
    names = ["red.jpg", "blue.jpg"], ["cat", "dog"]
    sheet = draw_batch(detector.transform, batch, *names, first_label=detector.first_label)
    pixels = np.asarray(sheet).astype(int)
    left, right = np.split(pixels, [sheet.width // 2], axis=1)

    def extent(half, color):
        rows, columns = np.where((half == color).all(axis=2))
        return np.array([columns.min(), rows.min(), columns.max(), rows.max()])

    # 64 pixels are 800 on the sheet; the red image fills the upper half, gray padding the rest.
    picture = extent(left, (255, 0, 0))
    assert np.abs(picture[2:] - picture[:2] - [799, 399]).max() <= 8
    box = extent(left, class_color(0))
    assert np.abs(box[2:] - picture[:2] - [600, 300]).max() <= 8
    assert np.abs(box[0] - picture[0] - 200) <= 8
    gray = [round(255 * mean) for mean in detector.transform.image_mean]
    assert extent(left, gray)[1] > picture[3]
    assert (right == (0, 0, 255)).all(axis=2).sum() >= 790 * 790
    assert not (right == class_color(0)).all(axis=2).any()


def test_images_without_pixels_are_not_the_batch(detector):
    caught = []
    call_with_next_batch(detector, caught.append)
    detector.transform([torch.empty(3, 64, 64, device="meta")])
    assert caught == []


def test_the_batch_that_is_shown_is_that_of_the_backbone(detector):
    seen = []
    detector.backbone.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    images = [torch.rand(3, 50, 70)]
    targets = [{"boxes": torch.tensor([[5.0, 5, 30, 30]]), "labels": torch.tensor([1])}]
    batch, _ = batch_inside(detector, images, targets)
    torch.testing.assert_close(batch.tensors, seen[0], rtol=0, atol=0)


@pytest.fixture
def dataset(tiny_dataset):
    return load_coco(tiny_dataset / "train.json", tiny_dataset / "images", split="val")


def result(image_id, score, category_id=7, bbox=(1.0, 2, 20, 30)):
    return {"image_id": image_id, "score": score, "category_id": category_id, "bbox": list(bbox)}


def kinds(dataset, *detections):
    """Which kinds of outcomes the sheet shows below its legend."""
    pixels = np.asarray(draw_validation(dataset, detections))
    black = (pixels == 0).all(axis=2).any(axis=1)  # the images are black; ink is not quite
    below = pixels[black.argmax() :]
    return {kind for kind, style in STYLES.items() if (below == style.color).all(axis=2).any()}


def test_hits_misses_and_false_detections_are_told_apart(dataset):
    squares = [
        result(int(image_id), 0.9, bbox=box)
        for image_id, box in zip(dataset.image_ids, dataset.boxes_xywh.tolist(), strict=True)
    ]
    assert kinds(dataset) == {"missed"}
    assert kinds(dataset, *squares) == {"hit"}
    assert kinds(dataset, *squares[1:]) == {"hit", "missed"}
    twice = [*squares, {**squares[0], "score": 0.5}]
    assert kinds(dataset, *twice) == {"hit", "false"}
    circle = result(10, 0.9, category_id=11)  # nothing is annotated as a circle
    assert kinds(dataset, *squares, circle) == {"hit", "false"}


def test_weak_detections_are_left_out(dataset):
    assert kinds(dataset, result(10, 0.2, category_id=11)) == {"missed"}


def test_detections_in_a_crowd_region_are_not_shown_as_false(dataset):
    crowd = replace(dataset, is_crowd=np.ones(len(dataset), dtype=np.bool_))
    inside = [
        result(int(image_id), 0.9, bbox=(x + 2, y + 2, 9, 9))
        for image_id, (x, y, _, _) in zip(
            dataset.image_ids, dataset.boxes_xywh.tolist(), strict=True
        )
    ]
    assert kinds(crowd, *inside) == set()


def test_images_with_objects_are_chosen_from_all_over_the_data_set(tmp_path):
    images = [{"id": i, "file_name": f"{i}.png", "width": 9, "height": 9} for i in range(100)]
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 5, 5]} for i in range(1, 99, 2)
    ]
    categories = [{"id": 1, "name": "cat"}]

    def chosen(annotations):
        document = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / "a.json").write_text(json.dumps(document))
        return _spread(load_coco(tmp_path / "a.json", tmp_path, split="val"))

    chosen_of_many = chosen(boxes)
    assert len(chosen_of_many) == 12
    assert (chosen_of_many[0], chosen_of_many[-1]) == (1, 97)
    assert all(index % 2 for index in chosen_of_many)  # those with boxes
    assert max(np.diff(chosen_of_many)) <= 10
    assert chosen(boxes[:2]) == [1, 3]
    assert len(chosen([])) == 12


def test_unreadable_images_are_left_out_of_the_picture(dataset, tiny_dataset, caplog):
    (tiny_dataset / "images" / "1.png").write_bytes(b"broken")
    sheet = draw_validation(dataset, [])
    assert "1.png" in caplog.text
    for name in ("0.png", "2.png", "3.png"):
        (tiny_dataset / "images" / name).unlink()
    assert isinstance(sheet, Image.Image)
    assert draw_validation(dataset, []) is None

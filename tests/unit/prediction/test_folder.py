"""A trained detector on files: pictures, COCO results, and what happens to broken images."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image
from torch import nn

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.data.images import read_image
from dyhead_det.errors import ConfigError, DatasetError, OutputError, StoppedError
from dyhead_det.prediction import folder
from dyhead_det.prediction.detections import Detections
from dyhead_det.prediction.folder import predict_to_folder
from dyhead_det.prediction.predictor import Predictor

CATEGORIES = CategoryMap((Category("cat", 7), Category("dog", 3)))
OPTIONS = {
    "min_score": 0.0,
    "classes": (),
    "max_detections": None,
    "batch_size": 2,
    "draw": True,
}


class FailsInThin(nn.Module):
    """Finds the frame, but fails in every batch with an image thinner than 20 pixels."""

    def forward(self, images):
        if any(min(image.shape[1:]) < 20 for image in images):
            raise ZeroDivisionError("of\nits height")
        return FindsTheFrame()(images)


class FindsTheFrame(nn.Module):
    """Finds one dog that fills the image, and one weak cat."""

    def forward(self, images):
        return [
            {
                "boxes": torch.tensor([[0, 0, i.shape[2], i.shape[1]], [1, 1, 4, 5]]).float(),
                "scores": torch.tensor([0.75, 0.25]),
                "labels": torch.tensor([1, 0]),
            }
            for i in images
        ]


@pytest.fixture
def predictor():
    return Predictor(FindsTheFrame(), CATEGORIES, device=torch.device("cpu"))


@pytest.fixture
def photos(tmp_path):
    """Three images of different sizes, two of them in a folder below."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    Image.new("RGB", (400, 330)).save(folder / "a.jpg")
    Image.new("RGB", (350, 340)).save(folder / "more" / "b.png")
    Image.new("RGB", (360, 350)).save(folder / "more" / "c.webp")
    return folder


def break_image(path):
    path.write_bytes(path.read_bytes()[:50])


def test_results_name_image_and_class_and_carry_the_data_set_s_ids(predictor, photos, tmp_path):
    summary = predict_to_folder(predictor, [photos], tmp_path / "out", **OPTIONS)
    assert (summary.num_images, summary.num_detections) == (3, 6)
    results = json.loads(summary.results.read_text())
    assert results[0] == {
        "image_id": 1,
        "category_id": 3,
        "bbox": [0, 0, 400, 330],
        "score": 0.75,
        "category": "dog",
        "file_name": (photos / "a.jpg").as_posix(),
    }
    assert [r["image_id"] for r in results] == [1, 1, 2, 2, 3, 3]
    assert [r["category_id"] for r in results] == [3, 7] * 3
    assert results[4]["bbox"] == [0, 0, 360, 350]


def test_pictures_are_drawn_with_their_relative_folders(predictor, photos, tmp_path):
    out = tmp_path / "out"
    summary = predict_to_folder(predictor, [photos], out, **OPTIONS)
    assert summary.pictures == tuple(
        out / "pictures" / name for name in ["a.jpg", "more/b.png", "more/c.png"]
    )
    for path, size in zip(summary.pictures, [(400, 330), (350, 340), (360, 350)], strict=True):
        with Image.open(path) as picture:
            assert picture.size == size
            assert picture.getpixel((0, size[1] - 1)) != (0, 0, 0)  # the dog's frame


def test_without_drawing_only_results_are_written(predictor, photos, tmp_path):
    out = tmp_path / "out"
    summary = predict_to_folder(predictor, [photos], out, **{**OPTIONS, "draw": False})
    assert summary.pictures == ()
    assert [path.name for path in out.iterdir()] == ["detections.json"]


def test_the_options_of_prediction_reach_it(predictor, photos, tmp_path):
    def names(**options):
        predict_to_folder(predictor, [photos], tmp_path / "out", **{**OPTIONS, **options})
        results = json.loads((tmp_path / "out" / "detections.json").read_text())
        return {result["category"] for result in results}

    assert names() == {"cat", "dog"}
    assert names(min_score=0.5) == {"dog"}
    assert names(classes=["cat"]) == {"cat"}
    assert names(max_detections=1) == {"dog"}


def test_inputs_stay_as_they_are_and_results_never_become_input(predictor, photos):
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    for _ in range(2):
        summary = predict_to_folder(predictor, [photos], photos, **OPTIONS)
        assert summary.num_images == 3
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_broken_image_is_told_at_the_end_and_nothing_else_is_lost(
    predictor, photos, tmp_path, batch_size
):
    break_image(photos / "more" / "b.png")
    out = tmp_path / "out"
    with pytest.raises(DatasetError, match=r"1 of 3 images could not be read: .*b\.png; ") as error:
        predict_to_folder(predictor, [photos], out, **{**OPTIONS, "batch_size": batch_size})
    assert error.value.exit_code == 3
    results = json.loads((out / "detections.json").read_text())
    assert [r["image_id"] for r in results] == [1, 1, 3, 3]
    assert (out / "pictures" / "a.jpg").exists()
    assert (out / "pictures" / "more" / "c.png").exists()


def test_of_many_broken_images_the_first_are_named(predictor, tmp_path):
    for i in range(13):
        (tmp_path / f"{i:02}.jpg").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"13 of 13 .*09\.jpg and 3 more$") as error:
        predict_to_folder(predictor, [tmp_path], tmp_path / "out", **OPTIONS)
    assert "10.jpg" not in str(error.value)
    assert json.loads((tmp_path / "out" / "detections.json").read_text()) == []


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_image_in_which_the_detector_fails_costs_no_other(photos, tmp_path, caplog, batch_size):
    predictor = Predictor(FailsInThin(), CATEGORIES, device=torch.device("cpu"))
    Image.new("RGB", (400, 3)).save(photos / "b.png")
    break_image(photos / "a.jpg")
    out = tmp_path / "out"
    with pytest.raises(DatasetError) as caught:
        predict_to_folder(predictor, [photos], out, **{**OPTIONS, "batch_size": batch_size})
    assert caught.value.args == (
        f"1 of 4 images could not be read: {photos}/a.jpg",
        f"1 of 4 images could not pass through the detector: {photos}/b.png; what was found in the "
        f"others is in {out}",
    )
    assert "b.png (ZeroDivisionError: of\\nits height)" in caplog.text
    results = json.loads((out / "detections.json").read_text())
    assert [r["image_id"] for r in results] == [3, 3, 4, 4]


def test_a_decoder_s_own_error_costs_no_other_image(predictor, photos, tmp_path, monkeypatch):
    def read(path):
        if path.name == "a.jpg":
            raise MemoryError
        return read_image(path)

    monkeypatch.setattr(folder, "read_image", read)
    with pytest.raises(DatasetError, match=r"1 of 3 images could not be read: .*a\.jpg"):
        predict_to_folder(predictor, [photos], tmp_path / "out", **OPTIONS)
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) == 4


def test_a_folder_that_takes_nothing_is_refused_before_an_image_is_read(
    predictor, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(folder, "read_image", None)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/out: cannot be written \(Not a directory\)"):
        predict_to_folder(predictor, [photos], tmp_path / "file" / "out", **OPTIONS)
    (tmp_path / "out" / "detections.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"detections\.json: cannot be written \(Is a directory"):
        predict_to_folder(predictor, [photos], tmp_path / "out", **OPTIONS)


def test_pictures_that_cannot_be_written_cost_nothing_else(predictor, photos, tmp_path):
    out = tmp_path / "out"
    (out / "pictures" / "a.jpg").mkdir(parents=True)
    with pytest.raises(
        OutputError, match=r"1 of 3 pictures could not be written: .*a\.jpg"
    ) as error:
        predict_to_folder(predictor, [photos], out, **OPTIONS)
    assert error.value.exit_code == 6
    assert len(json.loads((out / "detections.json").read_text())) == 6
    assert sorted(path.name for path in (out / "pictures").rglob("*.png")) == ["b.png", "c.png"]


def test_a_picture_that_cannot_be_drawn_costs_nothing_else(
    predictor, photos, tmp_path, monkeypatch
):
    def draw(detections, image):
        raise ValueError("too many characters")

    monkeypatch.setattr(Detections, "draw", draw)
    with pytest.raises(OutputError, match=r"3 of 3 pictures .*ValueError: too many characters"):
        predict_to_folder(predictor, [photos], tmp_path / "out", **OPTIONS)
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) == 6


def test_results_that_cannot_be_written_are_told_by_number(
    predictor, photos, tmp_path, monkeypatch
):
    def write(path, records, *, indent):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(folder, "write_json", write)
    with pytest.raises(OutputError, match=r"\(No space left.*\): 6 objects in 3 images are lost"):
        predict_to_folder(predictor, [photos], tmp_path / "out", **OPTIONS)


def test_prediction_works_outside_the_main_thread(predictor, photos, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        summary = pool.submit(
            predict_to_folder, predictor, [photos], tmp_path / "out", **OPTIONS
        ).result()
    assert summary.num_images == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batch_size": 10**30},
        {"min_score": float("nan")},
        {"max_detections": -1},
    ],
)
def test_an_argument_out_of_range_is_named_before_any_image_is_looked_for(
    predictor, tmp_path, wrong
):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} is "):
        predict_to_folder(predictor, ["nowhere"], tmp_path / "out", **{**OPTIONS, **wrong})


def test_an_unknown_class_is_told_before_any_image_is_looked_for(predictor, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'cat'"):
        predict_to_folder(
            predictor, ["nowhere"], tmp_path / "out", **{**OPTIONS, "classes": ["cst"]}
        )


def test_a_signal_leaves_what_was_found_before_it(predictor, photos, tmp_path, monkeypatch):
    predict = predictor.predict

    def predict_and_signal(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)
        return predict(*arguments, **options)

    monkeypatch.setattr(predictor, "predict", predict_and_signal)
    with pytest.raises(StoppedError, match="SIGTERM after 1 of 3 images") as caught:
        predict_to_folder(predictor, [photos], tmp_path / "out", **{**OPTIONS, "batch_size": 1})
    assert caught.value.exit_code == 143
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {record["image_id"] for record in found} == {1}
    assert len(list((tmp_path / "out" / "pictures").rglob("*.*"))) == 1

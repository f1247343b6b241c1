"""A trained detector on files: pictures, COCO results, and what happens to broken images."""

import contextlib
import io
import json
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch import nn

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.data.images import read_image
from dyhead_det.errors import ConfigError, DatasetError, OutputError, StoppedError
from dyhead_det.prediction import inference
from dyhead_det.prediction.arguments import Views
from dyhead_det.prediction.detections import Detections
from dyhead_det.prediction.folder import predict_to_folder
from dyhead_det.prediction.options import PredictOptions
from dyhead_det.prediction.outputs import image_files
from dyhead_det.prediction.outputs import summary as summary_module
from dyhead_det.prediction.predictor import Predictor
from dyhead_det.prediction.sources.files import find_images

CATEGORIES = CategoryMap((Category("cat", 7), Category("dog", 3)))


def predict(predictor, sources, out, *, outputs=("pictures", "json"), num_workers=0, **options):
    """Predict in batches of two, whatever the score, unless told otherwise."""
    resume = options.pop("resume", False)
    options = PredictOptions(**{"min_score": 0.0, "batch_size": 2, **options})
    return predict_to_folder(
        predictor,
        find_images(sources, except_in=out / "pictures"),
        out,
        options=options,
        outputs=outputs,
        num_workers=num_workers,
        resume=resume,
    )


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
    summary = predict(predictor, [photos], tmp_path / "out")
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
    summary = predict(predictor, [photos], out)
    pictures = {"a.jpg": (400, 330), "more/b.png": (350, 340), "more/c.png": (360, 350)}
    assert summary.num_done == len(list((out / "pictures").rglob("*.*"))) == len(pictures)
    for name, size in pictures.items():
        with Image.open(out / "pictures" / name) as picture:
            assert picture.size == size
            assert picture.getpixel((0, size[1] - 1)) != (0, 0, 0)  # the dog's frame


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


ALWAYS = ["predict.json", "predictions.jsonl"]


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (None, []),
        ("json", ["detections.json", "images.json"]),
        ("csv", ["detections.csv"]),
        ("yolo", ["classes.txt", "labels/a.txt", "labels/more/b.txt", "labels/more/c.txt"]),
        ("pictures", ["pictures/a.jpg", "pictures/more/b.png", "pictures/more/c.png"]),
        (
            "crops",
            [
                *("crops/a.jpg", "crops/a.jpg/001-dog.png", "crops/a.jpg/002-cat.png"),
                *("crops/more/b.png", "crops/more/b.png/001-dog.png"),
                *("crops/more/b.png/002-cat.png", "crops/more/c.webp"),
                *("crops/more/c.webp/001-dog.png", "crops/more/c.webp/002-cat.png"),
            ],
        ),
    ],
)
def test_only_what_is_asked_for_is_written(predictor, photos, tmp_path, output, names):
    out = tmp_path / "out"
    predict(predictor, [photos], out, outputs=[output] if output else [])
    assert names_in(out) == sorted([*ALWAYS, *names])


def test_the_options_of_prediction_reach_it(predictor, photos, tmp_path):
    def names(**options):
        predict(predictor, [photos], tmp_path / "out", **options)
        results = json.loads((tmp_path / "out" / "detections.json").read_text())
        return {result["category"] for result in results}

    assert names() == {"cat", "dog"}
    assert names(min_score=0.5) == {"dog"}
    assert names(classes=["cat"]) == {"cat"}
    assert names(max_detections=1) == {"dog"}


def test_inputs_stay_as_they_are_and_results_never_become_input(predictor, photos):
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    for _ in range(2):
        summary = predict(predictor, [photos], photos)
        assert summary.num_images == 3
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_broken_image_is_told_at_the_end_and_nothing_else_is_lost(
    predictor, photos, tmp_path, batch_size
):
    break_image(photos / "more" / "b.png")
    out = tmp_path / "out"
    with pytest.raises(DatasetError, match=r"1 of 3 images could not be read: .*b\.png; ") as error:
        predict(predictor, [photos], out, batch_size=batch_size)
    assert error.value.exit_code == 3
    results = json.loads((out / "detections.json").read_text())
    assert [r["image_id"] for r in results] == [1, 1, 3, 3]
    assert (out / "pictures" / "a.jpg").exists()
    assert (out / "pictures" / "more" / "c.png").exists()


def test_of_many_broken_images_the_first_are_named(predictor, tmp_path):
    for i in range(13):
        (tmp_path / f"{i:02}.jpg").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"13 of 13 .*09\.jpg and 3 more$") as error:
        predict(predictor, [tmp_path], tmp_path / "out")
    assert "10.jpg" not in str(error.value)
    assert json.loads((tmp_path / "out" / "detections.json").read_text()) == []


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_image_in_which_the_detector_fails_costs_no_other(photos, tmp_path, caplog, batch_size):
    predictor = Predictor(FailsInThin(), CATEGORIES, device=torch.device("cpu"))
    Image.new("RGB", (400, 3)).save(photos / "b.png")
    break_image(photos / "a.jpg")
    out = tmp_path / "out"
    with pytest.raises(DatasetError) as caught:
        predict(predictor, [photos], out, batch_size=batch_size)
    assert caught.value.args == (
        f"1 of 4 images could not be read: {photos}/a.jpg",
        f"1 of 4 images could not pass through the detector: {photos}/b.png; what was found in the "
        f"others is in {out}",
    )
    assert "b.png (ZeroDivisionError: of\\nits height)" in caplog.text
    results = json.loads((out / "detections.json").read_text())
    assert [r["image_id"] for r in results] == [3, 3, 4, 4]


def test_a_decoder_s_own_error_costs_no_other_image(predictor, photos, tmp_path, monkeypatch):
    def read(path, **options):
        if path.name == "a.jpg":
            raise MemoryError
        return read_image(path, **options)

    monkeypatch.setattr(inference, "read_image", read)
    with pytest.raises(DatasetError, match=r"1 of 3 images could not be read: .*a\.jpg"):
        predict(predictor, [photos], tmp_path / "out")
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) == 4


def test_a_folder_that_takes_nothing_is_refused_before_an_image_is_read(
    predictor, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(inference, "read_image", None)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/out: cannot be written \(Not a directory\)"):
        predict(predictor, [photos], tmp_path / "file" / "out")
    (tmp_path / "out" / "detections.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"detections\.json: cannot be written \(Is a directory"):
        predict(predictor, [photos], tmp_path / "out")


def test_pictures_that_cannot_be_written_cost_nothing_else(predictor, photos, tmp_path):
    out = tmp_path / "out"
    (out / "pictures" / "a.jpg").mkdir(parents=True)
    with pytest.raises(
        OutputError, match=r"files of 1 of 3 images .* written: .*a\.jpg in pictures \(Is a dir"
    ) as error:
        predict(predictor, [photos], out)
    assert error.value.exit_code == 6
    assert len(json.loads((out / "detections.json").read_text())) == 6
    assert sorted(path.name for path in (out / "pictures").rglob("*.png")) == ["b.png", "c.png"]


def test_a_picture_that_cannot_be_drawn_costs_nothing_else(
    predictor, photos, tmp_path, monkeypatch
):
    def draw(detections, image):
        raise ValueError("too many characters")

    monkeypatch.setattr(Detections, "draw", draw)
    with pytest.raises(OutputError, match=r"files of 3 of 3 .*ValueError: too many characters"):
        predict(predictor, [photos], tmp_path / "out")
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) == 6


def test_tables_without_room_are_made_by_resuming(predictor, photos, tmp_path, monkeypatch):
    def write(path, lines):
        raise OSError(28, "No space left on device", str(path))

    out = tmp_path / "out"
    with monkeypatch.context() as full:
        full.setattr(summary_module, "write_detections", write)
        with pytest.raises(OutputError, match=r"found in 3 images is in .*jsonl; make room and go"):
            predict(predictor, [photos], out)
    monkeypatch.setattr(inference, "read_image", None)  # nothing is read again
    assert predict(predictor, [photos], out, resume=True).num_detections == 6
    assert len(json.loads((out / "detections.json").read_text())) == 6


def test_a_full_disk_ends_the_run_and_resuming_draws_what_is_missing(
    predictor, photos, tmp_path, monkeypatch
):
    real = image_files._write_picture

    def write(path, *arguments):
        if path.name == "b.png":
            raise OSError(28, "No space left on device", str(path))
        real(path, *arguments)

    out = tmp_path / "out"
    with monkeypatch.context() as full:
        full.setattr(image_files, "_write_picture", write)
        with pytest.raises(OutputError, match=r"found in 1 images .* go on with --resume"):
            predict(predictor, [photos], out, batch_size=1)
    assert names_in(out / "pictures") == ["a.jpg"]
    predict(predictor, [photos], out, batch_size=1, resume=True)
    assert names_in(out / "pictures") == ["a.jpg", "more/b.png", "more/c.png"]


def files_of(folder):
    return {path: (folder / path).read_bytes() for path in names_in(folder) if "crops" not in path}


EVERYTHING = ("pictures", "json", "csv", "yolo")


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("num_bytes", [0, 1, 150, 300, 500, 10_000])
def test_a_killed_run_goes_on_and_gives_the_same_files(
    predictor, photos, tmp_path, batch_size, num_bytes
):
    break_image(photos / "more" / "b.png")
    whole, out = tmp_path / "whole", tmp_path / "out"
    for each in (whole, out):
        with pytest.raises(DatasetError, match="1 of 3 images could not be read"):
            predict(predictor, [photos], each, outputs=EVERYTHING, batch_size=batch_size)
    for name in names_in(out):  # what a kill leaves: some of the lines, and half of one
        if name not in ALWAYS:
            (out / name).unlink()
    lines = out / "predictions.jsonl"
    lines.write_bytes(lines.read_bytes()[:num_bytes])
    for name in files_of(whole):  # files of images with a line are there
        if name.startswith(("pictures/", "labels/")):
            (out / name).write_bytes((whole / name).read_bytes())
    with pytest.raises(DatasetError, match="1 of 3 images could not be read"):
        predict(predictor, [photos], out, outputs=EVERYTHING, batch_size=batch_size, resume=True)
    assert files_of(out) == files_of(whole)


def test_threads_change_no_file(predictor, photos, tmp_path):
    break_image(photos / "more" / "b.png")
    for number in range(9):
        Image.new("RGB", (20 + number, 30), (number, 0, 0)).save(photos / f"{number}.png")
    for num_workers in (0, 3):
        with pytest.raises(DatasetError):
            predict(
                predictor,
                [photos],
                tmp_path / str(num_workers),
                outputs=EVERYTHING,
                num_workers=num_workers,
            )
    assert files_of(tmp_path / "0") == files_of(tmp_path / "3")


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"min_score": 0.5}, "min score was 0.0, is 0.5"),
        ({"classes": ("cat",)}, r'classes was \[\], is \["cat"\]'),
        ({"outputs": ["json"]}, r'save was \["json", "pictures"\], is \["json"\]'),
        ({"batch_size": 3}, "batch size was 2, is 3"),
    ],
)
def test_a_run_is_not_continued_by_a_different_one(
    predictor, photos, tmp_path, changed, difference
):
    out = tmp_path / "out"
    predict(predictor, [photos], out)
    before = files_of(out)
    with pytest.raises(ConfigError, match=f"results of a different call: {difference}; repeat"):
        predict(predictor, [photos], out, resume=True, **changed)
    assert files_of(out) == before


def test_a_run_is_not_continued_in_other_views(predictor, photos, tmp_path):
    out = tmp_path / "out"
    predict(predictor, [photos], out)
    predictor.set_views(Views(tile=64, tta="flip"), nms_thresh=0.5, detections_per_img=100)
    differences = (
        r'tile was null, is 64; tile overlap was null, is 0.2; tta was \[\], is \["flip"\]'
    )
    with pytest.raises(ConfigError, match=differences):
        predict(predictor, [photos], out, resume=True)


def test_other_images_or_weights_are_another_run(predictor, photos, tmp_path):
    out = tmp_path / "out"
    predict(predictor, [photos], out)
    other = Predictor(nn.Conv2d(1, 1, 1), CATEGORIES, device=torch.device("cpu"))
    with pytest.raises(ConfigError, match="weights was"):
        predict(other, [photos], out, resume=True)
    (photos / "a.jpg").rename(photos / "z.jpg")
    with pytest.raises(ConfigError, match="different call: names of images was"):
        predict(predictor, [photos], out, resume=True)
    (photos / "z.jpg").unlink()
    with pytest.raises(ConfigError, match="different call: images was 3, is 2; names of images"):
        predict(predictor, [photos], out, resume=True)


def test_where_there_is_nothing_to_resume_it_starts(predictor, photos, tmp_path, caplog):
    caplog.set_level("INFO")
    assert predict(predictor, [photos], tmp_path / "out", resume=True).num_done == 3
    assert "nothing to go on with" in caplog.text


def test_lines_name_every_image_and_why_one_has_nothing(predictor, photos, tmp_path):
    break_image(photos / "a.jpg")
    with pytest.raises(DatasetError):
        predict(predictor, [photos], tmp_path / "out", max_detections=1)
    broken, found, _ = (
        json.loads(line)
        for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    )
    assert broken.pop("reason").startswith(str(photos / "a.jpg"))
    assert broken == {
        "image_id": 1,
        "file_name": (photos / "a.jpg").as_posix(),
        "failed_at": "read",
    }
    assert found == {
        "image_id": 2,
        "file_name": (photos / "more" / "b.png").as_posix(),
        "width": 350,
        "height": 340,
        "detections": [
            {"category_id": 3, "category": "dog", "bbox": [0, 0, 350, 340], "score": 0.75}
        ],
    }


def test_pycocotools_reads_the_results_with_the_images(predictor, photos, tmp_path):
    out = tmp_path / "out"
    predict(predictor, [photos], out, min_score=0.5)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(out / "images.json")
        results = coco.loadRes(str(out / "detections.json"))
    assert [image["file_name"] for image in coco.loadImgs([1, 2, 3])] == [
        (photos / name).as_posix() for name in ("a.jpg", "more/b.png", "more/c.webp")
    ]
    assert {category["name"]: category["id"] for category in coco.loadCats(coco.getCatIds())} == {
        "cat": 7,
        "dog": 3,
    }
    (found,) = results.loadAnns(results.getAnnIds(imgIds=[2]))
    assert (found["category_id"], found["bbox"]) == (3, [0, 0, 350, 340])


def test_prediction_works_outside_the_main_thread(predictor, photos, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        summary = pool.submit(
            predict, predictor, [photos], tmp_path / "out", num_workers=2
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
        predict(predictor, ["nowhere"], tmp_path / "out", **wrong)


def test_an_unknown_class_is_told_before_any_image_is_read(predictor, photos, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'cat'"):
        predict(predictor, [photos], tmp_path / "out", classes=("cst",))


def test_a_signal_leaves_what_was_found_before_it(predictor, photos, tmp_path, monkeypatch):
    predict_as_ever = predictor.predict

    def predict_and_signal(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)
        return predict_as_ever(*arguments, **options)

    monkeypatch.setattr(predictor, "predict", predict_and_signal)
    with pytest.raises(StoppedError, match="SIGTERM after 1 of 3 images") as caught:
        predict(predictor, [photos], tmp_path / "out", batch_size=1)
    assert caught.value.exit_code == 143
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {record["image_id"] for record in found} == {1}
    assert len(list((tmp_path / "out" / "pictures").rglob("*.*"))) == 1

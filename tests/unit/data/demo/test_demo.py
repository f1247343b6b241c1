"""The demo data set is the same for the same seed, complete or not there, and true to its boxes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dyhead_det.data.coco.dataset import load_coco, require_images
from dyhead_det.data.demo import drawing as demo
from dyhead_det.data.demo.drawing import draw_demo
from dyhead_det.data.demo.styles import EASY, HARD, outline
from dyhead_det.errors import DatasetError


def draw(folder, **changes):
    draw_demo(folder, **{"num_train": 12, "num_val": 4, "size": 64, "seed": 3, **changes})
    return folder


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("demo") / "shapes")


def test_both_parts_load_without_repairs(drawn, caplog):
    train = load_coco(drawn / "train.json", drawn / "train", split="train")
    val = load_coco(drawn / "val.json", drawn / "val", split="val")
    require_images(train)
    require_images(val)
    assert (len(train), len(val)) == (12, 4)
    assert train.categories == val.categories
    assert train.categories.names == ("disc", "box", "triangle", "star", "ring")
    assert not set(train.image_ids) & set(val.image_ids)
    assert not set(train.annotation_ids) & set(val.annotation_ids)
    assert caplog.records == []


def test_category_ids_have_gaps(drawn):
    ids = [
        category["id"] for category in json.loads((drawn / "val.json").read_bytes())["categories"]
    ]
    assert ids != list(range(ids[0], ids[0] + len(ids)))


def test_same_seed_gives_the_same_bytes_and_another_seed_others(drawn, tmp_path):
    assert contents(draw(tmp_path / "again")) == contents(drawn)
    other = contents(draw(tmp_path / "other", seed=4))
    assert other.keys() == contents(drawn).keys()
    assert other["train/00000.png"] != contents(drawn)["train/00000.png"]


def test_a_longer_data_set_begins_with_the_same_training_pictures(drawn, tmp_path):
    longer = contents(draw(tmp_path / "longer", num_train=13))
    assert longer["train/00011.png"] == contents(drawn)["train/00011.png"]


def test_a_complete_data_set_is_left_alone(tmp_path):
    folder = draw(tmp_path / "shapes", num_train=2, num_val=1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    draw(folder, num_train=2, num_val=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_an_incomplete_or_other_demo_is_replaced(tmp_path):
    folder = draw(tmp_path / "shapes", num_train=2, num_val=1)
    before = contents(folder)
    (folder / "train" / "00001.png").unlink()
    draw(folder, num_train=2, num_val=1)
    assert contents(folder) == before
    draw(folder, num_train=3, num_val=1)
    assert len(list((folder / "train").iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "shapes").mkdir()
    assert (draw(tmp_path / "shapes", num_train=1, num_val=1) / "train.json").is_file()


@pytest.mark.parametrize("info", ['{"description": "mine"}', "[]", "null"])
@pytest.mark.parametrize("name", ["notes.txt", "train.json"])
def test_a_folder_with_something_else_is_never_touched(tmp_path, name, info):
    (tmp_path / name).write_text(f'{{"info": {info}}}')
    with pytest.raises(DatasetError, match="choose another folder"):
        draw(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_in_the_way_is_never_touched(tmp_path):
    (tmp_path / "shapes").write_text("mine")
    with pytest.raises(DatasetError, match="choose another folder"):
        draw(tmp_path / "shapes")


def test_a_link_to_nothing_is_never_touched(tmp_path):
    (tmp_path / "demo").symlink_to("demo")
    with pytest.raises(DatasetError, match="something else"):
        draw(tmp_path / "demo")
    assert (tmp_path / "demo").is_symlink()


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_background", interrupt)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "shapes")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("style", [EASY, HARD])
def test_boxes_are_tight_around_what_is_seen(monkeypatch, style):
    """On a black ground without grain every pixel that a shape touches is not black."""
    monkeypatch.setattr(demo, "_background", lambda rng, size: np.zeros((size, size, 3)))
    alone = replace(style, most_shapes=1)
    monkeypatch.setattr(demo, "_EMPTY_SHARE", 0)
    monkeypatch.setattr(demo, "_GRAIN", 0)
    for number in range(20):
        picture, (found,) = demo._draw_picture(np.random.default_rng(number), 64, alone)
        ys, xs = np.nonzero(picture.max(axis=-1))
        left, top, width, height = found["bbox"]
        # Pixels are touched to a quarter; a quarter of a dark rim may round to black.
        assert [xs.min(), ys.min()] == pytest.approx([left, top], abs=1)
        assert [xs.max() + 1, ys.max() + 1] == pytest.approx([left + width, top + height], abs=1)
        assert 0 < found["area"] <= width * height


@pytest.mark.parametrize(
    ("style", "factor", "num_classes", "most"), [(EASY, 7, 5, 4), (HARD, 14, 10, 20)]
)
def test_styles_differ_in_sizes_classes_and_crowding(style, factor, num_classes, most):
    pictures = [demo._draw_picture(np.random.default_rng(n), 64, style)[1] for n in range(80)]
    edges = [max(found["bbox"][2:]) for found_all in pictures for found in found_all]
    assert max(edges) / min(edges) > factor
    assert 0 < sum(not found_all for found_all in pictures) < 25
    categories = {found["category_id"] for found_all in pictures for found in found_all}
    assert categories == set(style.shapes.values())
    assert len(categories) == num_classes
    assert most - 4 < max(map(len, pictures)) <= most


def test_hard_pictures_are_the_same_for_the_same_seed_and_replace_easy_ones(tmp_path):
    easy = contents(draw(tmp_path / "shapes", num_train=2, num_val=1))
    hard = contents(draw(tmp_path / "shapes", num_train=2, num_val=1, style=HARD))
    assert hard == contents(draw(tmp_path / "again", num_train=2, num_val=1, style=HARD))
    assert hard["train/00000.png"] != easy["train/00000.png"]
    dataset = load_coco(
        tmp_path / "shapes" / "train.json", tmp_path / "shapes" / "train", split="train"
    )
    assert dataset.categories.names == tuple(HARD.shapes)


@pytest.mark.parametrize("name", HARD.shapes)
def test_no_corner_is_farther_than_the_radius_and_a_turn_keeps_the_shape(name):
    upright = outline(name, 0.0, 1.0, 0.0)
    assert np.linalg.norm(upright, axis=1).max() == pytest.approx(1)
    turned = outline(name, 1.0, 1.0, 0.0)
    np.testing.assert_allclose(upright @ upright.T, turned @ turned.T, atol=1e-12)
    pressed = outline(name, 0.0, 2.0, np.pi / 2)
    np.testing.assert_allclose(pressed, upright * [1, 0.5], atol=1e-12)


def test_pictures_are_plain_rgb_of_the_asked_size(drawn):
    with Image.open(drawn / "val" / "00012.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (64, 64))

"""`data convert`, `split`, `merge` and `subset`: new folders, whole, and nothing overwritten."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from dyhead_det.cli.data import app
from dyhead_det.data.formats.parts import read_parts
from dyhead_det.data.formats.source import Source
from dyhead_det.errors import ConfigError, DatasetError

NAMES = ["cat", "dog", "owl"]


def draw(folder, parts, names=NAMES):
    """A COCO data set: images of 40 x 30 pixels, class k in every (k + 1)th of them."""
    folder.mkdir()
    for part, number in parts.items():
        (folder / "images" / part).mkdir(parents=True)
        images, annotations = [], []
        for index in range(1, number + 1):
            name = f"{index:03d}.png"
            Image.new("1", (40, 30)).save(folder / "images" / part / name)
            images.append({"id": 10 * index, "file_name": name, "width": 40, "height": 30})
            annotations += [
                {"image_id": 10 * index, "category_id": 5 + k, "bbox": [9 * k, 1, 8, 8 + k]}
                for k in range(len(names))
                if index % (k + 1) == 0
            ]
        document = {
            "images": images,
            "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
            "categories": [{"id": 5 + k, "name": name} for k, name in enumerate(names)],
        }
        (folder / f"{part}.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def folder(tmp_path):
    return draw(tmp_path / "source", {"train": 10, "val": 4})


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def read(folder, **options):
    return read_parts(Source(folder, **options))


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_every_format_holds_the_same(folder, tmp_path, form):
    out = tmp_path / "deep" / "out"
    result = run("convert", folder, "--to", form, "--out", out)
    numbers = "10 train, 4 val images, 25 boxes, 3 classes"
    assert result.stdout == f"{numbers} -> {out}\n"
    _, before = read(folder)
    found, after = read(out)
    assert (found, list(after)) == (form, ["train", "val"])
    assert len(after["val"].labels) == len(before["val"].labels)
    assert after["val"].boxes.tolist() == before["val"].boxes.tolist()
    assert after["train"].categories.names == tuple(NAMES)
    assert not list(out.parent.glob(".*"))


def test_images_are_linked_copied_or_stay(folder, tmp_path):
    original = (folder / "images" / "train" / "001.png").stat().st_ino
    run("convert", folder, "--to", "yolo", "--out", tmp_path / "a")
    run("convert", folder, "--to", "yolo", "--out", tmp_path / "b", "--files", "copy")
    run("convert", folder, "--to", "coco", "--out", tmp_path / "c", "--files", "reference")
    assert (tmp_path / "a" / "images" / "train" / "001.png").stat().st_ino == original
    assert (tmp_path / "b" / "images" / "train" / "001.png").stat().st_ino != original
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["train.json", "val.json"]
    found = Source(tmp_path / "c" / "val.json", folder / "images")
    assert read(found.annotations, images=found.images)[1]["val"].image_file(0).is_file()
    with pytest.raises(ConfigError, match="give --files link or copy"):
        run("convert", folder, "--to", "voc", "--out", tmp_path / "d", "--files", "reference")


def test_nothing_is_overwritten_unless_it_was_written_so(folder, tmp_path):
    out = tmp_path / "out"
    arguments = ("convert", folder, "--to", "voc", "--out", out)
    run(*arguments)
    with pytest.raises(ConfigError, match="replace it by --overwrite"):
        run(*arguments)
    run(*arguments, "--overwrite")
    (out / "mine.txt").touch()
    with pytest.raises(ConfigError, match=r"not replaced, it holds files of others: mine.txt"):
        run(*arguments, "--overwrite")
    with pytest.raises(ConfigError, match=r"not replaced, it holds what is read: .*train.json"):
        run("convert", folder, "--to", "voc", "--out", folder, "--overwrite")


def test_a_missing_image_leaves_nothing_behind(folder, tmp_path):
    (folder / "images" / "val" / "002.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of the 4 images"):
        run("convert", folder, "--to", "yolo", "--out", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_one_file_is_the_part_of_its_name(folder, tmp_path):
    arguments = ("--images", folder / "images" / "val", "--to", "yolo", "--out", tmp_path / "out")
    assert run("convert", folder / "val.json", *arguments).stdout.startswith("4 val images")


def test_a_data_set_is_split_with_every_class(folder, tmp_path):
    one = draw(tmp_path / "one", {"train": 30})
    out = tmp_path / "out"
    result = run("split", one, "--val", 0.2, "--test", 0.1, "--to", "voc", "--out", out)
    assert result.stdout.startswith("21 train, 6 val, 3 test images, 55 boxes, 3 classes")
    _, parts = read(out)
    names = [name for dataset in parts.values() for name in dataset.file_names]
    assert sorted(names) == [f"{index:03d}.png" for index in range(1, 31)]
    with pytest.raises(ConfigError, match=r"is split already \(train, val\); .* by --split train"):
        run("split", folder, "--out", tmp_path / "no")
    with pytest.raises(ConfigError, match="leave nothing to train on"):
        run("split", one, "--val", 0.9, "--test", 0.2, "--out", tmp_path / "no")


def test_a_split_is_that_of_data_val(tmp_path):
    from dyhead_det.config.schema import DataConfig, parse_section
    from dyhead_det.data.build_datasets import load_validation_data

    one = draw(tmp_path / "one", {"train": 30})
    run("split", one, "--val", 0.2, "--seed", 3, "--out", tmp_path / "out")
    section = {"root": str(one), "val": {"split": 0.2, "seed": 3}}
    held_out = load_validation_data(parse_section(DataConfig, section))
    assert list(read(tmp_path / "out")[1]["val"].file_names) == list(held_out.file_names)


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_data_sets_are_merged_by_the_names_of_classes(folder, tmp_path, form):
    other = draw(tmp_path / "other", {"train": 6}, names=["owl", "emu"])
    out = tmp_path / "out"
    result = run("merge", folder, other, "--to", form, "--out", out)
    assert result.stdout.startswith("16 train, 4 val images, 34 boxes, 4 classes")
    _, parts = read(out)
    train = parts["train"]
    assert train.categories.names == ("cat", "dog", "owl", "emu")
    assert len(set(train.file_names)) == 16
    owls = train.labels == train.categories.label_of_name["owl"]
    assert owls.sum() == 3 + 6


def test_a_subset_has_fewer_classes_and_images(folder, tmp_path):
    run("subset", folder, "--classes", "owl,dog", "--out", tmp_path / "a")
    _, parts = read(tmp_path / "a")
    assert parts["train"].categories.names == ("owl", "dog")
    assert len(parts["train"]) == 7  # 2, 3, 4, 6, 8, 9, 10
    keep = ("--classes", "owl", "--keep-empty", "--num-images", 5)
    run("subset", folder, *keep, "--out", tmp_path / "b")
    assert [len(part) for part in read(tmp_path / "b")[1].values()] == [5, 4]
    run("subset", folder, "--share", 0.5, "--split", "train", "--out", tmp_path / "c")
    assert [len(part) for part in read(tmp_path / "c")[1].values()] == [5]
    with pytest.raises(DatasetError, match=r"--classes: .*no class 'owel', did you mean 'owl'"):
        run("subset", folder, "--classes", "owel", "--out", tmp_path / "d")
    both = run("subset", folder, "--share", 0.5, "--num-images", 1, "--out", tmp_path / "d")
    assert both.exit_code == 2


def test_crowds_are_told_where_yolo_cannot_hold_them(folder, tmp_path):
    content = json.loads((folder / "val.json").read_text())
    content["annotations"][0]["iscrowd"] = 1
    (folder / "val.json").write_text(json.dumps(content))
    result = run("convert", folder, "--to", "yolo", "--out", tmp_path / "yolo")
    assert "1 crowd regions were left out" in result.stdout
    run("convert", folder, "--to", "voc", "--out", tmp_path / "voc")
    assert read(tmp_path / "voc")[1]["val"].is_crowd.sum() == 1


def test_a_group_that_is_no_regular_expression_is_a_usage_error(folder, tmp_path):
    result = run("split", folder, "--split", "train", "--group", "(", "--out", tmp_path / "out")
    assert (result.exit_code, (tmp_path / "out").exists()) == (2, False)
    assert "is no regular expression" in result.stderr

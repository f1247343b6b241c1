"""`data.yaml`: names as list and map, splits as folders and lists, paths of other machines."""

import pytest
from PIL import Image

from dyhead_det.data.formats.yolo_config import read_yolo_config
from dyhead_det.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
    for name in ("train/images/b.png", "train/images/a.png", "valid/images/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def config(folder, text):
    (folder / "data.yaml").write_text(text)
    return read_yolo_config(folder / "data.yaml")


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("names: [cat, dog]", {0: "cat", 1: "dog"}),
        ("names: {0: cat, 1: dog}", {0: "cat", 1: "dog"}),
        ("names: {3: cat, 1: no}", {1: "no", 3: "cat"}),
        ("names: [7, 8]", {0: "7", 1: "8"}),
        ("nc: 2", {0: "class_0", 1: "class_1"}),
    ],
)
def test_names_are_a_list_or_a_map(folder, written, names):
    assert config(folder, f"train: train/images\n{written}\n").names == names


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("names: {cat: 0}", "no class id from 0 on with a name"),
        ("names: [cat, cat]", "one name for several class ids: cat"),
        ("names: [cat, null]", "no class id from 0 on"),
        ("names: []", "neither a list nor a mapping"),
        ("names: [cat]\nnc: 3", "nc is 3, but there are 1 names"),
        ("names: [cat]\nkpt_shape: many", "kpt_shape"),
        ("names: [cat]\nval: 5", "val: neither a path nor a list"),
        ("train: x", "is no data.yaml of a YOLO data set"),
        ("names: [a, b", "no YAML file: line"),
        ("names: !!python/name:os.system ''", "no YAML file: line 1"),
        ("names: [a]\nnames: [b]", "written twice"),
    ],
)
def test_what_is_no_data_yaml_is_told(folder, written, reason):
    with pytest.raises(DatasetError, match=reason):
        config(folder, f"{written}\n")


@pytest.mark.parametrize(
    "written",
    [
        "train: train/images",
        "train: ./train/images/",
        "train: ../train/images",  # Roboflow's, for what lies beside the file
        "path: train\ntrain: images",
        "path: /content/elsewhere\ntrain: train/images",
        "train: [train/images]",
        "train: list.txt",
    ],
)
def test_a_split_is_a_folder_or_a_list(folder, written):
    (folder / "list.txt").write_text("./train/images/a.png\n\ntrain/images/b.png\n")
    paths = config(folder, f"{written}\nnames: [cat]\n").images("train")
    assert paths == [folder / "train" / "images" / name for name in ("a.png", "b.png")]


def test_a_path_of_another_machine_is_told(folder):
    assert config(folder, "path: /content/x\ntrain: train\nnames: [a]").remarks == (
        "path: /content/x",
    )


def test_val_may_be_called_valid(folder):
    (path,) = config(folder, "valid: valid/images\nnames: [cat]\n").images("val")
    assert path.name == "c.png"


@pytest.mark.parametrize(
    ("written", "split", "reason"),
    [
        ("train: nowhere", "train", "nowhere is neither a folder nor a .txt list"),
        ("train: train/images", "val", "no split 'val'; it has: train"),
        ("train: empty", "train", "no images in train"),
    ],
)
def test_a_split_that_is_not_there_is_told(folder, written, split, reason):
    (folder / "empty").mkdir()
    with pytest.raises(DatasetError, match=reason):
        config(folder, f"{written}\nnames: [cat]\n").images(split)


def test_a_script_to_download_the_data_is_never_mind(folder):
    text = "train: train\nnames: [cat]\ndownload: |\n  import os\n  x = f'${a}'\n"
    assert config(folder, text).names == {0: "cat"}

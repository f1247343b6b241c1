"""Images in tar archives are those of a folder, in any order; what is wrong with one names it."""

import json
import pickle
import tarfile

import pytest
import torch

from dyhead_det.data.coco.dataset import load_coco, missing_images, require_images
from dyhead_det.data.detection_dataset import BrokenImage, DetectionDataset
from dyhead_det.data.loaders import LoaderOptions, build_train_loader
from dyhead_det.data.stores.locate import open_store
from dyhead_det.errors import DatasetError

from conftest import draw_tiny_dataset

NUM_IMAGES = 7


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return draw_tiny_dataset(tmp_path / "tiny", num_images=NUM_IMAGES)


def pack(path, files, *, below=""):
    """Write an archive of files under their names, below a folder in it."""
    with tarfile.open(path, "w") as archive:
        for file in files:
            archive.add(file, f"{below}{file.name}")
    return path


@pytest.fixture
def shards(folder):
    """The images in two archives, as `tar` packs a folder; and a pattern of both."""
    images = sorted((folder / "images").iterdir())
    pack(folder / "shard-0.tar", images[::2], below="./images/")
    pack(folder / "shard-1.tar", images[1::2], below="./images/")
    return folder / "shard-{0..1}.tar"


def load(folder, images):
    return load_coco(folder / "train.json", images, split="train")


def batches_of(coco, *, num_workers=0, start_step=0):
    options = LoaderOptions(
        num_workers=num_workers,
        prefetch_factor=2,
        persistent_workers=False,
        pin_memory=False,
        broken_images="error",
    )
    loader = build_train_loader(DetectionDataset(coco), options, batch_size=2, seed=3)
    loader.set_epoch(1, start_step=start_step)
    return list(loader)


@pytest.mark.parametrize(("num_workers", "start_step"), [(0, 0), (2, 2)])
def test_batches_are_those_of_a_folder_also_from_the_middle_on(
    folder, shards, num_workers, start_step
):
    of_files = batches_of(load(folder, folder / "images"), start_step=start_step)
    of_archives = batches_of(load(folder, shards), num_workers=num_workers, start_step=start_step)
    assert len(of_files) == len(of_archives) == 4 - start_step
    for one, other in zip(of_files, of_archives, strict=True):
        assert all(map(torch.equal, one.images, other.images))
        assert [t["image_id"] for t in one.targets] == [t["image_id"] for t in other.targets]


def test_a_data_set_that_goes_to_another_process_reads_on(folder, shards):
    coco = pickle.loads(pickle.dumps(load(folder, shards)))
    assert not missing_images(coco)
    assert coco.image_file(0).open().read() == (folder / "images" / "0.png").read_bytes()


def test_names_may_have_the_folder_in_the_archive_or_not(folder, shards):
    store = open_store(shards)
    assert "3.png" in store
    assert "images/3.png" in store
    assert "mages/3.png" not in store
    assert store.missing(["images/1.png", "2.png", "gone.png"]) == ["gone.png"]


def test_a_missing_member_is_one_error_or_a_broken_image(folder):
    archive = pack(folder / "few.tar", [folder / "images" / "0.png"])
    coco = load(folder, archive)
    with pytest.raises(DatasetError, match=r"6 of the 7 images .* are not in .*few\.tar: 1\.png"):
        require_images(coco)
    broken = DetectionDataset(coco)[0, 0, 1]
    assert broken == BrokenImage("1.png", f"no image file at {archive}: 1.png")


def test_a_damaged_member_is_named_with_its_archive(folder):
    (folder / "images" / "1.png").write_bytes(b"no image")
    (folder / "images" / "2.png").write_bytes(b"")
    archive = pack(folder / "all.tar", sorted((folder / "images").iterdir()))
    dataset = DetectionDataset(load(folder, archive))
    assert dataset[0, 0, 1].reason.startswith(f"{archive}: 1.png cannot be read as an image, it is")
    assert dataset[0, 0, 2].reason == f"{archive}: 2.png cannot be read as an image, it is empty"


def test_one_name_in_two_archives_is_refused_with_both(folder, shards):
    twice = [folder / "images" / "0.png", folder / "images" / "1.png"]
    pack(folder / "shard-1.tar", twice, below="images/")
    coco = load(folder, shards)
    with pytest.raises(DatasetError, match=r"shard-0\.tar and .*shard-1\.tar have several files"):
        require_images(coco)
    assert "several files called 0.png" in DetectionDataset(coco)[0, 0, 0].reason


def test_what_no_annotation_names_may_be_there_twice(folder):
    notes = folder / "notes.txt"
    notes.write_text("words")
    archive = pack(folder / "all.tar", [notes, *(folder / "images").iterdir(), notes])
    require_images(load(folder, archive))


def test_an_archive_that_becomes_shorter_meanwhile_is_noticed(folder, shards):
    coco = load(folder, shards)
    (folder / "shard-0.tar").write_bytes((folder / "shard-0.tar").read_bytes()[:600])
    assert "has become shorter" in DetectionDataset(coco)[0, 0, 6].reason


def test_letters_in_another_case_are_told(folder, shards):
    document = json.loads((folder / "train.json").read_text())
    document["images"][0]["file_name"] = "0.PNG"
    (folder / "train.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError, match=r"0\.PNG is 0\.png"):
        require_images(load(folder, shards))

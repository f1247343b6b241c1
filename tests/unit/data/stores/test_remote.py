"""Images behind a URL are those of a folder; what fails there is told, or tried again."""

import http.server
import tarfile
import threading
from pathlib import Path

import fsspec
import pytest

from dyhead_det.data.coco.dataset import load_coco, require_images
from dyhead_det.data.detection_dataset import DetectionDataset
from dyhead_det.data.images import held, read_image
from dyhead_det.data.loaders import LoaderOptions, build_eval_loader
from dyhead_det.data.stores import remote
from dyhead_det.data.stores.locate import open_store
from dyhead_det.data.stores.remote import RemoteFolder
from dyhead_det.errors import DatasetError

from conftest import draw_tiny_dataset


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_PAUSES", (0, 0))


@pytest.fixture
def folder(tmp_path):
    """A data set whose images also lie in the archive `all.tar`."""
    folder = draw_tiny_dataset(tmp_path / "tiny")
    with tarfile.open(folder / "all.tar", "w") as archive:
        archive.add(folder / "images", "images")
    return folder


@pytest.fixture
def in_memory(folder):
    """The same in the memory of fsspec."""
    memory = fsspec.filesystem("memory")
    memory.put(str(folder / "images"), "/tiny/images", recursive=True)
    memory.put(str(folder / "all.tar"), "/tiny/all.tar")
    yield "memory://tiny"
    memory.rm("/tiny", recursive=True)


def load(folder, images):
    return load_coco(folder / "train.json", images, split="train")


def pixels(coco, *, num_workers=0):
    options = LoaderOptions(
        num_workers=num_workers,
        prefetch_factor=2,
        persistent_workers=False,
        pin_memory=False,
        broken_images="error",
    )
    batches = build_eval_loader(DetectionDataset(coco), options, batch_size=2)
    return [image.tolist() for batch in batches for image in batch.images]


@pytest.mark.parametrize(
    ("place", "num_workers"), [("images", 1), ("images/", 0), ("all.tar", 1), ("*.tar", 0)]
)
def test_images_in_memory_are_those_of_a_folder_in_workers_too(
    folder, in_memory, place, num_workers
):
    coco = load(folder, f"{in_memory}/{place}")
    require_images(coco)
    assert pixels(coco, num_workers=num_workers) == pixels(load(folder, folder / "images"))


def test_missing_images_and_folders_are_named(folder, in_memory):
    fsspec.filesystem("memory").rm("/tiny/images/2.png")
    coco = load(folder, f"{in_memory}/images")
    with pytest.raises(DatasetError, match=r"are not in memory://tiny/images: 2\.png"):
        require_images(coco)
    missing = DetectionDataset(coco)[0, 0, 2]
    assert missing.reason == "no image file at memory://tiny/images/2.png"
    with pytest.raises(DatasetError, match=r"no images folder at memory://none; check data\.train"):
        require_images(load(folder, "memory://none"))


def test_an_archive_that_was_replaced_is_indexed_anew(in_memory):
    store = open_store(f"{in_memory}/all.tar")
    assert "3.png" in store
    fsspec.filesystem("memory").pipe("/tiny/all.tar", b"x" * 10240)
    with pytest.raises(DatasetError, match=r"memory://tiny/all\.tar is cut off, damaged or no tar"):
        open_store(f"{in_memory}/all.tar")


def test_a_lost_connection_costs_another_try_and_a_broken_one_says_why(in_memory, monkeypatch):
    failures = iter([TimeoutError(), KeyError("token")])

    def fetch(*arguments, fetch_once=remote._fetch_once):
        with remote._explained("memory://tiny"):
            raise next(failures, None) or StopIteration

    monkeypatch.setattr(remote, "_fetch_once", fetch)
    with pytest.raises(DatasetError, match="cannot be read as an image: StopIteration"):
        read_image(RemoteFolder(f"{in_memory}/images").file("0.png"))


def test_a_file_that_is_read_several_times_is_fetched_once(in_memory):
    file = held(RemoteFolder(f"{in_memory}/images").file("0.png"))
    fsspec.filesystem("memory").rm("/tiny/images/0.png")
    assert read_image(file).shape == (3, 64, 64)
    with pytest.raises(DatasetError, match=r"no image file at memory://tiny/images/0\.png"):
        held(RemoteFolder(f"{in_memory}/images").file("0.png"))


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and the part of them that is asked for."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        asked = self.headers.get("Range")
        if asked is None:
            super().do_GET()
            return
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = (int(x) for x in asked.removeprefix("bytes=").split("-"))
        part = content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture
def served(folder):
    """The URL of a server of the folder on this machine."""
    pytest.importorskip("aiohttp")

    def handler(*arguments):
        return RangeHandler(*arguments, directory=str(folder))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("place", ["images", "all.tar"])
def test_images_of_a_web_server_are_those_of_a_folder(folder, served, place):
    coco = load(folder, f"{served}/{place}")
    require_images(coco)
    assert pixels(coco) == pixels(load(folder, folder / "images"))


def test_names_are_no_part_of_an_address(folder, served):
    (folder / "images" / "1.png").rename(folder / "images" / "a#%41 ?.png")
    file = RemoteFolder(f"{served}/images").file("a#%41 ?.png")
    assert read_image(file).shape == (3, 64, 64)
    with pytest.raises(DatasetError, match="has :: in its name"):
        read_image(RemoteFolder(f"{served}/images").file("a::b.png"))


def test_the_query_of_an_address_says_nothing_of_what_is_there(served):
    assert isinstance(open_store(f"{served}/images?signed=a/b.tar"), RemoteFolder)
    assert "1.png" in open_store(f"{served}/all.tar?signed=a/b")


def test_passwords_of_addresses_are_not_shown(in_memory):
    store = RemoteFolder(f"{in_memory}/images?token=secret")
    with pytest.raises(
        DatasetError, match=r"no images folder at memory://tiny/images\?token=\*\*\*"
    ):
        store.missing(["1.png"])
    assert "secret" not in store.title("1.png")


def test_a_connection_that_is_lost_while_an_archive_is_indexed(in_memory, monkeypatch):
    def fetch(*arguments, fetch_once=remote._fetch_once):
        if next(failures, None):
            raise TimeoutError
        return fetch_once(*arguments)

    monkeypatch.setattr(remote, "_fetch_once", fetch)
    failures = iter([1])
    assert "1.png" in open_store(f"{in_memory}/all.tar")
    fsspec.filesystem("memory").pipe("/tiny/all.tar", b"y" * 10240)
    failures = iter([1] * 3)
    with pytest.raises(DatasetError, match=r"memory://tiny/all\.tar cannot be read"):
        open_store(f"{in_memory}/all.tar")


def test_an_image_that_a_web_server_does_not_have_is_named(folder, served):
    (folder / "images" / "1.png").unlink()
    coco = load(folder, f"{served}/images")
    require_images(coco)  # nothing can be listed
    reason = DetectionDataset(coco)[0, 0, 1].reason
    assert reason == f"no image file at {served}/images/1.png"

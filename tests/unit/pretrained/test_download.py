"""Downloads from a server on this machine: resumed, checked, whole or not there."""

import errno
import functools
import hashlib
import http.server
import re
import threading

import pytest
import torch
from typer.testing import CliRunner

from dyhead_det.cli.weights import app
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.pretrained import catalogue as published
from dyhead_det.pretrained import download as download_module
from dyhead_det.pretrained.catalogue import (
    PUBLISHED_MODELS,
    PublishedModel,
    describe_published,
    find_published,
)
from dyhead_det.pretrained.download import download

CONTENT = bytes(range(256)) * 64
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Serves its content as /weights.pth.

    knows_ranges: answer a request for the rest with the rest.
    breaks_after: close the connection after so many bytes.
    requests: the Range header of every request.
    """

    def __init__(self):
        self.content = CONTENT
        self.knows_ranges = True
        self.breaks_after = None
        self.requests = []

    def answer(self, handler):
        asked = handler.headers.get("Range")
        self.requests.append(asked)
        if handler.path != "/weights.pth":
            handler.send_error(404)
            return
        start = 0
        if asked and self.knows_ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(self.content):
                handler.send_error(416)
                return
            handler.send_response(206)
            handler.send_header(
                "Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            )
        else:
            handler.send_response(200)
        backbone = self.content[start:]
        handler.send_header("Content-Length", str(len(backbone)))
        handler.end_headers()
        handler.wfile.write(backbone[: self.breaks_after])


@pytest.fixture
def server():
    server = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        do_GET = lambda self: server.answer(self)  # noqa: E731, N815 - the library's name

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=functools.partial(listener.serve_forever, 0.01))
        thread.start()
        server.url = f"http://127.0.0.1:{listener.server_port}/weights.pth"
        yield server
        listener.shutdown()
        thread.join()


def test_a_file_arrives_and_is_not_fetched_again(server, tmp_path):
    path = download(server.url, tmp_path / "new", sha256_prefix=SHA256[:8])
    assert path == tmp_path / "new" / "weights.pth"
    assert path.read_bytes() == CONTENT
    assert download(server.url, tmp_path / "new", sha256_prefix=SHA256[:8]) == path
    assert server.requests == [None]
    assert list((tmp_path / "new").iterdir()) == [path]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path, knows_ranges):
    server.breaks_after = 5000
    with pytest.raises(CheckpointError, match="run the command again"):
        download(server.url, tmp_path, sha256_prefix=SHA256)
    assert not (tmp_path / "weights.pth").exists()
    server.breaks_after, server.knows_ranges = None, knows_ranges
    path = download(server.url, tmp_path, sha256_prefix=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=5000-"]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT + b"more")
    assert download(server.url, tmp_path, sha256_prefix=SHA256).read_bytes() == CONTENT


def test_a_file_with_another_hash_is_removed(server, tmp_path):
    with pytest.raises(CheckpointError, match=f"should begin with 00000000, it is {SHA256}"):
        download(server.url, tmp_path, sha256_prefix="00000000")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "weights.pth").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="another file"):
        download(server.url, tmp_path, sha256_prefix=SHA256)


def test_a_file_without_a_published_hash_is_taken(server, tmp_path):
    assert download(server.url, tmp_path, sha256_prefix=None).read_bytes() == CONTENT


def test_a_web_page_in_place_of_the_weights_is_removed(server, tmp_path):
    server.content = b"<!DOCTYPE html><html>moved</html>"
    with pytest.raises(CheckpointError, match="looks like a web page; it was removed"):
        download(server.url, tmp_path, sha256_prefix=None)
    assert list(tmp_path.iterdir()) == []


def test_the_command_puts_a_file_where_torch_hub_looks_and_says_what_to_do(
    server, tmp_path, monkeypatch
):
    model = PublishedModel("some_atss", "ATSS", 40.0, "a page", server.url, SHA256[:8])
    monkeypatch.setattr(published, "PUBLISHED_MODELS", (model,))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    server.breaks_after = 5000
    result = CliRunner().invoke(app, ["download", "some_atss"])
    assert isinstance(result.exception, CheckpointError)
    server.breaks_after = None
    result = CliRunner().invoke(app, ["download", "some_atss"])
    path = tmp_path / "hub" / "checkpoints" / "weights.pth"
    assert path.read_bytes() == CONTENT
    assert f"dyhead-det weights import {path} some_atss.pt" in result.output
    assert server.requests == [None, "bytes=5000-"]


def test_an_absent_file_is_one_error(server, tmp_path):
    with pytest.raises(CheckpointError, match=r"404.*or fetch the file elsewhere"):
        download(server.url.replace("weights", "other"), tmp_path, sha256_prefix=None)


def test_a_place_that_takes_no_file_is_refused_before_anything_is_fetched(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file: cannot be written .*; give another .*--folder"):
        download("http://nowhere.invalid/a.pth", tmp_path / "file", sha256_prefix=None)


def test_a_full_disk_is_no_failed_connection(tmp_path, monkeypatch):
    def fail(url, part):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download_module, "_fetch", fail)
    with pytest.raises(OSError, match=r"No space left.*a\.pth\.part"):
        download("http://nowhere.invalid/a.pth", tmp_path, sha256_prefix=None)


def test_the_table_shows_every_model():
    table = describe_published()
    assert len(table.splitlines()) == 1 + len(PUBLISHED_MODELS) == 8
    for model in PUBLISHED_MODELS:
        assert model.name in table
        prefix = model.sha256_prefix
        assert prefix is None or model.file_name.endswith(f"-{prefix}.pth")


def test_an_unknown_name_is_told_with_the_near_one():
    with pytest.raises(ConfigError, match="did you mean 'mmdet_atss_r50'"):
        find_published("mmdet_atss_r5")

"""Weights by name: fetched and imported once, from local files in place of the publishers'."""

import hashlib
from dataclasses import replace

import pytest
import torch

from dyhead_det.config.file import load_config, to_yaml
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.pretrained import named_weights
from dyhead_det.pretrained.catalogue import PUBLISHED_MODELS
from dyhead_det.pretrained.named_weights import TORCHVISION_WEIGHTS, find_weights

from conftest import make_config


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty folder in place of torch.hub's."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The first model of the catalogue, as a file on this machine."""
    file = tmp_path / "theirs.pth"
    file.write_bytes(b"weights")
    digits = hashlib.sha256(b"weights").hexdigest()[:8]
    model = replace(PUBLISHED_MODELS[0], url=file.as_uri(), sha256_prefix=digits)
    monkeypatch.setattr(named_weights, "PUBLISHED_MODELS", (model,))
    return model


@pytest.fixture
def imports(monkeypatch):
    """What was imported, in place of doing it."""
    seen = []

    def note(source, out, *, format):
        seen.append((source.read_bytes(), out.name, format))
        out.write_bytes(b"imported")

    monkeypatch.setattr(named_weights, "import_weights", note)
    return seen


@pytest.mark.parametrize("weights", ["runs/exp/best.pt", "mine.pt", "/some/where/file"])
def test_a_path_is_taken_as_it_is_whether_it_is_there_or_not(weights):
    assert str(find_weights(weights)) == weights


def test_a_file_without_a_suffix_goes_before_a_name(tmp_path, published):
    (tmp_path / published.name).write_bytes(b"mine")
    assert find_weights(published.name).read_bytes() == b"mine"


def test_a_published_model_is_downloaded_and_imported_once(published, imports, cache, tmp_path):
    path = find_weights(published.name)
    assert path == cache / f"{published.name}.pt"
    assert path.read_bytes() == b"imported"
    (tmp_path / "theirs.pth").unlink()
    assert find_weights(published.name) == path
    assert imports == [(b"weights", f"{published.name}.pt", "auto")]


def test_without_a_network_the_commands_to_do_it_by_hand_are_told(published, tmp_path):
    (tmp_path / "theirs.pth").unlink()
    with pytest.raises(CheckpointError) as refused:
        find_weights(published.name)
    message = str(refused.value)
    assert message.startswith("model.weights: cannot download file://")
    assert f"`dyhead-det weights download {published.name}`" in message
    assert f"`dyhead-det weights import FILE {published.name}.pt`" in message


def test_torchvisions_detectors_are_checked_by_the_digits_of_their_names(monkeypatch, cache):
    seen = []
    monkeypatch.setattr(
        named_weights,
        "download",
        lambda url, folder, *, sha256_prefix: seen.append((folder, sha256_prefix)) or cache,
    )
    for name in TORCHVISION_WEIGHTS:
        find_weights(name)
    assert seen == [(cache, "258fb6c6"), (cache, "eeacb38b"), (cache, "99b0c9b7")]


def test_another_name_is_refused_with_the_nearest_one(published):
    with pytest.raises(ConfigError, match="did you mean 'fcos_resnet50_fpn_coco'"):
        find_weights("fcos_resnet50_coco")


def test_the_configuration_keeps_a_name_and_makes_a_path_absolute(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text(to_yaml(make_config(tmp_path)))
    name = PUBLISHED_MODELS[0].name
    assert load_config(base, (f"model.weights={name}",)).model.weights == name
    path = load_config(base, ("model.weights=mine.pt",)).model.weights
    assert path == str(tmp_path / "mine.pt")

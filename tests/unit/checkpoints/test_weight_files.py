"""Files of weights are read for their tensors, and nothing that is in them is run."""

import collections
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dyhead_det.checkpoints.pickled_values import Placeholder
from dyhead_det.checkpoints.weight_files import (
    named_tensors,
    names_without_tensors,
    read_state_dict,
    read_weight_file,
)
from dyhead_det.errors import CheckpointError


class Trap:
    """Its pickle asks for a function to be called."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.fixture
def foreign_module(monkeypatch):
    """A module that exists when a file is written, and is gone when it is read."""
    module = types.ModuleType("foreign_engine")

    class HistoryBuffer:
        def __init__(self):
            self.values = [1, 2]

    class Registry(dict):
        pass

    class Names(list):
        pass

    for each in (HistoryBuffer, Registry, Names):
        each.__module__, each.__qualname__ = "foreign_engine", each.__name__
        setattr(module, each.__name__, each)
    monkeypatch.setitem(sys.modules, "foreign_engine", module)
    return module


@pytest.mark.parametrize("content", [b"PK\x03\x04 cut off", b"\x80\x02", b"\x80\x02us."])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "some.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"some\.pt: damaged"):
        read_weight_file(path)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_truncated_file_is_refused(tmp_path, is_zip):
    path = tmp_path / "whole.pt"
    torch.save({"w": torch.rand(1000)}, path, _use_new_zipfile_serialization=is_zip)
    (tmp_path / "half.pt").write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"half\.pt: damaged"):
        read_weight_file(tmp_path / "half.pt")


def test_an_archive_that_is_cut_short_is_called_so(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"w": torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match=r"x\.pt: damaged.*the file is cut short"):
        read_weight_file(path)


def test_a_file_with_a_wrong_byte_is_refused_by_its_checksum(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"w": torch.full((1000,), 3.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(b"\x00\x00\x40\x40" * 8) + 2] ^= 1  # 3.0, little endian
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged.*CRC"):
        read_weight_file(path)


def test_a_damaged_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=r"w\.safetensors: damaged"):
        read_state_dict(path)


def test_a_file_without_tensors_is_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"epoch": 3}, path)
    with pytest.raises(CheckpointError, match="no named tensors; its keys are epoch"):
        read_state_dict(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds no named tensors; it is a list"):
        read_state_dict(path)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int8, torch.bool])
def test_tensors_are_read_as_pytorch_reads_them(tmp_path, is_zip, dtype):
    whole = torch.arange(24).view(2, 3, 4).to(dtype)
    content = {
        "a": whole,
        "turned": whole.permute(2, 0, 1),
        "slice": whole[1, 1:, ::2],
        "empty": whole[:0],
        "number": whole[0, 0, 1],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "last": whole.clone().unsqueeze(0).to(memory_format=torch.channels_last),
        "nested": [{"x": (1, whole)}],
    }
    path = tmp_path / "x.pt"
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    read, expected = read_weight_file(path), torch.load(path, weights_only=True)
    assert read.keys() == expected.keys()
    for name in content.keys() - {"nested"}:
        assert torch.equal(read[name], expected[name])
        assert read[name].stride() == expected[name].stride()
        assert read[name].dtype == expected[name].dtype
    assert torch.equal(read["nested"][0]["x"][1], whole)
    assert read["a"].data_ptr() == read["nested"][0]["x"][1].data_ptr()  # as it was


@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_come_out_beside_objects_of_absent_programs(
    tmp_path, foreign_module, monkeypatch, is_zip
):
    names = foreign_module.Names()
    names.append("cat")
    content = {
        "meta": {"names": names, "registry": foreign_module.Registry(a=1), "epoch": 12},
        "message_hub": {"loss": foreign_module.HistoryBuffer(), "scores": np.arange(3)},
        "state_dict": collections.OrderedDict(
            [("module.a", torch.arange(6.0).view(2, 3).t()), ("b", torch.ones(2).half())]
        ),
    }
    path = tmp_path / "x.pth"
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    monkeypatch.delitem(sys.modules, "foreign_engine")
    read = read_weight_file(path)
    assert isinstance(read["message_hub"]["loss"], Placeholder)
    assert isinstance(read["meta"]["names"], Placeholder)
    assert read["meta"]["epoch"] == 12
    tensors = named_tensors(read)
    assert tensors.keys() == {"a", "b"}
    assert names_without_tensors(read) == ["meta", "message_hub"]
    assert torch.equal(tensors["a"], content["state_dict"]["module.a"])
    assert tensors["b"].dtype == torch.float16


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_code_in_a_file_is_not_run(tmp_path, suffix):
    marker = tmp_path / "ran"
    content = {
        "model": {"a": torch.ones(1) if suffix == ".pth" else np.ones(1)},
        "trap": Trap(exec, f"open({str(marker)!r}, 'w')"),
        "other": Trap(getattr, {}, "clear"),
    }
    path = tmp_path / f"x{suffix}"
    if suffix == ".pth":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    read = read_weight_file(path)
    assert not marker.exists()
    assert isinstance(read["trap"], Placeholder)
    assert named_tensors(read)["a"].tolist() == [1]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_of_arrays_is_read(tmp_path, protocol):
    square = np.arange(4, dtype=np.float32).reshape(2, 2)
    arrays = {"a": square, "a_transposed": square.T, "name": "x", "b": np.array(3)}
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, protocol=protocol))
    read = read_weight_file(path)
    tensors = named_tensors(read)
    assert tensors.keys() == {"a", "a_transposed", "b"}
    assert names_without_tensors(read) == ["__author__", "name"]
    assert torch.equal(tensors["a"], torch.arange(4.0).view(2, 2))
    assert torch.equal(tensors["a_transposed"], tensors["a"].t())


def test_a_torch_file_may_be_called_pkl(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pkl")
    assert named_tensors(read_weight_file(tmp_path / "x.pkl")).keys() == {"a"}


def test_safetensors_are_read(tmp_path):
    save_file({"module.a": torch.ones(2)}, tmp_path / "x.safetensors")
    assert named_tensors(read_weight_file(tmp_path / "x.safetensors")).keys() == {"a"}


def write_torchscript(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/constants.pkl", b"")
        archive.writestr("x/data.pkl", pickle.dumps({}))


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: path.write_bytes(b""), "looks like an empty file"),
        (lambda path: path.write_bytes(b"\n<!DOCTYPE html><html>"), "looks like a web page"),
        (lambda path: path.write_bytes(b"version https://git-lfs.git"), "pointer of git-lfs"),
        (lambda path: Image.new("RGB", (8, 8)).save(path, "JPEG"), "looks like a picture"),
        (lambda path: Image.new("RGB", (8, 8)).save(path, "PNG"), "looks like a picture"),
        (lambda path: path.write_bytes(b"not a pickle"), "no PyTorch file"),
        (lambda path: path.write_bytes(pickle.dumps(Trap(bytes, "x", "hex"))[:-3]), "damaged"),
        (lambda path: path.write_bytes(b"PK\x03\x04 broken"), "damaged"),
        (write_torchscript, "a TorchScript program"),
        (lambda path: None, "cannot read"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, write, reason):
    write(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=reason):
        read_weight_file(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [None, 3, [1], {}, {"model": {}}, {"a": "text"}])
def test_what_is_no_state_dict_has_no_tensors(content):
    assert named_tensors(content) == {}

"""Files of weights: what is read, and that nothing in them is ever executed."""

import pickle

import pytest
import torch

from dyhead_det.checkpoints.state_dicts import load_into, read_state_dict, read_torch_file
from dyhead_det.errors import CheckpointError


class Malice:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o, 2))])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, save):
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    save({"model": Malice(trace)}, path)
    with pytest.raises(CheckpointError, match="refused"):
        read_torch_file(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"PK\x03\x04 cut off", b"\x80\x02", b"\x80\x02us."])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "some.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"some\.pt: (damaged|refused)"):
        read_torch_file(path)


@pytest.mark.parametrize("content", [b"", b"seed: 0\ndata: {root: x}\n", b'{"a": 1}'])
def test_a_file_that_is_none_of_pytorch_is_said_to_be_none(tmp_path, content):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"run\.yaml: no PyTorch file; .* best\.pt"):
        read_torch_file(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "whole.pt"
    torch.save({"w": torch.rand(1000)}, path)
    (tmp_path / "half.pt").write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"half\.pt: damaged"):
        read_torch_file(tmp_path / "half.pt")


def test_a_damaged_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot read as safetensors"):
        read_state_dict(path)


def test_a_file_without_tensors_is_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"epoch": 3}, path)
    with pytest.raises(CheckpointError, match="no named tensors; its keys are epoch"):
        read_state_dict(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds no named tensors but a list"):
        read_state_dict(path)


def test_loading_accounts_for_every_key():
    module = torch.nn.Linear(2, 3)
    report = load_into(
        module,
        {"weight": torch.ones(3, 2), "extra": torch.zeros(1), "head.w": torch.zeros(1)},
        source="test",
        ignored=("head.",),
    )
    assert report.loaded == ("weight",)
    assert report.missing == ("bias",)
    assert report.unexpected == ("extra",)
    assert torch.equal(module.weight, torch.ones(3, 2))

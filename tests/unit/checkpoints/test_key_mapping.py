"""Key mappings and their report; what is said about a file of another kind."""

import pytest
import torch
from torch import nn

from dyhead_det.checkpoints.key_mapping import KeyMapping, Rule, UnmappedKey, matches, translate
from dyhead_det.errors import CheckpointError
from dyhead_det.pretrained.importing import import_weights

MAPPING = KeyMapping(
    rules=[
        Rule("block*.conv.%", "stages.*.%"),
        Rule("scales.*.scale", "scales[*]"),
        Rule("head.weight", "head.weight", lambda weight: weight.flip(0)),
    ],
    dropped=[UnmappedKey("pixel_mean", "part of the configuration")],
    filled=[UnmappedKey("stages.*.bias", "the original has none", value=0.0)],
)
TENSORS = {
    "block0.conv.weight": torch.ones(2, 2),
    "block1.conv.weight": torch.full((2, 2), 2.0),
    "scales.1.scale": torch.tensor([7.0]),
    "scales.0.scale": torch.tensor([5.0]),
    "head.weight": torch.tensor([1.0, 2.0]).half(),
    "pixel_mean": torch.zeros(3),
}
WANTED = {
    "stages.0.weight": torch.zeros(2, 2),
    "stages.0.bias": torch.ones(2),
    "stages.1.weight": torch.zeros(2, 2),
    "stages.1.bias": torch.ones(2),
    "scales": torch.zeros(2),
    "head.weight": torch.zeros(2),
}


def test_every_key_of_both_sides_is_accounted_for():
    state, report = translate(TENSORS, MAPPING, wanted=WANTED, source="x.pth")
    assert set(report.mapped) | set(report.dropped) == set(TENSORS)
    assert state.keys() == WANTED.keys()
    assert report.dropped == {"pixel_mean": "part of the configuration"}
    assert report.filled == {f"stages.{index}.bias": "the original has none" for index in (0, 1)}
    assert state["scales"].tolist() == [5, 7]
    assert state["head.weight"].tolist() == [2, 1]
    assert state["head.weight"].dtype == torch.float32
    assert state["stages.1.weight"].unique().tolist() == [2]
    assert state["stages.0.bias"].tolist() == [0, 0]
    assert str(report) == (
        "5 tensors imported\n1 left out: pixel_mean (part of the configuration)\n"
        "2 not from the file: stages.*.bias (the original has none)"
    )


def test_all_misfits_are_told_at_once():
    tensors = {
        **TENSORS,
        "block2.conv.weight": torch.ones(2, 2),
        "extra": torch.ones(1),
        "head.weight": torch.ones(3),
    }
    del tensors["block0.conv.weight"]
    with pytest.raises(CheckpointError) as error:
        translate(tensors, MAPPING, wanted=WANTED, source="x.pth")
    message = str(error.value)
    assert "x.pth: 4 tensors do not fit" in message
    assert "extra is unknown" in message
    assert "stages.0.weight is missing" in message
    assert "stages.2.weight has no place in the model" in message
    assert "head.weight has shape (3,) instead of (2,)" in message


@pytest.mark.parametrize(
    ("pattern", "name", "groups"),
    [
        ("res2.*.conv*.norm.%", "res2.0.conv3.norm.running_var", ("0", "3", "running_var")),
        ("res2.*.conv*.%", "res2.0.conv3.norm.weight", None),
        ("a.*", "a.x", None),
        ("a+b", "a+b", ()),
    ],
)
def test_a_star_is_a_number_and_a_percent_sign_one_word(pattern, name, groups):
    match = matches(pattern, name)
    assert groups == (match and match.groups())


def test_a_wrong_file_is_one_clear_error(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pth")
    with pytest.raises(CheckpointError, match="looks like the state of an optimizer"):
        import_weights(tmp_path / "optimizer.pth", tmp_path / "out.pt", format="auto")
    torch.save({"format": "dyhead-det"}, tmp_path / "ours.pt")
    with pytest.raises(CheckpointError, match="a checkpoint of dyhead-det already"):
        import_weights(tmp_path / "ours.pt", tmp_path / "out.pt", format="detectron2")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match=r"format of mmdet; .* a list"):
        import_weights(tmp_path / "list.pt", tmp_path / "out.pt", format="mmdet")
    assert not (tmp_path / "out.pt").exists()

"""Checkpoints that strangers wrote: a checkpoint comes out, or an error of ours in one line."""

import io
import pickle
import unicodedata
from contextlib import suppress

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from dyhead_det.checkpoints.checkpoint import Checkpoint, parse_checkpoint
from dyhead_det.checkpoints.consistency import require_consistent
from dyhead_det.checkpoints.weight_files import named_tensors, read_weight_file
from dyhead_det.config.schema import to_plain
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import CheckpointError

from conftest import make_config


def whole_content() -> dict:
    """Return what a file holds whose shapes agree with its configuration."""
    config = make_config(model={"detector": {"name": "atss"}})
    return {
        "format": "dyhead-det",
        "version": 2,
        "config": to_plain(config),
        "categories": CategoryMap((Category("cat", 17), Category("dog", 3))).to_plain(),
        "model": {
            "network.backbone.fpn.layer_blocks.0.0.weight": torch.zeros(16, 1),
            "network.backbone.dyhead.blocks.0.x": torch.zeros(1),
            "network.head.cls_logits.weight": torch.zeros(2, 1),
        },
        "step": 3,
        "metrics": {"AP": 0.5, "APs": None},
        "training": {"best": {}},
    }


tensors = st.sampled_from(
    [
        torch.zeros(0),
        torch.tensor(float("nan")),
        torch.full((2,), float("inf"), dtype=torch.float16),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(2, dtype=torch.bool),
        torch.zeros(2, 1, dtype=torch.int64),
    ]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=6)
    | st.binary(max_size=4)
    | st.just("\ud800")
    | tensors
    | st.builds(object)
)
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=4) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def mutated(draw) -> object:
    """Put anything in the place of one or two parts of a whole checkpoint."""
    content = whole_content()
    for _ in range(draw(st.integers(1, 2))):
        container: object = content
        while True:
            positions = range(len(container)) if isinstance(container, list) else list(container)
            key = draw(st.sampled_from(list(positions)))
            inner = container[key]
            if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
                break
            container = inner
        if isinstance(container, dict) and len(container) > 1 and draw(st.integers(0, 3)) == 0:
            del container[key]
        else:
            container[key] = draw(anything)
    return content


def parse(content: object) -> Checkpoint | None:
    problem = None
    try:
        return parse_checkpoint(content, source="x.pt")
    except CheckpointError as error:
        problem = str(error)
    assert_shown_well(problem)
    return None


def assert_shown_well(line: str) -> None:
    assert line.startswith("x.pt: ")
    assert len(line) < 1000
    assert not {unicodedata.category(character) for character in line} & {"Cc", "Cs", "Zl", "Zp"}


def test_the_content_that_is_mutated_is_whole():
    checkpoint = parse(whole_content())
    assert checkpoint is not None
    require_consistent(checkpoint, source="x.pt")


@given(content=mutated() | anything)
@example(content={"format": "dyhead-det"})
@example(content=whole_content() | {"version": True})
@example(content=whole_content() | {"version": 10**30})
@example(content=whole_content() | {"version": 1, "config": {"model": []}})
@example(content=whole_content() | {"step": -1})
@example(content=whole_content() | {"categories": [{"name": "a", "dataset_id": 1, "label": 5}]})
@example(content=whole_content() | {"categories": []})
@example(content=whole_content() | {"metrics": {"AP": "0.5"}})
@example(content=whole_content() | {"model": {1: torch.zeros(1)}})
def test_a_mutated_checkpoint_is_read_field_by_field(content):
    checkpoint = parse(content)
    if checkpoint is None:
        return
    assert all(isinstance(value, torch.Tensor) for value in checkpoint.model.values())
    assert isinstance(checkpoint.step, int)
    assert len(checkpoint.categories.label_of_dataset_id) <= len(checkpoint.categories)
    with suppress(CheckpointError):
        require_consistent(checkpoint, source="x.pt")


def saved(is_zip: bool) -> bytes:
    buffer = io.BytesIO()
    content = {"model": {"w": torch.arange(6.0).view(2, 3)}, "epoch": 3}
    torch.save(content, buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()


FILES = [saved(True), saved(False), pickle.dumps({"w": [1, 2.0, "x", None, (b"y", {3: 4})]}, 2)]


@given(
    file=st.sampled_from(FILES),
    changes=st.lists(
        st.tuples(st.floats(0, 1), st.binary(min_size=0, max_size=6), st.integers(0, 6)),
        min_size=1,
        max_size=4,
    ),
)
def test_a_file_with_any_wrong_bytes_is_read_or_refused(file, changes, tmp_path_factory):
    for place, piece, length in changes:
        start = round(place * len(file))
        file = file[:start] + piece + file[start + length :]
    path = tmp_path_factory.getbasetemp() / "mutated.pkl"
    path.write_bytes(file)
    found = {}
    with suppress(CheckpointError):
        found = named_tensors(read_weight_file(path))
    assert sum(value.numel() for value in found.values()) <= len(file)

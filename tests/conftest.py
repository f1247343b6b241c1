"""Fixtures for all tests: fixed seeds, small models, small data sets, the real photographs."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image, ImageDraw

from dyhead_det.config.schema import RunConfig, parse_config

# Property tests: 300 examples, the same in every run; `make test-all` takes thousands of new ones.
_FREELY = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("usual", max_examples=300, derandomize=True, database=None, **_FREELY)
settings.register_profile("thorough", max_examples=2500, print_blob=True, **_FREELY)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "usual"))

# One section per detector, small enough for pictures of 64 pixels.
SMALL_DETECTORS = {
    "fasterrcnn": {
        "name": "fasterrcnn",
        "anchor_sizes": [[8], [16], [32], [64], [128]],
        "rpn_batch_size_per_image": 32,
        "box_batch_size_per_image": 8,
        "box_head_channels": 32,
        "rpn_post_nms_top_n_train": 50,
        "rpn_post_nms_top_n_test": 50,
    },
    "retinanet": {"name": "retinanet", "anchor_sizes": [[8], [16], [32], [64], [128]]},
    "fcos": {"name": "fcos"},
    "atss": {"name": "atss"},
}

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure():
    """Let programs under test meet signals as in a terminal: `nohup` and `&` ignore some."""
    for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The CPU and, in `pytest -m gpu`, a GPU that rounds float32 as a CPU does."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("there is no CUDA device")
        for switches in (torch.backends.cuda.matmul, torch.backends.cudnn):
            monkeypatch.setattr(switches, "allow_tf32", False)
    return torch.device(request.param)


@contextmanager
def deterministic_on(device: torch.device) -> Iterator[None]:
    """Do what `runtime.deterministic` does for a GPU; a CPU has equal bits without it."""
    torch.use_deterministic_algorithms(device.type != "cpu", warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.fixture
def equal_bits(device: torch.device) -> Iterator[None]:
    """Equal inputs have to give equal bits."""
    with deterministic_on(device):
        yield


@pytest.fixture
def on_device(device: torch.device) -> Iterator[torch.device]:
    """Let every tensor and module that a test makes lie on the device."""
    with nullcontext() if device.type == "cpu" else device:
        yield device


@pytest.fixture
def real_data() -> Path:
    """The folder of real photographs; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real photographs are not here")
    return REAL_DATA


def make_config(root: Path | str = ".", **sections) -> RunConfig:
    """Return the configuration of a run that takes seconds; sections are merged into it."""
    plain = {
        "data": {
            "root": str(root),
            "train": {"annotations": "train.json", "images": "images"},
            "val": {"annotations": "train.json", "images": "images"},
            "num_workers": 0,
        },
        "model": {
            "detector": {
                "name": "fasterrcnn",
                "anchor_sizes": [[8], [16], [32], [64], [128]],
                "box_head_channels": 32,
                "rpn_post_nms_top_n_train": 50,
                "rpn_post_nms_top_n_test": 50,
            },
            "backbone": {"name": "timm/test_resnet", "weights": "none", "norm": "normal"},
            "channels": 16,
            "dyhead": {"num_blocks": 1},
            "input": {"short_edge": 64, "long_edge": 64},
        },
        "optim": {"name": "adamw", "lr": 1e-3},
        "schedule": {"name": "cosine", "warmup_steps": 2},
        "train": {"steps": 6, "batch_size": 2, "log_every_steps": 2},
    }
    for name, section in sections.items():
        _merge(plain, name, section)
    return parse_config(plain)


def _merge(into: dict, key: str, value: object) -> None:
    replaces_variant = isinstance(value, dict) and "name" in value
    if isinstance(value, dict) and isinstance(into.get(key), dict) and not replaces_variant:
        for inner, inner_value in value.items():
            _merge(into[key], inner, inner_value)
    else:
        into[key] = value


def draw_tiny_dataset(folder: Path, *, num_images: int = 4) -> Path:
    """Draw black pictures of 64 pixels with one white square each, in COCO format."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for index in range(num_images):
        x, y, side = 6 * index + 2, 30 - 6 * index, 20
        picture = Image.new("RGB", (64, 64))
        ImageDraw.Draw(picture).rectangle((x, y, x + side - 1, y + side - 1), fill="white")
        picture.save(folder / "images" / f"{index}.png")
        images.append({"id": index + 10, "file_name": f"{index}.png", "width": 64, "height": 64})
        annotations.append(
            {
                "id": index + 1,
                "image_id": index + 10,
                "category_id": 7,
                "bbox": [x, y, side, side],
                "area": side * side,
                "iscrowd": 0,
            }
        )
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "square"}, {"id": 11, "name": "circle"}],
    }
    (folder / "train.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def tiny_dataset(tmp_path) -> Path:
    return draw_tiny_dataset(tmp_path / "tiny")


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """What runs of the program can be disturbed in: see tests/faults."""
    from program import built_project  # only tests in that folder find it

    with built_project(tmp_path_factory.mktemp("project")) as project:
        yield project


@pytest.fixture(scope="session")
def undisturbed(project, tmp_path_factory) -> Path:
    """The folder of a run that nothing befell."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert project.train(out).code == 0
    return out

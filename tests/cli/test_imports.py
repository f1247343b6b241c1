"""What the program does not import: that is what makes it start quickly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dyhead_det.checkpoints.checkpoint import Checkpoint, save_checkpoint
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.models.detectors import build_detector

from conftest import make_config

ROOT = Path(__file__).parents[2]

RUN = """
import sys
from dyhead_det.cli.app import main
sys.argv = ["dyhead-det", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
REFUSE = """
imported = {modules!r} & set(sys.modules)
assert not imported, imported
"""


def run_python(code, cwd):
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def checkpoint(tiny_dataset, tmp_path):
    config = make_config(tiny_dataset, model={"backbone": {"name": "resnet18", "weights": "none"}})
    detector = build_detector(config.model, num_classes=2, load_backbone_weights=False)
    categories = CategoryMap((Category("square", 7), Category("circle", 11)))
    path = tmp_path / "tiny.pt"
    save_checkpoint(path, Checkpoint(config, categories, detector.state_dict(), 0, {}))
    return path


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["train"],
        ["eval"],
        ["predict"],
        ["explain"],
        ["export"],
        ["benchmark"],
        ["info"],
        ["data"],
        ["weights"],
    ],
)
def test_help_imports_nothing_heavy(command, tmp_path):
    heavy = {"torch", "torchvision", "matplotlib", "pycocotools", "numpy", "PIL"}
    code = RUN.format(arguments=[*command, "--help"]) + REFUSE.format(modules=heavy)
    assert "Usage" in run_python(code, tmp_path)


def test_the_package_imports_nothing_heavy(tmp_path):
    run_python("import sys, dyhead_det" + REFUSE.format(modules={"torch", "numpy"}), tmp_path)


def test_predict_imports_neither_compiler_nor_plots_nor_evaluators(checkpoint, tmp_path):
    spared = {"torch._dynamo", "triton", "sympy", "matplotlib", "pycocotools", "faster_coco_eval"}
    code = RUN.format(arguments=["predict", str(checkpoint), "tiny/images/0.png"])
    assert "1 images" in run_python(code + REFUSE.format(modules=spared), tmp_path)


def test_eval_imports_neither_compiler_nor_the_other_evaluator_nor_plots_without_its_report(
    checkpoint, tmp_path
):
    spared = {"torch._dynamo", "sympy", "matplotlib", "pycocotools"}
    arguments = ["eval", str(checkpoint), "--backend", "faster-coco-eval", "--no-report"]
    code = RUN.format(arguments=arguments)
    assert "AP50" in run_python(code + REFUSE.format(modules=spared), tmp_path)


def test_the_compiler_is_there_when_somebody_asks(tmp_path):
    run_python(
        """
import gc, sys
from dyhead_det.cli.quick_imports import quick_imports
with quick_imports():
    from torchvision.ops import roi_align
assert gc.isenabled()
assert "torch._dynamo" not in sys.modules
assert "torch._dynamo.utils" not in sys.modules
ask = roi_align.__globals__["is_compile_supported"]
is_supported = ask("cpu")
import torch._dynamo.utils
assert ask is not torch._dynamo.utils.is_compile_supported
assert is_supported == torch._dynamo.utils.is_compile_supported("cpu")
""",
        tmp_path,
    )


def test_a_torchvision_that_wants_more_of_the_compiler_gets_it(tmp_path):
    run_python(
        """
import sys
from dyhead_det.cli.quick_imports import _CompilerWhenAsked
import torch
sys.modules["torch._dynamo.utils"] = _CompilerWhenAsked("torch._dynamo.utils")
from torch._dynamo.utils import counters
import torch._dynamo.utils
assert torch._dynamo.utils.counters is counters
assert not isinstance(sys.modules["torch._dynamo.utils"], _CompilerWhenAsked)
""",
        tmp_path,
    )

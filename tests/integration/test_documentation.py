"""What README and documentation show runs: every example in Python, every command's options."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml
from PIL import Image
from typer.testing import CliRunner

from dyhead_det import load
from dyhead_det.checkpoints.checkpoint import Checkpoint, save_checkpoint
from dyhead_det.cli.app import app
from dyhead_det.config.schema import to_plain
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.export.backbone import export_backbone
from dyhead_det.export.export import export
from dyhead_det.export.options import ExportOptions
from dyhead_det.models.detectors import build_detector

from conftest import draw_tiny_dataset, make_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))
NOT_RUN = "<!-- not run: "  # in the line above a block, with the reason


def blocks_of(page: Path, *languages: str) -> list[str]:
    """Return the fenced blocks of a page in these languages, but those that say why not."""
    pattern = rf"(?P<above>[^\n]*)\n```(?:{'|'.join(languages)})\n(?P<block>.*?)\n```"
    found = re.finditer(pattern, page.read_text(encoding="utf-8"), re.DOTALL)
    return [match["block"] for match in found if not match["above"].startswith(NOT_RUN)]


def pages_with(*languages: str) -> list:
    return [pytest.param(page, id=page.stem) for page in PAGES if blocks_of(page, *languages)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with what the examples read: a checkpoint, its export, photographs, data."""
    folder = tmp_path_factory.mktemp("desk")
    draw_tiny_dataset(folder / "mydata")
    torch.manual_seed(0)
    config = make_config(folder / "mydata")
    (folder / "mine.yaml").write_text(yaml.safe_dump(to_plain(config)))
    detector = build_detector(config.model, num_classes=2, load_backbone_weights=False)
    categories = CategoryMap((Category("square", 7), Category("circle", 11)))
    checkpoint = Checkpoint(config, categories, detector.state_dict(), 0, {})
    save_checkpoint(folder / "best.pt", checkpoint)
    pixels = np.random.default_rng(0).integers(0, 255, (72, 96, 3), dtype=np.uint8)
    for name in ("img.jpg", "photo.jpg"):
        Image.fromarray(pixels).save(folder / name)
    with contextlib.chdir(folder):
        arguments = ["predict", "best.pt", "img.jpg", "photo.jpg", "--out", "found"]
        result = CliRunner().invoke(app, [*arguments, "--min-score", "0.1"])
    assert result.exit_code == 0, result.output
    pytest.importorskip("onnxruntime")
    export(
        folder / "best.pt",
        folder / "model.onnx",
        ExportOptions(),
        check_image=folder / "photo.jpg",
    )
    # Without DyHead, for recording takes its time.
    plain = make_config(folder / "mydata", model={"dyhead": None})
    detector = build_detector(plain.model, num_classes=2, load_backbone_weights=False)
    save_checkpoint(
        folder / "plain.pt", Checkpoint(plain, categories, detector.state_dict(), 0, {})
    )
    export_backbone(folder / "plain.pt", folder / "backbone.pt2", ExportOptions())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("python"))
def test_the_examples_of_a_page_run_one_after_the_other(page, desk, monkeypatch):
    monkeypatch.chdir(desk)
    names: dict[str, object] = {"__name__": "example"}
    for number, block in enumerate(blocks_of(page, "python"), start=1):
        exec(compile(block, f"{page.name}, example {number}", "exec"), names)


@pytest.mark.slow
def test_the_script_without_this_package_finds_what_predict_finds(desk):
    (script,) = (b for b in blocks_of(ROOT / "docs" / "export.md", "python") if "MIN_SCORE" in b)
    assert len([line for line in script.splitlines() if line]) <= 30
    # The detector of these tests is fresh: what it finds is weak.
    program = script.replace("0.3", "0.0") + "\nimport sys\nsys.exit('torch' in sys.modules)\n"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=desk,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = json.loads(result.stdout)
    expected = list(load(desk / "best.pt").predict(desk / "photo.jpg", min_score=0))
    assert len(found) == len(expected) > 0
    assert [name for name, _, _ in found] == [each.name for each in expected]
    for (_, score, box), each in zip(found, expected, strict=True):
        assert score == pytest.approx(each.score, abs=1e-5)
        assert box == pytest.approx(each.box, abs=0.01)


def options_of(words: list[str]) -> tuple[str, set[str], set[str]]:
    """Return the command's path, the options that a line gives, and those that the command has."""
    command, path = typer.main.get_command(app), ["dyhead-det"]
    words = list(words)
    while words and words[0] in getattr(command, "commands", {}):
        path.append(words.pop(0))
        command = command.commands[path[-1]]
    known = {name for parameter in command.params for name in parameter.opts}
    return " ".join(path), {word for word in words if re.match(r"--[a-z]", word)}, known


@pytest.mark.parametrize("page", pages_with("sh", ""))
def test_every_command_of_a_page_is_one_that_exists(page):
    lines = "\n".join(blocks_of(page, "sh", "")).replace("\\\n", " ").splitlines()
    commands = [line for line in lines if re.search(r"(?:^|\s)(dyhead-det|dyhead_det) ", line)]
    for line in commands:
        call = re.split(r"(?:^|\s)(?:dyhead-det|dyhead_det) ", line, maxsplit=1)[1]
        path, given, known = options_of(shlex.split(call, comments=True))
        assert path != "dyhead-det", line
        assert {option.split("=")[0] for option in given} <= known | {"--help"}, line


def test_configurations_that_pages_name_are_shipped():
    shipped = {path.stem for path in (ROOT / "configs").rglob("*.yaml")}
    for page in PAGES:
        for name in re.findall(r"config copy (\w+)", page.read_text(encoding="utf-8")):
            assert name in shipped, f"{page.name} names {name}"


RUN_NOTEBOOK = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=500, kernel_name="python3").execute()
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_the_first_cell_to_the_last(path, tmp_path):
    pytest.importorskip("nbclient")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MPLBACKEND": "agg"}
    result = subprocess.run(
        [sys.executable, "-c", RUN_NOTEBOOK, str(path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]


def test_the_notebook_has_no_leftover_of_a_machine():
    for path in NOTEBOOKS:
        text = json.dumps(json.loads(path.read_text(encoding="utf-8")))
        assert "/home/" not in text
        assert "/tmp/" not in text

"""The shape of the code: who imports whom, who may speak, and what the configurations promise."""

import ast
from pathlib import Path

import pytest

from dyhead_det.config.file import load_config, to_yaml

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "dyhead_det"
FILES = sorted(SOURCE.rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))

# A part imports itself and parts of lower rank; parts of one rank do not know each other.
RANKS = {
    "errors": 0,  # every error, with its exit code
    "contracts": 0,  # target, prediction, category map
    "escaping": 0,  # text from outside made harmless for terminal, Markdown, CSV, HTML
    "tables": 0,  # rows of cells as text and as Markdown
    "files": 0,  # files written whole or not at all
    "config": 1,  # a run as typed sections; YAML in and out
    "distributed": 1,  # processes and devices
    "ops": 1,  # operators with torchvision's meaning; ops/gather computes them fast
    "visualize": 1,  # pictures with boxes; plots
    "dyhead": 2,  # Dynamic Head itself
    "data": 2,  # annotation files and images to batches
    "checkpoints": 2,  # every file of weights, read without running code
    "evaluation": 2,  # predictions to numbers
    "models": 3,  # config to detector
    "pretrained": 4,  # other people's weights to start from
    "reporting": 4,  # what a run tells people
    "prediction": 4,  # a checkpoint at work
    "inspection": 5,  # a data set looked at before training
    "training": 5,  # the loop and its state
    "export": 5,  # a checkpoint as an ONNX file, its backbone as a file of torch.export
    "explain": 5,  # what DyHead looked at in an image
    "benchmark": 5,  # how fast a checkpoint and the files made from it are
    "cli": 6,  # argv to one call
}
# What a part may import beyond the rule of ranks, and what it may not although its rank allows it.
MAY_KNOW = {("files", "errors"), ("tables", "escaping"), ("tables", "files")}
MAY_NOT_KNOW = {
    ("dyhead", "config"),  # no config enters an nn.Module
    ("models", "data"),
    ("models", "visualize"),
    ("training", "prediction"),
    ("export", "training"),
}


def part_of(module: str) -> str:
    return module.split(".")[1]


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
    return modules


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_one_way(path):
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    for module in imports_of(path):
        if not module.startswith("dyhead_det.") or part_of(module) == own:
            continue
        part = part_of(module)
        if (own, part) in MAY_KNOW:
            continue
        assert RANKS[part] < RANKS[own], f"{own} imports {module}"
        assert (own, part) not in MAY_NOT_KNOW, f"{own} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_library_code_has_no_print_no_assert_no_bare_except_and_no_relative_import(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Assert), f"assert in line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"print in line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_file_says_its_idea(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_are_read_and_round_trip(path, tmp_path):
    config = load_config(path)
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(config))
    assert load_config(again) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_say_how_to_run_them(path):
    header = path.read_text(encoding="utf-8").split("\n\n", 1)[0]
    assert header.startswith("# ")
    assert f"configs/{path.name}" in path.read_text(encoding="utf-8").split("\nseed:")[0]

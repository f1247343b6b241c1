"""The shape of the code: who imports whom, who may speak, and what the configurations promise."""

import ast
from pathlib import Path

import pytest

from dyhead_det.config_file import load_config, to_yaml

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "dyhead_det"
FILES = sorted(SOURCE.rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))

# A part imports itself and parts of lower rank; parts of one rank do not know each other.
RANKS = {
    "errors": 0,
    "contracts": 0,
    "files": 0,
    "config": 1,
    "config_file": 2,
    "layers": 3,
    "data": 3,
    "visualize": 3,
    "models": 4,
    "engine": 5,
    "cli": 6,
}
MAY_NOT_KNOW = {("models", "data"), ("models", "visualize")}


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

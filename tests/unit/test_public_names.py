"""What `import dyhead_det` offers: these names and no others, each of them real."""

import ast
import inspect
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import dyhead_det

NAMES = [
    "DyHead",
    "DyHeadBackbone",
    "StackedDyHead",
    "add_dyhead",
    "build_detector",
    "evaluate",
    "load",
    "train",
]


def test_the_public_names_are_the_intended_ones():
    assert [name for name in dyhead_det.__all__ if name != "__version__"] == NAMES
    assert dir(dyhead_det) == sorted(dyhead_det.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_documented_and_typed(name):
    value = getattr(dyhead_det, name)
    assert inspect.getdoc(value)
    function = value.__init__ if inspect.isclass(value) else value
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    assert all(p.annotation is not p.empty for p in parameters)


def test_type_checkers_see_the_same_names():
    """The imports for type checkers and the table for Python say the same."""
    tree = ast.parse(Path(dyhead_det.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("dyhead_det.")
        for alias in node.names
    }
    assert seen == dyhead_det._DEFINED_IN


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Dyhead'"):
        _ = dyhead_det.Dyhead


def test_help_lists_the_names():
    text = pydoc.plain(pydoc.render_doc(dyhead_det))
    assert all(name in text for name in NAMES)


def test_importing_the_package_imports_no_torch():
    code = "import sys, dyhead_det; dir(dyhead_det); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

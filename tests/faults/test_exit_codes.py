"""Every command's exit codes are those of the documentation's table."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def meanings():
    """Return the table `code | meaning` by code."""
    page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    table = page.partition("code | meaning |")[2]
    rows = re.findall(r"^\| ([\d, ]+) \| (.*) \|$", table.partition("\n\n")[0], flags=re.MULTILINE)
    return {int(code): meaning for codes, meaning in rows for code in codes.split(",")}


MEANINGS = meanings()

STEP = {"number": 2}
# Code, what the documentation says of it, arguments (see `places`), fault and its options.
ENDS = [
    (0, "done", "info BEST", None, {}),
    (0, "done", "data check DATA/train.json --images DATA/images", None, {}),
    (0, "done", "weights list", None, {}),
    (1, "anything not named", "train CONFIG --out OUT", "program_wrong", STEP),
    (2, "usage", "nonsense", None, {}),
    (2, "usage", "predict BEST DATA/images --min-score nan", None, {}),
    (2, "usage", "predict BEST DATA/images --batch-size 0", None, {}),
    (2, "usage", "eval", None, {}),
    (2, "configuration", "train CONFIG --set optim.lrr=1", None, {}),
    (2, "configuration", "info CONFIG --set model.channels=7", None, {}),
    (2, "configuration", "predict BEST DATA/images --classes nobody --out OUT", None, {}),
    (2, "configuration", "eval BEST --out FILE/out", None, {}),
    (2, "configuration", "export BEST OUT/model.engine", None, {}),
    (2, "configuration", "weights import BEST FILE", None, {}),
    (2, "configuration", "weights download nobody", None, {}),
    (2, "configuration", "data demo FILE/demo", None, {}),
    (2, "device", "predict BEST DATA/images --device cuda:99", None, {}),
    (3, "annotations", "train CONFIG --out OUT --set data.train.annotations=no.json", None, {}),
    (3, "annotations", "eval BEST --data JSON --images DATA/images --out OUT", None, {}),
    (3, "annotations", "data check FILE --images DATA/images", None, {}),
    (3, "annotations", "data demo DATA", None, {}),
    (3, "images", "predict BEST nowhere --out OUT", None, {}),
    (3, "images", "predict BEST DATA/train.json --out OUT", None, {}),
    (3, "images", "export BEST OUT/model.onnx --check-image FILE", None, {}),
    (4, "checkpoint", "predict FILE DATA/images", None, {}),
    (4, "checkpoint", "eval FILE --out OUT", None, {}),
    (4, "checkpoint", "export FILE OUT/model.onnx", None, {}),
    (4, "checkpoint", "info FILE", None, {}),
    (4, "weights", "weights import FILE OUT/model.pt", None, {}),
    (4, "weights", "train CONFIG --out OUT --set model.weights=no.pt", None, {}),
    (5, "NaN", "train CONFIG --out OUT", "weights_lost", STEP),
    (6, "written", "predict BEST DATA/images --out OUT", "files_small", {"size": 0}),
    (6, "written", "weights list", "streams_on_full_disk", {"descriptors": [1]}),
    (7, "export", "export BEST OUT/model.onnx", "package_missing", {"name": "onnxruntime"}),
    (8, "memory", "train CONFIG --out OUT", "memory_exhausted", STEP),
    (
        129,
        "lost terminal",
        "train CONFIG --out OUT",
        "signalled_at_step",
        {**STEP, "name": "SIGHUP"},
    ),
    (130, "Ctrl-C", "train CONFIG --out OUT", "signalled_at_step", {**STEP, "name": "SIGINT"}),
    (143, "SIGTERM", "train CONFIG --out OUT", "signalled_at_step", {**STEP, "name": "SIGTERM"}),
]


@pytest.fixture
def places(project, undisturbed, tmp_path):
    """What the words of `ENDS` in capitals stand for."""
    for name in ("file", "file.json"):
        (tmp_path / name).write_text("neither JSON nor a checkpoint nor an image")
    return {
        "BEST": undisturbed / "best.pt",
        "CONFIG": project.config,
        "DATA": project.data,
        "FILE": tmp_path / "file",
        "JSON": tmp_path / "file.json",
        "OUT": tmp_path / "out",
    }


@pytest.mark.parametrize(
    ("code", "meaning", "arguments", "fault", "options"),
    ENDS,
    ids=[f"{code} {arguments}" for code, _, arguments, _, _ in ENDS],
)
def test_a_command_ends_as_the_readme_says(
    project, places, code, meaning, arguments, fault, options
):
    assert meaning in MEANINGS[code]
    filled = re.sub("[A-Z]{3,}", lambda word: str(places.get(word[0], word[0])), arguments)
    outcome = project.run(*filled.split(), fault=fault, **options)
    assert outcome.code == code, outcome.text
    assert ("Traceback" in outcome.text) == (code == 1)
    if code not in (0, 1):
        assert sum(line.lower().startswith("error: ") for line in outcome.text.splitlines()) <= 1


def test_every_code_of_the_table_is_seen():
    assert {code for code, *_ in ENDS} == MEANINGS.keys()

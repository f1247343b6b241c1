"""Commands beside training on full disks, on streams that fail, and stopped in their midst.

Nothing is left half written, what was computed is shown where it cannot be kept, and the end is one
line and an exit code.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "parity"))
import published_checkpoints as published


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A file as the authors of DyHead publish them, of one block."""
    keys = published.authors_keys("atss")
    keys = {n: s for n, s in keys.items() if "dyhead_tower." not in n or "dyhead_tower.0." in n}
    path = tmp_path_factory.mktemp("published") / "published.pth"
    torch.save({"model": published.fill(keys, seed=1)}, path)
    return path


@pytest.fixture
def arguments(project, undisturbed, request):
    """Return the arguments of a command by its name, and where it writes."""

    def build(command: str, out: Path) -> list[object]:
        best = undisturbed / "best.pt"
        images = project.data / "images"
        if command == "weights import":
            return ["weights", "import", request.getfixturevalue("weights"), out / "a.pt"]
        return {
            "predict": [
                "predict",
                best,
                images,
                "--out",
                out,
                *["--min-score", "0", "--workers", "0"],
            ],
            "eval": ["eval", best, "--out", out],
            "explain": ["explain", best, project.image(0), "--out", out],
            "export": ["export", best, out / "a.onnx"],
            "data demo": ["data", "demo", out / "demo", "--num-train", "3", "--num-val", "2"],
        }[command]

    return build


COMMANDS = ["predict", "eval", "explain", "export", "data demo", "weights import"]


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_takes_no_file_is_refused_before_the_work(
    project, arguments, tmp_path, command
):
    (tmp_path / "file").touch()
    outcome = project.run(*arguments(command, tmp_path / "file" / "out"))
    assert outcome.code == 2
    assert outcome.error.startswith(f"error: {tmp_path}/file/out: cannot be written (Not a dir")
    assert len(outcome.text.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    project, arguments, tmp_path, command
):
    outcome = project.run(*arguments(command, tmp_path), fault="files_small", size=1500)
    assert outcome.code == 6, outcome.text
    assert "cannot be written (File too large)" in outcome.error
    assert "Traceback" not in outcome.text
    # What fits is whole: the numbers of `eval`, and small pictures.
    assert names_in(tmp_path) in (
        [],
        ["metrics.json"],
        ["pictures", "predict.json", "predictions.jsonl"],
    )
    for path in tmp_path.glob("*.json"):
        assert json.loads(path.read_text())


def test_numbers_are_shown_where_they_cannot_be_written(project, arguments, tmp_path):
    evaluated = project.run(*arguments("eval", tmp_path), fault="files_small", size=1500)
    assert "AP50" in evaluated.text
    predicted = project.run(*arguments("predict", tmp_path), fault="files_small", size=1500)
    assert "found in 0 images is in" in predicted.text
    assert "predictions.jsonl; make room and go on with --resume" in predicted.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["predict", "eval", "data demo"])
def test_results_are_written_though_nothing_can_be_printed(project, arguments, tmp_path, command):
    outcome = project.run(
        *arguments(command, tmp_path), fault="streams_on_full_disk", descriptors=[2]
    )
    assert outcome.code == 0
    written = names_in(tmp_path)
    again = project.run(
        *arguments(command, tmp_path), fault="streams_on_full_disk", descriptors=[1]
    )
    assert again.code == 6
    assert again.error == (
        "error: standard output: cannot be written (No space left on device); make room"
    )
    assert names_in(tmp_path) == written
    assert any(name.endswith(".json") for name in written)


MIDST = {
    "predict": ("dyhead_det.prediction.outputs.image_files", "_write_picture"),
    "eval": ("dyhead_det.evaluation.evaluate", "to_coco"),
    "explain": ("dyhead_det.explain.files", "draw_attention"),
    "export": ("dyhead_det.export.export", "add_metadata"),
    "data demo": ("dyhead_det.data.demo.drawing", "_draw_picture"),
    "weights import": ("torch", "save"),
}


@pytest.mark.parametrize(
    ("command", "name", "code"),
    [
        *((command, "SIGTERM", 143) for command in COMMANDS),
        ("predict", "SIGINT", 130),
        ("eval", "SIGINT", 130),
        ("data demo", "SIGINT", 130),
        ("data demo", "SIGHUP", 129),
    ],
)
def test_a_command_that_is_stopped_leaves_nothing_unfinished(
    project, arguments, tmp_path, command, name, code
):
    module, function = MIDST[command]
    outcome = project.run(
        *arguments(command, tmp_path),
        fault="signalled_in",
        module=module,
        function=function,
        name=name,
    )
    assert outcome.code == code
    assert "Traceback" not in outcome.text
    if command == "predict":  # what was found by then is kept
        assert outcome.error.startswith(f"error: stopped by {name} after 1 of 5 images; what was")
        assert names_in(tmp_path) == [
            *("detections.json", "images.json", "pictures", "pictures/0.png"),
            *("predict.json", "predictions.jsonl"),
        ]
    else:
        assert names_in(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("command", "module", "function", "call"),
    [
        ("predict", "PIL.Image", "fromarray", 2),
        ("export", *MIDST["export"], 1),
        ("data demo", *MIDST["data demo"], 2),
    ],
)
def test_what_a_killed_command_left_is_removed_by_the_next(
    project, arguments, tmp_path, command, module, function, call
):
    killed = project.run(
        *arguments(command, tmp_path),
        fault="signalled_in",
        module=module,
        function=function,
        name="SIGKILL",
        call=call,
    )
    assert killed.code == -9
    assert project.run(*arguments(command, tmp_path)).code == 0
    assert not [name for name in names_in(tmp_path) if ".unfinished" in name]

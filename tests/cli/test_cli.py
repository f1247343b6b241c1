"""The command line as a person meets it: help, exit codes, one line per error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dyhead_det import __version__
from dyhead_det.config.schema import to_plain

from conftest import make_config

ROOT = Path(__file__).parents[2]


def dyhead_det(*arguments, cwd=None, stdin=""):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "dyhead_det", *map(str, arguments)],
        capture_output=True,
        text=True,
        input=stdin,
        cwd=cwd,
        env=environment,
        timeout=300,
        check=False,
    )


@pytest.fixture
def config_file(tiny_dataset, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(to_plain(make_config(tiny_dataset))))
    return path


def test_version():
    assert dyhead_det("--version").stdout == f"dyhead-det {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "none.yaml"], 2, "none.yaml"),
        (["train", "{config}", "--set", "optim.lrr=1"], 2, "optim.lrr: unknown key; did you mean"),
        (["train", "{config}", "--device", "cuda:99"], 2, "cuda:99 is not there"),
        (["train", "{config}", "--set", "data.train.annotations=no.json"], 3, "no.json"),
        (["eval", "{config}"], 4, "no PyTorch file"),
        (["predict", "{config}", "a.jpg"], 4, "no PyTorch file"),
        (["info", "{config}", "--set", "model.channels=7"], 2, "model.channels"),
        (["nonsense"], 2, "nonsense"),
        (["export", "{config}", "a.onnx", "--batch", "many"], 2, "from 1 to 1024, or dynamic"),
        (["export", "{config}", "a.onnx", "--batch", "0"], 2, "from 1 to 1024, or dynamic"),
        (["export", "{config}", "a.pt2", "--check-image", "{config}"], 2, "is for ONNX files"),
        (["predict", "{config}", "a.jpg", "--batch-size", "9" * 30], 2, "equal to 65536"),
        (["predict", "{config}"], 2, "Give either images"),
        (["predict", "{config}", "a.jpg", "--data", "{config}"], 2, "Give either images"),
        (["predict", "{config}", "a.jpg", "--images", "."], 2, "--images goes with --data"),
        (["predict", "{config}", "-", "a.jpg"], 2, "stands alone"),
        (["predict", "{config}", "a.jpg", "--tile", "32"], 2, "greater than or equal to 64"),
        (["predict", "{config}", "a.jpg", "--tile-overlap", "0.1"], 2, "--tile-overlap goes with"),
        (["predict", "{config}", "a.jpg", "--tta", "flop"], 2, "tta is flip and scales"),
        (["eval", "{config}", "--tta", "flip,9"], 2, "not '9'"),
        (["predict", "{config}", "-", "--resume"], 2, "nothing is written but lines"),
        (["predict", "{config}", "a.jpg", "--save", "json,pdf"], 2, "'pdf' is not one of pictures"),
        (["predict", "{config}", "a.jpg", "--max-detections", "9" * 30], 2, "equal to 1000000"),
        (["eval", "{config}", "--max-detections", "9" * 30], 2, "equal to 1000000"),
    ],
)
def test_an_error_is_a_line_and_an_exit_code(config_file, tmp_path, arguments, code, message):
    filled = [argument.format(config=config_file) for argument in arguments]
    result = dyhead_det(*filled, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback(config_file, tmp_path):
    result = dyhead_det("train", config_file, "--set", "optim.lrr=1", "--debug", cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" in result.stderr


def test_train_eval_predict_info_one_after_the_other(config_file, tiny_dataset, tmp_path):
    trained = dyhead_det("train", config_file, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    best = tmp_path / "runs" / "tiny" / "best.pt"
    assert trained.stdout.startswith("done: 6 steps; AP ")
    assert "step 6/6" in trained.stderr

    evaluated = dyhead_det("eval", best, cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "AP50" in evaluated.stdout
    assert "square" in evaluated.stdout
    elsewhere = dyhead_det(
        "eval",
        best,
        "--data",
        tiny_dataset / "train.json",
        "--images",
        tiny_dataset / "images",
        "--out",
        tmp_path / "e",
        cwd=tmp_path,
    )
    assert elsewhere.stdout.splitlines()[:4] == evaluated.stdout.splitlines()[:4]

    predicted = dyhead_det(
        "predict", best, tiny_dataset / "images", "--min-score", "0", "--out", "found", cwd=tmp_path
    )
    assert predicted.returncode == 0, predicted.stderr
    assert len(list((tmp_path / "found" / "pictures").iterdir())) == 4
    assert (tmp_path / "found" / "detections.json").is_file()

    listed = dyhead_det(
        "predict", best, "--data", tiny_dataset / "train.json", "--images", tiny_dataset / "images",
        "--out", "by_id", "--save", "json", cwd=tmp_path,
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    images = json.loads((tmp_path / "by_id" / "images.json").read_text())["images"]
    assert [image["id"] for image in images] == [10, 11, 12, 13]

    answered = dyhead_det(
        "predict", best, "-", "--min-score", "0",
        cwd=tmp_path, stdin="tiny/images/0.png\n\nnowhere.png\ntiny/images/1.png\n",
    )  # fmt: skip
    assert answered.returncode == 3
    lines = [json.loads(line) for line in answered.stdout.splitlines()]
    assert [line["file_name"] for line in lines] == [
        *("tiny/images/0.png", "nowhere.png", "tiny/images/1.png")
    ]
    assert ["detections" in line for line in lines] == [True, False, True]

    (tiny_dataset / "images" / "2.png").write_bytes(b"broken")
    partly = dyhead_det("predict", best, tiny_dataset / "images", "--out", "rest", cwd=tmp_path)
    assert partly.returncode == 3
    assert "1 of 4 images could not be read" in partly.stderr
    assert len(list((tmp_path / "rest" / "pictures").iterdir())) == 3

    for source in (best, config_file):
        described = dyhead_det("info", source, cwd=tmp_path)
        assert described.returncode == 0, described.stderr
        for word in ("square, circle", "DyHead", "GMACs", "p6 1/64"):
            assert word in described.stdout


def test_a_malicious_checkpoint_is_refused(tmp_path):
    class Malice:
        def __reduce__(self):
            return (open, (str(tmp_path / "trace"), "w"))

    torch.save({"format": "dyhead-det", "model": Malice()}, tmp_path / "evil.pt")
    result = dyhead_det("info", tmp_path / "evil.pt")
    assert result.returncode == 4
    assert "refused" in result.stderr
    assert not (tmp_path / "trace").exists()


def test_data_demo_and_check(tmp_path):
    drawn = dyhead_det("data", "demo", tmp_path / "d", "--num-train", "3", "--num-val", "2")
    assert drawn.returncode == 0, drawn.stderr
    checked = dyhead_det(
        "data", "check", tmp_path / "d/train.json", "--images", tmp_path / "d/train"
    )
    assert checked.returncode == 0, checked.stderr
    assert "3 images" in checked.stdout


def test_a_results_file_is_scored_without_a_checkpoint(tiny_dataset, tmp_path):
    truth = json.loads((tiny_dataset / "train.json").read_text())
    found = [
        {key: line[key] for key in ("image_id", "category_id", "bbox")} | {"score": 1}
        for line in truth["annotations"]
    ]
    (tmp_path / "found.json").write_text(json.dumps(found))
    arguments = ["eval", "--detections", "found.json", "--data", tiny_dataset / "train.json"]
    scored = dyhead_det(*arguments, "--out", "scores", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert "1.000" in scored.stdout
    assert json.loads((tmp_path / "scores" / "metrics.json").read_text())["metrics"]["AP"] == 1
    (tmp_path / "found.json").write_text("[7]")
    refused = dyhead_det(*arguments, cwd=tmp_path)
    assert refused.returncode == 3
    assert refused.stderr.count("\n") == 1
    assert "no JSON object" in refused.stderr
    for wrong in ([], ["--detections", "found.json"], [*arguments[1:], "--batch-size", "2"]):
        assert dyhead_det("eval", *wrong, cwd=tmp_path).returncode == 2

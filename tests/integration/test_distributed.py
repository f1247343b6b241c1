"""Two processes that torchrun starts: equal to one, stopped, failing, and started anew."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from distributed_program import configs, evaluate

from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.config.schema import to_plain
from dyhead_det.reporting.metrics_file import read_rows
from dyhead_det.training.train import train

from conftest import draw_tiny_dataset, make_config

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("distributed_program.py")
CLI = ("-m", "dyhead_det")


def torchrun(*arguments, options=()):
    """Run a program in two processes and return what became of it."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": "1",
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    return subprocess.run(
        [*launch, *options, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )


def exit_codes(result):
    """Return the exit codes of the processes that torchrun calls failed."""
    return {int(code) for code in re.findall(r"exitcode *: (-?\d+)", result.stderr)}


def error_lines(result):
    """Return what the processes tell a person."""
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


def write_config(path, config):
    path.write_text(yaml.safe_dump(to_plain(config)))
    return path


def weights(path):
    model = load_checkpoint(path).model
    return torch.cat([x.flatten().double() for x in model.values() if x.is_floating_point()])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Compute here with as many threads as torchrun gives each process: sums round by them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folders of the same runs in one process and in two, and what the two have said."""
    alone, together = (tmp_path_factory.mktemp(name) for name in ("alone", "together"))
    for folder in (alone, together):
        draw_tiny_dataset(folder / "tiny")
    for name, config in configs(alone / "tiny").items():
        train(config, alone / name, device=CPU, resume=False)
    result = torchrun(PROGRAM, "train_all", together)
    assert result.returncode == 0, result.stderr
    return alone, together, result


@pytest.mark.parametrize("name", configs(Path()))
def test_two_processes_learn_what_one_does(trained, name):
    alone, together, _ = trained
    rows = [read_rows(folder / name / "metrics.jsonl") for folder in (alone, together)]
    for one, two in zip(*rows, strict=True):
        assert one.keys() == two.keys()
        same = [x for x in one if re.match("loss|grad|lr|step|A", x) and one[x] is not None]
        assert {key: two[key] for key in same} == pytest.approx(
            {key: one[key] for key in same}, rel=1e-4, abs=1e-6
        )
    one, two = (weights(folder / name / "last.pt") for folder in (alone, together))
    assert float((one - two).norm() / one.norm()) < 1e-4


def test_two_processes_compute_what_one_does_in_two_parts(trained):
    alone, together, _ = trained
    config = configs(alone / "tiny")["thawed"]
    in_parts = config.train.model_copy(update={"accumulate": 2})
    train(config.model_copy(update={"train": in_parts}), alone / "parts", device=CPU, resume=False)
    one, two = weights(alone / "parts" / "last.pt"), weights(together / "thawed" / "last.pt")
    assert torch.equal(one, two)


def test_two_processes_find_what_one_does(trained):
    """Batches are shared out whole, so there is nothing to be rounded otherwise."""
    _, together, _ = trained
    run = together / "thawed"
    found = json.loads((run / "eval" / "detections.json").read_text())
    numbers = json.loads((run / "eval" / "metrics.json").read_text())
    assert numbers.pop("speed")["num_images"] > 0  # takes another time whenever it is measured
    evaluate(run, CPU)
    assert found
    assert found == json.loads((run / "eval" / "detections.json").read_text())
    again = json.loads((run / "eval" / "metrics.json").read_text())
    assert again.pop("speed")
    assert numbers == again


def test_only_one_process_writes_and_talks(trained):
    alone, together, result = trained
    for name in configs(Path()):
        files = [{x.name for x in (f / name).iterdir()} - {"eval"} for f in (alone, together)]
        assert files[0] == files[1]
    # What a frozen norm without weights is told, in two of the runs.
    assert result.stderr.count("normalizes nothing") == 2
    assert "Warning: " not in result.stderr


def test_a_run_goes_on_with_another_number_of_processes(tmp_path, caplog):
    """SIGTERM to torchrun, as schedulers send it, saves once; one process does the rest."""
    config = configs(draw_tiny_dataset(tmp_path / "tiny"))["uneven"]
    train(config, tmp_path / "straight", device=CPU, resume=False)
    run = tmp_path / "run"
    result = torchrun(
        PROGRAM,
        "stop_torchrun",
        "train",
        write_config(tmp_path / "tiny.yaml", config),
        "--out",
        run,
    )
    assert result.returncode == 1
    assert result.stderr.count("in 2 processes: 4 images to train on") == 1
    [line] = error_lines(result)
    assert "stopped by SIGTERM after step 3 of 4; step 3 is saved in" in line
    assert "Warning: " not in result.stderr
    assert exit_codes(result) <= {143}
    assert load_checkpoint(run / "last.pt").step == 3
    with caplog.at_level("INFO"):
        train(config, run, device=CPU, resume=True)
    assert "with 1 processes instead of 2 from here on" in caplog.text
    one, two = weights(tmp_path / "straight" / "last.pt"), weights(run / "last.pt")
    assert float((one - two).norm() / one.norm()) < 1e-4
    assert [row["step"] for row in read_rows(run / "metrics.jsonl")] == [1, 2, 3, 4, 4]


def test_a_run_whose_process_was_killed_goes_on_by_itself(trained, tmp_path):
    _, together, _ = trained
    config = configs(together / "tiny")["uneven"]
    result = torchrun(
        PROGRAM,
        "die_once",
        "train",
        write_config(tmp_path / "tiny.yaml", config),
        "--out",
        tmp_path / "run",
        options=["--max-restarts=1"],
    )
    assert result.returncode == 0, result.stderr
    assert "going on after step 2 of 4" in result.stderr
    assert torch.equal(
        weights(tmp_path / "run" / "last.pt"), weights(together / "uneven" / "last.pt")
    )


def test_a_hanging_process_is_named_and_a_failing_one_ends_all_with_its_own_message(tmp_path):
    config = write_config(tmp_path / "tiny.yaml", make_config(draw_tiny_dataset(tmp_path / "tiny")))
    result = torchrun(PROGRAM, "fail", "train", config, "--out", tmp_path / "run")
    assert sorted(error_lines(result)) == [
        "error: another process of this run has ended or does not answer; its own message says why",
        "error: process 1 of 2: 3.png: cannot be read; step 2 is saved in "
        f"{tmp_path}/run/last.pt; go on with --resume",
    ]
    # Before, in the first step, it has slept in backward.
    assert re.search(
        r"step 1 takes more than 1 seconds: rank 1 on \S+ is in the backward pass with 0 "
        r"gradients, and the others, in the backward pass with [1-9]\d* gradients, wait for it",
        result.stderr,
    )
    assert result.stderr.count("takes more than") == 1
    assert result.returncode != 0
    assert exit_codes(result) == {3, 6}
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == 2


def test_what_all_processes_meet_one_of_them_tells(tmp_path):
    config = make_config(draw_tiny_dataset(tmp_path / "tiny"), train={"batch_size": 1})
    path = write_config(tmp_path / "tiny.yaml", config)
    result = torchrun(*CLI, "train", path, "--out", tmp_path / "run")
    [line] = error_lines(result)
    assert line.startswith("error: train.batch_size: 1 images for 2 processes; ")
    assert exit_codes(result) == {2, 6}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "difference"),
    [
        ("optim.lr=0.5", "optim.lr: 0.001 on rank 0, 0.5 on rank 1"),
        (
            "data.root={other_data}",
            r"data.train: '4 images, 4 annotations, checksum \w+' on rank 0, '3 images, 3 "
            r"annotations, checksum \w+' on rank 1",
        ),
    ],
)
def test_processes_with_another_configuration_or_other_data_do_not_train(
    tmp_path, setting, difference
):
    config = write_config(tmp_path / "tiny.yaml", make_config(draw_tiny_dataset(tmp_path / "tiny")))
    draw_tiny_dataset(tmp_path / "other", num_images=3)
    setting = setting.format(other_data=tmp_path / "other")
    result = torchrun(PROGRAM, "other_setting", setting, "train", config, "--out", tmp_path / "run")
    [line] = error_lines(result)
    assert re.match(f"error: the processes of this run differ: {difference}", line)
    assert exit_codes(result) == {2}
    assert not (tmp_path / "run" / "last.pt").exists()


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_two_processes_write_the_predictions_of_one(trained, tmp_path):
    """Byte for byte, also where both go on with what one has begun."""
    alone = trained[0]
    images = draw_tiny_dataset(tmp_path / "tiny", num_images=5) / "images"
    (images / "3.png").write_bytes(b"no image")
    arguments = ["predict", alone / "thawed" / "last.pt", images, "--min-score", 0]
    arguments += ["--save", "pictures,json,csv,yolo,crops", "--max-detections", 3]
    one = subprocess.run(
        [sys.executable, *map(str, [*CLI, *arguments, "--out", tmp_path / "one"])],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert one.returncode == 3, one.stderr
    for how in ([], ["--resume"]):
        result = torchrun(*CLI, *arguments, "--out", tmp_path / "two", *how)
        assert exit_codes(result) == {3}, result.stderr
        assert error_lines(result) == [
            f"error: 1 of 5 images could not be read: {images}/3.png; what was found in the others "
            f"is in {tmp_path}/two"
        ]
        assert contents(tmp_path / "two") == contents(tmp_path / "one")
        lines = tmp_path / "two" / "predictions.jsonl"
        lines.write_bytes(lines.read_bytes()[:-30])
        (tmp_path / "two" / "pictures" / "4.png").unlink()

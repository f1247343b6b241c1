"""`train` from Python: own augmentation, other threads, what it leaves alone; runs made longer."""

import random
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from dyhead_det import evaluate, train
from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.errors import ConfigError
from dyhead_det.reporting.metrics_file import read_rows
from dyhead_det.training.train import describe_length

from conftest import make_config

CONSTANT = {"name": "multi_step", "milestones": [], "warmup_steps": 0}


def same_weights(path, other):
    one, two = load_checkpoint(path).model, load_checkpoint(other).model
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def process_state():
    """Return the switches, generators and handlers that belong to the whole process."""
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cuda.matmul.allow_tf32,
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
    )


@pytest.fixture
def short_config(tiny_dataset):
    return make_config(tiny_dataset, data={"val": None}, train={"steps": 2})


def test_in_another_thread_it_trains_as_in_the_main_one(short_config, tmp_path):
    train(short_config, tmp_path / "main", device="cpu")
    with ThreadPoolExecutor(1) as threads:
        threads.submit(train, short_config, str(tmp_path / "other"), device="cpu").result()
    assert same_weights(tmp_path / "main" / "last.pt", tmp_path / "other" / "last.pt")


def test_the_process_is_as_before_when_it_ends(short_config, tmp_path):
    before = process_state()
    runtime = short_config.runtime.model_copy(update={"deterministic": True, "tf32": False})
    train(short_config.model_copy(update={"runtime": runtime}), tmp_path / "run", device="cpu")
    assert process_state() == before


def test_a_run_is_evaluated_beside_its_checkpoint_unless_told_otherwise(tiny_dataset, tmp_path):
    result = train(make_config(tiny_dataset, train={"steps": 2}), tmp_path / "run", device="cpu")
    scored = evaluate(str(result.checkpoint), device="cpu")
    assert scored.metrics == {name: x for name, x in result.best.items() if name != "step"}
    assert (tmp_path / "run" / "eval" / "metrics.json").is_file()
    assert f"report: {tmp_path}/run/report.html" in result.summary()
    assert re.search(r"^square +4 ", result.summary(), re.MULTILINE)


def test_an_own_augmentation_takes_the_place_of_the_configured_one(tiny_dataset, tmp_path):
    never = {"augment": {"horizontal_flip": 0.0}, "val": None}
    always = {"augment": {"horizontal_flip": 1.0}, "val": None}
    length = {"steps": 2}
    plain, flipping = (make_config(tiny_dataset, data=x, train=length) for x in (never, always))
    train(flipping, tmp_path / "configured", device="cpu")
    train(plain, tmp_path / "own", augmentation=v2.RandomHorizontalFlip(1.0), device="cpu")
    assert same_weights(tmp_path / "configured" / "last.pt", tmp_path / "own" / "last.pt")
    train(flipping, tmp_path / "none", augmentation=v2.Identity(), device="cpu")
    train(plain, tmp_path / "plain", device="cpu")
    assert same_weights(tmp_path / "none" / "last.pt", tmp_path / "plain" / "last.pt")
    assert not same_weights(tmp_path / "none" / "last.pt", tmp_path / "own" / "last.pt")


def test_a_finished_run_made_longer_ends_as_one_of_that_length(tiny_dataset, tmp_path, caplog):
    """With a constant learning rate there is no difference, to the last bit."""
    short, long = (
        make_config(tiny_dataset, data={"val": None}, schedule=CONSTANT, train={"steps": steps})
        for steps in (2, 3)
    )
    train(long, tmp_path / "straight", device="cpu")
    train(short, tmp_path / "run", device="cpu")
    caplog.set_level("INFO")
    result = train(long, tmp_path / "run", device="cpu", resume=True)
    assert (result.num_steps, result.was_finished) == (3, False)
    assert "3 steps instead of 2 from here on; the learning rate goes on as it is" in caplog.text
    assert same_weights(tmp_path / "straight" / "last.pt", tmp_path / "run" / "last.pt")


def test_a_run_made_longer_says_what_its_schedule_does(tiny_dataset, tmp_path, caplog):
    """Half way down a cosine instead of at its end: 0.001 * (1 + cos(pi / 2)) / 2."""
    schedule = {"name": "cosine", "warmup_steps": 0}
    short, long = (
        make_config(tiny_dataset, data={"val": None}, schedule=schedule, train={"steps": steps})
        for steps in (1, 2)
    )
    train(short, tmp_path / "run", device="cpu")
    caplog.set_level("INFO")
    train(long, tmp_path / "run", device="cpu", resume=True)
    assert (
        "2 steps instead of 1 from here on; the schedule is that of 2 steps, by which the learning "
        "rate of step 2 is 0.0005 instead of 0"
    ) in caplog.text
    assert read_rows(tmp_path / "run" / "metrics.jsonl")[-1]["lr"] == pytest.approx(0.0005)


def test_a_run_cannot_be_made_shorter_than_it_is(short_config, tiny_dataset, tmp_path):
    train(short_config, tmp_path / "run", device="cpu")
    shorter = make_config(tiny_dataset, data={"val": None}, train={"steps": 1})
    with pytest.raises(ConfigError, match=r"train\.steps: 1 steps in all, and .* has done 2"):
        train(shorter, tmp_path / "run", device="cpu", resume=True)


@pytest.mark.parametrize(
    ("num_steps", "steps_per_epoch", "words"),
    [
        (30, 10, "3 epochs of 10 steps"),
        (10, 10, "1 epoch of 10 steps"),
        (5, 1, "5 epochs of 1 step"),
        (25, 10, "25 steps, 2.5 epochs of 10 steps"),
        (3, 10, "3 steps, 0.3 epochs of 10 steps"),
    ],
)
def test_the_length_of_a_run_in_words(num_steps, steps_per_epoch, words):
    assert describe_length(num_steps, steps_per_epoch) == words

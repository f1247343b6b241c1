"""What torchrun starts for the tests of several processes: one of the scenes below, by name."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from dyhead_det.cli.app import main
from dyhead_det.config.schema import RunConfig
from dyhead_det.distributed.launch import init_process_group
from dyhead_det.distributed.slow_step import slow_step_explained
from dyhead_det.errors import DatasetError
from dyhead_det.prediction.evaluate_checkpoint import evaluate_checkpoint
from dyhead_det.training import step as step_module
from dyhead_det.training.train import train

from conftest import SMALL_DETECTORS, make_config

SGD = {"name": "sgd", "lr": 0.01, "clip_norm": 1.0}


def configs(data: Path) -> dict[str, RunConfig]:
    """Runs on four images that must be the same whatever the number of processes."""
    shared = {"steps": 4, "log_every_steps": 1, "eval_every_epochs": 9}
    return {
        # Steps of three images and of one: shares of two and one, then one process has nothing.
        "uneven": make_config(
            data,
            model={"detector": SMALL_DETECTORS["atss"], "backbone": {"norm": "frozen"}},
            optim=SGD,
            train={**shared, "batch_size": 3, "accumulate": 2, "ema": {"decay": 0.9}},
        ),
        "thawed": make_config(
            data,
            model={"detector": SMALL_DETECTORS["fasterrcnn"], "backbone": {"norm": "frozen"}},
            optim=SGD,
            train={**shared, "batch_size": 4, "freeze": {"backbone_steps": 2}},
        ),
        "norms": make_config(
            data,
            model={"detector": SMALL_DETECTORS["retinanet"], "backbone": {"norm": "sync"}},
            optim=SGD,
            train={**shared, "batch_size": 4},
        ),
    }


def evaluate(run: Path, device) -> None:
    """Evaluate the last checkpoint of a run into its folder `eval`."""
    evaluate_checkpoint(
        run / "last.pt",
        run / "eval",
        data=None,
        images=None,
        backend=None,
        batch_size=3,
        short_edge=None,
        long_edge=None,
        device=device,
    )


def train_all(folder: Path) -> None:
    """Train every run, and evaluate one."""
    with init_process_group("cpu") as device:
        for name, config in configs(folder / "tiny").items():
            train(config, folder / name, device=device, resume=False)
        evaluate(folder / "thawed", device)


def in_the_middle_of_step(number: int, act: Callable[[], None]) -> None:
    """Let something happen in a step, before its forward pass."""
    forward_as_ever = step_module._forward

    def forward(run, *arguments, **keywords):
        if run.progress.step == number - 1:
            act()
        return forward_as_ever(run, *arguments, **keywords)

    step_module._forward = forward


def stop_torchrun() -> None:
    """Send torchrun what a scheduler sends, and wait until it has passed it on."""
    if os.environ["RANK"] != "0":
        return
    noticed, notice = os.pipe()
    os.set_blocking(notice, False)
    signal.set_wakeup_fd(notice)
    os.kill(os.getppid(), signal.SIGTERM)
    os.read(noticed, 1)
    signal.set_wakeup_fd(-1)


def die_once() -> None:
    """Kill the second of the processes, if they were not started anew."""
    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    """Let the second of the processes meet an error."""
    if os.environ["RANK"] == "1":
        raise DatasetError("3.png: cannot be read")


def sleep_in_backward() -> None:
    """Let the second of the processes sleep in its first backward until the other has said so."""

    def explained(*arguments):
        step_module.slow_step_explained = slow_step_explained
        return slow_step_explained(*arguments, seconds=1, grace=3)

    step_module.slow_step_explained = explained
    backward_as_ever = torch.Tensor.backward

    def backward(loss: torch.Tensor) -> None:
        torch.Tensor.backward = backward_as_ever
        if os.environ["RANK"] == "1":
            loss.register_hook(lambda _gradient: time.sleep(6))
        loss.backward()

    torch.Tensor.backward = backward


SCENES = {"stop_torchrun": stop_torchrun, "die_once": die_once, "fail": fail}

if __name__ == "__main__":
    scene, *rest = sys.argv[1:]
    if scene == "train_all":
        train_all(Path(rest[0]))
    elif scene == "other_setting":  # on the second of the processes
        setting, *arguments = rest
        own = ["--set", setting] if os.environ["RANK"] == "1" else []
        sys.argv[1:] = [*arguments, *own]
        main()
    else:
        if scene == "fail":  # the scene before costs no processes of its own
            sleep_in_backward()
        in_the_middle_of_step(3, SCENES[scene])
        sys.argv[1:] = rest
        main()

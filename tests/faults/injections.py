"""What goes wrong in a process, built into it before it runs the program."""

import errno
import importlib
import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before_step(number: int, action: Callable) -> None:
    """Call `action(run)` at the start of the number-th step of this process, from 1."""
    from dyhead_det.training import loop as loop_module

    real, count = loop_module.train_step, iter(range(1, 10**6))

    def step(run, *arguments, **keywords):
        if next(count) == number:
            action(run)
        return real(run, *arguments, **keywords)

    loop_module.train_step = step


def killed_at_call(number: int = 0, total: str = "") -> None:
    """Kill before the number-th function call of training, C's too, or count them to a file."""
    from dyhead_det.training import train as train_module

    real, count = train_module.run_to_the_end, 0

    def watch(_frame, event, _argument):
        nonlocal count
        if event in ("call", "c_call"):
            count += 1
            if count == number:
                _die()

    def watched(run):
        sys.setprofile(watch)
        real(run)
        sys.setprofile(None)
        if total:
            Path(total).write_text(str(count))

    train_module.run_to_the_end = watched


def killed_while_saving(save: int, operation: int) -> None:
    """Kill at an operation of the save-th writing of a checkpoint: half of its bytes written, or
    just before what follows: forcing to the disk, linking, renaming.
    """
    from dyhead_det.training import saving

    real_save, saves = saving.save_checkpoint, iter(range(1, 10**6))

    def save_checkpoint(*arguments, **keywords):
        if next(saves) == save:
            _count_operations(operation)
        real_save(*arguments, **keywords)

    saving.save_checkpoint = save_checkpoint


def _count_operations(fatal: int) -> None:
    operations = iter(range(10**6))
    real_write = torch.save

    def write(content, file):
        next(operations)
        real_write(content, file)
        if fatal == 0:
            file.flush()
            file.truncate(file.tell() // 2)
            _die()

    def counted(real):
        def operation(*arguments, **keywords):
            if next(operations) == fatal:
                _die()
            return real(*arguments, **keywords)

        return operation

    torch.save = write
    for name in ("fsync", "link", "replace"):
        setattr(os, name, counted(getattr(os, name)))


def signalled_at_step(number: int, name: str) -> None:
    """Send the process a signal in the middle of a step."""
    _before_step(number, lambda _run: signal.raise_signal(getattr(signal, name)))


def losses_drawn(stopped_at: int = 0) -> None:
    """Let losses depend on what Python, NumPy and PyTorch draw, whose generators are in a state
    that nobody knows before every step; end at a step by SIGTERM.
    """
    from dyhead_det.training import loop as loop_module
    from dyhead_det.training import step as step_module

    real_step, real_forward = loop_module.train_step, step_module._forward

    def step(*arguments, **keywords):
        random.seed()
        np.random.seed()
        torch.seed()
        return real_step(*arguments, **keywords)

    def forward(*arguments, **keywords):
        drawn = 1 + random.random() + np.random.random() + torch.rand(()).item()
        return {name: x * drawn for name, x in real_forward(*arguments, **keywords).items()}

    loop_module.train_step, step_module._forward = step, forward
    signalled_at_step(stopped_at, "SIGTERM")


def interrupted_twice(number: int) -> None:
    """Ctrl-C in a step, and once more while that is being saved."""
    signalled_at_step(number, "SIGINT")
    real = torch.save

    def save(content, file):
        real(content, file)
        signal.raise_signal(signal.SIGINT)

    _before_step(number, lambda _run: setattr(torch, "save", save))


def file_size_limited(number: int, lifted: int = 0, size: int = 100_000) -> None:
    """Let no file grow beyond a size from a step on, until another: writing fails part way."""
    _before_step(number, lambda _run: _limit_file_size(size))
    if lifted:
        _before_step(lifted, lambda _run: _limit_file_size(None))


def _limit_file_size(size: int | None) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


def files_small(size: int) -> None:
    """Let no file grow beyond a size, from the start."""
    _limit_file_size(size)


def signalled_in(module: str, function: str, name: str, call: int = 1) -> None:
    """Send the process a signal as a function of a module is called for the call-th time."""
    target = importlib.import_module(module)
    real, count = getattr(target, function), iter(range(1, 10**6))

    def signalled(*arguments, **keywords):
        if next(count) == call:
            signal.raise_signal(getattr(signal, name))
        return real(*arguments, **keywords)

    setattr(target, function, signalled)


def package_missing(name: str) -> None:
    """Let a package be not installed."""
    sys.modules[name] = None


def streams_on_full_disk(descriptors: list) -> None:
    """Put a full disk behind stdout (1), stderr (2) or both, from the start."""
    for descriptor in descriptors:
        with Path("/dev/full").open("w") as full:
            os.dup2(full.fileno(), descriptor)


def no_space_for_rows(number: int, lifted: int) -> None:
    """Let the disk take half a row of metrics.jsonl and no more, for some steps."""
    real = os.write

    def write(descriptor, content):
        real(descriptor, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def replace_write(write):
        return lambda _run: setattr(os, "write", write)

    _before_step(number, replace_write(write))
    _before_step(lifted, replace_write(real))


def image_lost(number: int, path: str) -> None:
    """Remove an image file while the run goes on."""
    _before_step(number, lambda _run: Path(path).unlink())


def image_spoilt(number: int, path: str) -> None:
    """Cut an image file in half while the run goes on."""

    def cut(_run):
        content = Path(path).read_bytes()
        Path(path).write_bytes(content[: len(content) // 2])

    _before_step(number, cut)


def worker_killed(number: int) -> None:
    """Kill a process that reads images in the middle of a step, and see it dead."""
    import multiprocessing

    def kill(_run):
        worker = multiprocessing.active_children()[0]
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()

    _before_step(number, kill)


def all_asked_to_stop(number: int) -> None:
    """Send SIGTERM to the processes that read images too, and see them dead."""
    import multiprocessing

    def ask(_run):
        workers = multiprocessing.active_children()
        signal.raise_signal(signal.SIGTERM)
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
            worker.join()

    _before_step(number, ask)


def shared_memory_full() -> None:
    """Let the processes that read images have hardly any memory to share."""
    from dyhead_det.data import loaders

    real = loaders._prepare_worker

    def prepare(worker_id):
        real(worker_id)
        _limit_file_size(10_000)  # a batch has 24 kB

    loaders._prepare_worker = prepare


def program_wrong(number: int) -> None:
    """Raise an error that nobody foresaw."""
    _before_step(number, lambda _run: 1 // 0)


def weights_lost(number: int) -> None:
    """Make the weights of the last layer NaN."""

    def spoil(run):
        with torch.no_grad():
            list(run.parts.detector.parameters())[-1].fill_(torch.nan)

    _before_step(number, spoil)


def memory_exhausted(number: int) -> None:
    """Ask for 4 PiB in a step."""
    _before_step(number, lambda _run: torch.empty(2**50))


def gpu_memory_exhausted(number: int) -> None:
    """Raise what CUDA's allocator raises, as it words it."""

    def fail(_run):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.57 "
            "GiB of which 1.06 GiB is free."
        )

    _before_step(number, fail)


def clock_set() -> None:
    """Set the clock of the system back and forth by years, every time it is read."""
    import time

    jumps = iter(range(10**6))
    time.time = lambda: 1e9 + (-1) ** next(jumps) * 1e8
    time.time_ns = lambda: int(time.time() * 1e9)


def disk_of_stderr_full(number: int) -> None:
    """Put a full disk behind stderr from a step on."""

    def redirect(_run):
        with Path("/dev/full").open("w") as full:
            os.dup2(full.fileno(), 2)

    _before_step(number, redirect)


def stopped_on_full_disk(number: int) -> None:
    """Limit the size of files and ask the run to stop, in one step."""
    signalled_at_step(number, "SIGTERM")
    file_size_limited(number)

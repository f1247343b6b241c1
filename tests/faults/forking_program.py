"""The command line behind a line protocol: imported once, every command in a fork of its own.

A line on stdin is a JSON object with `arguments`, `fault`, `options` and `output`; the answer is a
line with the exit code, negative for the signal that ended the command.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import traceback

import injections

# Whatever a training run imports as it goes.
IMPORTED_LATE = (
    "dyhead_det.prediction.evaluate_checkpoint",
    "dyhead_det.prediction.load",
    "dyhead_det.training.train",
    "faster_coco_eval",
    "matplotlib.figure",
    "pycocotools.cocoeval",
    "timm",
    "torch.optim.adamw",
)


def _run_command(order: dict) -> None:
    """Become the program, with a fault built in, and end as it does, but without tidying memory."""
    descriptor = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    from dyhead_det.cli.app import main
    from dyhead_det.training import record

    # Drawing takes longer than all else together.
    record.plot_curves = lambda rows, path: None
    record.draw_validation = lambda data, detections: None
    # In the background of a shell Ctrl-C is ignored, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if order["fault"]:
        getattr(injections, order["fault"])(**order["options"])
    sys.argv = ["dyhead-det", *order["arguments"]]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException as error:  # noqa: BLE001 - what the interpreter would do
        traceback.print_exc()
        sys.last_value = error
    atexit._run_exitfuncs()  # where Python waits for worker processes
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _serve() -> None:
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    gc.freeze()  # else every command copies the memory of all modules
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _run_command(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)  # noqa: T201


if __name__ == "__main__":
    _serve()

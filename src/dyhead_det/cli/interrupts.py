"""Signals to the program: silent while it is imported, cleaned up after while it works.

Ctrl-C raises `KeyboardInterrupt`, SIGTERM and SIGHUP raise `SystemExit`, so that unfinished files
are removed on the way out. What saves before it stops (`graceful_shutdown`) takes their place.

This is the first module that the program imports, so it imports little itself.
"""

import os
import signal
import sys
from types import FrameType

_TERMINATING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def leave_at_once_on_ctrl_c() -> None:
    """Let Ctrl-C end the process without a word: importing has nothing to save or to remove.

    A Ctrl-C that is ignored, as in the background of a shell, stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave_at_once)


def clean_up_on_signals() -> None:
    """Let signals raise from now on; under torchrun SIGTERM and SIGHUP stay as they are.

    There a process may wait for others, where Python is not reached, and must end all the same.
    """
    import threading

    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is _leave_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return
    for number in _TERMINATING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _exit)


def _leave_at_once(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)

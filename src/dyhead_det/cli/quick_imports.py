"""Import PyTorch and torchvision in half the time; only the program does so, never the library."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from dyhead_det.cli.interrupts import clean_up_on_signals

_COMPILER = "torch._dynamo"
_COMPILER_UTILS = f"{_COMPILER}.utils"


@contextmanager
def quick_imports() -> Iterator[None]:
    """Spare the imports of its body what none of the commands needs.

    * Garbage collection waits. It would search hundreds of thousands of new objects again and
      again, all of them in use; afterwards they are exempt for good.
    * torchvision imports PyTorch's compiler, and that all of sympy, to be able to ask one question
      (see `_CompilerWhenAsked`). That import waits until somebody asks.

    `predict` on one image of the demo takes 2.8 CPU seconds with both, 4.1 without the second and
    5.5 without either (PyTorch 2.14, torchvision 0.29, `scripts/bench_startup.py`).

    Until the end of the block Ctrl-C ends the process without a word (see `interrupts`).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        _import_torchvision()
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
    clean_up_on_signals()


def _import_torchvision() -> None:
    import_module("torch")
    if _COMPILER in sys.modules or "torchvision" in sys.modules:
        import_module("torchvision")
        return
    sys.modules[_COMPILER_UTILS] = _CompilerWhenAsked(_COMPILER_UTILS)
    try:
        import_module("torchvision")
    finally:
        if isinstance(sys.modules.get(_COMPILER_UTILS), _CompilerWhenAsked):
            del sys.modules[_COMPILER_UTILS]


class _CompilerWhenAsked(ModuleType):
    """Stands in for `torch._dynamo.utils` while torchvision is imported.

    torchvision asks `is_compile_supported` before it computes RoIAlign deterministically on CUDA.
    """

    @staticmethod
    def is_compile_supported(device_type: str) -> bool:
        """Import the real function now, and ask it."""
        return bool(import_module(_COMPILER_UTILS).is_compile_supported(device_type))

    def __getattr__(self, name: str) -> object:
        """Give way to the real module: another torchvision may want more of it."""
        if name.startswith("__"):  # what the import system looks for
            raise AttributeError(name)
        if isinstance(sys.modules.get(_COMPILER_UTILS), _CompilerWhenAsked):
            del sys.modules[_COMPILER_UTILS]
        return getattr(import_module(_COMPILER_UTILS), name)

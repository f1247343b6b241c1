"""How a detector runs, as `runtime` in the configuration says: layout, precision, compilation.

None of it changes what is computed, only the last digits and the time that it takes. What belongs
to the detector is done by `prepare_detector`; what belongs to the process (determinism, TF32,
cuDNN's search) by `pytorch_switches`, which only commands and `train` enter: a program that loads
a detector keeps its own.
"""

import logging
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dyhead_det.config.precision import Amp
from dyhead_det.config.schema import RuntimeConfig
from dyhead_det.dyhead.head import DyHead
from dyhead_det.dyhead.stacked import StackedDyHead
from dyhead_det.errors import ConfigError
from dyhead_det.models.backbones.pyramid import DyHeadBackbone
from dyhead_det.models.detectors import Detector
from dyhead_det.ops.gpu_choice import require_triton, why_no_triton

logger = logging.getLogger(__name__)

# Read by cuBLAS when it starts; without it some of its products are not deterministic.
_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


AMP_TYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(amp: Amp, device: torch.device) -> torch.autocast:
    """Return a context in which a detector computes in half precision where that is safe."""
    dtype = AMP_TYPES[amp]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def run_backbone_in(amp: Amp, detector: Detector, device: torch.device) -> None:
    """Let backbone and DyHead compute in half precision, and the heads behind them in float32.

    torchvision computes anchors and boxes in the type of the maps and of what the heads return, and
    bf16 tells only every second or fourth pixel apart in a large image.

    Args:
        amp: The half precision, or `off`.
        detector: Changed in place. The names of its weights stay.
        device: Where it runs.
    """
    if amp == "off":
        return
    forward = detector.backbone.forward

    def in_half_precision(images: Tensor) -> OrderedDict[str, Tensor]:
        with autocast(amp, device):
            maps = forward(images)
        return OrderedDict((level, features.float()) for level, features in maps.items())

    detector.backbone.forward = in_half_precision  # type: ignore[method-assign]  # as compiling does


@contextmanager
def pytorch_switches(config: RuntimeConfig) -> Iterator[None]:
    """Set the process-wide switches of PyTorch for a block of code; put them back afterwards.

    Args:
        config: The runtime section of a run.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark)
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    was_warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    had_workspace = _CUBLAS_WORKSPACE in os.environ
    matmul.allow_tf32 = cudnn.allow_tf32 = config.tf32
    cudnn.benchmark = config.cudnn_benchmark
    if config.deterministic:
        os.environ.setdefault(_CUBLAS_WORKSPACE, ":4096:8")
    # An operator without a deterministic form warns once and does what it can.
    _set_deterministic(config.deterministic, warn_only=True)
    if config.tf32 and torch.cuda.is_available():
        logger.info(
            "float32 products and convolutions run in TF32, with 10 bits of mantissa, where the "
            "GPU has it; runtime.tf32=false keeps all 23"
        )
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
        _set_deterministic(was_deterministic, warn_only=was_warn_only)
        if config.deterministic and not had_workspace:
            del os.environ[_CUBLAS_WORKSPACE]


def _set_deterministic(wanted: bool, *, warn_only: bool) -> None:
    """Switch determinism, but not needlessly: it imports PyTorch's compiler, for seconds."""
    is_so = torch.are_deterministic_algorithms_enabled() == wanted and (
        not wanted or torch.is_deterministic_algorithms_warn_only_enabled() == warn_only
    )
    if not is_so:
        torch.use_deterministic_algorithms(wanted, warn_only=warn_only)


def prepare_detector(config: RuntimeConfig, detector: Detector, device: torch.device) -> None:
    """Bring a detector to a device and into the form to run in; nothing else in the process.

    Args:
        config: The runtime section of a run.
        detector: With its weights, changed in place. The names of its weights stay.
        device: Where to run.

    Raises:
        ConfigError: If it is to be compiled and cannot be, or DyHead's backend does not run there.
    """
    dyhead = detector.backbone.dyhead
    if isinstance(dyhead, DyHead | StackedDyHead) and dyhead.deform_backend == "triton":
        require_triton(device)
    detector.to(device)
    if config.channels_last:
        # Convolutions with such weights return such maps, so the images need no change.
        for weight in detector.parameters():
            if weight.dim() == 4:  # `Module.to` fails on the stacked scheme's, of five
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    if config.compile:
        _require_compiler(device)
        for module in _modules_to_compile(detector.backbone, device):
            # In place: the compiled forward is the module's own, and no name of a weight gets a
            # prefix. Sizes are variables from the start, else each new size of images would be
            # compiled anew.
            module.compile(dynamic=True)


def replace_triton_where_it_cannot_run(detector: Detector, device: torch.device) -> None:
    """Let a detector that was trained with Triton's kernels compute on any machine.

    Args:
        detector: Of a checkpoint, changed in place.
        device: Where it will run.
    """
    dyhead = detector.backbone.dyhead
    if isinstance(dyhead, DyHead | StackedDyHead) and dyhead.deform_backend == "triton":
        problem = why_no_triton(device)
        if problem is not None:
            logger.info("deform_backend: auto instead of the run's triton, since %s", problem)
            dyhead.deform_backend = "auto"


def _modules_to_compile(backbone: DyHeadBackbone, device: torch.device) -> list[nn.Module]:
    """Return body, FPN and those blocks of DyHead whose own forward runs.

    `attend_fast` only borrows the blocks' weights and stays as it is: compiled it was slower. The
    head is left alone, since its work depends on the number of proposals and detections.
    """
    dyhead = backbone.dyhead
    modules = [backbone.body, backbone.fpn]
    if isinstance(dyhead, DyHead):
        _, convolve = dyhead.backend_for(torch.empty(0, device=device))
        modules += dyhead.blocks if convolve is None else []
    return modules


def _require_compiler(device: torch.device) -> None:
    """Compile one addition: a missing compiler would only be noticed in the first step.

    Raises:
        ConfigError: If that fails, whatever the reason.
    """
    number = torch.ones(1, device=device)
    try:
        torch.compile(torch.add)(number, number)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"runtime.compile: PyTorch cannot compile for {device} here: {reason}; install what "
            "is missing (a C++ compiler, or Triton on a GPU), or set runtime.compile=false"
        ) from error

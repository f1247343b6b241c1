"""How a detector is run, as `runtime` in the configuration says: layout, precision, compilation.

None of it changes what is computed, only the last digits and the time that it takes.
"""

import os

import torch
from torch import nn

from dyhead_det.config.schema import RuntimeConfig
from dyhead_det.dyhead.head import DyHead
from dyhead_det.errors import ConfigError
from dyhead_det.models.backbones.pyramid import DyHeadBackbone
from dyhead_det.models.detectors import Detector


def apply_runtime(config: RuntimeConfig, detector: Detector, device: torch.device) -> None:
    """Bring a detector to a device and into the form to run in; set the switches of PyTorch.

    The switches are the process's: they hold for whatever else it computes, too.

    Args:
        config: The runtime section of a run.
        detector: With its weights, changed in place. The names of its weights stay.
        device: Where to run.

    Raises:
        ConfigError: If it is to be compiled and cannot be.
    """
    _set_switches(config)
    detector.to(device)
    if config.channels_last:
        # Convolutions with such weights return such maps, so the images need no change.
        for weight in detector.parameters():
            if weight.dim() == 4:  # `Module.to` fails on the stacked scheme's, of five
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    if config.compile:
        _require_compiler(device)
        for part in _parts_to_compile(detector.backbone):
            # In place: the compiled forward is the part's own, and no name of a weight gets a
            # prefix. Sizes are variables from the start, else each new size of images would be
            # compiled anew.
            part.compile(dynamic=True)


def _set_switches(config: RuntimeConfig) -> None:
    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
    if config.deterministic:
        # Read by cuBLAS when it starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.are_deterministic_algorithms_enabled() != config.deterministic:
        # Not called needlessly: it imports PyTorch's compiler, which takes longer than to predict.
        # An operator without a deterministic form says so once and does what it can.
        torch.use_deterministic_algorithms(config.deterministic, warn_only=True)


def _parts_to_compile(backbone: DyHeadBackbone) -> list[nn.Module]:
    """Return body, FPN and the blocks that torchvision's operator computes.

    `attend_fast` only borrows the blocks' weights and stays as it is: compiled it was slower. The
    head is left alone, since its work depends on how many boxes are found.
    """
    dyhead = backbone.dyhead
    parts = [backbone.body, backbone.fpn]
    if isinstance(dyhead, DyHead) and dyhead.can_be_fast:
        parts += dyhead.blocks
    return parts


def _require_compiler(device: torch.device) -> None:
    """Compile one addition, since a missing compiler would be told of only in the first step.

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

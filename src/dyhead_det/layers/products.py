"""Matrix products without gradients, on the faster of the two libraries that PyTorch has on a CPU.

PyTorch multiplies matrices with MKL, which leaves the wide instructions of processors that are not
Intel's alone, and convolves with oneDNN, which uses them: on a Zen 5, oneDNN's products take less
than half the time. Only ``torch.compile`` gives access to them, by an operator of its own; the same
operator is called here, where it is there.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _onednn_linear() -> Callable[..., Any] | None:
    if torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        operator: Callable[..., Any] = torch.ops.mkldnn._linear_pointwise
        return operator
    return None


_ONEDNN_LINEAR = _onednn_linear()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.t() + bias``; nothing that requires a gradient may go in.

    Args:
        x: (P, K), any strides.
        weight: (N, K), any strides.
        bias: (N,), or nothing to add.

    Returns:
        (P, N).
    """
    if _ONEDNN_LINEAR is None or x.device.type != "cpu" or x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    product: Tensor = _ONEDNN_LINEAR(x, weight, bias, "none", [], "")
    return product

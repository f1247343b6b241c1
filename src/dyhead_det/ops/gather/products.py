"""Matrix products on the faster of the two libraries that PyTorch has on a CPU.

PyTorch multiplies matrices with MKL, which leaves the wide instructions of processors that are not
Intel's alone, and convolves with oneDNN, which uses them: on a Zen 5, oneDNN's products take less
than half the time. Only ``torch.compile`` gives access to them, by a private operator; the same
operator is called here, where it exists with exactly the signature that is called.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dyhead_det.ops.gather.context import Context

_SIGNATURE = (
    "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, "
    "Scalar?[] scalars, str? algorithm) -> Tensor Y"
)


def _find_onednn_linear(signature: str) -> Callable[..., Any] | None:
    """Return oneDNN's linear layer, or None where this PyTorch has none with the signature."""
    namespace, _, name = signature.partition("(")[0].partition("::")
    packet = getattr(getattr(torch.ops, namespace), name, None)
    operator = getattr(packet, "default", None)
    if operator is None or str(operator._schema) != signature or not torch._C._has_mkldnn:
        return None
    checked: Callable[..., Any] = operator
    return checked


_ONEDNN_LINEAR = _find_onednn_linear(_SIGNATURE)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.t() + bias``; nothing that requires a gradient may go in.

    Args:
        x: (P, K), any strides.
        weight: (N, K), any strides.
        bias: (N,), or nothing to add.

    Returns:
        (P, N).
    """
    if _ONEDNN_LINEAR is None or not _suits_onednn(x):
        return F.linear(x, weight, bias)
    product: Tensor = _ONEDNN_LINEAR(x, weight, bias, "none", [], "")
    return product


def _suits_onednn(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32


class FastLinear(nn.Linear):
    """A linear layer by `linear` on a CPU; the same parameters, rounded differently."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (P, K) to (P, N)."""
        # A graph that is traced or compiled, or measured without numbers, has ordinary operators.
        is_eager = type(x) is Tensor and not torch.compiler.is_compiling()
        is_eager = is_eager and torch._C._get_tracing_state() is None
        is_fast = _ONEDNN_LINEAR is not None and _suits_onednn(x) and is_eager
        if not is_fast or torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        product: Tensor = _Linear.apply(x, self.weight, self.bias)
        return product


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return linear(grad, weight.t()), linear(grad.t(), x.t()), grad.sum(dim=0)

"""Layers of detectron2 and mmdetection that differ from torchvision's with the same weights."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7


class LastLevelP6P7WithoutReLU(LastLevelP6P7):  # type: ignore[misc]  # untyped base
    """P6 and P7 of mmdetection (`add_extra_convs='on_output'`): no ReLU between the two."""

    def forward(
        self, p: list[Tensor], c: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """Append P6, from P5, and P7, from P6; the backbone's own maps are not needed."""
        del c
        p6 = self.p6(p[-1])
        return [*p, p6, self.p7(p6)], [*names, "p6", "p7"]


class BatchNormKernelFrozenBatchNorm2d(FrozenBatchNorm2d):  # type: ignore[misc]  # untyped base
    """A frozen batch norm computed by PyTorch's batch norm, as in detectron2 and mmdetection.

    Elsewhere it is ``x * scale + shift``: the same function, rounded differently.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, H, W) with the stored statistics."""
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=False,
            eps=self.eps,
        )


def use_batch_norm_kernel(backbone: nn.Module) -> None:
    """Let all frozen batch norms of a backbone round as in detectron2, in place."""
    for name, module in list(backbone.named_modules()):
        if isinstance(module, FrozenBatchNorm2d):
            replacement = BatchNormKernelFrozenBatchNorm2d(len(module.weight), eps=module.eps)
            replacement.load_state_dict(module.state_dict())
            backbone.set_submodule(name, replacement)

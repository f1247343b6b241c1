"""Swin transformers as detection uses them: four stages, each with a norm on what it gives away."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import SwinTransformer
from torchvision.models.swin_transformer import ShiftedWindowAttention

from dyhead_det.models.backbones.families import STAGE_STRIDES

STAGE_NAMES = tuple(STAGE_STRIDES)


@dataclass(frozen=True, slots=True)
class SwinShape:
    """What tells one Swin transformer from another.

    width: channels of the first stage, doubled by each further one.
    depths: blocks per stage.
    num_heads: attention heads per stage.
    window: side of a window, in cells.
    drop_path: probability at which the last block is left out in training.
    """

    width: int
    depths: tuple[int, int, int, int]
    num_heads: tuple[int, int, int, int]
    window: int
    drop_path: float


SWIN_SHAPES = {
    "swin_t": SwinShape(96, (2, 2, 6, 2), (3, 6, 12, 24), 7, 0.2),
    "swin_s": SwinShape(96, (2, 2, 18, 2), (3, 6, 12, 24), 7, 0.3),
    "swin_b": SwinShape(128, (2, 2, 18, 2), (4, 8, 16, 32), 7, 0.5),
    "swin_b_w12": SwinShape(128, (2, 2, 18, 2), (4, 8, 16, 32), 12, 0.3),
    "swin_l_w12": SwinShape(192, (2, 2, 18, 2), (6, 12, 24, 48), 12, 0.2),
}


class SwinStages(nn.Module):
    """Torchvision's Swin transformer without its end; names of weights are the classifier's."""

    def __init__(self, shape: SwinShape) -> None:
        super().__init__()
        self.features = SwinTransformer(
            patch_size=[4, 4],
            embed_dim=shape.width,
            depths=list(shape.depths),
            num_heads=list(shape.num_heads),
            window_size=[shape.window, shape.window],
            stochastic_depth_prob=shape.drop_path,
        ).features
        self.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]  # PyTorch's
            _recompute_position_indices
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the end of every stage, (B, H_l, W_l, C_l)."""
        x = images
        maps = {}
        for index, module in enumerate(self.features):  # patches, stage, merging, stage, ...
            x = module(x)
            if index % 2 == 1:
                maps[STAGE_NAMES[index // 2]] = x
        return maps


def _recompute_position_indices(stages: nn.Module, _incompatible_keys: object) -> None:
    """Compute the indices of relative positions anew: they follow from the size of the windows.

    Files of version 0.1 may hold wrong ones: with `train.ema` it averaged them like weights.
    """
    for module in stages.modules():
        if isinstance(module, ShiftedWindowAttention):
            device = module.relative_position_index.device
            module.define_relative_position_index()
            module.relative_position_index = module.relative_position_index.to(device)


class SwinBackbone(nn.Module):
    """Swin's stages, (B, H, W, C) inside, with a LayerNorm on each map that is used.

    The norms are those of the official detection code: Swin normalizes before a block, so that
    the end of a stage is not normalized.
    """

    def __init__(
        self, extractor: SwinStages, *, shape: SwinShape, stage_names: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.norms = nn.ModuleDict(
            {name: nn.LayerNorm(shape.width * 2 ** STAGE_NAMES.index(name)) for name in stage_names}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return C2..C5 as (B, C_l, H_l, W_l)."""
        maps = self.extractor(images)
        for name, norm in self.norms.items():
            maps[name] = norm(maps[name])
        return {name: x.permute(0, 3, 1, 2).contiguous() for name, x in maps.items()}


class AlwaysShiftedWindowAttention(ShiftedWindowAttention):  # type: ignore[misc]  # untyped base
    """Window attention that shifts its windows on small maps too, as detectron2 and mmdetection.

    Torchvision leaves the shift out along a side that one window covers. There the shifted window
    falls into two regions that do not see each other.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows of (B, H, W, C); the shape stays."""
        window_height, window_width = self.window_size
        is_small = x.shape[1] <= window_height or x.shape[2] <= window_width
        # A graph has one path for maps of all sizes: the one below is right for large ones too.
        takes_torchvisions = not (is_small or torchvision._is_tracing())
        if takes_torchvisions or sum(self.shift_size) == 0:
            attended: Tensor = super().forward(x)
            return attended
        height, width = x.shape[1:3]
        padded = F.pad(x, (0, 0, 0, -width % window_width, 0, -height % window_height))
        shift_y, shift_x = self.shift_size
        rolled = padded.roll((-shift_y, -shift_x), dims=(1, 2))
        tokens = self._split_windows(rolled)  # (B, W, T, C): W windows of T tokens
        region_of_token = self._split_windows(
            self._regions(rolled)[None, :, :, None]
        )  # (1, W, T, 1)
        tokens = self._attend(tokens, region_of_token[0, :, :, 0])
        merged = self._merge_windows(tokens, rolled.shape)
        return merged.roll((shift_y, shift_x), dims=(1, 2))[:, :height, :width].contiguous()

    def _attend(self, tokens: Tensor, region_of_token: Tensor) -> Tensor:
        """Attend within windows (B, W, T, C), only among tokens of the same region (W, T)."""
        heads = (3, self.num_heads, tokens.shape[-1] // self.num_heads)
        qkv = self.qkv(tokens).view(*tokens.shape[:-1], *heads)  # (B, W, T, 3, heads, C')
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5)  # each (B, W, heads, T, C')
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        scores = scores + self.get_relative_position_bias()  # (1, heads, T, T)
        is_apart = region_of_token[:, :, None] != region_of_token[:, None, :]  # (W, T, T)
        scores = scores - 100.0 * is_apart[:, None].to(scores.dtype)
        weights = F.dropout(scores.softmax(-1), self.attention_dropout, self.training)
        mixed = (weights @ value).transpose(2, 3).flatten(3)  # (B, W, T, C)
        projected: Tensor = self.proj(mixed)
        return F.dropout(projected, self.dropout, self.training)

    def _regions(self, rolled: Tensor) -> Tensor:
        """Number the regions of a map whose windows were shifted, (H, W).

        The last window of an axis holds what the shift carried there from the other end.
        """
        numbers = []
        for size, window, shift in zip(
            rolled.shape[1:3], self.window_size, self.shift_size, strict=True
        ):
            index = torch.arange(size, device=rolled.device)
            numbers.append((index >= size - window).long() + (index >= size - shift).long())
        regions: Tensor = 3 * numbers[0][:, None] + numbers[1]
        return regions

    def _split_windows(self, x: Tensor) -> Tensor:
        """Cut (B, H, W, C) into windows of tokens, (B, num windows, tokens, C)."""
        batch, height, width, channels = x.shape
        rows, columns = self.window_size
        windows = x.view(batch, height // rows, rows, width // columns, columns, channels)
        return windows.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _merge_windows(self, tokens: Tensor, shape: torch.Size) -> Tensor:
        """Undo `_split_windows`."""
        batch, height, width, channels = shape
        rows, columns = self.window_size
        windows = tokens.view(batch, height // rows, width // columns, rows, columns, channels)
        return windows.transpose(2, 3).reshape(shape)


def always_shift_windows(backbone: nn.Module) -> None:
    """Let all shifted windows of a Swin backbone be shifted, on small maps too, in place."""
    for name, module in list(backbone.named_modules()):
        if type(module) is ShiftedWindowAttention:
            replacement = AlwaysShiftedWindowAttention(
                module.proj.in_features,
                module.window_size,
                module.shift_size,
                module.num_heads,
                attention_dropout=module.attention_dropout,
                dropout=module.dropout,
            )
            replacement.qkv, replacement.proj = module.qkv, module.proj
            replacement.relative_position_bias_table = module.relative_position_bias_table
            backbone.set_submodule(name, replacement)

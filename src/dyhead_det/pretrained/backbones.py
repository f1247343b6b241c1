"""Backbones in published files: which one it is, its input, and the names of Swin's weights."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from dyhead_det.checkpoints.key_mapping import Rule, matches, with_prefix
from dyhead_det.config.schema import InputConfig
from dyhead_det.errors import CheckpointError
from dyhead_det.models.backbones.swin import SWIN_SHAPES

IMAGENET_INPUT = InputConfig()

CAFFE_INPUT = InputConfig(
    mean=(123.675 / 255, 116.28 / 255, 103.53 / 255), std=(1 / 255, 1 / 255, 1 / 255)
)
"""The mean color is taken off and the scale stays 0..255; ours are RGB."""

_RESNET_DEPTHS = {
    (3, 4, 6, 3): "resnet50",
    (3, 4, 23, 3): "resnet101",
    (3, 8, 36, 3): "resnet152",
}


def count_indices(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Return how many names match a pattern of `key_mapping`."""
    return sum(1 for name in tensors if matches(pattern, name))


def count_blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Return how many numbers follow a prefix: blocks of which any tensor is there."""
    after = (name.removeprefix(prefix) for name in tensors if name.startswith(prefix))
    return len({rest.partition(".")[0] for rest in after})


def num_rows(tensors: Mapping[str, Tensor], name: str, *, source: str) -> int:
    """Return the first size of a tensor that tells what model a file holds.

    Raises:
        CheckpointError: If it is missing.
    """
    if name not in tensors or tensors[name].ndim == 0:
        raise CheckpointError(f"{source}: {name} is missing; the file is cut short or was changed")
    return len(tensors[name])


def recognize_resnet(tensors: Mapping[str, Tensor], *, stem: str, blocks: str, source: str) -> str:
    """Return the name of a ResNet of bottlenecks.

    Args:
        tensors: The file's.
        stem: The name of the first convolution.
        blocks: A pattern of which every block has one name, with ``{stage}`` (1 to 4) or
            ``{stage_plus_1}`` in it.
        source: What to call the file.

    Raises:
        CheckpointError: If it is none that we have.
    """
    depths = tuple(
        count_indices(tensors, blocks.format(stage=stage, stage_plus_1=stage + 1))
        for stage in (1, 2, 3, 4)
    )
    if stem not in tensors or depths not in _RESNET_DEPTHS:
        known = ", ".join([*_RESNET_DEPTHS.values(), *SWIN_SHAPES])
        raise CheckpointError(
            f"{source}: its backbone is none of {known}: {stem} is "
            f"{'there' if stem in tensors else 'missing'}, its stages have {depths} blocks"
        )
    return _RESNET_DEPTHS[depths]


def recognize_swin(
    tensors: Mapping[str, Tensor], *, patches: str, blocks: str, bias_table: str, source: str
) -> str:
    """Return the name of a Swin transformer.

    Args:
        tensors: The file's.
        patches: The name of the patch embedding's weight.
        blocks: A pattern of which every block has one name, with ``{stage}`` (0 to 3) in it.
        bias_table: The name of a table of relative positions, ((2 window - 1)^2, heads).
        source: What to call the file.

    Raises:
        CheckpointError: If it is none that we have.
    """
    width = num_rows(tensors, patches, source=source)
    depths = [count_indices(tensors, blocks.format(stage=stage)) for stage in range(4)]
    window = (round(num_rows(tensors, bias_table, source=source) ** 0.5) + 1) // 2
    for name, shape in SWIN_SHAPES.items():
        if (shape.width, list(shape.depths), shape.window) == (width, depths, window):
            return name
    raise CheckpointError(
        f"{source}: a Swin transformer of width {width}, depths {depths} and window {window} is "
        f"none of {', '.join(SWIN_SHAPES)}"
    )


def swin_rules(style: Literal["detectron2", "mmdet"]) -> list[Rule]:
    """Return the rules from the names of Swin's authors, or mmdetection's, to `SwinBackbone`'s."""
    return _SWIN_RULES[style]


def flip_channels(weight: Tensor) -> Tensor:
    """Turn a first convolution for BGR images into one for RGB images."""
    return weight.flip(1)


def merge_by_channel_to_by_neighbor(values: Tensor) -> Tensor:
    """Reorder patch merging's inputs: from mmdetection's order to Swin's own.

    The 4 neighbors of a position are joined to one vector of 4 C numbers. mmdetection puts the
    neighbors of a channel together, in the order (y, x) = 00, 01, 10, 11; Swin the channels of
    a neighbor, in the order 00, 10, 01, 11.

    Args:
        values: (..., 4 C), weights or norm parameters along the joined vector.
    """
    by_channel = values.reshape(*values.shape[:-1], -1, 4)  # (..., C, 4)
    return by_channel[..., [0, 2, 1, 3]].transpose(-1, -2).flatten(-2)


_DETECTRON2_BLOCK = [
    Rule("norm*.%", "norm*.%"),
    Rule("attn.qkv.%", "attn.qkv.%"),
    Rule("attn.proj.%", "attn.proj.%"),
    Rule("attn.relative_position_bias_table", "attn.relative_position_bias_table"),
    Rule("mlp.fc1.%", "mlp.0.%"),
    Rule("mlp.fc2.%", "mlp.3.%"),
]

_MMDET_BLOCK = [
    Rule("norm*.%", "norm*.%"),
    Rule("attn.w_msa.qkv.%", "attn.qkv.%"),
    Rule("attn.w_msa.proj.%", "attn.proj.%"),
    Rule("attn.w_msa.relative_position_bias_table", "attn.relative_position_bias_table"),
    Rule("ffn.layers.0.0.%", "mlp.0.%"),
    Rule("ffn.layers.1.%", "mlp.3.%"),
]


def _stage_rules(stages: str, block: list[Rule], merging: list[Rule]) -> list[Rule]:
    """Return the rules of all four stages; torchvision counts patches and mergings as features."""
    return [
        rule
        for stage in range(4)
        for rule in (
            *with_prefix(
                f"{stages}.{stage}.blocks.*.", f"extractor.features.{2 * stage + 1}.*.", block
            ),
            *with_prefix(
                f"{stages}.{stage}.downsample.", f"extractor.features.{2 * stage + 2}.", merging
            ),
        )
    ]


_OUTPUT_NORMS = [Rule(f"norm{stage}.%", f"norms.c{stage + 2}.%") for stage in (1, 2, 3)]

_SWIN_RULES = {
    "detectron2": [
        Rule("patch_embed.proj.%", "extractor.features.0.0.%"),
        Rule("patch_embed.norm.%", "extractor.features.0.2.%"),
        *_stage_rules(
            "layers",
            _DETECTRON2_BLOCK,
            [Rule("reduction.%", "reduction.%"), Rule("norm.%", "norm.%")],
        ),
        *_OUTPUT_NORMS,
    ],
    "mmdet": [
        Rule("patch_embed.projection.%", "extractor.features.0.0.%"),
        Rule("patch_embed.norm.%", "extractor.features.0.2.%"),
        *_stage_rules(
            "stages",
            _MMDET_BLOCK,
            [
                Rule("reduction.%", "reduction.%", merge_by_channel_to_by_neighbor),
                Rule("norm.%", "norm.%", merge_by_channel_to_by_neighbor),
            ],
        ),
        *_OUTPUT_NORMS,
    ],
}

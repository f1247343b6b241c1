"""What is traced is what is computed: maps from the numbers of a trace, against the head's own."""

import pytest
import torch

from dyhead_det.dyhead.head import DyHead
from dyhead_det.dyhead.stacked import StackedDyHead
from dyhead_det.dyhead.trace import trace_blocks
from dyhead_det.ops.deform_conv import modulated_deform_conv2d

# Odd sizes, and a coarsest level of one pixel.
SIZES_HW = [(9, 14), (5, 7), (3, 4)]
VARIANTS = [
    {},
    {"spatial": "conv"},
    {"dynamic_relu": "shared"},
    {"attention": ["scale"]},
    {"attention": ["spatial"]},
    {"attention": ["task"]},
    {"attention": ["scale", "task"], "residual": False},
    {"attention": ["spatial", "task"]},
]


def pyramid(batch=1):
    return [torch.randn(batch, 16, *size) for size in SIZES_HW]


def trace(dyhead, levels):
    with torch.no_grad():
        return list(trace_blocks(dyhead, levels))


def head(scheme, **options):
    """Return two blocks whose attentions have left their start."""
    dyhead = scheme(16, 2, zero_init_offsets=False, **options).eval()
    for parameter in dyhead.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return dyhead


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("scheme", [DyHead, StackedDyHead])
def test_the_last_traced_pyramid_is_what_the_head_returns(scheme, options):
    dyhead, levels = head(scheme, **options), pyramid(batch=2)
    blocks = trace(dyhead, levels)
    assert len(blocks) == 2
    for traced, own in zip(blocks[-1].pyramid, dyhead(levels), strict=True):
        torch.testing.assert_close(traced, own, rtol=1e-4, atol=1e-5)  # fast.py sums otherwise


def test_candidates_gates_and_coefficients_give_the_new_map():
    """Equations of `block.py`, with the numbers of the trace."""
    dyhead, levels = head(DyHead), pyramid()
    block, first = dyhead.blocks[0], trace(dyhead, levels)[0]
    convs = {0: block.same, -1: block.finer, 1: block.coarser}
    with torch.no_grad():
        for number, level in enumerate(first.levels):
            weighed = []
            for each in level.candidates:
                conv, sampling = convs[each.source - number], each.sampling
                assert sampling.grid == each.source
                seen = modulated_deform_conv2d(
                    levels[each.source], sampling.offset, sampling.mask, conv.weight, conv.bias,
                    stride=sampling.stride, backend="reference",
                )  # fmt: skip
                seen = torch.nn.functional.interpolate(
                    conv.norm(seen), size=SIZES_HW[number], mode="bilinear", align_corners=True
                )
                weighed.append(each.gate[:, None, None, None] * seen)
            fused = sum(weighed) / len(weighed)
            slope_1, shift_1, slope_2, shift_2 = level.coefficients[..., None, None]
            expected = torch.maximum(slope_1 * fused + shift_1, slope_2 * fused + shift_2)
            torch.testing.assert_close(level.result, expected, rtol=1e-4, atol=1e-5)


def test_a_level_reads_itself_then_the_finer_then_the_coarser_one():
    for scheme in (DyHead, StackedDyHead):
        levels = trace(head(scheme), pyramid())[0].levels
        sources = [[each.source for each in level.candidates] for level in levels]
        assert sources == [[0, 1], [1, 0, 2], [2, 1]]


def test_levels_of_the_tensor_share_the_points_of_the_median_and_have_the_gate_of_what_is_read():
    levels = trace(head(StackedDyHead), pyramid())[0].levels
    assert {level.grid for level in levels} == {1}
    samplings = [each.sampling for level in levels for each in level.candidates]
    assert all(each is samplings[0] for each in samplings)
    assert levels[0].candidates[1].gate == levels[1].candidates[0].gate
    assert levels[0].coefficients.shape == (4, 1, 16)


@pytest.mark.parametrize("scheme", [DyHead, StackedDyHead])
def test_what_is_left_out_is_none(scheme):
    plain = trace(head(scheme, spatial="conv"), pyramid())[0].levels[1]
    assert [each.sampling for each in plain.candidates] == [None] * 3
    alone = trace(head(scheme, attention=["task"]), pyramid())[0].levels[1]
    assert [each.source for each in alone.candidates] == [1]
    assert alone.candidates[0].gate is None
    assert trace(head(scheme, attention=["spatial"]), pyramid())[0].levels[1].coefficients is None


def test_no_hook_is_left_behind():
    dyhead = head(DyHead)
    trace(dyhead, pyramid())
    assert not any(module._forward_hooks for module in dyhead.modules())

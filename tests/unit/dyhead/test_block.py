"""Modules of the DyHead block: the rules for coarse offsets and the scale attention, by hand."""

import torch
from torch import nn

from dyhead_det.dyhead.block import ScaleAttention, bring_to_coarser, split_offsets_and_masks


def test_flattened_offsets_are_the_larger_memory_read_with_the_smaller_strides() -> None:
    # What the published CUDA kernel does: a pointer per image, and its own output's strides. The
    # offsets are the first 18 channels where they stand; the masks are a tensor of their own.
    torch.manual_seed(0)
    convolved = torch.randn(3, 27, 7, 5)
    h, w = 4, 3
    mask = convolved[:, 18:].sigmoid()
    expected = torch.empty(3, 27, h, w)
    for image in range(3):
        offset_memory = torch.as_strided(convolved, (27 * 7 * 5,), (1,), image * 27 * 7 * 5)
        mask_memory = torch.as_strided(mask, (9 * 7 * 5,), (1,), image * 9 * 7 * 5)
        for k in range(18):
            for y in range(h):
                for x in range(w):
                    expected[image, k, y, x] = offset_memory[(k * h + y) * w + x]
                    if k < 9:
                        expected[image, 18 + k, y, x] = mask_memory[(k * h + y) * w + x]

    offset, mask = split_offsets_and_masks(bring_to_coarser(convolved, (h, w), rule="flattened"))
    assert torch.equal(offset, expected[:, :18])
    torch.testing.assert_close(mask, expected[:, 18:])


def test_flattened_offsets_do_not_depend_on_the_memory_layout() -> None:
    convolved = torch.randn(2, 27, 6, 4)
    channels_last = convolved.contiguous(memory_format=torch.channels_last)
    got = bring_to_coarser(channels_last, (3, 2), rule="flattened")
    assert torch.equal(got, bring_to_coarser(convolved, (3, 2), rule="flattened"))


def test_cropped_offsets_are_the_top_left_corner() -> None:
    convolved = torch.arange(24.0).expand(1, 27, 24).view(1, 27, 4, 6)
    got = bring_to_coarser(convolved, (2, 3), rule="cropped")
    assert got.shape == (1, 27, 2, 3)
    assert got[0, 20].tolist() == [[0, 1, 2], [6, 7, 8]]


def test_resized_offsets_stay_with_their_place() -> None:
    # A ramp from 0 to 6 stays a ramp from 0 to 6 at half the pixels.
    convolved = torch.arange(7.0).expand(1, 27, 7, 7)
    got = bring_to_coarser(convolved, (4, 4), rule="resized")
    torch.testing.assert_close(got[0, 5, 2], torch.tensor([0.0, 2.0, 4.0, 6.0]))


def test_scale_attention_at_rest_halves_the_average() -> None:
    # hardsigmoid(relu(0)) = 1/2, and never less.
    attention = ScaleAttention(2)
    nn.init.zeros_(attention.score.weight)
    candidates = [torch.full((1, 2, 2, 2), value) for value in (1.0, 5.0)]
    torch.testing.assert_close(attention(candidates), torch.full((1, 2, 2, 2), 1.5))
    nn.init.constant_(attention.score.bias, -100.0)
    torch.testing.assert_close(attention(candidates), torch.full((1, 2, 2, 2), 1.5))


def test_scale_attention_by_hand() -> None:
    attention = ScaleAttention(2)
    nn.init.constant_(attention.score.weight, 0.3)
    candidates = [torch.full((1, 2, 1, 1), value) for value in (1.0, 10.0)]
    # Scores 0.6 and 6: gates (0.6 + 3) / 6 = 0.6 and 1.
    torch.testing.assert_close(attention(candidates), torch.full((1, 2, 1, 1), (0.6 + 10) / 2))

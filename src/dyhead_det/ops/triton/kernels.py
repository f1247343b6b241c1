"""Kernels of the deformable convolution by gathered features: forward and all gradients.

The formula is that of `ops/gather/deform_conv.py`. For output location p and tap t

    sampled[p, t] = mask[t, p] * sum over the 4 neighbors k of  bilinear[p, t, k] * features[row_k]
    out[p]        = sum over t of  sampled[p, t] @ kernel[t]  +  bias

and, with the gradient g by ``out`` and what it is by the sampled features without their mask,
gs[p, t] = g[p] @ kernel[t].T, and s_k = gs[p, t] . features[row_k]:

    features[row_k]  gets  mask * bilinear_k * gs[p, t]                    (added in any order)
    mask[t, p]       gets  sum over k of  bilinear_k * s_k
    dy, dx           get   mask * sum over k of  bilinear_k's derivative * s_k
    kernel[t]        gets  sum over p of  sampled[p, t].T @ g[p]           (in fixed shares of p)

``sampled``, nine times the size of the output, exists only as tiles and is computed anew in
backward. Products are of the type of the features and summed in float32; locations and weights are
float32.

All tensors are contiguous: features (R, C); offsets_and_masks (27, P) float32; the grid's tap_yx
(2, 9, P) and map_hw (2, 1, P) float32, map_start (P,) int32 (see `ops/gather/sampling_grid.py`);
kernel (9, C, C_out); out and g (P, C_out). A launch does the locations ``begin <= p < end``, which
share one kernel. R and P are below 2^31; the numbers in a tensor may be more.
"""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
# Not part of what is compiled: they change with the size of the images.
SIZES = ("begin", "end", "num_locations", "locations_per_share")


@triton.jit(do_not_specialize=SIZES[:3])
def convolve(
    features, offsets_and_masks, tap_yx, map_hw, map_start, kernel, bias, out,
    begin, end, num_locations, channels, out_channels,
    PRECISION: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """Write ``out`` for BLOCK_P locations and BLOCK_O channels, see the top of this file."""
    p = begin + tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    total = tl.zeros((BLOCK_P, BLOCK_O), tl.float32)
    for tap in range(9):
        neighbors, mask = _locate(
            offsets_and_masks, tap_yx, map_hw, map_start, p, p < end, tap, num_locations
        )
        for first in range(0, channels, BLOCK_C):
            c = first + tl.arange(0, BLOCK_C)
            sampled = _sample(features, neighbors, mask, c, channels)
            of_tap = _kernel_tile(kernel, tap, c, o, channels, out_channels)
            total += _product(sampled.to(of_tap.dtype), of_tap, PRECISION)
    total += tl.load(bias + o, mask=o < out_channels, other=0.0).to(tl.float32)[None, :]
    tl.store(
        out + p[:, None] * out_channels + o[None, :],
        total.to(out.dtype.element_ty),
        mask=(p < end)[:, None] & (o < out_channels)[None, :],
    )


@triton.jit(do_not_specialize=SIZES[:3])
def differentiate_samples(
    features, offsets_and_masks, tap_yx, map_hw, map_start, kernel, g,
    grad_features, grad_offsets_and_masks,
    begin, end, num_locations, channels, out_channels,
    PRECISION: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """Write the gradients of one tap's offsets and masks, and add that of the features it read.

    ``grad_features`` (R, C) is float32 and starts at zero; ``grad_offsets_and_masks`` (27, P) is
    float32.
    """
    p = begin + tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    tap = tl.program_id(1)
    neighbors, mask = _locate(
        offsets_and_masks, tap_yx, map_hw, map_start, p, p < end, tap, num_locations
    )
    grad_mask = tl.zeros((BLOCK_P,), tl.float32)
    grad_y, grad_x = grad_mask, grad_mask
    for first in range(0, channels, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        of_sampled = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)  # gs
        for first_out in range(0, out_channels, BLOCK_O):
            o = first_out + tl.arange(0, BLOCK_O)
            of_out = _out_tile(g, p, o, end, out_channels)
            of_tap = _kernel_tile(kernel, tap, c, o, channels, out_channels)
            of_sampled += _product(of_out, tl.trans(of_tap), PRECISION)
        for k in tl.static_range(4):
            row, factor_y, factor_x, is_there = neighbors[k]
            read = _feature_tile(features, row, is_there, c, channels)
            s = tl.sum(of_sampled * read, axis=1)
            grad_mask += factor_y * factor_x * s
            grad_y += (factor_x if k >= 2 else -factor_x) * s
            grad_x += (factor_y if k % 2 else -factor_y) * s
            weight = mask * factor_y * factor_x
            # Offsets that are zero, as at the start of training, leave one neighbor of four.
            is_weighed = is_there & (weight != 0)
            tl.atomic_add(
                grad_features + row[:, None] * channels + c[None, :],
                of_sampled * weight[:, None],
                mask=is_weighed[:, None] & (c < channels)[None, :],
                sem="relaxed",
            )
    num_locations = num_locations.to(tl.int64)
    here = grad_offsets_and_masks + p
    tl.store(here + 2 * tap * num_locations, mask * grad_y, mask=p < end)
    tl.store(here + (2 * tap + 1) * num_locations, mask * grad_x, mask=p < end)
    tl.store(here + (18 + tap) * num_locations, grad_mask, mask=p < end)


@triton.jit(do_not_specialize=SIZES)
def differentiate_kernel(
    features, offsets_and_masks, tap_yx, map_hw, map_start, g, shares,
    begin, end, num_locations, channels, out_channels, locations_per_share,
    PRECISION: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """Write a tile of a share of the kernel's gradient: of ``locations_per_share`` locations.

    ``shares`` (num_shares, 9, C, C_out) is float32; its sum over the shares is the gradient.
    """
    num_blocks = tl.cdiv(channels, BLOCK_C)
    tap = tl.program_id(0) // num_blocks
    c = tl.program_id(0) % num_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    share = tl.program_id(2).to(tl.int64)
    share_begin = begin + share * locations_per_share
    share_end = tl.minimum(share_begin + locations_per_share, end)
    total = tl.zeros((BLOCK_C, BLOCK_O), tl.float32)
    for first in range(0, locations_per_share, BLOCK_P):
        p = share_begin + first + tl.arange(0, BLOCK_P)
        neighbors, mask = _locate(
            offsets_and_masks, tap_yx, map_hw, map_start, p, p < share_end, tap, num_locations
        )
        sampled = _sample(features, neighbors, mask, c, channels)
        of_out = _out_tile(g, p, o, share_end, out_channels)
        total += _product(tl.trans(sampled.to(of_out.dtype)), of_out, PRECISION)
    row = (share * 9 + tap) * channels + c
    tl.store(
        shares + row[:, None] * out_channels + o[None, :],
        total,
        mask=(c < channels)[:, None] & (o < out_channels)[None, :],
    )


@triton.jit
def _locate(offsets_and_masks, tap_yx, map_hw, map_start, p, exists, tap, num_locations):
    """Find the four pixels around the sampling locations of a tap, and its masks.

    Those of output locations ``p``, (BLOCK_P,) int64, that exist.

    Returns:
        Top left, top right, bottom left, bottom right, see `_neighbor`; and the masks, (BLOCK_P,).
    """
    num_locations = num_locations.to(tl.int64)
    here = offsets_and_masks + p
    dy = tl.load(here + 2 * tap * num_locations, mask=exists, other=0.0)
    dx = tl.load(here + (2 * tap + 1) * num_locations, mask=exists, other=0.0)
    mask = tl.load(here + (18 + tap) * num_locations, mask=exists, other=0.0)
    y = tl.load(tap_yx + p + tap * num_locations, mask=exists, other=0.0) + dy
    x = tl.load(tap_yx + p + (9 + tap) * num_locations, mask=exists, other=0.0) + dx
    height = tl.load(map_hw + p, mask=exists, other=0.0)
    width = tl.load(map_hw + p + num_locations, mask=exists, other=0.0)
    start = tl.load(map_start + p, mask=exists, other=0)
    # In the map or less than a pixel outside; a location that is not a number is neither.
    is_inside = exists & (y >= -1) & (y < height) & (x >= -1) & (x < width)
    y, x = tl.where(is_inside, y, -1.0), tl.where(is_inside, x, -1.0)
    neighbors = (
        _neighbor(y, x, height, width, start, is_inside, 0, 0),
        _neighbor(y, x, height, width, start, is_inside, 0, 1),
        _neighbor(y, x, height, width, start, is_inside, 1, 0),
        _neighbor(y, x, height, width, start, is_inside, 1, 1),
    )
    return neighbors, mask


@triton.jit
def _neighbor(y, x, height, width, start, is_inside, down: tl.constexpr, right: tl.constexpr):
    """Find one of the four pixels around sampling locations.

    Returns:
        Its row of the features (int64), the factors of its bilinear weight by line and by column,
        and whether it is in the map; (BLOCK_P,) each.
    """
    low_y, low_x = tl.floor(y), tl.floor(x)
    factor_y = y - low_y if down else 1 - (y - low_y)
    factor_x = x - low_x if right else 1 - (x - low_x)
    line, column = low_y + down, low_x + right
    is_there = is_inside & (line >= 0) & (line < height) & (column >= 0) & (column < width)
    pixel = line.to(tl.int32) * width.to(tl.int32) + column.to(tl.int32)
    return (start + pixel).to(tl.int64), factor_y, factor_x, is_there


@triton.jit
def _product(a, b, PRECISION: tl.constexpr):
    """Multiply tiles on tensor cores; the sums are float32."""
    if INTERPRETED:  # Triton's interpreter knows no products of bfloat16
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def _sample(features, neighbors, mask, c, channels):
    """Return ``sampled`` of one tap, (BLOCK_P, BLOCK_C) float32."""
    row, factor_y, factor_x, is_there = neighbors[0]
    read = _feature_tile(features, row, is_there, c, channels)
    sampled = read * (mask * factor_y * factor_x)[:, None]
    for k in tl.static_range(1, 4):
        row, factor_y, factor_x, is_there = neighbors[k]
        read = _feature_tile(features, row, is_there, c, channels)
        sampled += read * (mask * factor_y * factor_x)[:, None]
    return sampled


@triton.jit
def _feature_tile(features, row, is_there, c, channels):
    """Read (BLOCK_P, BLOCK_C) features as float32, zero where a pixel is not there."""
    is_read = is_there[:, None] & (c < channels)[None, :]
    tile = tl.load(features + row[:, None] * channels + c[None, :], mask=is_read, other=0.0)
    return tile.to(tl.float32)


@triton.jit
def _kernel_tile(kernel, tap, c, o, channels, out_channels):
    """Read (BLOCK_C, BLOCK_O) numbers of a tap's kernel."""
    row = tap * channels + c
    is_read = (c < channels)[:, None] & (o < out_channels)[None, :]
    return tl.load(kernel + row[:, None] * out_channels + o[None, :], mask=is_read, other=0.0)


@triton.jit
def _out_tile(g, p, o, end, out_channels):
    """Read (BLOCK_P, BLOCK_O) numbers of the gradient by the output."""
    is_read = (p < end)[:, None] & (o < out_channels)[None, :]
    return tl.load(g + p[:, None] * out_channels + o[None, :], mask=is_read, other=0.0)

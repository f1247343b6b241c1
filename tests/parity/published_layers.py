"""Backbones, pyramid and DyHead of the published models, written down from their description.

Part of `published_reference.py`.
"""

import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d


class Weights:
    """Tensors by name, read under a prefix."""

    def __init__(self, tensors, prefix=""):
        self.tensors, self.prefix = tensors, prefix

    def __getitem__(self, name):
        return self.tensors[self.prefix + name]

    def __contains__(self, name):
        return self.prefix + name in self.tensors

    def under(self, prefix):
        return Weights(self.tensors, self.prefix + prefix)

    def conv(self, x, name, stride=1, padding=0):
        bias = self.tensors.get(f"{self.prefix}{name}.bias")
        return F.conv2d(x, self[f"{name}.weight"], bias, stride=stride, padding=padding)

    def linear(self, x, name):
        bias = self.tensors.get(f"{self.prefix}{name}.bias")
        return F.linear(x, self[f"{name}.weight"], bias)

    def frozen_norm(self, x, name):
        return F.batch_norm(
            x,
            self[f"{name}.running_mean"],
            self[f"{name}.running_var"],
            self[f"{name}.weight"],
            self[f"{name}.bias"],
            eps=1e-5,
        )

    def layer_norm(self, x, name):
        weight = self[f"{name}.weight"]
        return F.layer_norm(x, weight.shape, weight, self[f"{name}.bias"], 1e-5)


# --- backbones --------------------------------------------------------------------------------


def resnet_d2(x, w):
    """Detectron2's names; the stride of a stage is in the first 1x1 convolution."""
    x = F.relu(w.frozen_norm(w.conv(x, "stem.conv1", 2, 3), "stem.conv1.norm"))
    x = F.max_pool2d(x, 3, 2, 1)
    stages = []
    for stage, depth in ((2, 3), (3, 4), (4, 6), (5, 3)):
        for block in range(depth):
            b = w.under(f"res{stage}.{block}.")
            stride = 2 if block == 0 and stage > 2 else 1
            shortcut = x
            if block == 0:
                shortcut = b.frozen_norm(b.conv(x, "shortcut", stride), "shortcut.norm")
            y = F.relu(b.frozen_norm(b.conv(x, "conv1", stride), "conv1.norm"))
            y = F.relu(b.frozen_norm(b.conv(y, "conv2", 1, 1), "conv2.norm"))
            y = b.frozen_norm(b.conv(y, "conv3"), "conv3.norm")
            x = F.relu(y + shortcut)
        stages.append(x)
    return stages


def resnet_mmdet(x, w, caffe):
    x = F.max_pool2d(F.relu(w.frozen_norm(w.conv(x, "conv1", 2, 3), "bn1")), 3, 2, 1)
    stages = []
    for stage, depth in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for block in range(depth):
            b = w.under(f"layer{stage}.{block}.")
            stride = 2 if block == 0 and stage > 1 else 1
            first, second = (stride, 1) if caffe else (1, stride)
            shortcut = x
            if block == 0:
                shortcut = b.frozen_norm(b.conv(x, "downsample.0", stride), "downsample.1")
            y = F.relu(b.frozen_norm(b.conv(x, "conv1", first), "bn1"))
            y = F.relu(b.frozen_norm(b.conv(y, "conv2", second, 1), "bn2"))
            x = F.relu(b.frozen_norm(b.conv(y, "conv3"), "bn3") + shortcut)
        stages.append(x)
    return stages


def window_attention(x, w, heads, window, shift):
    """x: (B, H, W, C), padded to whole windows; every second block shifts, whatever the size."""
    b, height, width, c = x.shape
    region = torch.zeros(1, height, width, 1)
    if shift:
        x = torch.roll(x, (-shift, -shift), (1, 2))
        count = 0
        cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
        for rows in cuts:
            for columns in cuts:
                region[:, rows, columns] = count
                count += 1

    def split(t):
        n, _, _, k = t.shape
        t = t.view(n, height // window, window, width // window, window, k)
        return t.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, k)

    tokens = split(x)
    qkv = w.linear(tokens, "qkv").view(len(tokens), window**2, 3, heads, c // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = (q * (c // heads) ** -0.5) @ k.transpose(-2, -1)
    place = torch.stack(
        torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"), -1
    ).view(-1, 2)
    distance = place[:, None] - place[None] + window - 1
    index = distance[..., 0] * (2 * window - 1) + distance[..., 1]
    scores = scores + w["relative_position_bias_table"][index].permute(2, 0, 1)
    if shift:
        of_token = split(region)[..., 0]  # (windows of one image, T)
        mask = (of_token[:, None] != of_token[:, :, None]).float() * -100.0
        scores = scores + mask.repeat(b, 1, 1)[:, None]
    out = (scores.softmax(-1) @ v).transpose(1, 2).reshape(len(tokens), window**2, c)
    out = w.linear(out, "proj").view(b, height // window, width // window, window, window, c)
    out = out.permute(0, 1, 3, 2, 4, 5).reshape(b, height, width, c)
    return torch.roll(out, (shift, shift), (1, 2)) if shift else out


def swin(x, w, *, depths, heads, window, style):
    """style: names of the authors (`d2`) or of mmdetection (`mmdet`)."""
    d2 = style == "d2"
    x = w.conv(x, "patch_embed.proj" if d2 else "patch_embed.projection", 4)
    x = w.layer_norm(x.permute(0, 2, 3, 1), "patch_embed.norm")
    outputs = []
    for stage in range(4):
        s = w.under(f"layers.{stage}." if d2 else f"stages.{stage}.")
        for block in range(depths[stage]):
            blk = s.under(f"blocks.{block}.")
            y = blk.layer_norm(x, "norm1")
            height, width = y.shape[1:3]
            y = F.pad(y, (0, 0, 0, -width % window, 0, -height % window))
            attention = blk.under("attn." if d2 else "attn.w_msa.")
            shift = window // 2 if block % 2 else 0
            y = window_attention(y, attention, heads[stage], window, shift)
            x = x + y[:, :height, :width]
            first, second = ("mlp.fc1", "mlp.fc2") if d2 else ("ffn.layers.0.0", "ffn.layers.1")
            y = F.gelu(blk.linear(blk.layer_norm(x, "norm2"), first))
            x = x + blk.linear(y, second)
        if stage > 0:
            outputs.append(w.layer_norm(x, f"norm{stage}").permute(0, 3, 1, 2))
        if stage < 3:
            if d2:
                merged = torch.cat(
                    [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1
                )
            else:  # mmdetection unfolds 2x2 patches
                b, height, width, c = x.shape
                columns = F.unfold(x.permute(0, 3, 1, 2), 2, stride=2)
                merged = columns.transpose(1, 2).view(b, height // 2, width // 2, 4 * c)
            x = s.linear(s.layer_norm(merged, "downsample.norm"), "downsample.reduction")
    return outputs


# --- pyramid and DyHead --------------------------------------------------------------------------


def fpn(stages, lateral, output):
    """lateral, output: functions (map, index from the finest) -> map."""
    merged = [lateral(x, index) for index, x in enumerate(stages)]
    for index in range(len(merged) - 2, -1, -1):
        up = F.interpolate(merged[index + 1], size=merged[index].shape[-2:], mode="nearest")
        merged[index] = merged[index] + up
    return [output(x, index) for index, x in enumerate(merged)]


def dyhead_block(levels, *, views, offset, attention, fc1, fc2, coarse):
    """One block.

    views: for high, mid, low (weight, bias or None, norm weight, norm bias).
    offset, attention, fc1, fc2: functions of maps or vectors.
    coarse: `prefix` (the authors' memory accident) or `crop` (mmdetection's).
    """

    def convolve(x, off, mask, view, stride):
        weight, bias, norm_weight, norm_bias = views[view]
        y = deform_conv2d(x, off, weight, bias, stride=stride, padding=1, mask=mask)
        return F.group_norm(y, 16, norm_weight, norm_bias, 1e-5)

    results = []
    for level, x in enumerate(levels):
        om = offset(x)
        off, mask = om[:, :18], om[:, 18:].sigmoid()
        branches = [convolve(x, off, mask, "mid", 1)]
        if level > 0:
            branches.append(convolve(levels[level - 1], off, mask, "low", 2))
        if level < len(levels) - 1:
            above = levels[level + 1]
            h, w = above.shape[-2:]
            if coarse == "crop":
                small_off, small_mask = off[:, :, :h, :w], mask[:, :, :h, :w]
            else:
                small_off = torch.stack(
                    [each.reshape(-1)[: 18 * h * w].view(18, h, w) for each in off]
                )
                small_mask = torch.stack(
                    [each.reshape(-1)[: 9 * h * w].view(9, h, w) for each in mask]
                )
            y = convolve(above, small_off, small_mask, "high", 1)
            branches.append(
                F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=True)
            )
        total = 0
        for branch in branches:
            gate = F.relu6(F.relu(attention(branch.mean((2, 3), keepdim=True))) + 3) / 6
            total = total + gate * branch
        mixed = total / len(branches)
        t = F.relu6(fc2(F.relu(fc1(mixed.mean((2, 3), keepdim=True)))) + 3) / 6
        a1, b1, a2, b2 = t.chunk(4, 1)
        results.append(
            torch.maximum(
                mixed * ((a1 - 0.5) * 2 + 1) + (b1 - 0.5), mixed * ((a2 - 0.5) * 2) + (b2 - 0.5)
            )
        )
    return results


def dyhead_d2(levels, w):
    block = 0
    while f"{block}.offset.weight" in w:
        b = w.under(f"{block}.")
        views = {
            name: tuple(
                b[f"DyConv.{k}.{part}"]
                for part in ("conv.weight", "conv.bias", "bn.weight", "bn.bias")
            )
            for k, name in enumerate(("high", "mid", "low"))
        }
        levels = dyhead_block(
            levels,
            views=views,
            offset=lambda x, b=b: b.conv(x, "offset", 1, 1),
            attention=lambda x, b=b: b.conv(x, "AttnConv.1"),
            fc1=lambda x, b=b: b.linear(x.flatten(1), "relu.fc.0")[..., None, None],
            fc2=lambda x, b=b: b.linear(x.flatten(1), "relu.fc.2")[..., None, None],
            coarse="prefix",
        )
        block += 1
    return levels


def dyhead_mmdet(levels, w):
    block = 0
    while f"{block}.spatial_conv_offset.weight" in w:
        b = w.under(f"{block}.")
        views = {
            name: (
                b[f"spatial_conv_{name}.conv.weight"],
                None,
                b[f"spatial_conv_{name}.norm.weight"],
                b[f"spatial_conv_{name}.norm.bias"],
            )
            for name in ("high", "mid", "low")
        }
        levels = dyhead_block(
            levels,
            views=views,
            offset=lambda x, b=b: b.conv(x, "spatial_conv_offset", 1, 1),
            attention=lambda x, b=b: b.conv(x, "scale_attn_module.1"),
            fc1=lambda x, b=b: b.conv(x, "task_attn_module.conv1.conv"),
            fc2=lambda x, b=b: b.conv(x, "task_attn_module.conv2.conv"),
            coarse="crop",
        )
        block += 1
    return levels

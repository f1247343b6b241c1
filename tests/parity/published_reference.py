"""The published DyHead models written down from their description, in plain functions.

Nothing of the project is used: tensors by the original names go in, boxes come out. Operators of
torchvision that equal the originals' bit by bit (deformable convolution, pooling of regions,
non-maximum suppression) are taken from there.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.ops import batched_nms, deform_conv2d, roi_align

CLAMP = math.log(1000 / 16)


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


# --- images in -----------------------------------------------------------------------------------


def resize_shortest_edge(image, short_edge, long_edge):
    """image: (H, W, 3) uint8."""
    height, width = image.shape[:2]
    scale = short_edge / min(height, width)
    new_height, new_width = height * scale, width * scale
    if max(new_height, new_width) > long_edge:
        again = long_edge / max(new_height, new_width)
        new_height, new_width = new_height * again, new_width * again
    size = (int(new_width + 0.5), int(new_height + 0.5))
    return np.array(Image.fromarray(image).resize(size, Image.BILINEAR))


def normalise(image, mean, std):
    x = torch.from_numpy(image.copy()).permute(2, 0, 1).float()
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def pad_batch(images, multiple):
    height = max(x.shape[1] for x in images)
    width = max(x.shape[2] for x in images)
    height = math.ceil(height / multiple) * multiple
    width = math.ceil(width / multiple) * multiple
    return torch.stack([F.pad(x, (0, width - x.shape[2], 0, height - x.shape[1])) for x in images])


# --- bodies --------------------------------------------------------------------------------------


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


# --- heads ---------------------------------------------------------------------------------------


def decode(deltas, anchors, weights):
    """deltas: (N, 4); anchors: (N, 4)."""
    sizes = anchors[:, 2:] - anchors[:, :2]
    centers = anchors[:, :2] + 0.5 * sizes
    scaled = deltas / torch.tensor(weights)
    new_centers = centers + scaled[:, :2] * sizes
    new_sizes = sizes * scaled[:, 2:].clamp(max=CLAMP).exp()
    return torch.cat([new_centers - 0.5 * new_sizes, new_centers + 0.5 * new_sizes], 1)


def clip(boxes, size_hw):
    height, width = size_hw
    limit = torch.tensor([width, height, width, height], dtype=boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), limit)


def grid(x, stride, offset):
    """Centers of all places of a map, (H * W, 2) as (x, y)."""
    rows, columns = torch.meshgrid(
        *((torch.arange(n) + offset) * stride for n in x.shape[-2:]), indexing="ij"
    )
    return torch.stack([columns, rows], -1).view(-1, 2)


def anchors_of(x, stride, sizes):
    """All anchors of a level: places, then sizes, then ratios 1/2, 1, 2 (height / width)."""
    shapes = torch.tensor(
        [[s / r**0.5, s * r**0.5] for s in sizes for r in (0.5, 1.0, 2.0)], dtype=torch.float64
    )
    corners = torch.cat([-shapes / 2, shapes / 2], 1)
    centers = grid(x, stride, 0.0).double().repeat(1, 2)
    return (centers[:, None] + corners).view(-1, 4).float()


def per_place(x, columns):
    """(1, A * columns, H, W) -> (H * W * A, columns)."""
    return x[0].permute(1, 2, 0).reshape(-1, columns)


def rcnn_head(maps, w, size_hw):
    """maps: P2 to P6 of one image. Returns boxes, scores, labels in resized pixels."""
    rpn = w.under("proposal_generator.rpn_head.")
    boxes, logits, levels = [], [], []
    for level, x in enumerate(maps):
        hidden = F.relu(rpn.conv(x, "conv", 1, 1))
        score = per_place(rpn.conv(hidden, "objectness_logits"), 1)[:, 0]
        delta = per_place(rpn.conv(hidden, "anchor_deltas"), 4)
        best = score.argsort(descending=True)[:1000]
        anchors = anchors_of(x, 4 * 2**level, [32 * 2**level])
        boxes.append(decode(delta[best], anchors[best], (1.0, 1.0, 1.0, 1.0)))
        logits.append(score[best])
        levels.append(torch.full_like(best, level))
    boxes, logits, levels = clip(torch.cat(boxes), size_hw), torch.cat(logits), torch.cat(levels)
    real = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes, logits, levels = boxes[real], logits[real], levels[real]
    proposals = boxes[batched_nms(boxes, logits, levels, 0.7)[:1000]]

    area = (proposals[:, 2] - proposals[:, 0]) * (proposals[:, 3] - proposals[:, 1])
    level = torch.floor(4 + torch.log2(area.sqrt() / 224 + 1e-8)).clamp(2, 5)
    pooled = torch.zeros(len(proposals), 256, 7, 7)
    for k in (2, 3, 4, 5):
        chosen = level == k
        pooled[chosen] = roi_align(
            maps[k - 2], [proposals[chosen]], 7, 1 / 2**k, sampling_ratio=0, aligned=True
        )
    box_head = w.under("roi_heads.box_head.")
    hidden = F.relu(box_head.linear(pooled.flatten(1), "fc1"))
    hidden = F.relu(box_head.linear(hidden, "fc2"))
    predictor = w.under("roi_heads.box_predictor.")
    scores = predictor.linear(hidden, "cls_score").softmax(1)[:, :80]
    deltas = predictor.linear(hidden, "bbox_pred").view(-1, 80, 4)
    rows, labels = (scores > 0.05).nonzero(as_tuple=True)
    found = clip(decode(deltas[rows, labels], proposals[rows], (10.0, 10.0, 5.0, 5.0)), size_hw)
    scores = scores[rows, labels]
    keep = batched_nms(found, scores, labels, 0.5)[:100]
    return found[keep], scores[keep], labels[keep]


def retina_head(maps, w, size_hw):
    """maps: P3 to P7 of one image."""
    head = w.under("head.")
    parts = []
    for level, x in enumerate(maps):
        a = b = x
        for conv in (0, 2, 4, 6):
            a = F.relu(head.conv(a, f"cls_subnet.{conv}", 1, 1))
            b = F.relu(head.conv(b, f"bbox_subnet.{conv}", 1, 1))
        scores = per_place(head.conv(a, "cls_score", 1, 1), 80).sigmoid().flatten()
        deltas = per_place(head.conv(b, "bbox_pred", 1, 1), 4)
        base = 32 * 2**level
        anchors = anchors_of(x, 8 * 2**level, [base * 2 ** (i / 3) for i in range(3)])
        above = (scores > 0.05).nonzero()[:, 0]
        order = scores[above].argsort(descending=True)[:1000]
        chosen = above[order]
        anchor = chosen // 80
        boxes = decode(deltas[anchor], anchors[anchor], (1.0, 1.0, 1.0, 1.0))
        parts.append((boxes, scores[chosen], chosen % 80))
    boxes, scores, labels = (torch.cat(each) for each in zip(*parts, strict=True))
    keep = batched_nms(boxes, scores, labels, 0.5)[:100]
    return boxes[keep], scores[keep], labels[keep]


def atss_head(maps, predict, size_hw, *, offset, style):
    """predict: map, level -> class logits, deltas, centerness; style: `d2` or `mmdet`."""
    parts = []
    for level, x in enumerate(maps):
        stride = 8 * 2**level
        logits, deltas, centerness = predict(x, level)
        class_scores = per_place(logits, 80).sigmoid()
        center_scores = per_place(centerness, 1).sigmoid()
        deltas = per_place(deltas, 4)
        products = (class_scores * center_scores).flatten()
        centers = grid(x, stride, offset)
        anchors = torch.cat([centers - 4 * stride, centers + 4 * stride], 1).float()
        above = (class_scores.flatten() > 0.05).nonzero()[:, 0]
        ranking = products if style == "d2" else class_scores.flatten()
        chosen = above[ranking[above].argsort(descending=True)[:1000]]
        place = chosen // 80
        boxes = decode(deltas[place], anchors[place], (10.0, 10.0, 5.0, 5.0))
        if style == "mmdet":
            boxes = clip(boxes, size_hw)
        parts.append((boxes, products[chosen], chosen % 80))
    boxes, scores, labels = (torch.cat(each) for each in zip(*parts, strict=True))
    if style == "mmdet":
        real = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        boxes, scores, labels = boxes[real], scores[real], labels[real]
    keep = batched_nms(boxes, scores, labels, 0.6)[:100]
    return boxes[keep], scores[keep], labels[keep]


def to_given_image(detections, resized_hw, given_hw):
    """Scale to the image that was given, clip there, drop what is empty."""
    boxes, scores, labels = detections
    scale_y, scale_x = given_hw[0] / resized_hw[0], given_hw[1] / resized_hw[1]
    boxes = boxes * torch.tensor([scale_x, scale_y, scale_x, scale_y])
    boxes = clip(boxes, given_hw)
    keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return boxes[keep], scores[keep], labels[keep]


# --- whole models --------------------------------------------------------------------------------


def detect_d2(tensors, images, *, short_edge, long_edge):
    """Run one of the authors' models.

    images: (H, W, 3) uint8 RGB. Returns the DyHead maps of the batch, and per image (boxes,
    scores, labels) in its own pixels.
    """
    w = Weights(tensors)
    is_swin = "backbone.backbone.bottom_up.patch_embed.proj.weight" in tensors
    is_rcnn = "proposal_generator.rpn_head.conv.weight" in tensors
    resized = [resize_shortest_edge(image, short_edge, long_edge) for image in images]
    sizes = [x.shape[:2] for x in resized]
    if is_swin:
        mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
        inputs = [normalise(x, mean, std) for x in resized]
    else:
        mean, std = (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)
        inputs = [normalise(x[:, :, ::-1], mean, std) for x in resized]
    x = pad_batch(inputs, 64 if is_rcnn else 128)
    body = w.under("backbone.backbone.bottom_up.")
    if is_swin:
        stages = swin(x, body, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7, style="d2")
    else:
        stages = resnet_d2(x, body)[0 if is_rcnn else 1 :]
    first = 2 if is_rcnn else 3
    neck = w.under("backbone.backbone.")
    maps = fpn(
        stages,
        lambda y, index: neck.conv(y, f"fpn_lateral{first + index}"),
        lambda y, index: neck.conv(y, f"fpn_output{first + index}", 1, 1),
    )
    if is_rcnn:
        maps.append(maps[-1][:, :, ::2, ::2])
    else:
        maps.append(neck.conv(maps[-1], "top_block.p6", 2, 1))
        maps.append(neck.conv(F.relu(maps[-1]), "top_block.p7", 2, 1))
    maps = dyhead_d2(maps, w.under("backbone.dyhead_tower."))

    def atss_predict(y, level):
        head = w.under("head.")
        scale = head[f"scales.{level}.scale"]
        return (
            head.conv(y, "cls_logits"),
            head.conv(y, "bbox_pred") * scale,
            head.conv(y, "centerness"),
        )

    results = []
    for index, image in enumerate(images):
        own = [y[index : index + 1] for y in maps]
        if is_rcnn:
            found = rcnn_head(own, w, sizes[index])
        elif "head.cls_score.weight" in tensors:
            found = retina_head(own, w, sizes[index])
        else:
            found = atss_head(own, atss_predict, sizes[index], offset=0.5, style="d2")
        results.append(to_given_image(found, sizes[index], image.shape[:2]))
    return maps, results


def detect_mmdet(tensors, images, *, short_edge, long_edge, resize, swin_shape=None):
    """Run one of mmdetection's models; arguments and results as of `detect_d2`.

    resize: (H, W, 3) uint8, (H', W') -> uint8, the resizing of the model's data loader.
    swin_shape: depths, heads and window, where the body is a Swin transformer.
    """
    w = Weights(tensors)
    is_swin = "backbone.patch_embed.projection.weight" in tensors
    kernel = tensors["bbox_head.atss_cls.weight"].shape[-1]
    is_caffe = not is_swin and kernel == 1
    inputs, sizes = [], []
    for image in images:
        height, width = image.shape[:2]
        scale = min(long_edge / max(height, width), short_edge / min(height, width))
        size_hw = (int(height * scale + 0.5), int(width * scale + 0.5))
        resized = resize(image, size_hw)
        sizes.append(size_hw)
        if is_caffe:
            inputs.append(normalise(resized[:, :, ::-1], (103.53, 116.28, 123.675), (1.0,) * 3))
        else:
            mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
            inputs.append(normalise(resized, mean, std))
    x = pad_batch(inputs, 32 if kernel == 3 else 128)
    body = w.under("backbone.")
    if is_swin:
        stages = swin(x, body, **swin_shape, style="mmdet")
    else:
        stages = resnet_mmdet(x, body, is_caffe)[1:]
    neck = w.under("neck.0.")
    maps = fpn(
        stages,
        lambda y, index: neck.conv(y, f"lateral_convs.{index}.conv"),
        lambda y, index: neck.conv(y, f"fpn_convs.{index}.conv", 1, 1),
    )
    for index in (3, 4):  # no ReLU in between
        maps.append(neck.conv(maps[-1], f"fpn_convs.{index}.conv", 2, 1))
    maps = dyhead_mmdet(maps, w.under("neck.1.dyhead_blocks."))

    def predict(y, level):
        head = w.under("bbox_head.")
        padding = kernel // 2
        return (
            head.conv(y, "atss_cls", 1, padding),
            head.conv(y, "atss_reg", 1, padding) * head[f"scales.{level}.scale"],
            head.conv(y, "atss_centerness", 1, padding),
        )

    results = []
    for index, image in enumerate(images):
        own = [y[index : index + 1] for y in maps]
        offset = 0.0 if kernel == 3 else 0.5
        found = atss_head(own, predict, sizes[index], offset=offset, style="mmdet")
        results.append(to_given_image(found, sizes[index], image.shape[:2]))
    return maps, results


def resize_pil(image, size_hw):
    return np.array(Image.fromarray(image).resize((size_hw[1], size_hw[0]), Image.BILINEAR))


def resize_cv2(image, size_hw):
    """OpenCV's INTER_LINEAR for 8-bit pixels, pixel by pixel."""
    height, width = image.shape[:2]

    def taps(old, new):
        result = []
        for index in range(new):
            place = np.float32((index + 0.5) * (1 / (new / old)) - 0.5)
            first = int(np.floor(place))
            fraction = np.float32(place - first)
            weights = [int(np.rint((np.float32(1) - fraction) * np.float32(2048)))]
            weights.append(int(np.rint(fraction * np.float32(2048))))
            # A neighbor outside is the pixel at the border, its weight stays.
            result.append((max(first, 0), min(first + 1, old - 1), *weights))
        return result

    source = image.astype(np.int64)
    columns = taps(width, size_hw[1])
    out = np.empty((*size_hw, 3), np.uint8)
    for y, (top, bottom, b0, b1) in enumerate(taps(height, size_hw[0])):
        for x, (left, right, a0, a1) in enumerate(columns):
            upper = source[top, left] * a0 + source[top, right] * a1
            lower = source[bottom, left] * a0 + source[bottom, right] * a1
            out[y, x] = (((b0 * (upper >> 4)) >> 16) + ((b1 * (lower >> 4)) >> 16) + 2) >> 2
    return out

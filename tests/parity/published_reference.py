"""The published DyHead models written down from their description, in plain functions.

Nothing of the project is used: tensors by the original names go in, boxes come out. Operators of
torchvision that equal the originals' bit by bit (deformable convolution, pooling of regions,
non-maximum suppression) are taken from there.
"""

import math

import torch
import torch.nn.functional as F
from published_images import normalize, pad_batch, resize_shortest_edge
from published_layers import Weights, dyhead_d2, dyhead_mmdet, fpn, resnet_d2, resnet_mmdet, swin
from torchvision.ops import batched_nms, roi_align

CLAMP = math.log(1000 / 16)


# --- heads ---------------------------------------------------------------------------------------


def decode(deltas, anchors, weights, smallest=-math.inf):
    """deltas: (N, 4); anchors: (N, 4); smallest: lower bound of the logarithm of a side's ratio."""
    sizes = anchors[:, 2:] - anchors[:, :2]
    centers = anchors[:, :2] + 0.5 * sizes
    scaled = deltas / torch.tensor(weights)
    new_centers = centers + scaled[:, :2] * sizes
    new_sizes = sizes * scaled[:, 2:].clamp(min=smallest, max=CLAMP).exp()
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
        smallest = -CLAMP if style == "mmdet" else -math.inf
        boxes = decode(deltas[place], anchors[place], (10.0, 10.0, 5.0, 5.0), smallest)
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
        inputs = [normalize(x, mean, std) for x in resized]
    else:
        mean, std = (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)
        inputs = [normalize(x[:, :, ::-1], mean, std) for x in resized]
    x = pad_batch(inputs, 64 if is_rcnn else 128)
    backbone = w.under("backbone.backbone.bottom_up.")
    if is_swin:
        stages = swin(x, backbone, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7, style="d2")
    else:
        stages = resnet_d2(x, backbone)[0 if is_rcnn else 1 :]
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
    swin_shape: depths, heads and window, where the backbone is a Swin transformer.
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
            inputs.append(normalize(resized[:, :, ::-1], (103.53, 116.28, 123.675), (1.0,) * 3))
        else:
            mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
            inputs.append(normalize(resized, mean, std))
    x = pad_batch(inputs, 32 if kernel == 3 else 128)
    backbone = w.under("backbone.")
    if is_swin:
        stages = swin(x, backbone, **swin_shape, style="mmdet")
    else:
        stages = resnet_mmdet(x, backbone, is_caffe)[1:]
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

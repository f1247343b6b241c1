"""Checkpoints with the names and shapes of the published ones, filled at random.

Magnitudes are such that maps stay of the order of one through the network and that some scores
pass the thresholds.
"""

import torch


def _conv(keys, name, out_channels, in_channels, kernel, bias=True):
    keys[f"{name}.weight"] = (out_channels, in_channels, kernel, kernel)
    if bias:
        keys[f"{name}.bias"] = (out_channels,)


def _linear(keys, name, out_channels, in_channels, bias=True):
    keys[f"{name}.weight"] = (out_channels, in_channels)
    if bias:
        keys[f"{name}.bias"] = (out_channels,)


def _affine(keys, name, channels):
    keys[f"{name}.weight"] = keys[f"{name}.bias"] = (channels,)


def _batch_norm(keys, name, channels, counter=False):
    for part in ("weight", "bias", "running_mean", "running_var"):
        keys[f"{name}.{part}"] = (channels,)
    if counter:
        keys[f"{name}.num_batches_tracked"] = ()


def _resnet50_d2(keys, prefix):
    _conv(keys, f"{prefix}stem.conv1", 64, 3, 7, bias=False)
    _batch_norm(keys, f"{prefix}stem.conv1.norm", 64)
    before = 64
    for stage, depth, width in ((2, 3, 64), (3, 4, 128), (4, 6, 256), (5, 3, 512)):
        for block in range(depth):
            name = f"{prefix}res{stage}.{block}."
            if block == 0:
                _conv(keys, f"{name}shortcut", 4 * width, before, 1, bias=False)
                _batch_norm(keys, f"{name}shortcut.norm", 4 * width)
            shapes = ((width, before, 1), (width, width, 3), (4 * width, width, 1))
            for index, shape in enumerate(shapes, start=1):
                _conv(keys, f"{name}conv{index}", *shape, bias=False)
                _batch_norm(keys, f"{name}conv{index}.norm", shape[0])
            before = 4 * width


def _resnet50_mmdet(keys, prefix):
    _conv(keys, f"{prefix}conv1", 64, 3, 7, bias=False)
    _batch_norm(keys, f"{prefix}bn1", 64, counter=True)
    before = 64
    for stage, depth, width in ((1, 3, 64), (2, 4, 128), (3, 6, 256), (4, 3, 512)):
        for block in range(depth):
            name = f"{prefix}layer{stage}.{block}."
            if block == 0:
                _conv(keys, f"{name}downsample.0", 4 * width, before, 1, bias=False)
                _batch_norm(keys, f"{name}downsample.1", 4 * width, counter=True)
            shapes = ((width, before, 1), (width, width, 3), (4 * width, width, 1))
            for index, shape in enumerate(shapes, start=1):
                _conv(keys, f"{name}conv{index}", *shape, bias=False)
                _batch_norm(keys, f"{name}bn{index}", shape[0], counter=True)
            before = 4 * width


def _swin(keys, prefix, *, width, depths, heads, window, style):
    d2 = style == "d2"
    _conv(keys, f"{prefix}patch_embed.{'proj' if d2 else 'projection'}", width, 3, 4)
    _affine(keys, f"{prefix}patch_embed.norm", width)
    for stage, (depth, num_heads) in enumerate(zip(depths, heads, strict=True)):
        channels = width * 2**stage
        base = f"{prefix}{'layers' if d2 else 'stages'}.{stage}."
        for block in range(depth):
            name = f"{base}blocks.{block}."
            attention = name + ("attn." if d2 else "attn.w_msa.")
            _affine(keys, f"{name}norm1", channels)
            keys[f"{attention}relative_position_bias_table"] = ((2 * window - 1) ** 2, num_heads)
            keys[f"{attention}relative_position_index"] = (window**2, window**2)
            _linear(keys, f"{attention}qkv", 3 * channels, channels)
            _linear(keys, f"{attention}proj", channels, channels)
            _affine(keys, f"{name}norm2", channels)
            first, second = ("mlp.fc1", "mlp.fc2") if d2 else ("ffn.layers.0.0", "ffn.layers.1")
            _linear(keys, name + first, 4 * channels, channels)
            _linear(keys, name + second, channels, 4 * channels)
        if stage < 3:
            _linear(keys, f"{base}downsample.reduction", 2 * channels, 4 * channels, bias=False)
            _affine(keys, f"{base}downsample.norm", 4 * channels)
        if stage > 0:
            _affine(keys, f"{prefix}norm{stage}", channels)


def authors_keys(model):
    """Names and shapes of one of the authors' files.

    model: `fasterrcnn`, `retinanet`, `atss` or `atss_swin_t`.
    """
    keys = {}
    channels = (192, 384, 768) if model == "atss_swin_t" else (512, 1024, 2048)
    first = 3
    if model == "fasterrcnn":
        channels, first = (256, *channels), 2
    for level, in_channels in enumerate(channels, start=first):
        _conv(keys, f"backbone.backbone.fpn_lateral{level}", 256, in_channels, 1)
        _conv(keys, f"backbone.backbone.fpn_output{level}", 256, 256, 3)
    if model != "fasterrcnn":
        for level in (6, 7):
            _conv(keys, f"backbone.backbone.top_block.p{level}", 256, 256, 3)
    backbone = "backbone.backbone.bottom_up."
    if model == "atss_swin_t":
        shape = {"width": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24), "window": 7}
        _swin(keys, backbone, **shape, style="d2")
    else:
        _resnet50_d2(keys, backbone)
    for block in range(6):
        name = f"backbone.dyhead_tower.{block}."
        for view in range(3):
            _conv(keys, f"{name}DyConv.{view}.conv", 256, 256, 3)
            _affine(keys, f"{name}DyConv.{view}.bn", 256)
        _conv(keys, f"{name}AttnConv.1", 1, 256, 1)
        _linear(keys, f"{name}relu.fc.0", 64, 256)
        _linear(keys, f"{name}relu.fc.2", 1024, 64)
        _conv(keys, f"{name}offset", 27, 256, 3)
    if model == "fasterrcnn":
        _conv(keys, "proposal_generator.rpn_head.conv", 256, 256, 3)
        _conv(keys, "proposal_generator.rpn_head.objectness_logits", 3, 256, 1)
        _conv(keys, "proposal_generator.rpn_head.anchor_deltas", 12, 256, 1)
        _linear(keys, "roi_heads.box_head.fc1", 1024, 256 * 49)
        _linear(keys, "roi_heads.box_head.fc2", 1024, 1024)
        _linear(keys, "roi_heads.box_predictor.cls_score", 81, 1024)
        _linear(keys, "roi_heads.box_predictor.bbox_pred", 320, 1024)
    elif model == "retinanet":
        for subnet in ("cls_subnet", "bbox_subnet"):
            for index in (0, 2, 4, 6):
                _conv(keys, f"head.{subnet}.{index}", 256, 256, 3)
        _conv(keys, "head.cls_score", 720, 256, 3)
        _conv(keys, "head.bbox_pred", 36, 256, 3)
    else:
        _conv(keys, "head.cls_logits", 80, 256, 1)
        _conv(keys, "head.bbox_pred", 4, 256, 1)
        _conv(keys, "head.centerness", 1, 256, 1)
        for level in range(5):
            keys[f"head.scales.{level}.scale"] = (1,)
    return keys


SWIN_L = {"width": 192, "depths": (2, 2, 18, 2), "heads": (6, 12, 24, 48), "window": 12}


def mmdet_keys(model, swin_shape=SWIN_L):
    """Names and shapes of one of mmdetection's files: `r50`, `r50_caffe` or `swin_l`."""
    keys = {}
    if model == "swin_l":
        channels = tuple(swin_shape["width"] * 2**stage for stage in (1, 2, 3))
        _swin(keys, "backbone.", **swin_shape, style="mmdet")
    else:
        channels = (512, 1024, 2048)
        _resnet50_mmdet(keys, "backbone.")
    for index, in_channels in enumerate(channels):
        _conv(keys, f"neck.0.lateral_convs.{index}.conv", 256, in_channels, 1)
    for index in range(5):
        _conv(keys, f"neck.0.fpn_convs.{index}.conv", 256, 256, 3)
    for block in range(6):
        name = f"neck.1.dyhead_blocks.{block}."
        for view in ("high", "mid", "low"):
            _conv(keys, f"{name}spatial_conv_{view}.conv", 256, 256, 3, bias=False)
            _affine(keys, f"{name}spatial_conv_{view}.norm", 256)
        _conv(keys, f"{name}spatial_conv_offset", 27, 256, 3)
        _conv(keys, f"{name}scale_attn_module.1", 1, 256, 1)
        _conv(keys, f"{name}task_attn_module.conv1.conv", 64, 256, 1)
        _conv(keys, f"{name}task_attn_module.conv2.conv", 1024, 64, 1)
    kernel = 3 if model == "r50" else 1
    _conv(keys, "bbox_head.atss_cls", 80, 256, kernel)
    _conv(keys, "bbox_head.atss_reg", 4, 256, kernel)
    _conv(keys, "bbox_head.atss_centerness", 1, 256, kernel)
    for level in range(5):
        keys[f"bbox_head.scales.{level}.scale"] = ()
    return keys


# What the layers that decide about boxes get, by the end of their names: (spread, bias).
_SPREADS = {
    "objectness_logits": (2.0, 0.0),
    "anchor_deltas": (0.3, 0.0),
    "roi_heads.box_predictor.cls_score": (12.0, 0.0),
    "roi_heads.box_predictor.bbox_pred": (1.0, 0.0),
    "head.cls_score": (12.0, -6.0),
    "head.cls_logits": (10.0, -6.0),
    "atss_cls": (10.0, -6.0),
    "head.bbox_pred": (0.5, 0.0),
    "atss_reg": (0.5, 0.0),
    "centerness": (1.0, 0.5),
    "offset": (1.0, 0.0),
    "relu.fc.2": (0.3, 0.0),  # near an ordinary ReLU, so that maps vary from place to place
    "task_attn_module.conv2.conv": (0.3, 0.0),
}

_CLASS_LAYERS = ("cls_score", "cls_logits", "atss_cls")


def fill(keys, seed):
    """Random tensors for names and shapes."""
    random = torch.Generator().manual_seed(seed)

    def normal(shape, spread, mean=0.0):
        return mean + spread * torch.randn(shape, generator=random)

    tensors = {}
    for name, shape in keys.items():
        layer, _, part = name.rpartition(".")
        spread, bias = next(
            (value for end, value in _SPREADS.items() if layer.endswith(end)), (2**0.5, 0.0)
        )
        if "lateral" in layer:  # offsets of a few pixels in the first block
            spread = 0.2
        is_norm = len(keys.get(f"{layer}.weight", ())) == 1
        if part in ("num_batches_tracked", "relative_position_index"):
            tensors[name] = torch.zeros(shape, dtype=torch.int64)
        elif part == "scale":
            tensors[name] = normal(shape, 0.1, 1.0)
        elif part == "running_var":
            tensors[name] = 0.5 + torch.rand(shape, generator=random)
        elif is_norm and part == "weight":
            last_of_block = ("conv3.norm", "bn3")
            tensors[name] = normal(shape, 0.1, 0.3 if layer.endswith(last_of_block) else 1.0)
        elif is_norm or part == "relative_position_bias_table":
            tensors[name] = normal(shape, 0.1)
        elif part == "bias":
            tensors[name] = normal(shape, 0.1, bias)
        else:
            fan_in = torch.Size(shape[1:]).numel()
            weight = normal(shape, spread / fan_in**0.5)
            if layer.endswith(_CLASS_LAYERS):  # what all maps have in common favors no class
                weight -= weight.flatten(1).mean(1).view(-1, *[1] * (weight.ndim - 1))
            tensors[name] = weight
    for stem in ("backbone.backbone.bottom_up.stem.conv1.weight", "backbone.conv1.weight"):
        is_mmdet_r50 = keys.get("bbox_head.atss_cls.weight", ())[-1:] == (3,)
        if stem in tensors and not is_mmdet_r50:
            tensors[stem] /= 50  # these see 0..255
    return tensors

"""What is said about a file that cannot be used, by its names or by its first bytes."""

import pytest

from dyhead_det.checkpoints.recognize import beginning_looks_like, looks_like


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("backbone.dyhead_tower.0.offset.bias", "a DyHead model in detectron2's format"),
        ("neck.1.dyhead_blocks.0.spatial_conv_low.conv.weight", "a DyHead model of mmdetection"),
        ("rpn.head.dyhead_tower.0.offset.bias", "a GLIP model or another of maskrcnn-benchmark"),
        ("backbone.fpn.inner_blocks.0.0.weight", "a detector of torchvision"),
        ("bbox_head.retina_cls.weight", "a detector of mmdetection without DyHead"),
        ("backbone.bottom_up.stem.conv1.weight", "a detector of detectron2 without DyHead"),
        ("backbone.backbone.bottom_up.res2.0.x", "a detector of detectron2 without DyHead"),
        ("model.0.conv.weight", "a YOLO of ultralytics"),
        ("layer1.0.conv1.weight", "a classifier, or a backbone alone"),
        ("features.0.0.weight", "a classifier, or a backbone alone"),
        ("patch_embed.proj.weight", "a classifier, or a backbone alone"),
        ("a", "something else: 1 tensors, a"),
        ("\x1b[2J", "something else: 1 tensors, \\x1b[2J"),
    ],
)
def test_a_file_of_another_kind_is_called_by_a_name(name, phrase):
    assert looks_like({}, {name: None}) == phrase


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        ({"format": "dyhead-det"}, "a checkpoint of dyhead-det already; use it as it is"),
        ({"state": {}, "param_groups": []}, "the state of an optimizer"),
        ({"epoch": 3, "a\nb": 1}, "something without tensors by name: epoch, a\\nb"),
        ([1], "something without tensors by name: a list"),
    ],
)
def test_content_without_tensors_is_called_by_what_it_has(content, phrase):
    assert looks_like(content, {}) == phrase


@pytest.mark.parametrize(
    ("beginning", "phrase"),
    [
        (b"", "an empty file"),
        (b" <!DOCTYPE html>", "a web page"),
        (b'{"a": 1}', "JSON"),
        (b"\x89PNG\r\n", "a picture"),
        (b"PK\x03\x04", None),
        (b"\x80\x02}", None),
    ],
)
def test_first_bytes_tell_other_formats(beginning, phrase):
    assert beginning_looks_like(beginning) == phrase

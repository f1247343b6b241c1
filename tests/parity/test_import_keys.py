"""Every published model is recognized by its keys, and every key has a place."""

import json
import re
from pathlib import Path

import published_checkpoints as checkpoints
import pytest
import torch
from pydantic import ValidationError

from dyhead_det.checkpoints.key_mapping import translate
from dyhead_det.errors import CheckpointError
from dyhead_det.models.backbones.swin import SWIN_SHAPES
from dyhead_det.models.detectors import build_detector
from dyhead_det.pretrained import detectron2, mmdet
from dyhead_det.pretrained.importing import import_weights

KEY_LISTS = Path(__file__).parents[2] / ".." / "shared" / "official_keys"

AUTHORS = {
    "fasterrcnn": ("dyhead_r50_rcnn_fpn_1x", "fasterrcnn", "resnet50"),
    "retinanet": ("dyhead_r50_retina_fpn_1x", "retinanet", "resnet50"),
    "atss": ("dyhead_r50_atss_fpn_1x", "atss", "resnet50"),
    "atss_swin_t": ("dyhead_swint_atss_fpn_2x_ms", "atss", "swin_t"),
}
MMDET = {"r50": "resnet50", "r50_caffe": "resnet50", "swin_l": "swin_l_w12"}


def meta_tensors(keys):
    """Tensors of these shapes without values."""
    return {name: torch.empty(shape, device="meta") for name, shape in keys.items()}


def import_report(importer, tensors):
    config, num_classes = importer.describe_model(tensors, source="x.pth")
    with torch.device("meta"):
        detector = build_detector(config, num_classes=num_classes, load_backbone_weights=False)
    mapping = importer.build_key_mapping(config)
    _, report = translate(tensors, mapping, wanted=detector.state_dict(), source="x.pth")
    return config, num_classes, report


@pytest.mark.parametrize("model", AUTHORS)
def test_every_key_of_the_authors_models_has_a_place(model):
    tensors = meta_tensors(checkpoints.authors_keys(model))
    config, num_classes, report = import_report(detectron2, tensors)
    assert (config.detector.name, config.backbone.name) == AUTHORS[model][1:]
    assert num_classes == 80
    assert config.dyhead.num_blocks == 6
    assert config.dyhead.coarse_offsets == "flattened"
    assert not config.dyhead.residual
    assert report.mapped.keys() | report.dropped.keys() == tensors.keys()
    is_index = [name.endswith("relative_position_index") for name in report.dropped]
    assert all(is_index)
    assert len(is_index) == (12 if model == "atss_swin_t" else 0)


@pytest.mark.parametrize("model", AUTHORS)
def test_the_written_down_keys_are_the_authors(model):
    path = KEY_LISTS / f"keys_{AUTHORS[model][0]}.json"
    if not path.is_file():
        pytest.skip("the authors' lists of keys are not here")
    published = json.loads(path.read_text())["keys"]
    expected = {name: tuple(entry["shape"]) for name, entry in published.items()}
    assert checkpoints.authors_keys(model) == expected


@pytest.mark.parametrize("model", MMDET)
def test_every_key_of_mmdetections_models_has_a_place(model):
    tensors = meta_tensors(checkpoints.mmdet_keys(model))
    config, num_classes, report = import_report(mmdet, tensors)
    assert (config.backbone.name, num_classes) == (MMDET[model], 80)
    assert config.backbone.stride_in_1x1 == (model == "r50_caffe")
    assert config.detector.anchor_offset == (0.0 if model == "r50" else 0.5)
    assert config.input.pad_to_multiple == (32 if model == "r50" else None)
    assert report.mapped.keys() | report.dropped.keys() == tensors.keys()
    num_absent_biases = sum("no bias" in reason for reason in report.filled.values())
    assert num_absent_biases == 3 * 6


@pytest.mark.parametrize("name", sorted(SWIN_SHAPES))
def test_every_swin_transformer_is_told_by_its_shapes(name):
    shape = SWIN_SHAPES[name]
    swin_shape = {
        "width": shape.width,
        "depths": shape.depths,
        "heads": shape.num_heads,
        "window": shape.window,
    }
    tensors = meta_tensors(checkpoints.mmdet_keys("swin_l", swin_shape))
    config, _, report = import_report(mmdet, tensors)
    assert config.backbone.name == name
    assert report.mapped.keys() | report.dropped.keys() == tensors.keys()


def test_buffers_of_older_files_and_a_missing_tensor(tmp_path):
    keys = checkpoints.authors_keys("atss")
    old = {
        **keys,
        "pixel_mean": (3, 1, 1),
        "pixel_std": (3, 1, 1),
        **{f"anchor_generator.cell_anchors.{level}": (1, 4) for level in range(5)},
        "backbone.backbone.bottom_up.stem.conv1.norm.num_batches_tracked": (),
    }
    _, _, report = import_report(detectron2, meta_tensors(old))
    assert report.dropped.keys() == old.keys() - keys.keys()
    del keys["backbone.dyhead_tower.3.AttnConv.1.bias"]
    with pytest.raises(CheckpointError, match=r"blocks\.3\.scale\.score\.bias is missing"):
        import_report(detectron2, meta_tensors(keys))


@pytest.mark.parametrize(
    ("importer", "keys", "missing"),
    [
        (
            detectron2,
            checkpoints.authors_keys("atss"),
            "backbone.dyhead_tower.5.offset.bias",
        ),
        (
            mmdet,
            checkpoints.mmdet_keys("r50"),
            "neck.1.dyhead_blocks.5.spatial_conv_offset.bias",
        ),
    ],
)
def test_a_block_that_lacks_a_tensor_still_counts(importer, keys, missing):
    del keys[missing]
    message = r"1 tensors do not fit: .*\.blocks\.5\.offset_and_mask\.bias is missing"
    with pytest.raises(CheckpointError, match=message):
        import_report(importer, meta_tensors(keys))


@pytest.mark.parametrize(
    ("importer", "keys"),
    [
        *((detectron2, checkpoints.authors_keys(model)) for model in AUTHORS),
        *((mmdet, checkpoints.mmdet_keys(model)) for model in MMDET),
    ],
)
def test_a_file_that_lacks_a_kind_of_tensors_is_described_or_refused(importer, keys):
    tensors = meta_tensors(keys)
    kinds = {name: re.sub(r"\d+", "*", name) for name in keys}
    num_refused = 0
    for missing in set(kinds.values()):
        others = {name: value for name, value in tensors.items() if kinds[name] != missing}
        try:
            importer.describe_model(others, source="x.pth")
        except (CheckpointError, ValidationError):  # the second for no block at all
            num_refused += 1
    assert 3 <= num_refused <= 8


def test_a_model_that_cannot_be_built_is_one_clear_error(tmp_path):
    # The names of a whole model, but a pyramid of a single channel.
    tensors = {name: torch.zeros(1) for name in checkpoints.authors_keys("atss")}
    torch.save(tensors, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"none that can be built: .*divisible by 16"):
        import_weights(tmp_path / "x.pth", tmp_path / "out.pt", format="auto")


def test_an_unknown_body_is_refused_with_what_was_found():
    keys = {
        name: shape
        for name, shape in checkpoints.authors_keys("atss").items()
        if ".res4.5." not in name
    }
    with pytest.raises(CheckpointError, match=r"none of resnet50, .*\(3, 4, 5, 3\) blocks"):
        detectron2.describe_model(meta_tensors(keys), source="x.pth")

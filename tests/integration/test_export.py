"""An exported detector finds in onnxruntime what the checkpoint finds at every image size."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from dyhead_det.checkpoints.checkpoint import Checkpoint, save_checkpoint
from dyhead_det.cli.app import app
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import ConfigError, ExportError
from dyhead_det.export import export as export_module
from dyhead_det.export.check import TOLERANCES, Agreement, compare, run_file
from dyhead_det.export.export import export
from dyhead_det.export.onnx_graph import OPSET, write_graph
from dyhead_det.export.options import ExportOptions
from dyhead_det.models.backbones.swin import AlwaysShiftedWindowAttention
from dyhead_det.models.detectors import build_detector
from dyhead_det.prediction.detections import Detections
from dyhead_det.prediction.load import load
from dyhead_det.prediction.onnx_session import OnnxSession

from conftest import SMALL_DETECTORS, make_config

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CATEGORIES = CategoryMap((Category("square", 7), Category("circle", 11)))
LAYERS = (nn.Conv2d, nn.Linear)
# Wide, high, small; the last would be resized to 63 columns, not 64, if sizes were float32.
SIZES_HW = [(48, 64), (120, 70), (33, 47), (42, 41)]
# Shorter edges that would become less than a pixel, and no edge at all to speak of.
THIN_HW = [(1, 200), (200, 1), (2, 300), (1, 1)]


def small_config(root, name, **model):
    detector = dict(SMALL_DETECTORS[name])
    if name in ("retinanet", "atss"):  # the padding is full of objects that score 0.5 and equal
        detector["score_thresh"] = 0.52
    sizes = {"short_edge": 64, "long_edge": 96}
    model = {"detector": detector, "channels": 64, "input": sizes, **model}
    return make_config(root, model=model)


def save_sharpened(path, config):
    """Save a fresh detector whose heads tell places apart, as those of a trained one do."""
    detector = build_detector(config.model, num_classes=2, load_backbone_weights=False)
    for name, module in detector.network.named_modules():
        if name.startswith(("head", "rpn", "roi_heads")) and isinstance(module, LAYERS):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)
    save_checkpoint(path, Checkpoint(config, CATEGORIES, detector.state_dict(), 0, {}))
    return path


def export_small(checkpoint, out, *, overwrite=False, **options):
    return export(checkpoint, out, ExportOptions(**options), overwrite=overwrite)


def noise(size_hw):
    """Return an image with large and small things in it, (3, H, W) uint8."""
    coarse = torch.rand(1, 3, 5, 7)
    image = nn.functional.interpolate(coarse, size_hw, mode="bilinear") + torch.rand(3, *size_hw)
    return (image[0] * 127).to(torch.uint8)


def open_session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def assert_same_on_all_sizes(checkpoint, path, *, device="cpu"):
    session = open_session(path)
    predictor = load(checkpoint, device=device)
    for size_hw in SIZES_HW + THIN_HW:
        image = noise(size_hw)
        outputs = session.run(None, {"image": (image / 255).numpy()})
        agreement = compare(predictor.predict(image, min_score=0), *outputs)
        assert agreement.num_detections > (3 if size_hw in SIZES_HW else -1)
        assert agreement.num_unpaired == 0
        assert agreement.box_difference < 0.01
        assert agreement.score_difference < 1e-4


@pytest.mark.parametrize(
    ("name", "dyhead"),
    [
        *((name, {"num_blocks": 2}) for name in SMALL_DETECTORS),
        # At a scale of 1 two boxes that overlap by .85 may score equal to the last digit beside the
        # image, where maps are even: either suppresses the other, and then what overlaps it.
        ("atss", {"num_blocks": 2, "scheme": "stacked", "residual_scale": 0.01}),
    ],
)
def test_every_detector_finds_the_same_at_every_size(name, dyhead, tiny_dataset, tmp_path, device):
    config = small_config(tiny_dataset, name, dyhead=dyhead)
    checkpoint = save_sharpened(tmp_path / "best.pt", config)
    summary = export_small(checkpoint, tmp_path / "model.onnx")
    assert summary.image.endswith("0.png")  # the first of the validation data
    assert summary.num_bytes == (tmp_path / "model.onnx").stat().st_size
    assert_same_on_all_sizes(checkpoint, tmp_path / "model.onnx", device=str(device))


def assert_as_the_checkpoint(checkpoint, path, precision="float32"):
    """Compare at every size; in a batch's file an image stands beside its mirror image."""
    session, predictor = OnnxSession(path, num_threads=1), load(checkpoint, device="cpu")
    tolerance, total = TOLERANCES[precision], Agreement(0, 0, 0, 0)
    for size_hw in SIZES_HW + THIN_HW:
        image = noise(size_hw)
        images = [image] if session.batch is None else [image, image.flip(2)]
        found = session.detect([(each / 255).numpy() for each in images])
        for each, outputs in zip(images, found, strict=True):
            total += compare(predictor.predict(each, min_score=0), *outputs, tolerance)
    assert total.num_detections > 20
    assert total.is_within(tolerance)


@pytest.mark.parametrize("name", SMALL_DETECTORS)
def test_a_file_for_batches_finds_in_each_image_what_the_checkpoint_finds(
    name, tiny_dataset, tmp_path
):
    config = small_config(tiny_dataset, name, dyhead={"num_blocks": 1})
    checkpoint = save_sharpened(tmp_path / "best.pt", config)
    # All in one: a batch's file is made of two, and half precision of other casts.
    export_small(checkpoint, tmp_path / "a.onnx", batch="dynamic", deform="gather")
    assert_as_the_checkpoint(checkpoint, tmp_path / "a.onnx")
    assert b"DeformConv" not in (tmp_path / "a.onnx").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL_DETECTORS)
def test_half_precision_is_close(name, tiny_dataset, tmp_path):
    config = small_config(tiny_dataset, name, dyhead={"num_blocks": 1})
    checkpoint = save_sharpened(tmp_path / "best.pt", config)
    export_small(checkpoint, tmp_path / "full.onnx")
    export_small(checkpoint, tmp_path / "half.onnx", half=True)
    assert_as_the_checkpoint(checkpoint, tmp_path / "half.onnx", "float16")
    half, full = ((tmp_path / name).stat().st_size for name in ("half.onnx", "full.onnx"))
    assert half < 0.75 * full


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fasterrcnn", "atss"])
def test_8_bits_are_close_and_small(name, tiny_dataset, tmp_path):
    config = small_config(tiny_dataset, name, dyhead={"num_blocks": 1})
    checkpoint = save_sharpened(tmp_path / "best.pt", config)
    images = tiny_dataset / "images"
    export_small(checkpoint, tmp_path / "a.onnx", int8=images, batch=3, takes_uint8=True)
    session = OnnxSession(tmp_path / "a.onnx")
    assert (session.batch, session.takes_uint8) == (3, True)
    # Of four images the file of three takes three, and one that it is given thrice.
    four = [noise((40, 60)).numpy()] * 4
    assert len({len(scores) for _, scores, _ in session.detect(four)}) == 1
    assert b"QuantizeLinear" in (tmp_path / "a.onnx").read_bytes()
    assert json.loads(session.metadata["export"]) == {
        "batch": 3,
        "precision": "int8",
        "deform": "op",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model", "batch"),
    [
        ("fasterrcnn", {"compat": "detectron2"}, None),
        ("retinanet", {"compat": "detectron2"}, "dynamic"),
        ("atss", {"compat": "detectron2"}, None),
        ("atss", {"compat": "mmdet", "resize": "cv2"}, 2),
    ],
)
def test_the_original_conventions_hold_in_the_file(name, model, batch, tmp_path):
    rule = "cropped" if model["compat"] == "mmdet" else "flattened"
    config = small_config(
        tmp_path,  # without data: noise is looked at
        name,
        compat=model["compat"],
        dyhead={"num_blocks": 1, "coarse_offsets": rule},
        input={"short_edge": 64, "long_edge": 96, "resize": model.get("resize", "auto")},
    )
    checkpoint = save_sharpened(tmp_path / "imported.pt", config)
    assert export_small(checkpoint, tmp_path / "model.onnx", batch=batch).image == "noise"
    assert_as_the_checkpoint(checkpoint, tmp_path / "model.onnx")


@pytest.mark.filterwarnings("ignore")  # of the exporter, which is called as `write_graph` calls it
def test_windows_are_shifted_in_a_graph_at_every_size(tmp_path):
    layer = AlwaysShiftedWindowAttention(8, [4, 4], [2, 2], 2).eval()
    torch.onnx.export(
        layer,
        (torch.rand(1, 9, 13, 8),),
        tmp_path / "layer.onnx",
        dynamo=False,
        opset_version=OPSET,
        input_names=["x"],
        dynamic_axes={"x": {1: "height", 2: "width"}},
    )
    session = open_session(tmp_path / "layer.onnx")
    for height, width in [(9, 13), (12, 8), (4, 4), (3, 10), (16, 1)]:
        x = torch.rand(1, height, width, 8)
        with torch.no_grad():
            expected = layer(x)
        (attended,) = session.run(None, {"x": x.numpy()})
        assert attended == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.parametrize("name", SMALL_DETECTORS)
def test_nothing_is_found_where_there_is_nothing(name, tmp_path, caplog):
    config = small_config(tmp_path, name, dyhead=None)
    threshold = "box_score_thresh" if name == "fasterrcnn" else "score_thresh"
    section = config.model.detector.model_copy(update={threshold: 0.9999})
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"detector": section})}
    )
    checkpoint = save_sharpened(tmp_path / "best.pt", config)
    summary = export_small(checkpoint, tmp_path / "model.onnx")
    assert summary.agreement.num_detections == 0
    assert "give a picture with objects by --check-image" in caplog.text
    session = open_session(tmp_path / "model.onnx")
    boxes, scores, labels = session.run(None, {"image": np.zeros((3, 50, 70), np.float32)})
    assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))


@pytest.fixture
def plain_checkpoint(tiny_dataset, tmp_path):
    config = small_config(tiny_dataset, "retinanet", dyhead=None)
    return save_sharpened(tmp_path / "best.pt", config)


def test_the_command_writes_a_file_of_8_bit_pixels_that_says_what_is_in_it(
    plain_checkpoint, tmp_path
):
    picture = tmp_path / "photo.png"
    Image.fromarray(noise((40, 60)).permute(1, 2, 0).numpy()).save(picture)
    out = tmp_path / "new" / "model.onnx"
    options = ["--check-image", picture, "--uint8", "--short-edge", 48]
    arguments = ["export", plain_checkpoint, out, *options]
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert f"same as the checkpoint on {picture}: " in result.stdout
    assert [path.name for path in out.parent.iterdir()] == ["model.onnx"]
    session = open_session(out)
    assert [each.name for each in session.get_outputs()] == ["boxes", "scores", "labels"]
    assert session.get_inputs()[0].type == "tensor(uint8)"
    metadata = session.get_modelmeta()
    texts = {name: json.loads(text) for name, text in metadata.custom_metadata_map.items()}
    assert texts["categories"] == CATEGORIES.to_plain()
    assert texts["model"]["detector"]["name"] == "retinanet"
    assert {name: texts["input"][name] for name in ("short_edge", "long_edge", "pixels")} == {
        "short_edge": 48,
        "long_edge": 72,
        "pixels": "uint8",
    }
    assert "uint8 in 0..255" in metadata.description
    predictor = load(plain_checkpoint, device="cpu", short_edge=48)
    image = noise((80, 50))
    expected = predictor.predict(image, min_score=0)
    agreement = compare(expected, *session.run(None, {"image": image.numpy()}))
    assert agreement.num_detections > 3
    assert agreement.num_unpaired == 0


def test_a_file_that_finds_something_else_is_not_kept(plain_checkpoint, tmp_path, monkeypatch):
    def found_elsewhere(path, images):
        return [(boxes + 2, scores, labels) for boxes, scores, labels in run_file(path, images)]

    out = tmp_path / "onnx" / "model.onnx"
    out.parent.mkdir()
    out.write_text("an older one")
    monkeypatch.setattr(export_module, "run_file", found_elsewhere)
    with pytest.raises(ExportError, match=r"model.onnx was not written: .* without counterpart"):
        export_small(plain_checkpoint, out, overwrite=True)
    assert [path.read_text() for path in out.parent.iterdir()] == ["an older one"]


def test_nothing_but_an_onnx_file_is_written_and_none_is_replaced_unasked(tmp_path):
    nowhere = tmp_path / "nowhere.pt"  # refused before it is looked for
    with pytest.raises(ConfigError, match=r"x\.engine: what is written is an ONNX file"):
        export_small(nowhere, tmp_path / "x.engine", overwrite=True)
    (tmp_path / "x.onnx").write_text("an older one")
    with pytest.raises(ConfigError, match="--half and --int8 are two precisions"):
        export_small(nowhere, tmp_path / "y.onnx", half=True, int8=tmp_path)
    with pytest.raises(ConfigError, match=r"x\.onnx is there already; .*--overwrite"):
        export_small(nowhere, tmp_path / "x.onnx")
    with pytest.raises(ConfigError, match=r"x\.onnx: cannot be written \(Not a directory\)"):
        export_small(nowhere, tmp_path / "x.onnx" / "x.onnx")
    with pytest.raises(ValueError, match="short_edge is a whole number"):
        export_small(nowhere, tmp_path / "y.onnx", short_edge=0)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an older one"]


def test_a_broken_validation_image_is_not_looked_at(tiny_dataset, plain_checkpoint, tmp_path):
    (tiny_dataset / "images" / "0.png").write_bytes(b"broken")
    summary = export_small(plain_checkpoint, tmp_path / "model.onnx")
    assert summary.image.endswith("1.png")


def test_what_cannot_be_exported_is_named_without_a_word_more(tmp_path, capfd):
    config = small_config(tmp_path, "retinanet", dyhead=None)
    detector = build_detector(config.model, num_classes=2, load_backbone_weights=False).eval()
    detector.backbone.register_forward_hook(
        lambda module, args, maps: {name: torch.special.bessel_j0(x) for name, x in maps.items()}
    )
    with pytest.raises(ExportError, match=r"special_bessel_j0.*model\.backbone\.name") as error:
        write_graph(detector, tmp_path / "model.onnx", torch.rand(3, 64, 64))
    assert error.value.exit_code == 7
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_file_is_an_error_that_names_the_version(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(
        ExportError, match=rf"onnxruntime {onnxruntime.__version__} .*needed.* cannot run"
    ):
        run_file(tmp_path / "model.onnx", [torch.rand(3, 8, 8)])


def test_without_the_extra_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"needs onnxruntime: pip install 'dyhead-det\[export\]'"):
        export_small(tmp_path / "best.pt", tmp_path / "model.onnx")


def found(boxes, scores, labels):
    return (
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(scores, dtype=np.float32),
        np.array(labels),
    )


BOX, OTHER = [1, 2, 30, 40], [5, 5, 9, 9]


@pytest.mark.parametrize(
    ("theirs", "unpaired", "box_difference"),
    [
        (found([BOX, OTHER], [0.9, 0.8], [0, 1]), 0, 0),
        (found([OTHER, BOX], [0.8, 0.9], [1, 0]), 0, 0),  # the order of equals may differ
        (found([[1.05, 2, 30, 40], OTHER], [0.9, 0.8], [0, 1]), 0, 0.05),
        (found([[1.2, 2, 30, 40], OTHER], [0.9, 0.8], [0, 1]), 1, 0),
        (found([BOX, OTHER], [0.9, 0.8], [1, 1]), 1, 0),
        (found([BOX, OTHER], [0.9, 0.7], [0, 1]), 1, 0),
        (found([BOX, BOX], [0.9, 0.9], [0, 0]), 1, 0),
        (found([BOX, OTHER, OTHER], [0.9, 0.8, 0.8], [0, 1, 1]), 1, 0),
        (found([], [], []), 2, 0),
    ],
)
def test_objects_are_paired_by_class_place_and_score(theirs, unpaired, box_difference):
    categories = CategoryMap((Category("square", 7), Category("circle", 11)))
    ours = Detections(*found([BOX, OTHER], [0.9, 0.8], [0, 1]), categories)
    agreement = compare(ours, *theirs)
    assert agreement.num_unpaired == unpaired
    assert agreement.is_within(TOLERANCES["float32"]) == (unpaired == 0)
    assert agreement.box_difference == pytest.approx(box_difference, abs=1e-5)

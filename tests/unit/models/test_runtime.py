"""How a detector is run: layout, switches and compilation change no result and no name."""

import copy
import os
from functools import partial
from unittest import mock

import pytest
import torch
from torch import nn

from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.config.schema import EMAConfig, RuntimeConfig
from dyhead_det.errors import ConfigError
from dyhead_det.models.detectors import build_detector
from dyhead_det.models.runtime import (
    prepare_detector,
    pytorch_switches,
    replace_triton_where_it_cannot_run,
)
from dyhead_det.prediction.load import load
from dyhead_det.training.ema import build_ema
from dyhead_det.training.train import train

from conftest import make_config

CPU = torch.device("cpu")
# PyTorch's compiler hides this warning of its own, but not where warnings are errors.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


@pytest.fixture
def quick_compiler(monkeypatch):
    """Trace and differentiate as always, but run the graphs without building C++ from them."""
    compile_module = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **kw: compile_module(self, **kw, backend="aot_eager")
    )
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()


def small_detector(backend="gather", norm="frozen"):
    torch.manual_seed(0)
    config = make_config(
        model={
            "backbone": {"norm": norm},
            # A small scale: DyHead's maxima have kinks, where rounding decides the gradient. In
            # float64 and at a scale of 1 compiled and eager gradients agree within 2e-15.
            "dyhead": {
                "num_blocks": 1,
                "deform_backend": backend,
                "zero_init_offsets": False,
                "residual_scale": 0.01,
            },
        }
    )
    return build_detector(config.model, num_classes=2, load_backbone_weights=False)


def pyramid_and_gradients(detector, images):
    detector.zero_grad()
    maps = list(detector.backbone(images).values())
    sum(x.square().mean() for x in maps).backward()
    gradients = {
        name: p.grad for name, p in detector.backbone.named_parameters() if p.grad is not None
    }
    return maps, gradients


def require_equal_in_training_and_inference(detector, expected, sizes_hw):
    """Compare with another detector of the same weights, for images of several sizes."""
    for number, size_hw in enumerate(sizes_hw):
        images = torch.rand(2 + number, 3, *size_hw)
        maps, gradients = pyramid_and_gradients(detector.train(), images)
        expected_maps, expected_gradients = pyramid_and_gradients(expected.train(), images)
        torch.testing.assert_close(maps, expected_maps, rtol=1e-4, atol=1e-5)
        # Of the whole gradient: a maximum that changes sides moves a small one much.
        difference, size = (
            torch.cat([x.flatten() for x in each]).norm()
            for each in (
                [gradients[name] - wanted for name, wanted in expected_gradients.items()],
                expected_gradients.values(),
            )
        )
        assert difference < 1e-3 * size
        with torch.inference_mode():
            found = detector.eval().backbone(images)
            wanted = expected.eval().backbone(images)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_channels_last_changes_the_layout_of_weights_and_maps_alone():
    detector = small_detector()
    expected = copy.deepcopy(detector)
    prepare_detector(RuntimeConfig(channels_last=True), detector, CPU)
    stages = detector.backbone.body(torch.rand(2, 3, 64, 64))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in stages.values())
    require_equal_in_training_and_inference(detector, expected, [(64, 64), (64, 128)])


def test_without_channels_last_weights_stay_contiguous():
    detector = small_detector()
    prepare_detector(RuntimeConfig(channels_last=False), detector, CPU)
    assert all(parameter.is_contiguous() for parameter in detector.parameters())


def switches():
    return (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.fixture
def strict_determinism():
    """A caller who wants errors where an operator has no deterministic form."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_switches_hold_inside_the_block_and_are_the_callers_again_behind_it(strict_determinism):
    before = switches()
    config = RuntimeConfig(tf32=True, cudnn_benchmark=True, deterministic=True)
    with pytorch_switches(config):
        assert switches() == (True, True, True, True, True, ":4096:8")
        with pytorch_switches(RuntimeConfig(tf32=False)):
            assert switches()[:4] == (False, False, False, False)
    assert switches() == before


def test_switches_are_the_callers_again_after_an_error():
    before = switches()
    with (
        pytest.raises(ZeroDivisionError),
        pytorch_switches(RuntimeConfig(tf32=True, deterministic=True)),
    ):
        _ = 1 / 0
    assert switches() == before


def test_training_predicting_and_loading_leave_the_callers_switches(
    strict_determinism, tiny_dataset, tmp_path
):
    # The value of the configuration is not the caller's in any of the three.
    config = make_config(
        tiny_dataset, train={"steps": 3}, runtime={"tf32": True, "cudnn_benchmark": True}
    )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    before = switches()
    train(config, tmp_path / "run", device=CPU, resume=False)
    assert switches() == before
    load(tmp_path / "run" / "last.pt", device="cpu").predict(torch.rand(3, 64, 64))
    assert switches() == before


@pytest.mark.parametrize("norm", ["frozen", "normal"])
def test_a_deterministic_step_has_the_same_bits_as_another(norm):
    images = torch.rand(2, 3, 64, 64)
    results = []
    for deterministic in (True, True, False):
        config = RuntimeConfig(deterministic=deterministic)
        with pytorch_switches(config):
            detector = small_detector(norm=norm)
            prepare_detector(config, detector, CPU)
            results.append(pyramid_and_gradients(detector.train(), images)[1])
    first, again, without = results
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(first[name], without[name]) for name in first)


@pytest.mark.parametrize(
    ("backend", "spatial", "are_compiled"),
    [("gather", "deform", False), ("torchvision", "deform", True), ("gather", "conv", True)],
)
def test_blocks_are_compiled_where_their_own_forward_runs(backend, spatial, are_compiled):
    """The fast path only borrows their weights; a plain convolution has no fast path."""
    config = make_config(
        model={"dyhead": {"num_blocks": 2, "deform_backend": backend, "spatial": spatial}}
    )
    detector = build_detector(config.model, num_classes=2, load_backbone_weights=False)
    compiled = []
    for name, module in detector.backbone.named_modules():
        module.compile = lambda name=name, **_: compiled.append(name)
    with _compiler_found():
        prepare_detector(RuntimeConfig(compile=True), detector, CPU)
    blocks = ["dyhead.blocks.0", "dyhead.blocks.1"] if are_compiled else []
    assert compiled == ["body", "fpn", *blocks]


# With torchvision's operator the compiler meets DyHead's blocks, too.
@pytest.mark.parametrize("backend", ["gather", "torchvision"])
@pytest.mark.slow
def test_a_compiled_backbone_is_the_eager_one_for_images_of_any_size(quick_compiler, backend):
    detector = small_detector(backend)
    names = list(detector.state_dict())
    expected = copy.deepcopy(detector)
    prepare_detector(RuntimeConfig(compile=True), detector, CPU)
    assert list(detector.state_dict()) == names
    counted = torch._dynamo.utils.counters["stats"]
    require_equal_in_training_and_inference(detector, expected, [(160, 224)])
    num_graphs = counted["unique_graphs"]
    assert num_graphs > 0
    # Nothing anew, as long as no map is a single pixel wide.
    require_equal_in_training_and_inference(detector, expected, [(128, 256), (256, 192)])
    assert counted["unique_graphs"] == num_graphs


@pytest.mark.slow
def test_the_moving_average_and_copies_of_a_compiled_detector_are_their_own(quick_compiler):
    detector = small_detector()
    prepare_detector(RuntimeConfig(compile=True), detector, CPU)
    ema = build_ema(EMAConfig(decay=0.9), detector)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = ema.module.eval().backbone(images)
        for parameter in detector.parameters():
            parameter.zero_()
        detector.eval().backbone(images)
        torch.testing.assert_close(ema.module.backbone(images), before, rtol=0, atol=0)
    assert list(ema.module.state_dict()) == list(detector.state_dict())


@pytest.mark.slow
def test_a_compiled_run_is_saved_and_predicts_without_a_compiler(
    quick_compiler, monkeypatch, tiny_dataset, tmp_path
):
    config = make_config(tiny_dataset, train={"steps": 2}, runtime={"compile": True})
    train(config, tmp_path / "run", device=CPU, resume=False)
    path = tmp_path / "run" / "last.pt"
    assert load_checkpoint(path).config.runtime.compile
    monkeypatch.setattr(torch, "compile", _refuse)
    assert load(path, device="cpu").predict(torch.rand(3, 64, 64)) is not None


def test_triton_without_a_gpu_is_one_line_in_a_run_and_no_matter_to_a_checkpoint(caplog):
    detector = small_detector("triton")
    with pytest.raises(ConfigError, match="deform_backend: triton was asked for, but Triton"):
        prepare_detector(RuntimeConfig(), detector, CPU)
    with caplog.at_level("INFO"):
        replace_triton_where_it_cannot_run(detector, CPU)
    assert "auto instead of the run's triton, since Triton" in caplog.text
    prepare_detector(RuntimeConfig(), detector, CPU)
    assert detector.backbone.dyhead.deform_backend == "auto"


def _compiler_found():
    return mock.patch.object(torch, "compile", lambda function: function)


def _refuse(*_arguments, **_keywords):
    raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand more")


def test_a_missing_compiler_is_one_line_before_the_first_step(monkeypatch):
    monkeypatch.setattr(torch, "compile", _refuse)
    with pytest.raises(ConfigError, match="No working C\\+\\+ compiler found; install") as caught:
        prepare_detector(RuntimeConfig(compile=True), small_detector(), CPU)
    assert "runtime.compile=false" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_stacked_scheme_runs_channels_last_too():
    config = make_config(model={"dyhead": {"num_blocks": 1, "scheme": "stacked"}})
    detector = build_detector(config.model, num_classes=2, load_backbone_weights=False).eval()
    image = torch.rand(3, 64, 64)
    expected = detector([image])[0]["scores"]
    prepare_detector(RuntimeConfig(tf32=False), detector, CPU)
    assert detector.backbone.fpn.layer_blocks[0][0].weight.is_contiguous(
        memory_format=torch.channels_last
    )
    assert torch.allclose(detector([image])[0]["scores"], expected, atol=1e-5)

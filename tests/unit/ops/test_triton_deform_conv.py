"""Triton's kernels against torchvision's operator: in Triton's interpreter, and on a GPU."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from dyhead_det.dyhead.head import DyHead
from dyhead_det.ops import deform_conv
from dyhead_det.ops.gather.sampling_grid import build_sampling_grid
from dyhead_det.ops.gpu_choice import choices_path

pytest.importorskip("triton")  # PyTorch for Linux with CUDA brings it

import triton_cases
from triton_cases import CASES, Pair


@cache
def interpreted() -> dict[str, list[Pair]]:
    """All cases, computed in a process of its own, since Triton reads the switch when imported."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "results.pt"
        subprocess.run(
            [sys.executable, triton_cases.__file__, str(path)],
            check=True,
            env={
                **os.environ,
                "TRITON_INTERPRET": "1",
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
        )
        return torch.load(path)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_reference(case: str, device: torch.device) -> None:
    pairs = interpreted()[case] if device.type == "cpu" else triton_cases.compare(case, device)
    tolerance = CASES[case][1]
    for got, wanted in pairs:
        assert got.shape == wanted.shape
        allowed = tolerance * max(1.0, wanted.abs().max().item() if wanted.numel() else 0.0)
        torch.testing.assert_close(got, wanted, rtol=0, atol=allowed)


@pytest.fixture
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_auto_finds_the_kernels_right_and_keeps_its_choice(
    dtype: torch.dtype,
    gpu: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    deform_conv._gpu_chooser.cache_clear()
    chosen = deform_conv.resolve_backend(
        "auto", torch.zeros(1, 64, 32, 32, device=gpu, dtype=dtype)
    )
    deform_conv._gpu_chooser.cache_clear()
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    assert list(json.loads(choices_path().read_text()).values()) == [chosen]


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_of_the_blocks_waits_for_nothing(dtype: torch.dtype, gpu: torch.device) -> None:
    dyhead = DyHead(32, 2, deform_backend="triton").to(gpu)
    levels = [torch.randn(2, 32, *size, device=gpu) for size in ((9, 7), (5, 4))]

    def step() -> None:
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            attended = dyhead(levels)
        sum(x.float().square().sum() for x in attended).backward()

    step()  # compiles, compares and lays out the pyramid
    try:
        torch.cuda.set_sync_debug_mode("error")
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_features_may_be_more_than_32_bits_count(gpu: torch.device) -> None:
    if torch.cuda.mem_get_info(gpu)[0] < 20 * 2**30:
        pytest.skip("the GPU has less than 20 GiB")
    from dyhead_det.ops.triton.deform_conv import triton_conv

    num_rows = 2**23 + 20
    features = torch.zeros(num_rows, 256, device="cuda", dtype=torch.bfloat16)
    features[-20:] = torch.randn(20, 256)
    operands = [torch.randn(27, 20), torch.randn(16, 256, 3, 3) / 48, torch.randn(16)]
    results = []
    for start, map_features in ((0, features[-20:].clone()), (num_rows - 20, features)):
        on_gpu = [each.cuda().requires_grad_() for each in (map_features, *operands)]
        x, offsets_and_masks, weight, bias = on_gpu
        grid = build_sampling_grid(
            1, (5, 4), source_start=start, source_hw=(5, 4), stride=1, device=x.device
        )
        out = triton_conv(x, offsets_and_masks, [weight], [bias], grid, [20])
        gradients = torch.autograd.grad(out.square().sum(), on_gpu)
        results.append([out, gradients[0][-20:], *gradients[1:]])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-2, atol=1e-2)


def test_gradients_in_any_order_are_refused_where_bits_have_to_be_equal() -> None:
    from dyhead_det.ops.triton.deform_conv import _refuse_where_bits_have_to_be_equal as refuse

    refuse()
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="gather has the same bits again"):
            refuse()
        torch.use_deterministic_algorithms(True, warn_only=True)
        with pytest.warns(UserWarning, match="in any order"):
            refuse()
    finally:
        torch.use_deterministic_algorithms(False)


def test_double_precision_is_refused() -> None:
    from dyhead_det.ops.triton.deform_conv import triton_conv

    features = torch.zeros(4, 16, dtype=torch.double)
    with pytest.raises(ValueError, match=r"float32, bfloat16 and float16, not torch\.float64"):
        triton_conv(features, features, [], [], None, [])

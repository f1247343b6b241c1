"""The search for tiles: candidates that Triton can multiply, and a plain word without a GPU."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from dyhead_det.ops.triton.deform_conv import TILES, Tiles

SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.fixture(autouse=True)
def _scripts_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


def test_every_kernel_has_candidates_with_sides_that_can_be_multiplied():
    import tune_triton

    assert {kernel for kernel, _ in TILES} == set(tune_triton.CANDIDATES)
    assert {products for _, products in TILES} == set(tune_triton.PRODUCTS)
    for candidates in tune_triton.CANDIDATES.values():
        for tiles in (Tiles(*each) for each in candidates):
            for side in (tiles.locations, tiles.channels, tiles.out_channels):
                assert side >= 16
                assert side & (side - 1) == 0


def test_without_a_gpu_it_says_so(monkeypatch, tmp_path, capsys):
    import tune_triton

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["tune_triton", "--out", str(tmp_path / "tiles.md")])
    with pytest.raises(SystemExit):
        tune_triton.main()
    assert "there is no CUDA device" in capsys.readouterr().err

"""The report on Triton's kernels, of the smallest ones."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")


def test_a_kernel_is_compiled_for_a_gpu_that_is_not_here(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "scripts")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton_report

    usage = triton_report.usage_of("convolve", torch.bfloat16, 16, 80)
    assert usage.spilled_bytes == 0
    assert 16 <= usage.registers < 255
    assert 0 < usage.shared_bytes < 99 * 1024
    # 2^16 registers, in programs of warps with 32 threads.
    num_threads = 32 * usage.num_warps
    assert usage.programs_per_multiprocessor(80) == 2**16 // (usage.registers * num_threads)

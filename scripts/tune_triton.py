"""Which tiles are fastest for the Triton kernels on the GPU at hand.

    python scripts/tune_triton.py --out tiles.md

Compiles all candidates side by side, then times each alone on a map of random features, and prints
them by kernel and products, fastest first. `TILES` in `ops/triton/deform_conv.py` has what is
taken.
"""

import argparse
import math
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple
from itertools import product, repeat
from multiprocessing import get_context
from pathlib import Path

import torch
from triton.testing import do_bench

from dyhead_det.ops.gather.deform_conv import features_of_maps
from dyhead_det.ops.gather.sampling_grid import build_sampling_grid
from dyhead_det.ops.triton import deform_conv
from dyhead_det.ops.triton.deform_conv import TILES, Tiles
from measuring import markdown, report

# By kernel: sides of the tiles (locations, channels, output channels), warps, stages.
CANDIDATES = {
    "convolve": (
        *product((64,), (32, 64), (256,), (4, 8), (2, 3)),
        *product((32,), (32, 64), (256,), (4,), (2, 3)),
        *product((128,), (32, 64), (256,), (8,), (2,)),
        *product((64, 128), (32, 64), (128,), (4, 8), (2,)),
    ),
    "differentiate_samples": (
        *product((32, 64), (32, 64), (64,), (4, 8), (2,)),
        *product((64,), (64,), (32, 64, 128), (4, 8), (2, 3)),
        *product((128,), (32, 64), (64,), (8,), (2,)),
        *product((32, 64), (128,), (64,), (8,), (2,)),
    ),
    "differentiate_kernel": (
        *product((32, 64), (64,), (128, 256), (4, 8), (2,)),
        *product((32, 64), (128,), (128, 256), (8,), (2,)),
        *product((32,), (64,), (256,), (8,), (1, 3)),
        *product((32,), (32,), (128, 256), (4,), (2,)),
    ),
}
PRODUCTS = {
    "half": (torch.bfloat16, False),
    "tf32": (torch.float32, True),
    "tf32x3": (torch.float32, False),
}
Trial = tuple[str, str, tuple[int, ...]]
"""A kernel, the type of its products, and its tiles."""


def main() -> None:
    """Print a table for each kernel and type of products."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels", type=int, default=256, help="in and out [256]")
    parser.add_argument("--size", type=int, nargs=2, default=(100, 152), help="of the map")
    parser.add_argument("--products", nargs="+", choices=PRODUCTS, default=list(PRODUCTS))
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that compile")
    parser.add_argument("--out", type=Path, default=Path("bench/tiles.md"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device")
    taken = {key: astuple(tiles) for key, tiles in TILES.items()}
    trials = [
        (kernel, products, tiles)
        for products, kernel in product(options.products, CANDIDATES)
        for tiles in dict.fromkeys((*CANDIDATES[kernel], taken[kernel, products]))
    ]
    shape = (options.channels, tuple(options.size))
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        found = pool.map(compile_one, trials, repeat(shape[0]), chunksize=4)
        problems = dict(zip(trials, found, strict=True))
    lines = [f"# {torch.cuda.get_device_name()}, {shape[0]} channels, {shape[1]}", ""]
    for products, kernel in product(options.products, CANDIDATES):
        timed = []
        for trial in trials:
            if trial[:2] == (kernel, products):
                time = math.inf if problems[trial] else milliseconds(trial, shape)
                mark = "taken" if trial[2] == taken[kernel, products] else ""
                timed.append((time, [str(trial[2]), f"{time:.3f}", mark, problems[trial]]))
        rows = [row for _, row in sorted(timed)]
        lines += [f"## {kernel}, {products}", ""]
        lines += [*markdown(["tiles, warps, stages", "ms", "", "fault"], rows), ""]
    report(lines, options.out)


def compile_one(trial: Trial, channels: int) -> str:
    """Compile into Triton's cache, by a run on a small map; return what went wrong."""
    try:
        runner(trial, channels, (8, 8))()
        torch.cuda.synchronize()
    except Exception as error:  # noqa: BLE001 - compilers and drivers fail in many ways
        return f"{type(error).__name__}: {str(error)[:80]}"
    return ""


def milliseconds(trial: Trial, shape: tuple[int, tuple[int, int]]) -> float:
    """Return the median time of one launch and what prepares it."""
    time: float = do_bench(runner(trial, *shape), warmup=5, rep=25, return_mode="median")
    return time


def runner(trial: Trial, channels: int, size_hw: tuple[int, int]) -> Callable[[], object]:
    """Return a run of one kernel on random operands."""
    kernel, products, tiles = trial
    dtype, torch.backends.cuda.matmul.allow_tf32 = PRODUCTS[products]
    TILES[kernel, products] = Tiles(*tiles)
    torch.manual_seed(0)
    maps = torch.randn(1, channels, *size_hw, device="cuda", dtype=dtype)
    grid = build_sampling_grid(
        1, size_hw, source_start=0, source_hw=size_hw, stride=1, device=maps.device
    )
    offsets_and_masks = torch.randn(27, len(grid), device="cuda")
    inputs = deform_conv.launch_inputs(features_of_maps(maps), offsets_and_masks, grid)
    weight = torch.randn(channels, channels, 3, 3, device="cuda", dtype=dtype)
    out, here = torch.randn_like(inputs[0]), range(len(grid))
    if kernel == "convolve":
        return lambda: deform_conv.write_convolved(inputs, weight, weight[:, 0, 0, 0], out, here)
    if kernel == "differentiate_kernel":
        return lambda: deform_conv.grad_of_weight(inputs, out, weight, here)
    grads = torch.zeros_like(inputs[0], dtype=torch.float32), torch.empty_like(inputs[1])
    return lambda: deform_conv.add_grad_of_samples(inputs, weight, out, *grads, here)


if __name__ == "__main__":
    main()

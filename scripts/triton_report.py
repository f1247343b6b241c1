"""What the Triton kernels take of a GPU, compiled here without one: registers, memory, spills.

    python scripts/triton_report.py
    python scripts/triton_report.py --channels 128 --capability 89

Compiles each kernel for each type of products with the tiles that a launch would take, lets
NVIDIA's assembler count, and prints a markdown table. Programs per multiprocessor follow from
registers and shared memory. A spilled register is a fault of the tiles, `TILES` in
`ops/triton/deform_conv.py`, and makes the exit code 1.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dyhead_det.ops.triton import kernels
from dyhead_det.ops.triton.deform_conv import launch_options
from measuring import markdown

KERNELS = ("convolve", "differentiate_samples", "differentiate_kernel")
# Name of the products, their type, and whether TF32 is allowed.
PRODUCTS = (
    ("bfloat16", torch.bfloat16, False),
    ("float16", torch.float16, False),
    ("TF32", torch.float32, True),
    ("float32", torch.float32, False),
)
TYPE_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
# Everything else is of the type of the products.
OTHER_TYPES = {
    "map_start": "*i32",
    **dict.fromkeys(("offsets_and_masks", "tap_yx", "map_hw"), "*fp32"),
    **dict.fromkeys(("grad_features", "grad_offsets_and_masks", "shares"), "*fp32"),
    **dict.fromkeys((*kernels.SIZES, "channels", "out_channels"), "i32"),
}
# Of a multiprocessor: registers, and KiB that its programs share, by compute capability.
REGISTERS = 2**16
SHARED_KIB = {80: 164, 86: 100, 89: 100, 90: 228}
WARP_SIZE = 32


@dataclass(frozen=True)
class Usage:
    """What one program of a kernel takes."""

    registers: int
    spilled_bytes: int
    shared_bytes: int
    num_warps: int

    def programs_per_multiprocessor(self, capability: int) -> int:
        """Return how many run at a time; each takes a KiB of shared memory besides."""
        by_registers = REGISTERS // (self.registers * self.num_warps * WARP_SIZE)
        by_memory = SHARED_KIB.get(capability, 100) * 1024 // (self.shared_bytes + 1024)
        return min(by_registers, by_memory)


def main() -> int:
    """Print the table; 1 where registers are spilled."""
    options = parse_options()
    columns = ["kernel", "products", "GPU", "registers", "spilled", "shared KiB", "programs"]
    rows, has_spills = [], False
    for kernel, products, capability, usage in measured(options.channels, options.capability):
        has_spills |= usage.spilled_bytes > 0
        rows.append(
            [
                kernel,
                products,
                f"sm_{capability}",
                str(usage.registers),
                str(usage.spilled_bytes),
                f"{usage.shared_bytes / 1024:.0f}",
                str(usage.programs_per_multiprocessor(capability)),
            ]
        )
    print(f"Triton {triton.__version__}, {options.channels} channels;")
    print("programs at a time on a multiprocessor.\n")
    print("\n".join(markdown(columns, rows)))
    return int(has_spills)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels", type=int, default=256, help="in and out [256]")
    parser.add_argument(
        "--capability", type=int, nargs="+", default=[80, 90], help="of GPUs [80 90]"
    )
    return parser.parse_args()


def measured(channels: int, capabilities: list[int]) -> Iterator[tuple[str, str, int, Usage]]:
    """Compile all kernels, and tell of each what it takes."""
    was_allowed = torch.backends.cuda.matmul.allow_tf32
    try:
        for kernel in KERNELS:
            for name, dtype, has_tf32 in PRODUCTS:
                torch.backends.cuda.matmul.allow_tf32 = has_tf32
                for capability in capabilities:
                    yield kernel, name, capability, usage_of(kernel, dtype, channels, capability)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = was_allowed


def usage_of(kernel: str, dtype: torch.dtype, channels: int, capability: int) -> Usage:
    """Compile a kernel as for a launch on a GPU."""
    function = getattr(kernels, kernel)
    options = launch_options(kernel, dtype, channels, channels)
    constants = {name: options.pop(name) for name in function.arg_names if name in options}
    types = dict.fromkeys(constants, "constexpr")
    for name in function.arg_names:
        types.setdefault(name, OTHER_TYPES.get(name, f"*{TYPE_NAMES[dtype]}"))
    # What a launch finds out by itself: aligned memory, and channels that are multiples of 16.
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(function.arg_names)
        if types[name].startswith("*") or name.endswith("channels")
    }
    source = ASTSource(
        function,
        {name: types[name] for name in function.arg_names},
        {(function.arg_names.index(name),): value for name, value in constants.items()},
        aligned,
    )
    compiled = triton.compile(
        source, target=GPUTarget("cuda", capability, WARP_SIZE), options=options
    )
    assembled = assemble(compiled.asm["ptx"], capability)
    return Usage(
        registers=int(found(r"Used (\d+) registers", assembled)),
        spilled_bytes=int(found(r"(\d+) bytes spill stores", assembled)),
        shared_bytes=compiled.metadata.shared,
        num_warps=compiled.metadata.num_warps,
    )


def assemble(ptx: str, capability: int) -> str:
    """Return what NVIDIA's assembler, which comes with Triton, tells about a kernel."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx, encoding="utf-8")
        architecture = f"sm_{capability}{'a' if capability >= 90 else ''}"
        tools = triton.knobs.nvidia
        assembler = (tools.ptxas if capability < 100 else tools.ptxas_blackwell).path
        command = [assembler, "-v", f"--gpu-name={architecture}", str(path), "-o", f"{path}.bin"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def found(pattern: str, text: str) -> str:
    """Return the first group of a pattern."""
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"{pattern!r} is not in what the assembler says: {text}")
    return match[1]


if __name__ == "__main__":
    sys.exit(main())

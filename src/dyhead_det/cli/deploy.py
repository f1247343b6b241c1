"""`export` and `benchmark`: a checkpoint for other programs, and how fast either is."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dyhead_det.cli.quick_imports import quick_imports
from dyhead_det.cli.run import CheckpointFile, Device, LongEdge, ShortEdge
from dyhead_det.cli.streams import echo
from dyhead_det.prediction.arguments import MAX_BATCH_SIZE, MAX_EDGE


def _no_other_batch(value: str | None) -> str | None:
    """Refuse what is neither a number of images nor `dynamic`."""
    from dyhead_det.export.options import parse_batch

    try:
        parse_batch(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return value


def export(
    checkpoint: CheckpointFile,
    out: Annotated[
        Path,
        typer.Argument(
            dir_okay=False,
            help="The ONNX file to write; or a .pt2 file of torch.export, for backbone, FPN and "
            "DyHead alone.",
        ),
    ],
    check_image: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Compare file and checkpoint on this image [default: one of the validation data].",
        ),
    ] = None,
    uint8: Annotated[
        bool, typer.Option("--uint8", help="Take pixels in 0..255 instead of floats in [0, 1].")
    ] = False,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N|dynamic",
            callback=_no_other_batch,
            help="Take N images of one size at a time, or any number of them [default: one image].",
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Weights and maps in float16.")] = False,
    int8: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            metavar="FOLDER",
            help="Weights and maps in 8 bits, their ranges measured on images of this folder.",
        ),
    ] = None,
    deform: Annotated[
        Literal["op", "gather"],
        typer.Option(
            help="Deformable convolutions by ONNX's operator (torchvision's in a .pt2 file), or by "
            "standard operators for programs that do not know it."
        ),
    ] = "op",
    short_edge: ShortEdge = None,
    long_edge: LongEdge = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Write a checkpoint as an ONNX file that finds the same; or its backbone by torch.export."""
    with quick_imports():
        from dyhead_det.export.export import export as export_checkpoint
        from dyhead_det.export.options import ExportOptions, parse_batch

    options = ExportOptions(
        takes_uint8=uint8,
        batch=parse_batch(batch),
        half=half,
        int8=int8,
        deform=deform,
        short_edge=short_edge,
        long_edge=long_edge,
    )
    if out.suffix.lower() == ".pt2":
        if check_image is not None:
            msg = "--check-image is for ONNX files: maps are compared at two sizes of noise."
            raise typer.BadParameter(msg)
        from dyhead_det.export.backbone import export_backbone  # not for ONNX: PyTorch's compiler

        echo(export_backbone(checkpoint, out, options, overwrite=overwrite))
        return
    summary = export_checkpoint(
        checkpoint, out, options, check_image=check_image, overwrite=overwrite
    )
    echo(summary)


def _sizes(values: list[str] | None) -> list[str]:
    """Refuse what is no HEIGHTxWIDTH."""
    for value in values or []:
        parse_size(value)
    return values or []


def parse_size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH.

    Raises:
        BadParameter: if it is something else.
    """
    numbers = text.lower().split("x")
    if len(numbers) == 2 and all(each.isascii() and each.isdigit() for each in numbers):
        height, width = (int(each[:9]) for each in numbers)
        if min(height, width) >= 1 and max(height, width) <= MAX_EDGE:
            return height, width
    msg = f"HEIGHTxWIDTH, each from 1 to {MAX_EDGE}, such as 480x640, not {text!r}"
    raise typer.BadParameter(msg)


def benchmark(
    checkpoint: CheckpointFile,
    onnx_files: Annotated[
        list[Path] | None,
        typer.Argument(exists=True, dir_okay=False, help="Files that `export` made of it."),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HxW",
            callback=_sizes,
            help="Height and width of images [default: as in training]; repeat as needed.",
        ),
    ] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(min=1, max=MAX_BATCH_SIZE, help="Images at a time [default: 1]; repeat."),
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, max=1024, help="CPU threads [default: all]; repeat.")
    ] = None,
    precision: Annotated[
        Literal["float32", "bf16", "both"], typer.Option(help="Of the checkpoint.")
    ] = "float32",
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contestant.")] = 5,
    runs: Annotated[int, typer.Option(min=1, help="Runs in a turn.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("benchmark"),
    device: Device = "auto",
) -> None:
    """Time a checkpoint and ONNX files made from it, in turn, each in a process of its own."""
    with quick_imports():
        from dyhead_det.benchmark.benchmark import Plan
        from dyhead_det.benchmark.benchmark import benchmark as run_benchmark
        from dyhead_det.benchmark.report import table

    plan = Plan(
        sizes_hw=[parse_size(each) for each in size or []],
        batch_sizes=batch_size or [1],
        threads=threads or [],
        precisions=["float32", "bf16"] if precision == "both" else [precision],
        device=device,
        num_rounds=rounds,
        num_runs=runs,
    )
    echo(table(run_benchmark(checkpoint, onnx_files or [], out, plan)))
    echo(f"\nwritten: {out}/benchmark.csv, {out}/benchmark.json, {out}/benchmark.png")

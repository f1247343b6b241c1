"""`compare`: runs, evaluations and results files beside each other."""

from pathlib import Path
from typing import Annotated

import typer

from dyhead_det.cli.interrupts import clean_up_on_signals
from dyhead_det.cli.quick_imports import quick_imports
from dyhead_det.cli.streams import echo


def compare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            exists=True,
            help="Folders of runs or of `eval`, metrics.json, or COCO results; the first is what "
            "the others are compared with.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Annotations (.json) of all [default: those that the evaluations name].",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for table and plot.")] = Path("compare"),
    resamples: Annotated[
        int, typer.Option(min=0, max=10**5, help="Of the images, for the interval; 0: none.")
    ] = 1000,
) -> None:
    """Compare detectors: AP, AP of classes and over the steps, and how sure a difference is."""
    with quick_imports():
        from dyhead_det.files import require_writable
        from dyhead_det.reporting.comparison import COMPARE_FILES, compare
        from dyhead_det.reporting.scored import read_scored

    clean_up_on_signals()
    require_writable(out, *COMPARE_FILES)
    comparison = compare([read_scored(path, data) for path in sources], num_resamples=resamples)
    echo(comparison.text())
    comparison.write(out)
    echo(f"\nwritten: {', '.join(str(out / name) for name in COMPARE_FILES)}")

"""The root command, and the border where an error becomes one line and an exit code."""

import logging
import sys
from typing import Annotated

import typer

from dyhead_det import __version__
from dyhead_det.cli import data, run, tools, weights
from dyhead_det.errors import DyHeadDetError

app = typer.Typer(
    name="dyhead-det",
    help="DyHead object detectors on torchvision: train, evaluate, predict.",
    epilog="Exit codes: 0 done, 2 usage or configuration, 3 data, 4 checkpoint, 5 loss not "
    "finite, 6 training, 7 export, 8 out of memory, 130 Ctrl-C, 143 SIGTERM, 1 anything else.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(run.train)
app.command("eval")(run.evaluate)
app.command()(run.predict)
app.command()(tools.export)
app.command()(tools.info)
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere in the line).")
    ] = False,
) -> None:
    """Set up logging; what a program reads goes to stdout, all else to stderr."""
    if version:
        typer.echo(f"dyhead-det {__version__}")
        raise typer.Exit
    handler = _BarFriendlyHandler()
    handler.setFormatter(_Formatter())
    logger = logging.getLogger("dyhead_det")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False


def main() -> None:
    """Run the program: a user's error is one line and an exit code, never a traceback."""
    arguments = sys.argv[1:]
    is_debug = "--debug" in arguments
    if is_debug:  # it belongs to the root command, but people write it at the end
        arguments = ["--debug", *(argument for argument in arguments if argument != "--debug")]
    try:
        app(arguments)
    except DyHeadDetError as error:
        if is_debug:
            logging.getLogger(__name__).exception("where it happened:")
        if not error.is_reported:
            typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from error
    except OSError as error:
        if is_debug or error.filename is None:
            raise
        typer.echo(f"error: {error.filename}: {error.strerror}", err=True)
        raise SystemExit(1) from error


class _BarFriendlyHandler(logging.Handler):
    """Writes to stderr above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm = sys.modules.get("tqdm")
        line = self.format(record)
        try:
            if tqdm is None:
                sys.stderr.write(line + "\n")
            else:
                tqdm.tqdm.write(line, file=sys.stderr)
        except OSError:  # a full disk or a closed pipe behind stderr must not end a run
            self.handleError(record)


class _Formatter(logging.Formatter):
    """Plain text for information, a word in front of anything else."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"

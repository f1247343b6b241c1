"""The root command, and the border where an error becomes one line and an exit code."""

import errno
import io
import logging
import sys
from typing import Annotated, Any, NoReturn

import typer

from dyhead_det import __version__
from dyhead_det.cli import compare, config, data, deploy, predict, run, tools, weights
from dyhead_det.cli.streams import flush_streams, prepare_streams, write_message
from dyhead_det.errors import DyHeadDetError, OutOfMemoryError, OutputError
from dyhead_det.escaping import printable, printable_lines
from dyhead_det.files import DISK_FULL

# Whatever is wrong with a command line; typer does not export the name.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
_DISK_ERRORS = (*DISK_FULL, errno.EROFS, errno.EIO)

app = typer.Typer(
    name="dyhead-det",
    help="DyHead object detectors on torchvision: train, evaluate, predict.",
    epilog="Exit codes: 0 done, 2 usage or configuration, 3 data, 4 checkpoint, 5 loss not "
    "finite, 6 training or a full disk, 7 export, 8 out of memory, 129 lost terminal, 130 Ctrl-C, "
    "143 SIGTERM, 1 anything else.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(run.train)
app.command("eval")(run.evaluate)
app.command()(compare.compare)
app.command()(predict.predict)
app.command()(tools.explain)
app.command()(deploy.export)
app.command()(tools.info)
app.command()(deploy.benchmark)
app.add_typer(config.app, name="config")
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
    prepare_streams()
    arguments = sys.argv[1:]
    is_debug = "--debug" in arguments
    if is_debug:  # it belongs to the root command, but people write it at the end
        arguments = ["--debug", *(argument for argument in arguments if argument != "--debug")]
    try:
        code = app(arguments, standalone_mode=False)
        flush_streams()
    except DyHeadDetError as error:
        _end(error, error.exit_code, () if error.is_reported else error.args, is_debug=is_debug)
    except _UsageError as error:
        _end(error, 2, _usage_lines(error), prefix="", is_debug=False)
    except (typer.Abort, KeyboardInterrupt) as error:
        _end(error, 130, (), is_debug=False)
    except OSError as error:
        _end_by_system_error(error, is_debug=is_debug)
    except (MemoryError, RuntimeError) as error:
        # PyTorch's, which is not imported here.
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
            raise
        advice = f"out of memory: {error}; lower the batch size or the size of the images"
        _end(error, OutOfMemoryError.exit_code, (advice,), is_debug=is_debug)
    raise SystemExit(code)


def _end_by_system_error(error: OSError, *, is_debug: bool) -> NoReturn:
    """End with a line about a file; an error about none keeps its traceback."""
    if error.errno in _DISK_ERRORS:
        message = f"{error.filename or 'a file'}: cannot be written ({error.strerror}); make room"
        _end(error, OutputError.exit_code, (message,), is_debug=is_debug)
    if error.filename is None:
        raise error
    _end(error, 1, (f"{error.filename}: {error.strerror}",), is_debug=is_debug)


def _end(
    error: BaseException,
    exit_code: int,
    messages: tuple[object, ...],
    *,
    is_debug: bool,
    prefix: str = "error: ",
) -> NoReturn:
    if is_debug:
        logging.getLogger(__name__).error("where it happened:", exc_info=error)
    if messages:
        write_message(prefix + "\n".join(map(printable, messages)))
    raise SystemExit(exit_code) from error


def _usage_lines(error: Any) -> tuple[str, ...]:  # noqa: ANN401 - see `_UsageError`
    shown = io.StringIO()
    error.show(file=shown)
    return tuple(shown.getvalue().rstrip("\n").split("\n"))


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
        except (OSError, ValueError):  # a full disk or a closed pipe behind it must not end a run
            self.handleError(record)


class _Formatter(logging.Formatter):
    """One line of plain text, with a word in front of what is no information."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        text = printable(record.message)
        return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))  # it may have a traceback behind it

"""Standard streams that are closed, full, read by nobody, and names that a terminal would obey."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dyhead_det.cli import app as app_module
from dyhead_det.cli.app import main
from dyhead_det.errors import ConfigError

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a POSIX shell")


def shell(line):
    """Run a line of a shell in which `$P` is the program; return its code and both outputs."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "P": f"{sys.executable} -m dyhead_det"},
        timeout=60,
        check=False,
    )


FULL = "error: standard output: cannot be written (No space left on device); make room\n"


@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ("$P weights list >&-", 0, ""),
        ("$P weights list >&- 2>&- <&-", 0, ""),
        ("$P weights list | true", 0, ""),  # whoever reads has had enough
        ("$P weights list 2>/dev/full >&2", 6, ""),
        ("$P weights list >/dev/full", 6, FULL),
        ("$P weights download nothing 2>&-", 2, ""),
        ("$P weights download nothing 2>/dev/full", 2, ""),
        ("PYTHONIOENCODING=ascii $P weights download 'ä' 2>&1 >&-", 2, ""),
    ],
)
def test_a_stream_that_fails_is_at_most_one_line(line, code, error):
    result = shell(line)
    assert (result.returncode, result.stderr) == (code, error)


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["dyhead-det", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_a_file_opened_later_never_takes_the_place_of_a_closed_stream(tmp_path):
    opened, told = str(tmp_path / "opened"), str(tmp_path / "told")
    code = (
        "from dyhead_det.cli.streams import prepare_streams; prepare_streams();"
        f"print(open({opened!r}, 'w').fileno() > 2, file=open({told!r}, 'w'))"
    )
    shell(f'{sys.executable} -c "{code}" >&- 2>&- <&-')
    assert Path(told).read_text() == "True\n"


@pytest.mark.parametrize("arguments", [["\x1b[31m"], ["train", "a\nerror: b\x1b]0;title\x07.yaml"]])
def test_what_was_typed_is_shown_and_not_obeyed(monkeypatch, capsys, arguments):
    assert run_main(monkeypatch, *arguments) == 2
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert "\\x1b" in shown
    assert "\nerror: b" not in shown


def test_every_problem_of_an_error_is_one_line(monkeypatch, capsys):
    def fail(*arguments, **keywords):
        raise ConfigError("a.yaml: x\nerror: y", "a.yaml: \x1b[31m")

    monkeypatch.setattr(app_module, "app", fail)
    assert run_main(monkeypatch) == 2
    assert capsys.readouterr().err == "error: a.yaml: x\\nerror: y\na.yaml: \\x1b[31m\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OSError(28, "No space left", "out/a.png"), 6, "out/a.png: cannot be written (No space"),
        (OSError(28, "No space left"), 6, "a file: cannot be written (No space left); make room"),
        (OSError(13, "Permission denied", "x.yaml"), 1, "x.yaml: Permission denied"),
        (MemoryError("Unable to allocate 9 TiB"), 8, "out of memory: Unable to allocate 9 TiB; "),
        (KeyboardInterrupt(), 130, None),
    ],
)
def test_what_the_system_refuses_is_a_line(monkeypatch, capsys, error, code, line):
    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr(app_module, "app", fail)
    assert run_main(monkeypatch) == code
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {line}") if line else shown == ""
    assert shown.count("\n") == (line is not None)


def test_a_message_of_the_log_is_one_line(monkeypatch, capsys):
    run_main(monkeypatch, "weights", "list")
    logging.getLogger("dyhead_det.data").warning("skipped: %s", "a\nerror: b\x1b[31m")
    assert capsys.readouterr().err == "warning: skipped: a\\nerror: b\\x1b[31m\n"


IMPORTING = """
import os, signal, sys, threading
from dyhead_det import __main__
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.argv = ["dyhead-det", "weights", "list"]
__main__.main()
"""


def test_ctrl_c_while_the_program_is_imported_is_silent():
    result = subprocess.run(
        [sys.executable, "-c", IMPORTING],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        timeout=60,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")

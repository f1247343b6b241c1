"""Text files of strangers: UTF-8, and no larger than such files are."""

from pathlib import Path

from dyhead_det.errors import DatasetError
from dyhead_det.files import open_file

_MOST_BYTES = 1 << 28


def read_text(path: Path, *, max_bytes: int = _MOST_BYTES) -> str:
    """Read a file.

    Raises:
        OSError: if it cannot be opened.
        ValueError: if it is larger than `max_bytes`, or no UTF-8 text.
    """
    with open_file(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"larger than {max_bytes} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: no UTF-8 text") from error


def read_lines(path: Path) -> list[str]:
    """Return the lines of a list that are not empty, without blanks around them.

    Raises:
        DatasetError: if it cannot be read.
    """
    try:
        lines = read_text(path).splitlines()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip()]

"""Escaping: text from outside (class names, paths, keys) made harmless for where it is shown.

A name that a stranger's file brings may hold terminal escapes, line breaks, text that turns the
direction of reading, Markdown, HTML or a spreadsheet formula. It is kept as it is inside the
program, where it is compared, and escaped once, by one of these, on its way out.
"""

import html
import re
import unicodedata
from collections.abc import Iterable

# They join letters in Persian and emoji, and move nothing.
_JOINERS = "\u200c\u200d"
# Control, format (bidirectional overrides among them), lone surrogate, line and paragraph breaks.
_ESCAPED_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")

_MARKDOWN = re.compile(r"[\\`*_\[\]<>&|~#!$]")
# The password of an address: between the name of the user and the host, or a value of its query.
_PASSWORDS = re.compile(
    r"(?<=://)([^/?#\s:]*:)[^/?#\s]*(?=@)"
    r"|([?&_][^=&#\s]*(?:pass|pwd|secret|token|key|auth|sig)[^=&#\s]*=)[^&#\s]+",
    re.IGNORECASE,
)
# What makes a spreadsheet take the text of a cell for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def printable(text: object, *, max_length: int | None = None) -> str:
    r"""Return a text as one line that a terminal shows and does not obey.

    Args:
        text: Anything; `str` is taken of it.
        max_length: Characters to keep; what is longer ends with an ellipsis.

    Returns:
        The text with control characters, line breaks, bidirectional overrides and lone surrogates
        written as in Python: ``\n``, ``\x1b``, ``\u202e``.
    """
    shown = str(text)
    if max_length is not None and len(shown) > max_length:
        shown = shown[: max_length - 1] + "…"
    if shown.isprintable():
        return shown
    return "".join(_escape(character) for character in shown)


def without_passwords(address: str) -> str:
    """Return the address of a stream with `***` for its passwords, to be shown or written."""
    return _PASSWORDS.sub(lambda found: f"{found[1] or found[2]}***", address)


def printable_lines(text: object) -> str:
    """Return a text of several lines, each as `printable` makes it."""
    return "\n".join(printable(line) for line in str(text).split("\n"))


def listed(names: Iterable[object], *, max_named: int = 10) -> str:
    """Return names for a message, printable and separated by commas: the first ones of many."""
    shown = [printable(name, max_length=200) for name in names]
    more = f" and {len(shown) - max_named} more" if len(shown) > max_named else ""
    return ", ".join(shown[:max_named]) + more


def markdown_text(text: object) -> str:
    """Return a text that Markdown shows as it is, in a paragraph, a heading or a table's cell."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(text))


def html_text(text: object) -> str:
    """Return a text that HTML shows as it is, between tags or as a quoted attribute."""
    return html.escape(printable(text))


def csv_cell(text: object) -> str:
    """Return the text of a cell that a spreadsheet does not compute: formulas get an apostrophe."""
    shown = str(text)
    return printable(f"'{shown}" if shown.lstrip(" ").startswith(_FORMULA_STARTS) else shown)


def _escape(character: str) -> str:
    is_harmless = unicodedata.category(character) not in _ESCAPED_CATEGORIES
    if is_harmless or character in _JOINERS:
        return character
    return character.encode("unicode_escape").decode("ascii")

"""What a page of HTML shows, and whether it needs anything else: for tests of pages."""

from html.parser import HTMLParser
from pathlib import Path

# Elements without an end.
_VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """A page as a reader sees it.

    text: without markup. rows: cells of all table rows by their first cell, of each the first such
    row. pictures: descriptions of the images. tags: all elements. needs_nothing: no script, and
    nothing from elsewhere.
    """

    def __init__(self, html):
        super().__init__()
        self.text, self.rows, self.pictures, self.tags = "", {}, [], []
        self.needs_nothing = True
        self._row, self._open = [], []
        self.feed(html)
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in _VOID:
            self._open.append(tag)
        for name, value in attrs:
            refers = name in ("src", "href", "xlink:href", "action", "data")
            is_inside = str(value).startswith(("#", "data:image/"))
            if name.startswith("on") or (refers and not is_inside):
                self.needs_nothing = False
            if name == "alt":
                self.pictures.append(value)
        if tag in ("script", "iframe", "object", "link", "base"):
            self.needs_nothing = False
        if tag == "tr":
            self._row = []
        if tag in ("td", "th"):
            self._row.append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "tr":
            self.rows.setdefault(self._row[0], self._row[1:])

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data
        if {"td", "th"} & set(self._open):
            self._row[-1] += data


def read_page(path: Path) -> Page:
    """Read a page of a file."""
    return Page(path.read_text(encoding="utf-8"))

"""XML of strangers -> elements with line numbers; document types, and so entities, are refused."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from dyhead_det.files import open_file

_MOST_BYTES = 1 << 24
_MOST_DEPTH = 100


@dataclass(slots=True)
class Element:
    """An element: its name, the line it begins in, its own text, and what is in it."""

    name: str
    line: int
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def find(self, name: str) -> "Element | None":
        """Return the first child with a name."""
        return next((child for child in self.children if child.name == name), None)

    def find_all(self, name: str) -> list["Element"]:
        """Return all children with a name."""
        return [child for child in self.children if child.name == name]

    def text_of(self, name: str) -> str | None:
        """Return the text of the first child with a name, without blanks around it."""
        child = self.find(name)
        return None if child is None else child.text.strip()


def read_xml(path: Path) -> Element:
    """Read an XML file.

    Raises:
        OSError: if it cannot be opened.
        ValueError: with the line, if it is no XML, too large, or has a document type: that is where
            entities come from, which can grow to gigabytes or read other files.
    """
    with open_file(path) as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"larger than {_MOST_BYTES} bytes")
    document = Element("", 0)
    open_elements = [document]
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(name: str, _attributes: dict[str, str]) -> None:
        if len(open_elements) > _MOST_DEPTH:
            raise ValueError(f"line {parser.CurrentLineNumber}: nested too deep")
        element = Element(name, parser.CurrentLineNumber)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(_name: str) -> None:
        open_elements.pop()

    def characters(text: str) -> None:
        open_elements[-1].text += text

    def refuse(*_declaration: object) -> NoReturn:
        raise ValueError(f"line {parser.CurrentLineNumber}: a document type (DOCTYPE) is refused")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ValueError(f"line {error.lineno}: {expat.ErrorString(error.code)}") from error
    return document.children[0]

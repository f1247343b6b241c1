"""Formats of checkpoints: what changed from one version to the next, and how old files are read.

Version 1 was written by 0.1. Version 2 calls the backbone of a configuration `backbone`, no longer
`body`. The names of weights have never changed.
"""

from collections.abc import Callable
from typing import Any

from dyhead_det.config.renamed_keys import with_new_names

VERSION = 2
"""The format that is written."""

FIRST_VERSION = 1


def migrate(content: dict[str, Any], version: int) -> dict[str, Any]:
    """Return the content of a checkpoint as the current version would have written it.

    Args:
        content: What the file holds, unchecked but for the form of its configuration: a dictionary.
        version: `FIRST_VERSION` to `VERSION`, as the file says.
    """
    for step in range(version, VERSION):
        content = _STEPS[step](content)
    return content


def _name_the_backbone(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "config": with_new_names(content["config"])}


# From which version a step leads to the next one.
_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _name_the_backbone}

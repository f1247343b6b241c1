"""The parts of a data set, and what else they are called in the world."""

PARTS = ("train", "val", "test")
_OTHER_NAMES = {"val": ("valid", "validation")}


def names_of_part(part: str) -> tuple[str, ...]:
    """Return the names to look for, the usual one first."""
    return (part, *_OTHER_NAMES.get(part, ()))

"""The configurations that come with the package, by name: listed, found, copied."""

from pathlib import Path

from dyhead_det.config.section import did_you_mean
from dyhead_det.errors import ConfigError
from dyhead_det.files import written_whole

_PACKAGE = Path(__file__).parents[1]


def shipped_configs() -> dict[str, Path]:
    """Return the files by name: those to start from first, then those of published models."""
    folder = _folder()
    paths = [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("published/*.yaml"))]
    return {path.stem: path for path in paths}


def describe_shipped() -> str:
    """Return a line for each, with what it trains."""
    configs = shipped_configs()
    width = max(map(len, configs), default=0)
    return "\n".join(f"{name:<{width}}  {_title(path)}" for name, path in configs.items())


def copy_shipped(name: str, to: Path) -> Path:
    """Copy a configuration, to be read and changed.

    Args:
        name: As `shipped_configs` has it.
        to: A file, or a folder to put it into under its own name.

    Returns:
        The new file.

    Raises:
        ConfigError: If there is none of that name, or a file in its place.
    """
    configs = shipped_configs()
    if name not in configs:
        hint = did_you_mean(name, list(configs))
        raise ConfigError(
            f"no configuration {name!r}; {hint}`dyhead-det config list` shows all {len(configs)}"
        )
    if to.is_dir():
        to = to / configs[name].name
    if to.exists():
        raise ConfigError(f"{to}: is there already; give another name")
    with written_whole(to) as unfinished:
        unfinished.write_bytes(configs[name].read_bytes())
    return to


def _folder() -> Path:
    """Return where they lie: within an installed package, or beside `src` in a clone."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "configs"


def _title(path: Path) -> str:
    """Return the comment that a file opens with, its first line."""
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").rstrip()

"""What torchrun tells a process by environment variables: rank, world size, where to meet."""

import os
from dataclasses import dataclass

from dyhead_det.errors import ConfigError

LARGEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class LaunchEnvironment:
    """This process among those that were started together.

    local_rank, local_world_size: On this machine.
    address: Where the processes meet, `MASTER_ADDR:MASTER_PORT`.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: str


def read_launch_environment() -> LaunchEnvironment | None:
    """Read `WORLD_SIZE` and what goes with it; None where this process is alone.

    Raises:
        ConfigError: With all that is missing or makes no sense.
    """
    if os.environ.get("WORLD_SIZE", "1").strip() == "1":
        return None
    problems: list[str] = []
    world_size = _number("WORLD_SIZE", problems, least=1)
    local_world_size = _number("LOCAL_WORLD_SIZE", problems, least=1, most=world_size)
    rank = _number("RANK", problems, below=("WORLD_SIZE", world_size))
    local_rank = _number("LOCAL_RANK", problems, below=("LOCAL_WORLD_SIZE", local_world_size))
    port = _number("MASTER_PORT", problems, least=1, most=LARGEST_PORT)
    host = os.environ.get("MASTER_ADDR", "").strip()
    if not host:
        problems.append("MASTER_ADDR is missing")
    if problems:
        raise ConfigError(
            f"environment: WORLD_SIZE={os.environ['WORLD_SIZE']!r} asks for several processes, but "
            f"{', '.join(problems)}; start with torchrun, or unset WORLD_SIZE to train alone"
        )
    return LaunchEnvironment(rank, world_size, local_rank, local_world_size, f"{host}:{port}")


def get_local_rank() -> int:
    """Return the rank of this process on its machine, 0 when alone."""
    environment = read_launch_environment()
    return 0 if environment is None else environment.local_rank


def was_restarted() -> bool:
    """Return whether torchrun has started this run again, after a rank or a machine was lost.

    Raises:
        ConfigError: If the variable that says so makes no sense.
    """
    problems: list[str] = []
    name = "TORCHELASTIC_RESTART_COUNT"
    count = _number(name, problems) if name in os.environ else 0
    if problems:
        raise ConfigError(f"environment: {problems[0]}; start with torchrun, or unset it")
    return count > 0


def _number(
    name: str,
    problems: list[str],
    *,
    least: int = 0,
    most: int = 0,
    below: tuple[str, int] = ("", 0),
) -> int:
    """Read a whole number; what is wrong goes to `problems`. Bounds of 0 are unknown."""
    text = os.environ.get(name)
    bound_name, bound = below
    if text is None:
        problems.append(f"{name} is missing")
    elif not (text.strip().isascii() and text.strip().isdigit()):
        problems.append(f"{name}={text!r} is no whole number")
    elif (number := int(text)) < least:
        problems.append(f"{name}={number} is below {least}")
    elif most and number > most:
        problems.append(f"{name}={number} is above {most}")
    elif bound and number >= bound:
        problems.append(f"{name}={number} is not below {bound_name}={bound}")
    else:
        return number
    return 0

"""What all ranks must have in common, compared before they train together.

Ranks with different configurations or data would go on, each by its own, until weights have drifted
apart or one waits for what another never sends.
"""

from collections.abc import Mapping, Sequence

from dyhead_det.distributed.collectives import all_gather_objects
from dyhead_det.errors import RanksDifferError

MOST_DIFFERENCES = 3
MOST_CHARACTERS = 60


def require_agreement(values: Mapping[str, object]) -> None:
    """Make sure that every rank has the same values; all wait for each other here.

    Args:
        values: By names that people know: configuration keys, options. Of types that pickle.

    Raises:
        RanksDifferError: On every rank, naming what differs, and the ranks.
    """
    differences = find_differences(all_gather_objects(dict(values)))
    if not differences:
        return
    shown = "; ".join(differences[:MOST_DIFFERENCES])
    num_more = len(differences) - MOST_DIFFERENCES
    more = f"; and {num_more} more" if num_more > 0 else ""
    raise RanksDifferError(
        f"the processes of this run differ: {shown}{more}; give all the same configuration, "
        "options and data"
    )


def find_differences(values_by_rank: Sequence[Mapping[str, object]]) -> list[str]:
    """Return one text for each name whose values differ, such as `seed: 0 on rank 0, 1 on rank 1`.

    Args:
        values_by_rank: The values of each rank by name; a rank may lack a name.
    """
    names = dict.fromkeys(name for values in values_by_rank for name in values)
    texts = []
    for name in names:
        ranks_by_value: dict[str, list[int]] = {}
        for rank, values in enumerate(values_by_rank):
            value = repr(values[name]) if name in values else "missing"
            ranks_by_value.setdefault(value, []).append(rank)
        if len(ranks_by_value) > 1:
            of_ranks = (
                f"{_shorten(value)} on {name_ranks(ranks)}"
                for value, ranks in ranks_by_value.items()
            )
            texts.append(f"{name}: {', '.join(of_ranks)}")
    return texts


def _shorten(value: str) -> str:
    return value if len(value) <= MOST_CHARACTERS else f"{value[: MOST_CHARACTERS - 3]}..."


def name_ranks(ranks: Sequence[int]) -> str:
    """Return a few ranks by number, of many the first."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) <= MOST_DIFFERENCES:
        return f"ranks {', '.join(map(str, ranks))}"
    return f"{len(ranks)} ranks, the first {ranks[0]}"

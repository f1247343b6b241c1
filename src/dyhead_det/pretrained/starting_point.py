"""Weights to start training from, whoever's they are, by our names."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """Weights to start from.

    tensors: A state dict with our names.
    row_of_class: Where a class stands in class layers, by lower-case name.
    num_rows: Classes that class layers have, with background.
    model: The configuration as plain values, as far as it is known.
    """

    tensors: Mapping[str, Tensor]
    row_of_class: Mapping[str, int]
    num_rows: int
    model: Mapping[str, object]

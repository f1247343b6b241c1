"""A body that does not train for the first steps of a run, and then does."""

from torch import nn


class FrozenBody:
    """Freezes a body for the first steps: no gradients, no memory for them, fixed statistics.

    The optimizer is built while the body still trains, so it has its groups from the start; it
    passes over parameters without a gradient, and their weights do not decay.
    """

    def __init__(self, body: nn.Module, *, num_steps: int) -> None:
        """Note what trains.

        Args:
            body: Parts that never train, `model.body.frozen_stages`, stay as they are.
            num_steps: Length of the frozen phase; 0 for none.
        """
        self.body = body
        self.num_steps = num_steps
        self._parameters = [x for x in body.parameters() if x.requires_grad]

    def set(self, step: int) -> bool:
        """Freeze or thaw for a step, once the detector is in training mode.

        Returns:
            Whether that changed which parameters train.
        """
        is_frozen = step < self.num_steps
        is_changed = any(x.requires_grad is is_frozen for x in self._parameters)
        for parameter in self._parameters:
            parameter.requires_grad_(not is_frozen)
        if self.num_steps:  # else batch norms are left to the body
            self.body.train(not is_frozen)
        return is_changed

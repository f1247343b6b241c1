"""Freezing a backbone for the first steps or epochs of a run."""

from torch import nn


class BackboneFreezer:
    """Freezes a backbone for the first steps: no gradients, no memory for them, fixed statistics.

    The optimizer is built while the backbone still trains, so it has its groups from the start; it
    passes over parameters without a gradient, and their weights do not decay.
    """

    def __init__(self, backbone: nn.Module, *, num_steps: int) -> None:
        """Note what trains.

        Args:
            backbone: Parts that never train, `model.backbone.frozen_stages`, stay as they are.
            num_steps: Length of the frozen phase; 0 for none.
        """
        self.backbone = backbone
        self.num_steps = num_steps
        self._parameters = [x for x in backbone.parameters() if x.requires_grad]

    def set(self, step: int) -> bool:
        """Freeze or thaw for a step, once the detector is in training mode.

        Returns:
            Whether that changed which parameters train.
        """
        is_frozen = step < self.num_steps
        is_changed = any(x.requires_grad is is_frozen for x in self._parameters)
        for parameter in self._parameters:
            parameter.requires_grad_(not is_frozen)
        if self.num_steps:  # else batch norms are left to the backbone
            self.backbone.train(not is_frozen)
        return is_changed

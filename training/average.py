"""The exponential moving average of a network's weights, evaluated and saved in their stead."""

import copy

import torch
from torch import nn


class WeightAverage:
    """A copy of `model` whose weights follow: after each step they move by 1 - decay of the way to the model's.

    Decay rises to `decay` as (1 + step) / (10 + step), so that the first weights are soon forgotten. A norm's running
    statistics are averaged as weights are; its counts are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self._decay = copy.deepcopy(model).requires_grad_(False), decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the model after step number `step` + 1."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, weight)
            else:
                mine.copy_(theirs)

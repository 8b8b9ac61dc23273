"""What follows from the sizes and settings of a layer that somebody lists: to compile, to time, to tune, to test."""

from math import prod
from typing import Any

from tidepool.kernels.layer.pooling import AvgPool, MaxPool


class DescribedLayer:
    """Base of records of a layer: sizes of x (N, C, *spatial) and weight (K, C/groups, *kernel), and in `options` the
    op's keyword arguments that are not its defaults."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    options: dict[str, Any]

    @property
    def batch(self) -> int:
        """N."""
        return self.x[0]

    @property
    def rank(self) -> int:
        """Spatial dimensions."""
        return len(self.weight) - 2

    @property
    def fan_in(self) -> int:
        """Products summed for one convolution output."""
        return prod(self.weight[1:])

    @property
    def channels_last(self) -> bool:
        """Whether there is a channels_last format for the layer (one spatial dimension has none)."""
        return self.rank > 1

    @property
    def activation(self) -> Any:
        """The activation, the op's default filled in."""
        return self.options.get("activation", "relu")

    @property
    def pool(self) -> MaxPool | AvgPool | None:
        """The pool, the op's default filled in."""
        return self.options.get("pool", MaxPool(2))

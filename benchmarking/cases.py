"""What a case is: one layer, or one training step of a network, as it is compared. Which there are: `suites.py`."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tidepool.kernels.layer.described import DescribedLayer
from tidepool.kernels.layer.pooling import AvgPool, MaxPool
from tidepool.models import build_model


class CaseError(ValueError):
    """A case or suite that does not exist. The message is one line."""


@dataclass(frozen=True)
class LayerCase(DescribedLayer):
    """One layer that is compared.

    `input_gradient` is False for a network's first layer: nobody asks for its input's gradient, on either side.
    """

    name: str
    family: str
    source: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    bias: bool = True
    input_gradient: bool = True
    note: str = ""

    def at_batch(self, batch: int) -> "LayerCase":
        """The same layer on fewer samples."""
        return dataclasses.replace(self, x=(batch, *self.x[1:]))

    def describe(self) -> str:
        """`64x3x224x224 * 64x3x3x3, padding=1, pool=MaxPool(2)`: the sizes and every setting in words."""
        words = [f"{'x'.join(map(str, self.x))} * {'x'.join(map(str, self.weight))}"]
        words += [
            f"{name}={_short(value)}" for name, value in self.options.items() if name not in ("pool", "activation")
        ]
        words += [f"activation={self.activation}", f"pool={_short(self.pool)}"]
        words += [] if self.bias else ["no bias"]
        words += [] if self.input_gradient else ["no input gradient"]
        return ", ".join(words)


@dataclass(frozen=True)
class ModelCase:
    """One training step of a network of `models.build_model`: forward, cross entropy, backward, SGD step."""

    name: str
    family: str
    source: str
    model: str
    batch: int
    in_channels: int
    image_size: tuple[int, ...]
    num_classes: int
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    note: str = ""

    def network(self, backend: str) -> nn.Module:
        """The network, its layers on `backend`, on PyTorch's default device. Raises what `build_model` does."""
        return build_model(
            self.model,
            num_classes=self.num_classes,
            in_channels=self.in_channels,
            image_size=self.image_size,
            backend=backend,
            **self.options,
        )

    def describe(self) -> str:
        """`resnet18, 128x3x224x224, 1000 classes`."""
        size = "x".join(map(str, (self.batch, self.in_channels, *self.image_size)))
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        return f"{self.model}, {size}, {self.num_classes} classes{options}"


Case = LayerCase | ModelCase


def _short(value: Any) -> str:
    """A setting in words: a pool without its defaults."""
    if not isinstance(value, (MaxPool, AvgPool)):
        return str(value)
    changed = [str(value.kernel)]
    changed += [
        f"{f.name}={getattr(value, f.name)}"
        for f in dataclasses.fields(value)
        if f.name != "kernel" and getattr(value, f.name) != f.default
    ]
    return f"{type(value).__name__}({', '.join(changed)})"

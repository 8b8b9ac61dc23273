"""A layer's settings as one frozen object, and the text in which they pass through `torch.library`."""

import functools
import operator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from tidepool.kernels.activations import NO_ACTIVATION, Activation, activation_from_text
from tidepool.kernels.runtime.errors import ArgumentError

Sizes = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Written:
    """Settings that pass through `torch.library` as text. What writes the same is equal, and is written once."""

    _written: str = field(default="", init=False, repr=False)

    def text(self) -> str:
        """The settings in words."""
        if not self._written:
            object.__setattr__(self, "_written", self._write())
        return self._written

    def _write(self) -> str:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return self is other or (type(self) is type(other) and self.text() == other.text())

    def __hash__(self) -> int:
        return hash(self._written or self.text())


@dataclass(frozen=True, eq=False)
class Layer(Written):
    """A caller's settings, one number per spatial dimension; the text is `name=value` words."""

    stride: Sizes
    padding: Sizes  # low side of each dimension, then high side of each
    dilation: Sizes
    groups: int
    activation: Activation
    pool: str  # max, avg, none
    window: Sizes
    pool_stride: Sizes
    pool_padding: Sizes
    pool_dilation: Sizes
    ceil_mode: bool
    count_include_pad: bool

    @functools.cached_property
    def smooth_average(self) -> bool:
        """Whether backward computes the convolution again: every pixel counts, and by more than a sign."""
        return self.pool == "avg" and self.activation.needs_value

    def _write(self) -> str:
        words = []
        for name in LAYER_FIELDS:
            value = getattr(self, name)
            if isinstance(value, tuple):
                # operator.index makes plain numbers of symbolic ones, while torch.compile traces this as well.
                value = ",".join([str(operator.index(v)) for v in value])
            elif name in _LAYER_FLAGS:
                value = "1" if value else "0"
            elif name == "activation":
                value = value.text
            words.append(f"{name}={value}")
        return " ".join(words)


LAYER_FIELDS = tuple(field.name for field in fields(Layer) if field.init)
_LAYER_NUMBERS, _LAYER_FLAGS = ("groups",), ("ceil_mode", "count_include_pad")


@functools.cache
def first_of_equals(layer: Layer) -> Layer:
    """The layer, or the one equal to it that was asked for first: looking that up in caches compares no text."""
    return layer


@functools.cache
def layer_from_text(text: str) -> Layer:
    """The `Layer` that wrote `text`, the same object every time. Raises ArgumentError when none did."""
    values: dict[str, Any] = dict(word.split("=", 1) for word in text.split())
    if tuple(values) != LAYER_FIELDS:
        raise ArgumentError(f"expected layer to be settings as Layer.text() writes them, but got {text!r}")
    for name, value in values.items():
        if name in _LAYER_NUMBERS:
            values[name] = int(value)
        elif name in _LAYER_FLAGS:
            values[name] = value == "1"
        elif name == "activation":
            values[name] = activation_from_text(value)
        elif name != "pool":
            values[name] = tuple(int(v) for v in value.split(","))
    return first_of_equals(Layer(**values))


@functools.cache
def without_activation_and_pool(layer: Layer) -> Layer:
    """The layer's convolution alone."""
    rank = len(layer.stride)
    ones, zeros = (1,) * rank, (0,) * rank
    return replace(
        layer,
        activation=NO_ACTIVATION,
        pool="none",
        window=ones,
        pool_stride=ones,
        pool_padding=zeros,
        pool_dilation=ones,
        ceil_mode=False,
        count_include_pad=True,
    )

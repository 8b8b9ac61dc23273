"""The settings of `conv_norm_act` as a `NormSettings`, checked or refused in PyTorch's vocabulary."""

import functools
import numbers
from dataclasses import dataclass

from tidepool.kernels.activations import NamedActivation
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.pooling import Pool, Size
from tidepool.kernels.layer.settings import Layer, Sizes, Written, layer_from_text
from tidepool.kernels.runtime.errors import ArgumentError

_SEPARATOR = " | "


@dataclass(frozen=True, eq=False)
class NormSettings(Written):
    """A checked call's settings, as those of two layers:

    z = conv(x, weight) + conv_bias, pooled where the pool comes first    `convolution`, without activation
    y = pool(activation(norm(z) + residual))                              `norm`, a 1-wide convolution
    """

    convolution: Layer
    norm: Layer

    def _write(self) -> str:
        return self.convolution.text() + _SEPARATOR + self.norm.text()


@functools.cache
def norm_settings_from_text(text: str) -> NormSettings:
    """The `NormSettings` that wrote `text`, the same object every time. Raises ArgumentError when none did."""
    convolution, separator, norm = text.partition(_SEPARATOR)
    if not separator:
        raise ArgumentError(f"expected layer to be two settings joined by {_SEPARATOR!r}, but got {text!r}")
    return NormSettings(layer_from_text(convolution), layer_from_text(norm))


def parse_norm_layer(
    kernel: Sizes,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: NamedActivation = "relu",
    pool: Pool = None,
    pool_first: bool = False,
) -> NormSettings:
    """The settings, checked as far as no tensor is needed; what is not given is as in `conv_norm_act`.

    Raises ArgumentError.
    """
    if not isinstance(pool_first, bool):
        raise ArgumentError(f"expected pool_first to be True or False, but got {pool_first!r}")
    if pool_first and pool is None:
        raise ArgumentError("pool_first=True says that pooling comes before the norm, but pool is None")
    convolution = parse_layer(kernel, stride, padding, dilation, groups, None, pool if pool_first else None)
    norm = parse_layer((1,) * len(kernel), 1, 0, 1, 1, activation, None if pool_first else pool)
    return NormSettings(convolution, norm)


def check_norm_numbers(training: bool, momentum: float, eps: float) -> None:
    """Check the settings that no shape depends on. Raises ArgumentError."""
    if not isinstance(training, bool):
        raise ArgumentError(f"expected training to be True or False, but got {training!r}")
    for name, value in (("momentum", momentum), ("eps", eps)):
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or value != value:
            hint = " (for a cumulative average pass 1 / number of batches)" if name == "momentum" else ""
            raise ArgumentError(f"expected {name} to be a number{hint}, but got {value!r}")
    if training and eps <= 0:
        raise ArgumentError(f"batch_norm eps must be positive during training, but got {eps}")
    if eps < 0:
        raise ArgumentError(f"batch_norm eps must be non-negative, but got {eps}")

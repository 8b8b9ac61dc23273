"""What the kernels around a norm are specialised on: how a convolution's results meet the norm."""

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from tidepool.kernels.activations import NO_ACTIVATION
from tidepool.kernels.layer.formats import five_strides, layout_of
from tidepool.kernels.layer.geometry import Geometry
from tidepool.kernels.runtime.launch import Layout


@dataclass(frozen=True)
class NormEpilogue:
    """What a forward kernel does with its results besides storing them, passed to it whole as one constexpr.

    `kind`:
      none              nothing: `conv_relu_pool`
      statistics        results are stored as they are, with each program's per-channel statistics of them
      normalise         every convolution output is normalised with given statistics before activation and pool
      normalise_pooled  the same with the pooled outputs, then activated: `layer` says how
    """

    kind: str = "none"
    eps: float = 0.0
    residual: bool = False
    layer: Geometry | None = None

    @property
    def normalises(self) -> bool:
        """Whether the kernel needs the norm's rows."""
        return self.kind in ("normalise", "normalise_pooled")

    def __repr__(self) -> str:
        # Short and free of quotes: Triton puts it into cache keys.
        return f"NormEpilogue_{self.kind}_{self.eps!r}_{self.residual}_{self.layer!r}"


NO_NORM = NormEpilogue()


@dataclass(frozen=True)
class NormOperand:
    """An epilogue and the tensors it works on, `operands` as `device.norm` takes them apart."""

    epilogue: NormEpilogue
    operands: tuple[Any, ...] = field(repr=False)
    residual: Layout | None = None


def statistics_operand(workspace: Tensor) -> NormOperand:
    """Per-program statistics go to `workspace` (parts, 2, K)."""
    return NormOperand(NormEpilogue("statistics"), (workspace,))


def normalise_operand(
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    pooled_layer: Geometry | None,
) -> NormOperand:
    """Normalise with the given statistics (K,); `pooled_layer` is the norm's layer where the pool comes first."""
    kind = "normalise" if pooled_layer is None else "normalise_pooled"
    layout = None if residual is None else layout_of(residual)
    strides = five_strides(layout) if layout is not None else (0,) * 5
    epilogue = NormEpilogue(kind, eps, residual is not None, pooled_layer)
    return NormOperand(epilogue, (mean, variance, weight, bias, residual, *strides), layout)


def without_activation(geometry: Geometry) -> Geometry:
    """The same pool behind no activation."""
    return replace(geometry, activation=NO_ACTIVATION)

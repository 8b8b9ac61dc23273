"""What an activation is: `Formula`, all that the project knows of one, and `Activation`, one with its parameter.

A file of this folder holds one `FORMULA`; `__init__` finds it there. Nothing else has to be told of it: kernels call
the device functions through the layer's geometry, and what to save, in which order to pool, how to judge and by which
names networks call it is read off the record. docs/extending.md shows how to add one.
"""

import functools
import hashlib
import inspect
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from tidepool.kernels.runtime.errors import ArgumentError

DeviceFunction = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A formula's number: its name in PyTorch's modules and functions, where it follows the input, and its default."""

    name: str
    default: float


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """How PyTorch's users write an activation: module classes, functions, names of tensor methods.

    `settings`: what a module's attributes or a function's keywords have to be for it to be this one, with PyTorch's
    default first where there are several formulas behind one name: {"approximate": "tanh"}.
    """

    modules: tuple[type[nn.Module], ...] = ()
    functions: tuple[Callable[..., Any], ...] = ()
    methods: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Formula:
    """One activation, y = f(z). Device functions take z in the accumulator's type and the `Activation`, a constexpr.

    `forward`: f(z). `backward_needs` says what f' is told by, and with it what forward saves:
      nothing   f' = 1: nothing is saved for it
      side      f' has two values, `slopes(parameter)` = (on, off), and `off` is the device function that says where it
                is the second: the side is part of the winner's code, one byte an output; under an average one bit a
                convolution output
      value     `slope`, a device function of z: the winner's z is kept; under an average backward convolves again
    `by_slope`: of an activation with a learned slope a, the device function of (z, g, `Activation`) that is g df/da.
    Its `forward` and `slope` take (z, a, `Activation`), a in the accumulator's type, and it needs the value.
    `clips`: f copies z exactly wherever f' is not 0, never decreases, and so max(f(z)) = f(max(z)) with the same
    gradients, ties of rounded values included: windows may be compared before the activation.

    `reference` is f in plain PyTorch, whose autograd is the oracle; `keeps_result` says whether that keeps f(z) for
    backward, instead of z; `kinks` are where f' jumps; `steepest(parameter)`
    is the largest |f'|, which says how far f spreads an interval.
    """

    name: str
    forward: DeviceFunction
    reference: Callable[[Tensor, Any], Tensor]
    backward_needs: Literal["nothing", "side", "value"]
    slope: DeviceFunction | None = None
    off: DeviceFunction | None = None
    by_slope: DeviceFunction | None = None
    slopes: Callable[[Any], tuple[float, float]] = lambda _: (1.0, 0.0)
    clips: bool = False
    keeps_result: bool = False
    kinks: tuple[float, ...] = ()
    steepest: Callable[[Any], float] = lambda _: 1.0
    parameter: Parameter | None = None
    spelling: Spelling = Spelling()

    @property
    def learned(self) -> bool:
        """Whether it has a slope that is learned, a tensor."""
        return self.by_slope is not None

    @functools.cached_property
    def digest(self) -> str:
        """Of the device functions' source and all they call: Triton's own hash cannot see functions that a kernel
        reaches through a constexpr, so the geometry's repr, which Triton puts into its cache keys, carries this."""
        functions = (self.forward, self.slope, self.off, self.by_slope)
        parts = [source_key(f) for f in functions if f is not None]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def source_key(function: DeviceFunction) -> str:
    """What changes when the device function or one it calls does: Triton's hash of a jitted one, else its source."""
    key = getattr(function, "cache_key", None)
    return key if isinstance(key, str) else inspect.getsource(function)


FORMULAS: dict[str, Formula] = {}
"""By name; `tidepool.kernels.activations` fills it when it is imported."""


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation with its parameter, where it has one: `Activation("leaky_relu", 0.2)`, `Activation("elu", 1.5)`,
    `Activation("prelu", slope)` with a tensor of one slope or one a filter, as `torch.nn.PReLU.weight` is.

    `parameter` None is PyTorch's default; of an activation with a learned slope it is what kernels are specialised on,
    which get the slope as they get the bias. Raises ArgumentError for a name that is not known, a parameter that the
    activation does not have, or one that is not a finite number, or for a learned slope not a tensor.
    """

    name: str
    parameter: float | Tensor | None = None
    text: str = field(init=False, repr=False)
    """The record, without a learned slope, as one word without spaces; `activation_from_text` reads it."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name not in FORMULAS:
            names = ", ".join(name for name in sorted(FORMULAS) if name != "none")
            raise ArgumentError(f"expected activation to be one of {names} or None, but got {self.name!r}")
        formula = FORMULAS[self.name]
        value = (_checked_slope if formula.learned else _checked_number)(formula, self.parameter)
        object.__setattr__(self, "parameter", value)
        object.__setattr__(self, "text", f"{self.name}:{value!r}" if isinstance(value, float) else self.name)

    def __eq__(self, other: object) -> bool:
        """The same formula and number, or the same learned slope: the tensor itself, not one that equals it now."""
        return isinstance(other, Activation) and self.text == other.text and self.learned_slope is other.learned_slope

    def __hash__(self) -> int:
        return hash(self.text)

    @property
    def formula(self) -> Formula:
        return FORMULAS[self.name]

    # What kernels and their launchers ask by attribute, `A.forward(z, A)` with `A: tl.constexpr = G.activation`:
    # Triton 3.6 takes an attribute of a constexpr for no constant where it is an argument.

    @property
    def forward(self) -> DeviceFunction:
        return self.formula.forward

    @property
    def slope(self) -> DeviceFunction | None:
        return self.formula.slope

    @property
    def off(self) -> DeviceFunction | None:
        return self.formula.off

    @property
    def by_slope(self) -> DeviceFunction | None:
        return self.formula.by_slope

    @property
    def learned(self) -> bool:
        """Whether its slope is a tensor."""
        return self.formula.learned

    @property
    def learned_slope(self) -> Tensor | None:
        """The tensor, where the record holds one."""
        return self.parameter if self.formula.learned else None  # type: ignore[return-value]

    @property
    def without_slope(self) -> "Activation":
        """The record that says which activation it is and holds no tensor."""
        return Activation(self.name) if self.learned else self

    @property
    def on_slope(self) -> float:
        return self.formula.slopes(self.parameter)[0]

    @property
    def off_slope(self) -> float:
        return self.formula.slopes(self.parameter)[1]

    @property
    def needs_value(self) -> bool:
        """Whether backward needs z."""
        return self.formula.backward_needs == "value"

    @property
    def needs_side(self) -> bool:
        """Whether backward needs which of two slopes z lies on."""
        return self.formula.backward_needs == "side"

    @property
    def clips(self) -> bool:
        """Whether windows may be compared before the activation."""
        return self.formula.clips

    @property
    def keeps_result(self) -> bool:
        """Whether PyTorch's backward reads f(z), which the next layer keeps anyway, in place of z."""
        return self.formula.keeps_result

    @property
    def is_identity(self) -> bool:
        return self.formula.backward_needs == "nothing"

    def reference(self, z: Tensor) -> Tensor:
        """f(z) in plain PyTorch."""
        return self.formula.reference(z, self.parameter)

    @property
    def key(self) -> str:
        """The record and its device functions' source, for Triton's cache keys."""
        return f"{self.text}:{self.formula.digest}"

    def __repr__(self) -> str:
        return self.text  # free of quotes: Triton makes names of it


def _checked_number(formula: Formula, value: Any) -> float | None:
    known = formula.parameter
    if known is None:
        if value is not None:
            raise ArgumentError(f"expected activation {formula.name} without a parameter, but got {value!r}")
        return None
    if value is None:
        value = known.default
    elif not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ArgumentError(
            f"expected {known.name} of activation {formula.name} to be a finite number, but got {value!r}"
        )
    return float(value)


def _checked_slope(formula: Formula, value: Any) -> Tensor | None:
    if value is not None and not isinstance(value, Tensor):
        raise ArgumentError(f"expected the slope of activation {formula.name} to be a Tensor, but got {value!r}")
    return value


NamedActivation = str | Activation | None
"""What callers may write: a name, a record, or None for no activation."""


def as_activation(activation: NamedActivation) -> Activation:
    """The record of what a caller wrote. Raises ArgumentError."""
    if isinstance(activation, Activation):
        return activation
    return activation_from_text("none" if activation is None else activation)


@functools.cache
def activation_from_text(text: str) -> Activation:
    """The record that wrote `text`; a bare name is one with PyTorch's default. Raises ArgumentError."""
    name, separator, parameter = text.partition(":") if isinstance(text, str) else (text, "", "")
    return Activation(name, float(parameter) if separator else None)

"""The error rule: how far the kernels' results may lie from the truth, written once.

For y, dx, dweight, dbias and the gradient of a learned slope, on inputs of unit scale (x, bias, slope and the incoming
gradient standard normal, weights divided by sqrt(fan-in)),

    error(kernels, float64 truth) <= 2 * error(PyTorch in the same dtype, float64 truth) + floor

in three measures at once: the largest error (one wrong element), the root mean square (a little wrong everywhere, for
instance sums kept in too narrow a type), and the mean of errors that point away from zero (rounding that leans one
way: bf16 cut off instead of rounded doubles the first two at most, and the rule allows that).

**The floor.** PyTorch's error is one draw too, on a small tensor now and then nearly zero where ours is honestly a few
roundings. What is honest for an element that is a sum of m products, the root of whose sum of squares is s: with unit
roundoff u = eps / 2, the result is rounded once, by at most u s; the gradient at the convolution's output, where it had
to be computed, was rounded before it entered the sum, by at most u of each term, u s for independent errors; and the
sum itself is a random walk of m roundings in the accumulator's type, u_acc sqrt(m) s. Together

    h = s (2 u + u_acc sqrt(m))

The floor is 2 max(h) for the largest error. Means of n independent errors shrink as sqrt(n), so for the other two it is
2 rms(h) / sqrt(n), n being the number of elements that carry the result's size, (sum h^2)^2 / sum h^4: on large tensors
it vanishes. Of 8,700 measurements (8 seeds, every layer in `shapes`, 3 dtypes), the worst needed half of the floor.

**Winners that flip.** In a max-pool window (or at ReLU's zero) two candidates may lie closer than the arithmetic can
tell apart. Whoever picks the other one is not wrong, but its gradient goes elsewhere, an error of order one. Two things
make that impossible without hiding anything:

* The truth picks winners as the op is specified to: on convolution outputs rounded to the dtype, first of equals. All
  values and all gradient arithmetic stay float64. So ties that rounding makes are no excuse: they must fall as
  PyTorch's do.
* What is left are outputs whose pick depends on the last bits of the accumulator: the exact sum lies so near a rounding
  boundary (or zero) that some order of summation crosses it. `undecided` finds them with the worst-case bound
  m u_acc sum |x| |w| on the error of a sum of m products. Their incoming gradient is set to 0, for all three alike, and
  callers refuse a draw in which they are more than one in a hundred. Every other output's gradient has one right
  destination.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tidepool.kernels.activations import Activation, as_activation
from tidepool.kernels.layer.pooling import AvgPool, MaxPool
from tidepool.kernels.oracle.reference import CONV, conv_act_pool_reference, pool_reference

ACCUMULATOR_UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-24, torch.bfloat16: 2.0**-24}
FLOOR = 2


class RuleCase(Protocol):
    """What the rule has to know of a layer: its name, sizes, and the op's keyword arguments."""

    @property
    def name(self) -> str: ...

    @property
    def x(self) -> tuple[int, ...]:
        """(N, C, *spatial)."""
        ...

    @property
    def weight(self) -> tuple[int, ...]:
        """(K, C/groups, *kernel)."""
        ...

    @property
    def options(self) -> dict[str, Any]:
        """stride, padding, dilation, groups, activation, pool, where they are not the op's defaults."""
        ...

    @property
    def bias(self) -> bool: ...

    @property
    def channels_last(self) -> bool: ...

    @property
    def rank(self) -> int:
        """Spatial dimensions."""
        ...

    @property
    def fan_in(self) -> int:
        """Products summed for one convolution output."""
        ...


class RuleBrokenError(AssertionError):
    """A result lies farther from the truth than the rule allows; the message is one line."""


@dataclass(frozen=True)
class Inputs:
    """One draw for a layer, in the dtype under test: x, weight, bias (or None), y's incoming gradient, and the slope of
    an activation that has a learned one."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    grad: Tensor
    slope: Tensor | None = None


def error_rule(name: str, ours: Tensor, twin: Tensor, truth: "Truth") -> None:
    """THE rule, for one result. `twin` is PyTorch's result in the dtype of `ours`. Raises RuleBrokenError."""
    if not ours.shape == twin.shape == truth.value.shape:
        raise RuleBrokenError(f"{name}: {ours.shape}, PyTorch gives {twin.shape}")
    if ours.dtype != twin.dtype:
        raise RuleBrokenError(f"{name}: {ours.dtype}, PyTorch gives {twin.dtype}")
    for measure, ours_is, twin_is, floor in measured(ours, twin, truth):
        allowed = 2 * twin_is + floor
        if not ours_is <= allowed:  # which is so of NaN, too
            raise RuleBrokenError(
                f"{name}: {measure} error {ours_is:.3g}, PyTorch's {twin_is:.3g}, allowed {allowed:.3g}"
            )


def measured(ours: Tensor, twin: Tensor, truth: "Truth") -> list[tuple[str, float, float, float]]:
    """Each measure's name, our error, PyTorch's error, and the floor; nothing of an empty result."""
    if truth.value.numel() == 0:
        return []
    unit = torch.finfo(ours.dtype).eps / 2
    honest = truth.size * (2 * unit + ACCUMULATOR_UNIT[ours.dtype] * truth.terms.sqrt())
    # rms(h) / sqrt((sum h^2)^2 / sum h^4), and 0 for a result that has no terms at all.
    mean = (honest.pow(4).mean() / honest.square().sum().clamp(min=1e-300)).sqrt()
    rows = []
    for measure, of, floor in (
        ("largest", lambda e: e.abs().max(), honest.max()),
        ("root mean square", lambda e: e.square().mean().sqrt(), mean),
        ("mean outward", lambda e: (e * truth.value.sign()).mean().abs(), mean),
    ):
        our_error, twin_error = (float(of(t.double().to(truth.value.device) - truth.value)) for t in (ours, twin))
        rows.append((measure, our_error, twin_error, FLOOR * float(floor)))
    return rows


def draw(case: RuleCase, dtype: torch.dtype, seed: int, device: torch.device | str = "cpu") -> tuple[Inputs, float]:
    """Unit-scale inputs, and the share of outputs whose gradient was set to 0 because their winner is undecided.

    Drawn and judged on `device`; one seed gives other numbers on another kind of device.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64, device=device)

    x, weight = normal(*case.x).to(dtype), (normal(*case.weight) / case.fan_in**0.5).to(dtype)
    bias = normal(case.weight[0]).to(dtype) if case.bias else None
    if case.channels_last and case.rank > 1:  # one spatial dimension has no such format
        x = x.to(memory_format=torch.channels_last if case.rank == 2 else torch.channels_last_3d)
    given = as_activation(case.options.get("activation", "relu"))
    slope = normal(case.weight[0]).to(dtype) if given.learned else None
    if slope is not None and given.learned_slope is not None:
        slope = given.learned_slope.detach().to(device, dtype)
    unclear = undecided(case, x, weight, bias, slope)
    grad = normal(*unclear.shape).to(dtype).masked_fill(unclear, 0.0)
    return Inputs(x, weight, bias, grad, slope), float(unclear.double().mean())


def activation_of(case: RuleCase, slope: Tensor | None = None) -> Activation:
    """The layer's activation, with this learned slope if it has one."""
    activation = as_activation(case.options.get("activation", "relu"))
    return activation if slope is None else Activation(activation.name, slope)


def results(function: Callable[..., Tensor], inputs: Inputs) -> dict[str, Tensor]:
    """y and every gradient of `function` of (x, weight, bias) and, where there is a learned slope, of it."""
    named = {"dx": inputs.x, "dweight": inputs.weight, "dbias": inputs.bias, "dslope": inputs.slope}
    leaves = {name: t.detach().clone().requires_grad_() for name, t in named.items() if t is not None}
    slope = [leaves["dslope"]] if "dslope" in leaves else []
    y = function(leaves["dx"], leaves["dweight"], leaves.get("dbias"), *slope)
    gradients = torch.autograd.grad(y, list(leaves.values()), inputs.grad.to(y.dtype))
    return {"y": y.detach(), **dict(zip(leaves, gradients, strict=True))}


def in_pytorch(case: RuleCase, x: Tensor, weight: Tensor, bias: Tensor | None, slope: Tensor | None = None) -> Tensor:
    """The layer in PyTorch in the tensors' own dtype."""
    pool, options = case.options.get("pool"), {**case.options, "activation": activation_of(case, slope)}
    if case.rank == 3 and isinstance(pool, AvgPool) and not x.is_cuda and x.dtype.itemsize == 2:
        # A CPU has no 16-bit avg_pool3d. On a GPU it sums in float32, as here: no smaller error is possible.
        active = conv_act_pool_reference(x, weight, bias, **{**options, "pool": None})
        return pool_reference(active.float(), pool, case.rank).to(x.dtype)
    return conv_act_pool_reference(x, weight, bias, **options)


@dataclass(frozen=True)
class Truth:
    """One result in float64; an element is a sum of `terms` products, `size` the root of the sum of their squares."""

    value: Tensor
    size: Tensor
    terms: Tensor


def truth(case: RuleCase, inputs: Inputs) -> dict[str, Truth]:
    """y and every gradient in float64, winners picked on convolution outputs rounded to the inputs' dtype.

    Computed where `inputs` are.
    """
    names = ("dx", "dweight", "dbias")
    given = [t.double() for t in (inputs.x, inputs.weight, inputs.bias) if t is not None]
    leaves = [t.requires_grad_() for t in given]
    z = convolution(case, *leaves)
    slopes = _slope_of_each(inputs.slope, z)
    y = routed(case, z, inputs.x.dtype, slopes)
    at = [z, *leaves] if slopes is None else [z, *leaves, slopes]
    dz, *gradients = torch.autograd.grad(y, at, inputs.grad.double())
    dslopes = None if slopes is None else gradients.pop()
    y_size, *sizes = _summed(case, [t.detach().square() for t in leaves], dz.square())
    y_terms, *terms = _summed(case, [torch.ones_like(t) for t in leaves], (dz != 0).double())
    pool = case.options.get("pool", MaxPool(2))
    with torch.no_grad():
        slope = None if inputs.slope is None else inputs.slope.double()
        activation = activation_of(case, slope)
        value = conv_act_pool_reference(*leaves, **{**case.options, "activation": activation})
        y_size, y_terms = (pool_reference(t, pool, case.rank) for t in (y_size, y_terms))
    measures = zip(("y", *names), (value, *gradients), (y_size, *sizes), (y_terms, *terms), strict=False)
    found = {name: Truth(v, size.sqrt(), count) for name, v, size, count in measures}
    if dslopes is not None and slope is not None:
        found["dslope"] = _truth_of_slope(dslopes, slope)
    return found


def _slope_of_each(slope: Tensor | None, z: Tensor) -> Tensor | None:
    """A learned slope as one for every element of z, whose gradients are the terms of the slope's."""
    if slope is None:
        return None
    return slope.double().reshape(-1, *[1] * (z.dim() - 2)).expand(z.shape).clone().requires_grad_()


def _truth_of_slope(terms: Tensor, slope: Tensor) -> Truth:
    """The gradient of a learned slope of 1 or K elements from its terms (N, K, *conv)."""

    def summed(t: Tensor) -> Tensor:
        each = t.transpose(0, 1).flatten(1).sum(1)
        return (each if slope.numel() == each.numel() else each.sum()).view(slope.shape)

    return Truth(summed(terms), summed(terms.square()).sqrt(), summed((terms != 0).double()))


def _summed(case: RuleCase, leaves: list[Tensor], dz: Tensor) -> list[Tensor]:
    """The convolution of `leaves` and the gradients it sends back from dz."""
    leaves = [t.requires_grad_() for t in leaves]
    z = convolution(case, *leaves)
    return [z.detach(), *torch.autograd.grad(z, leaves, dz)]


def routed(case: RuleCase, z: Tensor, dtype: torch.dtype, slopes: Tensor | None = None) -> Tensor:
    """y of float64 convolution outputs z, with the activation's side of its kinks and the windows' winners taken from z
    rounded to `dtype`. `slopes`: the learned slope of every element of z."""
    activation, pool = activation_of(case), case.options.get("pool", MaxPool(2))
    stored = z.detach().to(dtype)
    # Where rounding crosses a kink, the value is the rounded one, with z's gradient.
    same = _piece(z.detach(), activation) == _piece(stored.double(), activation)
    active = _active(activation, torch.where(same, z, stored.double() + (z - z.detach())), slopes)
    if not isinstance(pool, MaxPool):
        return pool_reference(active, pool, case.rank)
    candidates = _active(activation, stored, None if slopes is None else slopes.detach().to(dtype))
    winner = windows(candidates.double(), pool, case.rank).argmax(-1, keepdim=True)
    return windows(active, pool, case.rank).gather(-1, winner).squeeze(-1)


def _active(activation: Activation, z: Tensor, slopes: Tensor | None) -> Tensor:
    """f(z), with a slope for every element where it is learned: elements are channels then."""
    if slopes is None:
        return activation.reference(z)
    return Activation(activation.name, slopes.flatten()).reference(z.reshape(1, -1)).view_as(z)


def _piece(z: Tensor, activation: Activation) -> Tensor:
    """Which smooth piece of the activation z lies on, its kinks being pieces of their own: a number."""
    counts = [(z > kink).int() + (z >= kink).int() for kink in activation.formula.kinks]
    return torch.stack(counts).sum(0) if counts else torch.zeros_like(z, dtype=torch.int32)


def convolution(case: RuleCase, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The layer's convolution alone."""
    options = {k: v for k, v in case.options.items() if k in ("stride", "padding", "dilation", "groups")}
    return CONV[case.rank](x, weight, bias, **options)


def undecided(case: RuleCase, x: Tensor, weight: Tensor, bias: Tensor | None, slope: Tensor | None = None) -> Tensor:
    """Which outputs' gradient goes where the accumulator's last bits say (see the module), in y's shape."""
    dtype = x.dtype
    absolute = [None if t is None else t.double().abs() for t in (x, weight, bias)]
    z = convolution(case, x.double(), weight.double(), None if bias is None else bias.double())
    slack = (case.fan_in + 1) * ACCUMULATOR_UNIT[dtype] * convolution(case, *absolute)  # type: ignore[arg-type]
    low, high = ((z + s).to(dtype).double() for s in (-slack, slack))
    activation, pool = activation_of(case, slope), case.options.get("pool", MaxPool(2))
    side = _piece(low, activation) != _piece(high, activation)
    if pool is None:
        return side
    unclear = (windows(side.double(), pool, case.rank) == 1).any(-1)
    if isinstance(pool, AvgPool):
        return unclear
    if activation.clips:
        low, high = activation.reference(low), activation.reference(high)
    else:
        # Perhaps not monotonic, and computed in float32 itself: an interval that holds both ends and eight roundings.
        active = activation.reference(z.to(dtype).double())
        steepest = activation.formula.steepest(activation.parameter)
        reach = steepest * (high - low) + 8 * ACCUMULATOR_UNIT[dtype] * active.abs()
        low, high = ((active + r).to(dtype).double() for r in (-reach, reach))
    low, high = windows(low, pool, case.rank), windows(high, pool, case.rank)
    candidate = high >= low.amax(-1, keepdim=True)
    return unclear | ((candidate.sum(-1) > 1) & (candidate & (low != high)).any(-1))


def windows(t: Tensor, pool: MaxPool | AvgPool, rank: int) -> Tensor:
    """The pool's windows of t (N, K, *spatial), row-major: (N, K, *output, elements), -inf where there is no pixel."""

    def each(value: int | tuple[int, ...] | None) -> tuple[int, ...]:
        return (value,) * rank if isinstance(value, int) else tuple(value)  # type: ignore[arg-type]

    kernel, padding = each(pool.kernel), each(pool.padding)
    stride = each(pool.kernel if pool.stride is None else pool.stride)
    dilation = each(pool.dilation) if isinstance(pool, MaxPool) else (1,) * rank
    counts = pool_reference(t.detach(), pool, rank).shape[2:]
    high = [
        max((count - 1) * s + d * (k - 1) + 1 - p - size, 0)
        for count, s, d, k, p, size in zip(counts, stride, dilation, kernel, padding, t.shape[2:], strict=True)
    ]
    sides = zip(padding[::-1], high[::-1], strict=True)
    t = F.pad(t, [*itertools.chain.from_iterable(sides)], value=-torch.inf)
    for i in range(rank):
        reach = dilation[i] * (kernel[i] - 1) + 1
        t = t.unfold(2 + i, reach, stride[i]).narrow(2 + i, 0, counts[i])[..., :: dilation[i]]
    return t.flatten(2 + rank)

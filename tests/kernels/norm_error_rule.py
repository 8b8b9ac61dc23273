"""The error rule for layers with a norm: `oracle.error_rule`, with the truth and the sizes of a norm's results.

The truth is float64 throughout: convolution, statistics, normalised values, gradients. What an element's size is (the
root of the sum of squares that the floor scales with): for y the parts that are rounded on the way, z / deviation, its
normalised value, the residual and their sum; for a sum of gradients the root of the sum of its terms' squares, terms of
dz being weight / deviation * (g, its mean, its projection).

A winner, or ReLU's side, is undecided where two candidates' values lie within their possible errors of each other: each
of the roundings named above is off by u = eps / 2 of its value, in us or in PyTorch, which rounds once more before a
residual is added. Undecided outputs get no incoming gradient, in all three.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tests.kernels.norm_layers import CONV, NormLayer, leaves, norm_tensors, results
from tidepool.kernels.activations import Activation, as_activation
from tidepool.kernels.layer.pooling import MaxPool
from tidepool.kernels.oracle.error_rule import Truth, error_rule, windows
from tidepool.kernels.oracle.reference import activate, pool_reference

EPS, MOMENTUM = 1e-5, 0.1
"""`conv_norm_act`'s defaults."""


def check(
    layer: NormLayer,
    dtype: torch.dtype,
    *,
    norm_dtype: torch.dtype | None = None,
    seed: int = 0,
    offset: float = 0.0,
    most_undecided: float = 0.2,
) -> None:
    """Hold backend="triton" to the rule on one draw: y, all gradients, running statistics. Raises AssertionError.

    `offset` is added to the convolution's output through its bias, which the layer then needs.
    """
    tensors = norm_tensors(layer, dtype, norm_dtype or dtype, seed)
    if offset:
        bias = tensors["conv_bias"]
        assert bias is not None
        tensors["conv_bias"] = bias + offset
    stages = _stages(layer, tensors, dtype)
    unclear = _undecided(layer, stages, dtype)
    share = float(unclear.double().mean())
    assert share <= most_undecided, f"{share:.1%} of outputs have no clear winner"
    generator = torch.Generator().manual_seed(seed + 1)
    grad = torch.randn(unclear.shape, generator=generator, dtype=torch.float64).to(dtype).masked_fill(unclear, 0.0)
    ours, twin = (results(layer, tensors, grad, backend) for backend in ("triton", "cudnn"))
    truths = _truth(layer, stages, grad.double())
    assert ours.keys() == twin.keys() == truths.keys()
    # What a norm in float32 takes from 16-bit tensors has their roundings in it.
    wider = torch.finfo(dtype).eps / torch.finfo(norm_dtype or dtype).eps
    for name in truths.keys() & {"dnorm_weight", "dnorm_bias", "running_mean", "running_var"}:
        truths[name] = replace(truths[name], size=wider * truths[name].size)
    for name, tensor in ours.items():
        error_rule(f"{layer.name}, {dtype}, {name}", tensor, twin[name], truths[name])


@dataclass(frozen=True)
class _Stages:
    """The forward pass in float64, step by step, differentiable."""

    leaves: dict[str, Tensor | None]
    conv: Tensor
    z: Tensor  # what is normalised
    mean: Tensor  # this and the next two (K, 1, ...)
    inverse: Tensor
    scale: Tensor
    normed: Tensor
    u: Tensor  # before the activation
    y: Tensor


def _stages(layer: NormLayer, tensors: dict[str, Tensor | None], dtype: torch.dtype) -> _Stages:
    exact = leaves({name: None if t is None else t.double() for name, t in tensors.items()})
    given = {name: t for name, t in exact.items() if t is not None}
    conv = CONV[layer.rank](given["x"], given["weight"], exact["conv_bias"], **layer.convolution)
    z = _pooled(conv, layer, dtype) if layer.pool_first else conv
    rows = (-1, *[1] * layer.rank)
    others = (0, *range(2, layer.rank + 2))
    mean, variance = given["running_mean"], given["running_var"]
    if layer.training:
        mean, variance = z.mean(others), z.var(others, unbiased=False)
    inverse = (variance + EPS).rsqrt()
    scale = (inverse if exact["norm_weight"] is None else exact["norm_weight"] * inverse).view(rows)
    normed = (z - mean.view(rows)) * scale
    if exact["norm_bias"] is not None:
        normed = normed + exact["norm_bias"].view(rows)
    u = normed if exact["residual"] is None else normed + exact["residual"]
    y = activate(u, layer.options.get("activation", "relu"))
    if not layer.pool_first:
        y = pool_reference(y, layer.pool, layer.rank)
    return _Stages(exact, conv, z, mean.view(rows), inverse.view(rows), scale, normed, u, y)


def _pooled(conv: Tensor, layer: NormLayer, dtype: torch.dtype) -> Tensor:
    """A pool before the norm, winners picked on values rounded to `dtype`, as they are stored."""
    if not isinstance(layer.pool, MaxPool):
        return pool_reference(conv, layer.pool, layer.rank)
    winner = windows(conv.detach().to(dtype).double(), layer.pool, layer.rank).argmax(-1, keepdim=True)
    return windows(conv, layer.pool, layer.rank).gather(-1, winner).squeeze(-1)


def _undecided(layer: NormLayer, stages: _Stages, dtype: torch.dtype) -> Tensor:
    """Which outputs' gradient may go elsewhere, in y's shape (see the module)."""
    activation = as_activation(layer.options.get("activation", "relu"))
    unit = torch.finfo(dtype).eps / 2
    u = stages.u.detach()
    slack = unit * ((stages.z * stages.scale).abs() + stages.normed.abs() + u.abs()).detach()
    if dtype.itemsize > 2:
        slack = 16 * slack  # sums of products, in any order
    sign = torch.zeros_like(u, dtype=torch.bool)
    for kink in activation.formula.kinks:
        sign |= (u - kink).abs() <= slack
    pool = None if layer.pool_first else layer.pool
    if pool is None:
        unclear = sign
    else:
        unclear = (windows(sign.double(), pool, layer.rank) == 1).any(-1)
        if isinstance(pool, MaxPool):
            low, high = _interval(u, slack, unit, activation)
            unclear = unclear | _close(low, high, pool, layer.rank)
    return unclear


def _interval(u: Tensor, slack: Tensor, unit: float, activation: Activation) -> tuple[Tensor, Tensor]:
    """What the activated value may be computed as: u within `slack`, rounded after the activation."""
    active = activation.reference(u)
    reach = activation.formula.steepest(activation.parameter) * slack + unit * active.abs()
    low, high = active - reach, active + reach
    if activation.clips:  # where f is constant all over the interval, the value is certain
        flat = activation.reference(u - slack) == activation.reference(u + slack)
        low, high = (torch.where(flat, active, t) for t in (low, high))
    return low, high


def _close(low: Tensor, high: Tensor, pool: MaxPool, rank: int) -> Tensor:
    """Windows whose best value lies within the possible errors of another one; not those where both are certain."""
    low, high = windows(low, pool, rank), windows(high, pool, rank)
    candidate = high >= low.amax(-1, keepdim=True)
    return (candidate.sum(-1) > 1) & (candidate & (low != high)).any(-1)


def _truth(layer: NormLayer, stages: _Stages, grad: Tensor) -> dict[str, Truth]:
    """Every result in float64 with its size and number of terms."""
    given = {name: t for name, t in stages.leaves.items() if t is not None and t.requires_grad}
    g, *gradients = torch.autograd.grad(stages.y, [stages.u, *given.values()], grad, retain_graph=True)
    sizes = _sizes(layer, stages, g)
    fan_in = torch.tensor(float(torch.Size(layer.weight[1:]).numel()))
    with torch.no_grad():
        parts = (stages.z * stages.scale).square() + stages.normed.square() + 2 * stages.u.square()
        size = parts.sqrt() if layer.pool_first else pool_reference(parts.sqrt(), layer.pool, layer.rank)
        found = {"y": Truth(stages.y.detach(), size, fan_in)} | _running(layer, stages)
    for name, gradient in zip(given, gradients, strict=True):
        found[f"d{name}"] = Truth(gradient, *sizes[f"d{name}"])
    return found


def _sizes(layer: NormLayer, stages: _Stages, g: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Size and terms of every gradient; g is the one before the activation."""
    others, rows = (0, *range(2, layer.rank + 2)), (-1, *[1] * layer.rank)
    count = stages.z.numel() // stages.z.shape[1]
    many, one = torch.tensor(float(count)), torch.tensor(1.0)
    with torch.no_grad():
        hat, rounded = (stages.z - stages.mean) * stages.inverse, stages.z * stages.inverse
        wide = hat.square() + rounded.square()  # x̂, and what the rounding of z does to it
        spread = g.square()
        if layer.training:
            mean, projection = g.sum(others).view(rows) / count, (g * hat).sum(others).view(rows) / count
            spread = spread + mean.square() + projection.square() * wide
        size = stages.scale.abs() * spread.sqrt()
    at_conv = size
    if layer.pool_first:  # as the pool sends dz back
        (at_conv,) = torch.autograd.grad(stages.z, stages.conv, size, retain_graph=True)
    squares, terms = (
        _through_convolution(layer, stages, power, gradient)
        for power, gradient in ((2, at_conv.square()), (0, (at_conv != 0).double()))
    )
    return {
        "dx": (squares[0].sqrt(), terms[0]),
        "dweight": (squares[1].sqrt(), terms[1]),
        "dconv_bias": (size.square().sum(others).sqrt(), many),
        "dresidual": (g.abs(), one),
        "dnorm_weight": ((g.square() * wide).sum(others).sqrt(), many),
        "dnorm_bias": (g.square().sum(others).sqrt(), many),
    }


def _through_convolution(layer: NormLayer, stages: _Stages, power: int, gradient: Tensor) -> tuple[Tensor, ...]:
    """What `gradient` becomes at x and weight, each of which is taken to that power first."""
    tensors = []
    for name in ("x", "weight"):
        tensor = stages.leaves[name]
        assert tensor is not None
        tensors.append(tensor.detach().pow(power).requires_grad_())
    return torch.autograd.grad(CONV[layer.rank](*tensors, **layer.convolution), tensors, gradient)


def _running(layer: NormLayer, stages: _Stages) -> dict[str, Truth]:
    """The running statistics after the call."""
    old = {name: stages.leaves[name] for name in ("running_mean", "running_var")}
    others = (0, *range(2, layer.rank + 2))
    count = torch.tensor(float(stages.z.numel() // stages.z.shape[1]))
    found = {}
    for name, new in (("running_mean", stages.z.mean(others)), ("running_var", stages.z.var(others))):
        before = old[name]
        assert before is not None
        parts = (MOMENTUM * new, (1 - MOMENTUM) * before) if layer.training else (0 * new, before)
        size = (parts[0].square() + parts[1].square()).sqrt()
        if name == "running_mean" and layer.training:
            size = (size.square() + MOMENTUM**2 * stages.z.square().mean(others)).sqrt()
        found[name] = Truth(parts[0] + parts[1], size, count)
    return found

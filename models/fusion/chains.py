"""Chains of layers that one fused op can carry, as they are found node by node in a captured graph.

conv -> activation -> pool, conv -> norm (-> addition) -> activation -> pool and their parts, in every order in which
they commute exactly: a max pool and an activation that clips, whose values and gradients are the same either way.
"""

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from tidepool.kernels.activations import Activation
from tidepool.kernels.layer.pooling import AvgPool, MaxPool, Pool
from tidepool.models.fusion.activation_names import activation_of
from tidepool.models.fusion.effects import NORM_ARGUMENTS, bound, described, value_of

CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_MAX_POOLS = {
    F.max_pool1d: 1, F.max_pool2d: 2, F.max_pool3d: 3, torch.max_pool1d: 1, torch.max_pool2d: 2, torch.max_pool3d: 3,
}  # fmt: skip
_AVERAGE_POOLS = {F.avg_pool1d: 1, F.avg_pool2d: 2, F.avg_pool3d: 3, torch.avg_pool1d: 1}
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
_CONV_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_MAX_ARGUMENTS = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVERAGE_ARGUMENTS = (
    "input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override",
)  # fmt: skip


@dataclass
class Norm:
    """A batch norm's node, its tensors' nodes (or None), and its settings."""

    node: fx.Node
    weight: fx.Node | None
    bias: fx.Node | None
    mean: fx.Node | None
    var: fx.Node | None
    training: bool
    momentum: float
    eps: float


@dataclass
class Chain:
    """Nodes that become one call, first to last, and what the call is given."""

    conv: fx.Node
    x: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    settings: dict[str, Any]
    """stride, padding, dilation, groups."""
    nodes: list[fx.Node]
    norm: Norm | None = None
    residual: fx.Node | None = None
    activation: Activation | None = None
    slope: fx.Node | None = None
    pool: Pool = None
    pool_first: bool = False
    ended: str = ""
    """Why the chain takes no further node."""
    steps: list[str] = field(default_factory=lambda: ["conv"])

    @property
    def last(self) -> fx.Node:
        """The node in whose place the call is put."""
        return self.nodes[-1]

    @property
    def rank(self) -> int:
        """Spatial dimensions."""
        return CONVOLUTIONS[self.conv.target]  # type: ignore[index]

    @property
    def active(self) -> bool:
        """Whether it has its activation."""
        return self.activation is not None or self.slope is not None

    @property
    def reads(self) -> list[fx.Node | None]:
        """Every node whose tensor the call reads."""
        norm = [] if self.norm is None else [self.norm.weight, self.norm.bias, self.norm.mean, self.norm.var]
        return [self.x, self.weight, self.bias, self.residual, self.slope, *norm]

    @property
    def statistics(self) -> list[fx.Node]:
        """The running statistics that the call writes."""
        if self.norm is None or not self.norm.training:
            return []
        return [node for node in (self.norm.mean, self.norm.var) if node is not None]

    def copy(self) -> "Chain":
        """A chain that can be extended apart from this one."""
        return Chain(**{**vars(self), "nodes": list(self.nodes), "steps": list(self.steps)})


def begin(node: fx.Node) -> Chain | str | None:
    """The chain that a convolution begins, or why it begins none; None of another node."""
    if node.op != "call_function":
        return None
    if node.target not in CONVOLUTIONS:
        name = getattr(node.target, "__name__", "")
        return "a transposed convolution is no op of this project's" if name.startswith("conv_transpose") else None
    given = bound(node, _CONV_ARGUMENTS)
    x, weight = value_of(given.get("input")), value_of(given.get("weight"))
    if not isinstance(x, FakeTensor) or not isinstance(weight, Tensor):
        return "its input is no plain tensor"
    if x.dim() != CONVOLUTIONS[node.target] + 2:
        return "its input has no batch dimension"
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    settings = {name: _tuple(given.get(name, default)) for name, default in defaults.items()}
    if not all(_constant(value) for value in settings.values()):
        return "its settings depend on the input"
    return Chain(node, given["input"], given["weight"], given.get("bias"), settings, [node])


def extend(chain: Chain, node: fx.Node) -> str:
    """Take a node that reads the chain's result into it; what keeps it out otherwise."""
    target, first = node.target, node.args[0] if node.args else None
    if target in _ADDITIONS:
        refusal = _add(chain, node)
    elif first is not chain.last:
        refusal = f"it is not the first argument of {described(node)}"
    elif target is F.batch_norm:
        refusal = _normalise(chain, node)
    elif target in _MAX_POOLS or target in _AVERAGE_POOLS:
        refusal = _pool(chain, node)
    else:
        refusal = _activate(chain, node)
    if not refusal:
        chain.nodes.append(node)
    return refusal


def _add(chain: Chain, node: fx.Node) -> str:
    if chain.norm is None:
        return "a sum is fused behind a norm alone"
    if chain.active or (chain.pool is not None and not chain.pool_first) or chain.residual is not None:
        return "a sum is fused right behind the norm alone"
    if len(node.args) != 2 or node.kwargs.get("alpha", 1) != 1 or set(node.kwargs) - {"alpha"}:
        return "a plain sum alone is fused"
    one, two = node.args
    if one is two or not isinstance(one, fx.Node) or not isinstance(two, fx.Node):
        return "it is not the sum of two tensors"
    other = two if one is chain.last else one
    if node.target in (operator.iadd, "add_") and one is other:
        return "the sum is written into another tensor"
    summand, z = value_of(other), value_of(chain.last)
    if type(summand) is not FakeTensor:
        return "the summand is no plain tensor"
    if not summand.is_floating_point() or summand.dtype != z.dtype or not _same_size(summand.shape, z.shape):
        return f"the summand is {summand.dtype} of size {list(summand.shape)}, the norm's result another"
    chain.residual = other
    chain.steps.append("add")
    return ""


def _normalise(chain: Chain, node: fx.Node) -> str:
    if chain.norm is not None:
        return "the op has one norm"
    if chain.active:
        return "a norm behind an activation is not fused"
    given = bound(node, NORM_ARGUMENTS)
    training, momentum, eps = given.get("training", False), given.get("momentum", 0.1), given.get("eps", 1e-5)
    if not isinstance(training, bool) or not isinstance(eps, float):
        return "the norm's settings are no constants"
    if training and given.get("running_mean") is not None and not isinstance(momentum, float):
        return "the norm's momentum is no constant"
    chain.norm = Norm(
        node=node,
        weight=given.get("weight"),
        bias=given.get("bias"),
        mean=given.get("running_mean"),
        var=given.get("running_var"),
        training=training,
        momentum=momentum if isinstance(momentum, float) else 0.0,
        eps=eps,
    )
    chain.pool_first = chain.pool is not None
    chain.steps.append("norm")
    return ""


def _activate(chain: Chain, node: fx.Node) -> str:
    activation, slope, refusal = activation_of(node)
    if refusal:
        return refusal
    if activation is None and slope is None:
        return f"its result goes to {described(node)}"
    if chain.active:
        return "the op has one activation"
    if chain.pool is not None and not chain.pool_first:
        commutes = activation is not None and activation.clips and isinstance(chain.pool, MaxPool)
        if not commutes:
            return f"{described(node)} and the pool before it do not commute"
    chain.activation, chain.slope = activation, slope
    chain.steps.append("prelu" if activation is None else activation.name)
    return ""


def _pool(chain: Chain, node: fx.Node) -> str:
    if chain.pool is not None:
        return "the op has one pool"
    largest = node.target in _MAX_POOLS
    if (_MAX_POOLS if largest else _AVERAGE_POOLS)[node.target] != chain.rank:  # type: ignore[index]
        return "the pool has another number of dimensions"
    given = bound(node, _MAX_ARGUMENTS if largest else _AVERAGE_ARGUMENTS)
    if given.get("return_indices"):
        return "the pool's indices are wanted"
    if given.get("divisor_override") is not None:
        return "the pool has a divisor of its own"
    settings = {name: _tuple(value) for name, value in given.items() if name != "input"}
    if not all(_constant(value) for value in settings.values()):
        return "the pool's settings depend on the input"
    stride, padding = settings.get("stride") or None, settings.get("padding", 0)
    ceil = bool(settings.get("ceil_mode", False))
    if largest:
        chain.pool = MaxPool(settings["kernel_size"], stride, padding, settings.get("dilation", 1), ceil)
    else:
        counts = bool(settings.get("count_include_pad", True))
        chain.pool = AvgPool(settings["kernel_size"], stride, padding, ceil, counts)
    chain.steps.append("max-pool" if largest else "average-pool")
    return ""


def _constant(value: Any) -> bool:
    values = value if isinstance(value, tuple) else (value,)
    return not any(isinstance(one, fx.Node | torch.SymInt | torch.SymFloat) for one in values)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, tuple | list) else value


def _same_size(a: torch.Size, b: torch.Size) -> bool:
    return len(a) == len(b) and all(statically_known_true(p == q) for p, q in zip(a, b, strict=True))

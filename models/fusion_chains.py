"""Chains of layers in a traced network that one fused op can take over.

A chain begins at a convolution and follows its result for as long as that has one user:

    conv [norm [+ residual]] [activation] [pool]      in this order
    conv pool [norm] [activation]                     the pool before the norm (pool_first)

A ReLU behind a max-pool counts as before it: the two commute, values and gradients alike, since ReLU is monotonic.
"""

from collections import Counter
from dataclasses import dataclass, field

from torch import fx, nn

from kernels import MaxPool
from kernels.pooling import Pool
from models.fusion_report import FusedLayer
from models.fusion_steps import Step, described, is_inplace, step_of


@dataclass
class Chain:
    """A convolution and what follows it in the same op."""

    conv: Step
    taken: list[Step] = field(default_factory=list)
    """Every layer of the chain, in order, the convolution first."""
    norm: Step | None = None
    addition: Step | None = None
    residual: int | None = None
    """Which of the addition's two arguments is the residual."""
    activation: str | None = None
    pool: Pool = None
    pool_first: bool = False
    ended_by: Step | None = None
    """The layer that comes next and could not be taken."""
    ended: str = ""
    """Why the chain ends where it does."""

    @property
    def fuses(self) -> bool:
        return self.norm is not None or self.activation is not None or self.pool is not None

    @property
    def last(self) -> fx.Node:
        return self.taken[-1].node

    def described(self) -> FusedLayer:
        pool = [] if self.pool is None else ["max-pool" if isinstance(self.pool, MaxPool) else "average pool"]
        steps = ["conv", *(pool if self.pool_first else [])]
        steps += ["norm"] if self.norm is not None else []
        steps += ["add"] if self.addition is not None else []
        steps += [self.activation] if self.activation is not None else []
        steps += [] if self.pool_first else pool
        return FusedLayer(self.conv.name, tuple(steps), tuple(step.name for step in self.taken))


def find_chains(graph: fx.Graph, modules: dict[str, nn.Module]) -> tuple[list[Chain], list[Step]]:
    """Every convolution's chain, in order, each node in at most one; and all steps of the graph."""
    steps = {node: step for node in graph.nodes if (step := step_of(node, modules)) is not None}
    order = {node: position for position, node in enumerate(graph.nodes)}
    writes = [node for node in graph.nodes if is_inplace(node, modules)]
    calls = Counter(step.module for step in steps.values() if step.module is not None)
    chains: list[Chain] = []
    claimed: set[fx.Node] = set()
    for step in steps.values():
        if step.kind != "conv":
            continue
        chain = Chain(step, [step])
        if step.refusal:
            chain.ended = step.refusal
        else:
            _follow(chain, steps, claimed, _Surroundings(order, writes, calls))
        claimed.update(taken.node for taken in chain.taken if chain.fuses)
        chains.append(chain)
    return chains, list(steps.values())


@dataclass(frozen=True)
class _Surroundings:
    """What an addition needs to know: the fused op stands where the addition does, later than its convolution."""

    order: dict[fx.Node, int]
    writes: list[fx.Node]
    calls: Counter[nn.Module]

    def in_the_way(self, chain: Chain, addition: fx.Node) -> str:
        """Why the chain's convolution and norm cannot wait for `addition`; empty when they can."""
        own = {step.node for step in chain.taken} | {addition}
        start, end = self.order[chain.conv.node], self.order[addition]
        if any(start < self.order[node] < end and node not in own for node in self.writes):
            return "something is written in place before it"
        norm = chain.norm.module if chain.norm is not None else None
        if norm is not None and self.calls[norm] > 1:
            return "the norm is used several times and their order counts"
        return ""


def _follow(chain: Chain, steps: dict[fx.Node, Step], claimed: set[fx.Node], around: _Surroundings) -> None:
    """Take one layer after another into the chain."""
    while True:
        users = list(chain.last.users)
        if len(users) != 1:
            chain.ended = f"its result is used {len(users)} times" if users else "its result is not used"
            return
        (node,) = users
        step = steps.get(node)
        if step is None:
            chain.ended = f"its result goes to {described(node)}"
            return
        chain.ended_by = step
        reason = step.refusal or _refusal(chain, step, claimed, around)
        if reason:
            chain.ended = reason
            return
        _take(chain, step)
        chain.ended_by = None


def _refusal(chain: Chain, step: Step, claimed: set[fx.Node], around: _Surroundings) -> str:
    """Why the chain cannot take the step; empty when it can."""
    if step.kind == "nothing":
        return ""
    if step.kind != "add" and step.source is not chain.last:
        return "the convolution's result is not its first argument"
    if step.rank is not None and step.rank != chain.conv.rank:
        return f"it has {step.rank} spatial dimensions, the convolution {chain.conv.rank}"
    if step.kind == "norm":
        if chain.norm is not None:
            return "the op has one norm"
        return "" if chain.activation is None else "a norm behind the activation is not fused"
    if step.kind == "add":
        return _addition_refusal(chain, step, claimed, around)
    if step.kind == "activation":
        if chain.activation is not None:
            return "the op has one activation"
        if chain.pool is None or _pool_before_norm(chain):
            return ""
        commutes = step.activation == "relu" and isinstance(chain.pool, MaxPool)
        return "" if commutes else f"{step.activation} and the pool before it do not commute"
    if step.kind == "pool":
        return "" if chain.pool is None else "the op has one pool"
    return "another convolution"


def _addition_refusal(chain: Chain, step: Step, claimed: set[fx.Node], around: _Surroundings) -> str:
    if chain.norm is None:
        return "only an addition behind a norm is fused"
    if chain.addition is not None or chain.activation is not None or chain.pool is not None:
        return "an addition is fused right behind the norm only"
    if step.node in claimed:
        return "the addition is part of another layer's op"
    other = next(argument for argument in step.node.args if argument is not chain.last)
    assert isinstance(other, fx.Node)
    if step.inplace and step.node.args[0] is other and len(other.users) > 1:
        return "it is written into a tensor with other uses"
    return around.in_the_way(chain, step.node)


def _pool_before_norm(chain: Chain) -> bool:
    return chain.pool_first and chain.norm is not None


def _take(chain: Chain, step: Step) -> None:
    if step.kind == "norm":
        chain.norm, chain.pool_first = step, chain.pool is not None
    elif step.kind == "add":
        chain.addition, chain.residual = step, int(step.node.args[0] is chain.last)
    elif step.kind == "activation":
        chain.activation = step.activation
    elif step.kind == "pool":
        chain.pool = step.pool
    chain.taken.append(step)

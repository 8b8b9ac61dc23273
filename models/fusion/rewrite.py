"""Puts one fused call in the place of each chain of a captured graph, where that is sound.

**The rule.** A chain becomes one call at the place of its last node. That is allowed only if

1. every inner value has exactly one reader, the next node of the chain;
2. every node between the first and the last that is not the chain's own writes nothing, or only tensors that are known
   by name, none of which shares memory with what the chain reads, views and possible overlaps of arguments included
   (`effects`); whatever is not known, mode switches and custom operators among it, may write anything;
3. where the norm trains, no node between it and the last touches memory of the running statistics;
4. the op's own checks pass on the fake tensors, under the autocast that holds there.

Whatever the rule forbids stays as it was, and the report says why.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from tidepool.kernels.activations import Activation
from tidepool.kernels.layer.arguments import ArgumentError, carries_everything
from tidepool.kernels.ops.conv import check_conv_act_pool, prepared_conv_act_pool
from tidepool.kernels.ops.norm import check_conv_norm_act, prepared_conv_norm_act
from tidepool.models.fusion.chains import Chain, begin, extend
from tidepool.models.fusion.checkpointing import bodies
from tidepool.models.fusion.effects import described, may_overlap, storages, value_of, writes
from tidepool.models.fusion.images import rewrite_images
from tidepool.models.fusion.report import CapturedGraph, FusedLayer, Names, SkippedLayer


def rewrite(module: fx.GraphModule, backend: str, names: Names, into: CapturedGraph) -> None:
    """Fuse what can be fused in a graph and in the bodies of its checkpoints, and say so in `into`."""
    for body in bodies(module):
        rewrite(body, backend, names, into)
    into.nodes += len(module.graph.nodes)
    everything = carries_everything(backend)
    _Rewriting(module.graph, backend, names, into, everything).run()
    if everything:
        rewrite_images(module.graph)
    module.graph.lint()
    module.recompile()


class _Rewriting:
    """One graph's chains."""

    def __init__(self, graph: fx.Graph, backend: str, names: Names, into: CapturedGraph, everything: bool) -> None:
        self._graph, self._backend, self._names, self._into = graph, backend, names, into
        self._everything = everything
        self._nodes = list(graph.nodes)
        self._order = {node: place for place, node in enumerate(self._nodes)}
        self._autocast = dict(_autocast(self._nodes))
        self._taken: set[fx.Node] = set()

    def run(self) -> None:
        for node in self._nodes:
            chain = begin(node)
            if isinstance(chain, str):
                self._skip(node, chain)
            elif chain is not None:
                self._fuse(self._longest(chain))

    def _longest(self, chain: Chain) -> Chain:
        """The chain as far as the rule lets it reach."""
        while True:
            readers = list(chain.last.users)
            if len(readers) != 1:
                chain.ended = f"its result is used {len(readers)} times"
                return chain
            if readers[0].op == "output":
                chain.ended = "its result leaves the graph"
                return chain
            longer = chain.copy()
            refusal = "another op has it" if readers[0] in self._taken else extend(longer, readers[0])
            refusal = refusal or self._in_the_way(longer) or self._refused(longer)
            if refusal:
                chain.ended = refusal
                return chain
            chain = longer

    def _in_the_way(self, chain: Chain) -> str:
        """What between its nodes keeps a chain from running at its last; points 2 and 3 of the rule."""
        own, read, statistics = set(chain.nodes), storages(chain.reads), storages(chain.statistics)
        if read is None or statistics is None:
            return "where its inputs lie cannot be told"
        norm_at = self._order[chain.norm.node] if chain.norm is not None else 0
        for node in self._nodes[self._order[chain.conv] + 1 : self._order[chain.last]]:
            if node in own:
                continue
            written_nodes = writes(node)
            if written_nodes is None:
                return f"{described(node)} stands in between and may write anything"
            written = storages(written_nodes)
            if written is None or written & read or may_overlap(written, read, self._nodes):
                return f"{described(node)} in between writes what it reads, or may"
            if statistics and self._order[node] > norm_at:
                touched = storages(node.all_input_nodes)
                if touched is None or touched & statistics:
                    return f"{described(node)} in between uses the norm's running statistics"
        return ""

    def _refused(self, chain: Chain) -> str:
        """What the op itself says of the chain; point 4 of the rule."""
        x, weight, bias, residual, slope = (value_of(node) for node in chain.reads[:5])
        settings = {**chain.settings, "pool": chain.pool}
        with _entered(self._autocast.get(chain.conv, ())):
            try:
                if chain.norm is None:
                    check_conv_act_pool(x, weight, bias, slope, activation=_activation(chain, slope), **settings)
                else:
                    norm = tuple(value_of(node) for node in chain.reads[5:])
                    check_conv_norm_act(
                        x, weight, norm, bias, residual, training=chain.norm.training, **settings,
                        activation=_activation(chain, slope), pool_first=chain.pool_first,
                    )  # fmt: skip
            except (ArgumentError, TypeError) as error:
                return str(error)
        return ""

    def _fuse(self, chain: Chain) -> None:
        if len(chain.nodes) == 1:
            refusal = self._refused(chain) if self._everything else f"nothing to fuse it with: {chain.ended}"
            if refusal:
                self._skip(chain.conv, refusal)
                return
        self._taken.update(chain.nodes)
        self._into.fused.append(FusedLayer(self._name(chain.conv, chain.weight), tuple(chain.steps)))
        if self._runs_as_it_is(chain):
            return
        with self._graph.inserting_before(chain.last):
            call = self._graph.call_function(_call(chain, self._backend), _arguments(chain))
        call.meta = dict(chain.last.meta)
        chain.last.replace_all_uses_with(call)
        # The new node takes the last one's place in every list that later chains look at.
        place = self._order.pop(chain.last)
        self._nodes[place], self._order[call] = call, place
        for node in reversed(chain.nodes):
            self._graph.erase_node(node)
        self._nodes_without(chain.nodes)

    def _runs_as_it_is(self, chain: Chain) -> bool:
        """Whether the op would only call what the graph calls already: on "cudnn", and behind a norm on "auto"."""
        return self._backend == "cudnn" or (self._backend == "auto" and chain.norm is not None)

    def _nodes_without(self, erased: list[fx.Node]) -> None:
        gone = set(erased)
        self._nodes = [node for node in self._nodes if node not in gone]
        self._order = {node: place for place, node in enumerate(self._nodes)}

    def _skip(self, node: fx.Node, reason: str) -> None:
        weight = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
        self._into.skipped.append(SkippedLayer(self._name(node, weight), reason))

    def _name(self, node: fx.Node, weight: Any) -> str:
        """The layer's name in the network by its weight, or, of a weight that is computed, where the program called."""
        held = weight.meta.get("grapharg") if isinstance(weight, fx.Node) else None
        name = self._names.get(id(getattr(held, "example", None)), "")
        if name:
            return name.rpartition(".")[0] or name
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = stack[-1][0] if stack else node.name
        for old, new in (("L['self'].", ""), ("L['fn'].", ""), ("_modules.", ""), ("['", "."), ("']", "")):
            path = path.replace(old, new)
        return path.strip(".") or node.name


def _activation(chain: Chain, slope: Tensor | None) -> Any:
    return chain.activation if slope is None else Activation("prelu", slope)


def _call(chain: Chain, backend: str) -> Callable[..., Tensor]:
    """The function that the graph calls in a chain's place."""
    if chain.norm is None:
        made = prepared_conv_act_pool(**chain.settings, activation=chain.activation, pool=chain.pool, backend=backend)
    else:
        made = prepared_conv_norm_act(
            value_of(chain.weight).shape[2:], **chain.settings, activation=chain.activation, pool=chain.pool,
            pool_first=chain.pool_first, training=chain.norm.training, momentum=chain.norm.momentum,
            eps=chain.norm.eps, backend=backend,
        )  # fmt: skip
    made.__name__ = "tidepool_" + "_".join(chain.steps).replace("-", "_")
    return made


def _arguments(chain: Chain) -> tuple[fx.Node | None, ...]:
    if chain.norm is None:
        return chain.x, chain.weight, chain.bias, chain.slope
    norm = chain.norm
    return chain.x, chain.weight, norm.weight, norm.bias, norm.mean, norm.var, chain.bias, chain.residual, chain.slope


# --- Autocast ---


def _autocast(nodes: list[fx.Node]) -> Iterator[tuple[fx.Node, tuple[tuple[Any, ...], ...]]]:
    """For each node the autocast regions of the graph that it lies in, outermost first."""
    inside: list[fx.Node] = []
    for node in nodes:
        name = getattr(node.target, "__name__", "") if node.op == "call_function" else ""
        if name == "_enter_autocast":
            inside.append(node)
        elif name == "_exit_autocast" and node.args and node.args[0] in inside:
            inside.remove(node.args[0])  # type: ignore[arg-type]
        elif inside:
            yield node, tuple(entered.args for entered in inside)


@contextlib.contextmanager
def _entered(regions: tuple[tuple[Any, ...], ...]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for device, dtype, enabled, cached in (
            tuple(itertools.islice(itertools.chain(r, [None] * 4), 4)) for r in regions
        ):
            stack.enter_context(torch.autocast(device, dtype, enabled=bool(enabled), cache_enabled=cached))
        yield

"""Regions under activation checkpointing: their graphs are rewritten too, and run as checkpoints where graphs run
eagerly."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch._higher_order_ops.wrap import TagActivationCheckpoint, tag_activation_checkpoint
from torch.utils.checkpoint import checkpoint

from tidepool.models.fusion.effects import storages, value_of, writes

_HELD = "tidepool_held"


def _calls(module: fx.GraphModule) -> Iterator[fx.Node]:
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target is tag_activation_checkpoint:
            yield node


def bodies(module: fx.GraphModule) -> Iterator[fx.GraphModule]:
    """The graphs that a graph checkpoints.

    Of each it is noted which arguments are parameters or written into, such as running statistics: Dynamo passes as
    arguments what modules hold, and a checkpoint would refuse in backward an argument that changed since.
    """
    for node in _calls(module):
        body = getattr(module, str(node.args[0].target))  # type: ignore[union-attr]
        inner = list(body.graph.nodes)
        written = storages([target for one in inner for target in writes(one) or ()]) or set()
        held = [node for node in inner if node.op == "placeholder"]
        body.meta[_HELD] = frozenset(
            place
            for place, node in enumerate(held)
            if isinstance(value_of(node), torch.nn.Parameter) or (storages([node]) or set()) & written
        )
        yield body


def run_eagerly(module: fx.GraphModule) -> None:
    """Have every checkpoint of a graph run as `torch.utils.checkpoint` does."""
    for one in module.modules():
        if isinstance(one, fx.GraphModule):
            for node in list(_calls(one)):
                node.target = _checkpointed
            one.recompile()


def _checkpointed(body: Any, *args: Any, **kwargs: Any) -> Any:
    how, own = TagActivationCheckpoint.divide_kwargs(kwargs)
    how = {**how, "use_reentrant": False}
    if "_checkpoint_context_fn" in body.meta:
        how["context_fn"] = body.meta["_checkpoint_context_fn"]
    held = body.meta.get(_HELD, frozenset())
    given = [argument for place, argument in enumerate(args) if place not in held]

    def run(*rest: Any) -> Any:
        others = iter(rest)
        return body(*[argument if place in held else next(others) for place, argument in enumerate(args)])

    return checkpoint(run, *given, **how, **own)

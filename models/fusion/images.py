"""Single nodes that are ops over whole images: means over all pixels, and squeeze-and-excitation's product."""

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor

from tidepool.kernels.ops.average import global_average_pool
from tidepool.kernels.ops.gate import squeeze_excite
from tidepool.models.fusion.effects import storages, value_of, writes

_ADAPTIVE = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, torch.adaptive_avg_pool1d)
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_SIGMOIDS = (torch.sigmoid, F.sigmoid, "sigmoid")


def rewrite_images(graph: fx.Graph) -> None:
    """Put `global_average_pool` and `squeeze_excite` where the graph computes the same. Each stands in its node's own
    place; of a product the sigmoid of the gate moves down to it, over nodes that do not write into the gate."""
    for node in list(graph.nodes):
        keepdim = _averages(node)
        if keepdim is not None:
            _replace(graph, node, global_average_pool, (node.args[0],), {"keepdim": keepdim, "backend": "triton"})
            continue
        found = _excites(graph, node)
        if found is not None:
            x, gate, sigmoid = found
            _replace(graph, node, squeeze_excite, (x, gate), {"backend": "triton"})
            graph.erase_node(sigmoid)


def _replace(graph: fx.Graph, node: fx.Node, function: Any, args: Any, kwargs: dict[str, Any]) -> None:
    with graph.inserting_before(node):
        call = graph.call_function(function, args, kwargs)
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    graph.erase_node(node)


def _image(node: Any) -> Tensor | None:
    """The fake tensor of a node that is a batch of images with pixels, or None."""
    value = value_of(node) if isinstance(node, fx.Node) else None
    if type(value) is not FakeTensor or value.dim() not in (3, 4, 5) or value.dtype not in _DTYPES:
        return None
    return value if value.layout == torch.strided and all(size != 0 for size in value.shape[1:]) else None


def _averages(node: fx.Node) -> bool | None:
    """Whether a node is the mean over all pixels, and then whether it keeps the dimensions; None where it is not."""
    if not node.args or (x := _image(node.args[0])) is None:
        return None
    rank = x.dim() - 2
    if node.op == "call_function" and node.target in _ADAPTIVE:
        name, wanted = node.target.__name__, (node.args[1:] or (node.kwargs.get("output_size"),))[0]
        size = (wanted,) * rank if isinstance(wanted, int) else wanted
        return (
            True
            if name.endswith(f"{rank}d") and isinstance(size, tuple | list) and tuple(size) == (1,) * rank
            else None
        )
    mean = (node.op == "call_method" and node.target == "mean") or (
        node.op == "call_function" and node.target is torch.mean
    )
    if not mean or set(node.kwargs) - {"dim", "keepdim"}:
        return None
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    keepdim = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    if not isinstance(dims, tuple | list) or not all(isinstance(d, int) for d in dims) or not isinstance(keepdim, bool):
        return None
    return keepdim if sorted(d % x.dim() for d in dims) == list(range(2, x.dim())) else None


def _excites(graph: fx.Graph, node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node] | None:
    """(x, gate, sigmoid) of x * sigmoid(gate), the sigmoid read by this product alone; None of another node."""
    product = node.op == "call_function" and node.target in (operator.mul, torch.mul)
    product |= node.op == "call_method" and node.target == "mul"
    if not product or len(node.args) != 2 or node.kwargs:
        return None
    for x, sigmoid in (node.args, node.args[::-1]):
        if not isinstance(sigmoid, fx.Node) or sigmoid.target not in _SIGMOIDS or len(sigmoid.users) != 1:
            continue
        gate = sigmoid.args[0] if sigmoid.args and not sigmoid.kwargs else None
        image, logits = _image(x), _image(gate)
        if image is None or logits is None or image.dtype != logits.dtype or x is sigmoid:
            continue
        if list(logits.shape) == [*image.shape[:2], *[1] * (image.dim() - 2)] and _unwritten(
            graph, gate, sigmoid, node
        ):
            return x, gate, sigmoid  # type: ignore[return-value]
    return None


def _unwritten(graph: fx.Graph, gate: Any, first: fx.Node, last: fx.Node) -> bool:
    """Whether nothing between two nodes writes into the gate."""
    memory, between = storages([gate]), False
    for node in graph.nodes:
        if node is last:
            return memory is not None
        if between:
            written = writes(node)
            held = None if written is None else storages(written)
            if memory is None or held is None or held & memory:
                return False
        between |= node is first
    return False

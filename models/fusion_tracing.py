"""Tracing a network as `fuse` needs it: in either mode, with writes in place kept as such, leaving nothing behind."""

import linecache
import math
import operator
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import einops
import numpy as np
import torch
from torch import fx, nn

from models.layers import ConvNormAct, ConvReLUPool
from models.torchvision_names import ConvNorm, NumberedStack

FUSED_ALREADY = (ConvReLUPool, ConvNormAct, ConvNorm, NumberedStack)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def has_hooks(module: nn.Module) -> bool:
    """Whether something else runs when the module is called."""
    return any(getattr(module, kind, None) for kind in HOOKS)


class _Proxy(fx.Proxy):
    """Keeps `a += b` apart from `a = a + b`, which torch.fx does not."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._written(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._written(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._written(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._written(operator.itruediv, other)

    def _written(self, function: Callable[..., Any], other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})


class _Tracer(fx.Tracer):
    """Goes through every module that is not PyTorch's or einops', fused already, or watched by hooks."""

    def __init__(self) -> None:
        super().__init__(autowrap_modules=(math, einops))  # type: ignore[arg-type]
        self.modes = _modes()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (*FUSED_ALREADY, nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase)):
            return True
        if getattr(m, "is_fused", False) or has_hooks(m) or type(m).__module__.startswith("einops."):
            return True
        return super().is_leaf_module(m, module_qualified_name)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if _modes() != self.modes:
            raise RuntimeError("its forward switches gradients or autocast on or off, which a trace does not keep")
        return super().create_node(*args, **kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


def _modes() -> tuple[bool, ...]:
    """What a `with` statement may change around a call."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        *(torch.is_autocast_enabled(device) for device in ("cpu", "cuda")),
    )


def traced(module: nn.Module, training: bool) -> tuple[fx.Graph, dict[str, torch.Tensor]]:
    """The graph of the module in one mode, and tensors it uses that are no parameter or buffer, by name.

    The module is left as it was. Raises whatever its forward raises when it is given symbols instead of tensors, and
    RuntimeError when it draws random numbers itself, which would be the same at every call.
    """
    before = set(vars(module))
    with _in_mode(module, training), _chance_watched():
        try:
            graph = _Tracer().trace(module)
        finally:
            added = {name: vars(module).pop(name) for name in set(vars(module)) - before}
    loose = {}
    for node in graph.nodes:
        name = str(node.target)
        if node.op == "get_attr" and "." not in name and name not in module._parameters | module._buffers:
            loose[name] = added[name] if name in added else getattr(module, name)
    return graph, loose


@contextmanager
def _chance_watched() -> Iterator[None]:
    """RuntimeError at the end if one of the usual generators was used; they go on as if it had not been."""
    torch_before, python_before, numpy_before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
        used = not torch.equal(torch.get_rng_state(), torch_before) or random.getstate() != python_before
        if used or not _same_state(np.random.get_state(), numpy_before):
            raise RuntimeError("its forward draws random numbers, which a trace would keep for good")
    finally:
        torch.set_rng_state(torch_before)
        random.setstate(python_before)
        np.random.set_state(numpy_before)


def _same_state(first: Any, second: Any) -> bool:
    """Of NumPy's generator: a tuple of numbers, a word and an array."""
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@contextmanager
def _in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    modes = [(child, child.training) for child in module.modules()]
    try:
        for child, _ in modes:
            child.training = training
        yield
    finally:
        for child, mode in modes:
            child.training = mode


def compiled_forward(graph: fx.Graph, name: str) -> Callable[..., Any]:
    """The graph as a function whose first argument is the module; `name` stands in tracebacks."""
    code = graph.python_code("self")
    file = f"<fused {name} {id(graph):x}>"
    linecache.cache[file] = (len(code.src), None, code.src.splitlines(keepends=True), file)
    namespace = dict(code.globals)
    exec(compile(code.src, file, "exec"), namespace)
    return namespace["forward"]

"""What a node of a captured graph does besides returning a value: nothing, writes into named tensors, or anything.

TorchDynamo's graphs hold calls as the program made them: functions of `torch` and `torch.nn.functional`, methods of
tensors, operators of Python. Known to write nothing are those whose schemas or names say so; everything not known here
is taken to do anything.
"""

import functools
import inspect
import math
import operator
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor

# Where `torch.conv2d` and `F.gelu` come from: PyTorch has no public names for these two.
_VARIABLE_FUNCTIONS, _NN = torch._C._VariableFunctions, torch._C._nn

NORM_ARGUMENTS = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")

_PURE_OPERATORS = {
    getattr(operator, name)
    for name in (
        "getitem", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos", "abs", "matmul", "eq", "ne",
        "lt", "le", "gt", "ge", "and_", "or_", "xor", "invert", "not_", "is_", "is_not", "lshift", "rshift", "index",
        "truth",
    )
}  # fmt: skip
_WRITING_OPERATORS = {
    getattr(operator, name)
    for name in (
        "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul", "iand", "ior", "ixor", "ilshift",
        "irshift", "setitem",
    )
}  # fmt: skip
_PURE_FUNCTIONS = {
    float, int, bool, max, min, math.floor, math.ceil, torch.sym_int, torch.sym_float, torch.sym_max, torch.sym_min,
    torch.sym_not,
}  # fmt: skip
_IMPURE_METHODS = {
    "backward", "register_hook", "retain_grad", "numpy", "share_memory_", "requires_grad_", "data_ptr", "item",
    "tolist", "register_post_accumulate_grad_hook", "set_",
}  # fmt: skip
_IMPURE_FUNCTIONS = ("embedding", "embedding_bag", "instance_norm", "multi_head_attention_forward")


def bound(node: fx.Node, names: tuple[str, ...]) -> dict[str, Any]:
    """A call's arguments by name."""
    return dict(zip(names, node.args, strict=False)) | dict(node.kwargs)


def described(node: fx.Node) -> str:
    """What a node calls, in a word."""
    if node.op == "output":
        return "the graph's result"
    return str(node.target) if node.op != "call_function" else getattr(node.target, "__name__", str(node.target))


def writes(node: fx.Node) -> list[fx.Node] | None:
    """The nodes whose tensors a node writes into; None where it may do anything."""
    found = _writes(node)
    if found is None or any(value is not None and not isinstance(value, fx.Node) for value in found):
        return None
    return [value for value in found if value is not None]


def _writes(node: fx.Node) -> list[Any] | None:
    if node.op in ("placeholder", "get_attr"):
        return []
    if node.op == "call_method":
        return _method_writes(str(node.target), node)
    return _function_writes(node.target, node) if node.op == "call_function" else None


def _method_writes(name: str, node: fx.Node) -> list[Any] | None:
    if name in _IMPURE_METHODS or not hasattr(Tensor, name):
        return None
    special = name.startswith("__") and name.endswith("__")
    in_place = name.endswith("_") and not special
    augmented = special and name.startswith("__i") and name not in ("__index__", "__int__", "__invert__")
    if in_place or augmented or name == "__setitem__":
        return list(node.args[:1])
    return [node.kwargs.get("out")]


def _function_writes(function: Any, node: fx.Node) -> list[Any] | None:
    name = getattr(function, "__name__", "")
    if function in _PURE_OPERATORS or function in _PURE_FUNCTIONS:
        return []
    if function in _WRITING_OPERATORS:
        return [node.args[0]]
    if function in (F.batch_norm, torch.batch_norm):  # its schema does not say that it writes
        given = bound(node, NORM_ARGUMENTS)
        return (
            [given.get("running_mean"), given.get("running_var")] if given.get("training", False) is not False else []
        )
    if isinstance(function, torch._ops.OpOverload):
        known = function.namespace in ("aten", "prims", "tidepool")
        return [] if known and not function._schema.is_mutable else None
    return _named_function_writes(function, name, node)


def _named_function_writes(function: Any, name: str, node: fx.Node) -> list[Any] | None:
    """Of functions of torch and torch.nn.functional."""
    built_in = getattr(_VARIABLE_FUNCTIONS, name, None) is function or getattr(_NN, name, None) is function
    built_in |= getattr(torch, name, None) is function and type(function).__name__ == "builtin_function_or_method"
    python = getattr(F, name, None) is function
    if not (python or built_in) or name in _IMPURE_FUNCTIONS or name.startswith(("set_", "_set")):
        return None
    if "batch_norm" in name or "checkpoint" in name:
        return None
    if name.endswith("_") or node.kwargs.get("out") is not None:
        return [node.args[0] if node.args else None, node.kwargs.get("out")]
    if built_in and not python and _schema_writes(name):
        return None
    return [node.args[0] if node.args else node.kwargs.get("input")] if _in_place(function, node) else []


def _in_place(function: Any, node: fx.Node) -> bool:
    """Whether the call says `inplace`, by name or by position."""
    if "inplace" in node.kwargs:
        return node.kwargs["inplace"] is not False
    position = _inplace_position(function)
    return position is not None and len(node.args) > position and node.args[position] is not False


@functools.cache
def _inplace_position(function: Any) -> int | None:
    try:
        names = list(inspect.signature(function).parameters)
    except (ValueError, TypeError):  # built in, or one of boolean_dispatch's: no activation
        return None
    return names.index("inplace") if "inplace" in names else None


@functools.cache
def _schema_writes(name: str) -> bool:
    """Whether any form of aten::name writes into an argument that is no `out`."""
    schemas = torch._C._jit_get_schemas_for_operator(f"aten::{name}")
    return any(
        argument.alias_info is not None and argument.alias_info.is_write and not argument.kwarg_only
        for schema in schemas
        for argument in schema.arguments
    )


# --- Memory ---


def value_of(node: Any) -> Any:
    """The fake value that Dynamo gave a node; what is no node is its own value."""
    return node.meta.get("example_value") if isinstance(node, fx.Node) else node


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in a value, nested ones too."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for one in value for tensor in tensors_in(one)]
    if isinstance(value, dict):
        return [tensor for one in value.values() for tensor in tensors_in(one)]
    return []


def storages(nodes: Iterable[Any]) -> set[int] | None:
    """The storages of what nodes hold, views and inputs that alias as at capture; None where that cannot be told."""
    found: set[int] = set()
    for node in nodes:
        if not isinstance(node, fx.Node):
            continue
        if "example_value" not in node.meta:
            return None
        for tensor in tensors_in(node.meta["example_value"]):
            if not isinstance(tensor, FakeTensor | torch.nn.Parameter):
                return None
            try:
                found.add(tensor.untyped_storage()._cdata)
            except (RuntimeError, NotImplementedError):  # sparse tensors and their like have none
                return None
    return found


def may_overlap(written: set[int], read: set[int], nodes: Iterable[fx.Node]) -> bool:
    """Whether two arguments of the graph in these storages may overlap at a later call, though they did not at capture.

    Nothing guards it. A module's own state is taken to overlap only as it did at capture, and integers not to overlap
    floating-point numbers.
    """

    def arguments(where: set[int]) -> list[Tensor]:
        return [
            tensor
            for node in nodes
            if node.op == "placeholder" and not any(word in node.name for word in ("_buffers_", "_parameters_"))
            for tensor in tensors_in(value_of(node))
            if tensor.untyped_storage()._cdata in where
        ]

    nodes = list(nodes)
    there = arguments(read)
    return any(a.is_floating_point() == b.is_floating_point() for a in arguments(written) for b in there)

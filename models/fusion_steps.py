"""Which node of a traced network is a convolution, norm, activation, pool or addition, however it is spelt."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import fx, nn

from kernels import AvgPool, MaxPool
from kernels.pooling import Pool, Size
from models.fusion_tracing import has_hooks

Kind = Literal["conv", "norm", "activation", "pool", "add", "nothing"]


@dataclass(frozen=True)
class Step:
    """One node, and what the fused ops have to know of it."""

    kind: Kind
    node: fx.Node
    name: str
    source: fx.Node | None = None
    """Where its input comes from; None for an addition, which has two."""
    module: nn.Module | None = None
    activation: str | None = None
    pool: Pool = None
    rank: int | None = None
    """Number of spatial dimensions, where the spelling tells."""
    inplace: bool = False
    refusal: str = ""
    """Why the fused ops cannot take it; empty when they can."""


CONVOLUTIONS: dict[type[nn.Module], int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
NORMS: dict[type[nn.Module], int] = {nn.BatchNorm1d: 1, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}
ACTIVATION_MODULES: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.SiLU: "silu", nn.GELU: "gelu"}
MAX_POOL_MODULES: dict[type[nn.Module], int] = {nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3}
AVG_POOL_MODULES: dict[type[nn.Module], int] = {nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3}
KNOWN_MODULES = (*CONVOLUTIONS, *NORMS, *ACTIVATION_MODULES, *MAX_POOL_MODULES, *AVG_POOL_MODULES)
OTHER_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)
OTHER_POOLS = (
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._LPPoolNd,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
)

ACTIVATION_FUNCTIONS: dict[Callable[..., Any], str] = {
    torch.relu: "relu",
    torch.relu_: "relu",
    F.relu: "relu",
    F.relu_: "relu",
    F.silu: "silu",
    F.gelu: "gelu",
}
MAX_POOL_FUNCTIONS: dict[Callable[..., Any], int] = {
    F.max_pool1d: 1,
    F.max_pool2d: 2,
    F.max_pool3d: 3,
    torch.max_pool1d: 1,
    torch.max_pool2d: 2,
    torch.max_pool3d: 3,
}
AVG_POOL_FUNCTIONS: dict[Callable[..., Any], int] = {F.avg_pool1d: 1, F.avg_pool2d: 2, F.avg_pool3d: 3}
CONV_FUNCTIONS = (F.conv1d, F.conv2d, F.conv3d)
ADDITIONS = (operator.add, operator.iadd, torch.add)
_MAX_POOL_ARGUMENTS = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVG_POOL_ARGUMENTS = (
    "input",
    "kernel_size",
    "stride",
    "padding",
    "ceil_mode",
    "count_include_pad",
    "divisor_override",
)


def step_of(node: fx.Node, modules: dict[str, nn.Module]) -> Step | None:
    """The node as a step, one with a refusal where it is a layer of a kind that is fused only in another form, or None
    for everything else. `modules` are the network's by name."""
    if node.op == "call_module":
        return _module_step(node, modules[str(node.target)])
    if node.op == "call_function" or node.op == "call_method":
        return _function_step(node)
    return None


def is_inplace(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether the node may write into one of its inputs."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    inplace_operator = getattr(operator, name, None) is node.target and name.startswith("i") and name != "is_"
    return (
        (name.endswith("_") and not name.endswith("__"))
        or inplace_operator
        or node.target is operator.setitem
        or bool(node.kwargs.get("inplace", False))
        or "out" in node.kwargs
        or (node.target in (F.relu, F.silu) and len(node.args) > 1 and bool(node.args[1]))
    )


def described(node: fx.Node) -> str:
    """A module's name, or a function's behind that of the module it is called in."""
    if node.op in ("call_module", "get_attr", "output"):
        return "the output" if node.op == "output" else str(node.target)
    function_name = getattr(node.target, "__name__", str(node.target))
    place = list(node.meta.get("nn_module_stack") or [""])[-1]
    return f"{place} {function_name}".strip()


def first_input(node: fx.Node) -> fx.Node | None:
    """The tensor a layer works on."""
    first = node.args[0] if node.args else node.kwargs.get("input")
    return first if isinstance(first, fx.Node) else None


def _module_step(node: fx.Node, module: nn.Module) -> Step | None:
    name, source = str(node.target), first_input(node)
    refusal = "it has hooks, which a fused op would not call" if has_hooks(module) else ""
    known = next((kind for kind in KNOWN_MODULES if isinstance(module, kind)), None)
    if known is None:
        return _other_module_step(node, module, refusal)
    if type(module).forward is not known.forward:
        refusal = f"{type(module).__name__} has a forward of its own"
    if known in CONVOLUTIONS:
        return _conv_step(node, module, known, refusal)
    if known in NORMS:
        return Step("norm", node, name, source, module, rank=NORMS[known], refusal=refusal)
    if known in ACTIVATION_MODULES:
        approximate = getattr(module, "approximate", "none")
        refusal = refusal or _inexact(approximate)
        return Step("activation", node, name, source, activation=ACTIVATION_MODULES[known], refusal=refusal)
    maximum = known in MAX_POOL_MODULES
    names = _MAX_POOL_ARGUMENTS if maximum else _AVG_POOL_ARGUMENTS
    settings = {key: vars(module)[key] for key in names if key in vars(module)}
    rank = (MAX_POOL_MODULES if maximum else AVG_POOL_MODULES)[known]
    return _pool_step(node, name, source, settings, maximum, rank, refusal)


def _inexact(approximate: str) -> str:
    return "" if approximate == "none" else f"the fused ops have no {approximate} approximation of GELU"


def _other_module_step(node: fx.Node, module: nn.Module, refusal: str) -> Step | None:
    name, source, kind_name = str(node.target), first_input(node), type(module).__name__
    if isinstance(module, nn.Identity):
        return Step("nothing", node, name, source, refusal=refusal)
    if isinstance(module, OTHER_NORMS):
        return Step("norm", node, name, source, refusal=f"{kind_name} is not a norm of the fused ops")
    if isinstance(module, OTHER_POOLS):
        return Step("pool", node, name, source, refusal=f"{kind_name} is not a pool of the fused ops")
    if isinstance(module, nn.modules.conv._ConvNd):
        return Step("conv", node, name, source, refusal=f"{kind_name} is not a convolution of the fused ops")
    if type(module).__module__ == "torch.nn.modules.activation" and not isinstance(module, nn.MultiheadAttention):
        return Step("activation", node, name, source, refusal=_not_an_activation(kind_name))
    return None


def _conv_step(node: fx.Node, module: nn.Module, kind_of: type[nn.Module], refusal: str) -> Step:
    if type(module)._conv_forward is not kind_of._conv_forward:  # type: ignore[attr-defined]
        refusal = f"{type(module).__name__} has a forward of its own"
    elif module.padding_mode != "zeros":
        refusal = f"padding_mode={module.padding_mode!r}: the fused ops pad with zeros"
    return Step("conv", node, str(node.target), first_input(node), module, rank=CONVOLUTIONS[kind_of], refusal=refusal)


def _not_an_activation(name: str) -> str:
    return f"{name} is not an activation of the fused ops (relu, silu, gelu)"


def _function_step(node: fx.Node) -> Step | None:
    target, name, source = node.target, described(node), first_input(node)
    if node.op == "call_method":
        if target in ("relu", "relu_"):
            return Step("activation", node, name, source, activation="relu")
        if target in ("add", "add_"):
            return _add_step(node)
        return None
    if target in ADDITIONS:
        return _add_step(node)
    if target in ACTIVATION_FUNCTIONS:
        refusal = _inexact(str(node.kwargs.get("approximate", "none")))
        activation = ACTIVATION_FUNCTIONS[target]
        return Step("activation", node, name, source, activation=activation, refusal=refusal)
    for table, arguments in ((MAX_POOL_FUNCTIONS, _MAX_POOL_ARGUMENTS), (AVG_POOL_FUNCTIONS, _AVG_POOL_ARGUMENTS)):
        if target in table:
            settings = dict(zip(arguments, node.args, strict=False)) | dict(node.kwargs)
            maximum = table is MAX_POOL_FUNCTIONS
            return _pool_step(node, name, source, settings, maximum, table[target], "")
    if target in CONV_FUNCTIONS:
        return Step("conv", node, name, source, refusal="a function's weight belongs to no module")
    if target is F.batch_norm:
        return Step("norm", node, name, source, refusal="a function's statistics belong to no module")
    function_name = getattr(target, "__name__", "")
    if "pool" in function_name:
        return Step("pool", node, name, source, refusal=f"{function_name} is not a pool of the fused ops")
    if getattr(nn.functional, function_name, None) is target and function_name.endswith(
        ("relu", "relu6", "swish", "elu")
    ):
        return Step("activation", node, name, source, refusal=_not_an_activation(function_name))
    return None


def _add_step(node: fx.Node) -> Step:
    refusal = ""
    if len(node.args) != 2 or not all(isinstance(argument, fx.Node) for argument in node.args):
        refusal = "only the sum of two tensors is fused"
    elif node.args[0] is node.args[1]:
        refusal = "both terms are the same tensor"
    elif node.kwargs.get("alpha", 1) != 1 or set(node.kwargs) - {"alpha"}:
        refusal = "only a plain sum is fused"
    inplace = node.target in (operator.iadd, "add_")
    return Step("add", node, described(node), inplace=inplace, refusal=refusal)


def _pool_step(
    node: fx.Node,
    name: str,
    source: fx.Node | None,
    settings: dict[str, Any],
    maximum: bool,
    rank: int,
    refusal: str,
) -> Step:
    """`settings` are PyTorch's, by name."""
    if any(isinstance(value, fx.Node) for key, value in settings.items() if key != "input"):
        refusal = "its settings depend on the input"
    elif settings.get("return_indices"):
        refusal = "return_indices=True: the fused ops keep no indices"
    elif settings.get("divisor_override") is not None:
        refusal = "divisor_override: the fused ops divide by the number of pixels"
    if refusal:
        return Step("pool", node, name, source, rank=rank, refusal=refusal)
    kernel, padding = _size(settings["kernel_size"]), _size(settings.get("padding", 0))
    stride = _size(settings["stride"]) if settings.get("stride") else None
    ceil_mode = bool(settings.get("ceil_mode", False))
    pool: Pool
    if maximum:
        pool = MaxPool(kernel, stride, padding, _size(settings.get("dilation", 1)), ceil_mode)
    else:
        pool = AvgPool(kernel, stride, padding, ceil_mode, bool(settings.get("count_include_pad", True)))
    return Step("pool", node, name, source, pool=pool, rank=rank)


def _size(value: int | Sequence[int]) -> Size:
    return value if isinstance(value, int) else tuple(value)

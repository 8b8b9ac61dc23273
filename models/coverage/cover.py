"""`python -m tidepool.models.coverage <name>`: which kernels carry each layer of a network, and what the layer costs.

Each layer's call is repeated by itself at its own sizes, and what it starts is written down: this project's kernels by
name, PyTorch's operators as aten::name. Where this project's kernels are asked for they are not run, only listed, so
that sizes of real networks take seconds; without a GPU the list is what the interpreter would run. What several
gradients of a layer share is listed with each of them, and runs once in a step. Costs: see `coverage.costs`.
"""

import argparse
import ast
import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tidepool import kernels
from tidepool.kernels.layer.arguments import BACKENDS
from tidepool.kernels.layer.dtypes import BY_NAME
from tidepool.kernels.runtime.launch import replace_launcher
from tidepool.kernels.runtime.mode import mode_of
from tidepool.models import available_models, build_model, model_options, usual_input
from tidepool.models.coverage.costs import call_cost, convolution_of, linear_cost
from tidepool.models.fused import Call, NormHolder, recorded_calls
from tidepool.records import OneLineParser

DTYPES = ("fp32", "bf16", "fp16")
NOT_COMPUTED = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "new_zeros", "zeros", "ones_like"),
    *("view", "_unsafe_view", "detach", "alias", "expand", "as_strided", "t", "transpose", "permute", "unsqueeze"),
    *("squeeze", "select", "slice", "_to_copy", "copy_", "zero_", "fill_"),
}
"""Operators that allocate, fill, or look at memory in another way."""


@dataclass(frozen=True)
class LayerCoverage:
    """One call of a layer: who carries it, and its cost in a training step."""

    name: str
    op: str
    y_size: tuple[int, ...]
    parameters: int
    carried_by: dict[str, tuple[str, ...]]
    """What each result starts, in order: "forward", and the gradients that are wanted of "x", "weight" (with the
    bias), "norm" (weight and bias) and "residual" or "gate"."""
    flops: int
    bytes_moved: int


def cover(model: nn.Module, size: Sequence[int], dtype: torch.dtype = torch.float32) -> list[LayerCoverage]:
    """What `layer_calls` finds, with who carries each call and its cost."""
    return [_covered(call, name, dtype) for name, call in layer_calls(model, size, dtype)]


def layer_calls(model: nn.Module, size: Sequence[int], dtype: torch.dtype) -> list[tuple[str, Call]]:
    """Every layer of a network on the meta device at input (N, C, *spatial) of this size, in the order they run, by
    name.

    Layers are what calls a fused op, and `nn.Linear`. What else a network does (activations between linear layers,
    dropout, sums) is left out.
    """
    model.to(dtype).train()
    names = {module: name or "(network)" for name, module in model.named_modules()}
    running: list[str] = ["(network)"]
    owners: list[str] = []
    with recorded_calls() as calls:

        def before(module: nn.Module, inputs: Any) -> None:
            owners.extend([running[-1]] * (len(calls) - len(owners)))
            running.append(names[module])

        def after(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(module, nn.Linear):
                (x,) = inputs
                sizes = tuple(x.shape), tuple(output.shape)
                calls.append(Call("linear", *sizes, "PyTorch", x.dtype, x.requires_grad, linear=module))
            owners.extend([running.pop()] * (len(calls) - len(owners)))

        # Convolutions and norms are handed to ops and not called; with hooks they would be.
        called = [module for module in names if not isinstance(module, nn.modules.conv._ConvNd | NormHolder)]
        hooks = [module.register_forward_pre_hook(before) for module in called]
        hooks += [module.register_forward_hook(after) for module in called]
        try:
            model(torch.empty(*size, device="meta", dtype=dtype))
        finally:
            for hook in hooks:
                hook.remove()
    return [(names.get(call.conv, owner), call) for call, owner in zip(calls, owners, strict=True)]


def _covered(call: Call, name: str, dtype: torch.dtype) -> LayerCoverage:
    carried = _carried_by(call)
    if call.linear is not None:
        costs = linear_cost(call.x_size, call.linear.out_features, call.differentiated, dtype)
    else:
        ours = any(not starter.startswith("aten::") for starter in carried["forward"])
        costs = call_cost(call, fused=ours)
    holders = [holder for holder in (call.conv, call.norm, call.linear) if isinstance(holder, nn.Module)]
    parameters = sum(p.numel() for holder in holders for p in holder.parameters(recurse=False))
    return LayerCoverage(name, call.op, call.y_size, parameters, carried, *costs)


def _carried_by(call: Call) -> dict[str, tuple[str, ...]]:
    """Run the call once more, forward and to each gradient that is wanted, and list what is started."""
    device = _device_of(call.backend)
    leaves = _leaves(call, device)
    started: list[str] = []
    with _starts_recorded(started):
        y = _repeated(call, leaves)
        carried = {"forward": tuple(started)}
        for name, tensors in leaves.items():
            wanted = [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]
            if wanted:
                started.clear()
                torch.autograd.grad(y, wanted, torch.empty_like(y), retain_graph=True)
                carried[name] = tuple(started)
    return carried


def _device_of(backend: str) -> str:
    """Where a call tells what it starts: eager PyTorch tells it without memory."""
    if torch.cuda.is_available() and backend in ("triton", "auto"):
        return "cuda"
    return "cpu" if backend == "triton" else "meta"


def _leaves(call: Call, device: str) -> dict[str, list[Tensor | None]]:
    """Unwritten tensors like the call's, by the gradient they belong to."""

    def like(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
        return empty.requires_grad_(tensor.requires_grad)

    leaves: dict[str, list[Tensor | None]] = {}
    x = torch.empty(call.x_size, dtype=call.dtype, device=device)
    leaves["x"] = [x.requires_grad_(call.differentiated)]
    holder = call.conv if call.conv is not None else call.linear
    if holder is not None:
        leaves["weight"] = [like(holder.weight), like(holder.bias)]
    if call.norm is not None:
        leaves["norm"] = [like(call.norm.weight), like(call.norm.bias)]
    if call.residual:
        size = call.y_size[:2] + _normalised_size(call)
        leaves["residual"] = [torch.empty(size, dtype=call.dtype, device=device, requires_grad=True)]
    if call.op == "squeeze_excite":
        gate = (*call.x_size[:2], *(1,) * (len(call.x_size) - 2))
        leaves["gate"] = [torch.empty(gate, dtype=call.dtype, device=device, requires_grad=True)]
    return leaves


def _normalised_size(call: Call) -> tuple[int, ...]:
    """Spatial size of what the norm sees, and with it of the residual."""
    _, shapes = convolution_of(call)
    return tuple(shapes.output[3 - (len(call.x_size) - 2) :])


def _repeated(call: Call, leaves: dict[str, list[Tensor | None]]) -> Tensor:
    backend = "cudnn" if call.backend == "compile" else call.backend
    (x,) = leaves["x"]
    assert x is not None
    if call.linear is not None:
        weight, bias = leaves["weight"]
        assert weight is not None
        return nn.functional.linear(x, weight, bias)
    if call.op == "global_average_pool":
        return kernels.global_average_pool(x, backend=backend)
    if call.op == "squeeze_excite":
        (gate,) = leaves["gate"]
        assert gate is not None
        return kernels.squeeze_excite(x, gate, backend=backend)
    assert call.conv is not None
    weight, bias = leaves["weight"]
    assert weight is not None
    conv = call.conv
    settings: dict[str, Any] = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
    settings |= {"groups": conv.groups, "activation": call.activation, "pool": call.pool, "backend": backend}
    if call.norm is None:
        return kernels.conv_relu_pool(x, weight, bias, **settings)
    statistics = [torch.empty(weight.shape[0], dtype=weight.dtype, device=x.device) for _ in range(2)]
    return kernels.conv_norm_act(
        x,
        weight,
        *leaves["norm"],
        *statistics,
        conv_bias=bias,
        residual=leaves["residual"][0] if call.residual else None,
        training=True,
        pool_first=call.pool_first,
        **settings,
    )


class _Operators(TorchDispatchMode):
    """Writes down PyTorch's operators that compute something."""

    def __init__(self, started: list[str]) -> None:
        super().__init__()
        self.started = started

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if func.namespace == "aten" and name not in NOT_COMPUTED:
            self.started.append(f"aten::{name}")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _starts_recorded(started: list[str]) -> Iterator[None]:
    """Kernels of this project are listed instead of run; PyTorch's operators are listed and run."""

    def launcher(kernel: Any, grid: tuple[int, ...], *arguments: Any, **settings: Any) -> None:
        function = getattr(kernel, "fn", kernel)
        started.append(function.__name__.removesuffix("_kernel"))

    replace_launcher(launcher)
    try:
        with _Operators(started):
            yield
    finally:
        replace_launcher(None)


def printed(rows: Sequence[LayerCoverage], parameters: int, heading: str) -> str:
    """The report as text; `parameters` are the network's, each counted once."""
    lines = [heading]
    for row in rows:
        size = " x ".join(map(str, row.y_size))
        costs = f"{row.parameters:,} parameters, {_scaled(row.flops)}FLOP, {_scaled(row.bytes_moved)}B"
        lines.append(f"{row.name}: {row.op} -> {size}; {costs}")
        for result, starters in row.carried_by.items():
            what = "forward" if result == "forward" else f"d{result}"
            lines.append(f"    {what:10} {' + '.join(starters) or 'nothing'}")
    flops, moved = sum(row.flops for row in rows), sum(row.bytes_moved for row in rows)
    lines.append(f"total: {parameters:,} parameters, {_scaled(flops)}FLOP, {_scaled(moved)}B in a training step")
    return "\n".join(lines)


def _scaled(value: float) -> str:
    """Three digits and a decimal prefix."""
    for prefix in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.3g} {prefix}"
        value /= 1000
    return f"{value:.4g} T"


def _sizes(text: str) -> int | tuple[int, ...]:
    try:
        sizes = tuple(int(word) for word in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number, or one for each dimension as 64x96") from None
    return sizes[0] if len(sizes) == 1 else sizes


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _arguments(arguments: Sequence[str], prog: str) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The settings, and the network's own options that are given."""
    parser = OneLineParser(prog=prog, description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("name", choices=available_models(), metavar="name", help="a network that build_model knows")
    parser.add_argument("--image_size", type=_sizes, help="one number, or one for each dimension as 64x96")
    parser.add_argument("--in_channels", type=int, help="by default as many as the network is usually given")
    parser.add_argument("--num_classes", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--backend", choices=BACKENDS, default="triton")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    name = parser.parse_known_args(arguments)[0].name
    options = parser.add_argument_group(f"options of {name}")
    for option, default in model_options(name).items():
        options.add_argument(f"--{option}", type=_literal, default=argparse.SUPPRESS, help=f"default: {default}")
    settings = parser.parse_args(arguments)
    given = {option: getattr(settings, option) for option in model_options(name) if hasattr(settings, option)}
    if settings.batch_size < 1:
        parser.error(f"argument --batch_size: {settings.batch_size}; expected a whole number of at least 1")
    return settings, given


def main(arguments: Sequence[str], *, prog: str = "tidepool coverage") -> int:
    """Run the command; returns its exit code."""
    settings, options = _arguments(arguments, prog)
    name: str = settings.name
    usual_channels, *usual_size = usual_input(name)
    size = tuple(usual_size) if settings.image_size is None else settings.image_size
    size = (size,) * len(usual_size) if isinstance(size, int) else size
    channels = usual_channels if settings.in_channels is None else settings.in_channels
    try:
        with torch.device("meta"):
            model = build_model(
                name,
                num_classes=settings.num_classes,
                in_channels=channels,
                image_size=size,
                backend=settings.backend,
                **options,
            )
        x_size = (settings.batch_size, channels, *size)
        rows = cover(model, x_size, BY_NAME[settings.dtype])
    except ValueError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    heading = (
        f"{name} at {' x '.join(map(str, x_size))}, {settings.dtype}, backend {settings.backend}, "
        f"as it starts on {_where(settings.backend)}"
    )
    print(printed(rows, sum(parameter.numel() for parameter in model.parameters()), heading))
    return 0


def _where(backend: str) -> str:
    device = _device_of(backend)
    if device == "cuda":
        return mode_of(torch.device("cuda")).target.name
    return "no GPU: the interpreter" if device == "cpu" else "no device: eager PyTorch's operators"

"""The fused ops, called with modules that hold the parameters.

A network keeps `nn.Conv2d` and `nn.BatchNorm2d` where others expect to find them, for their parameters, names and
`train()`/`eval()`; the functions here hand these to one fused op. They keep what the modules would do besides the
arithmetic: batches are counted, and a norm's momentum may be a cumulative average.

`recorded_calls` collects what is called, for `python -m tidepool.models.coverage`.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from tidepool import kernels
from tidepool.kernels.activations import NamedActivation
from tidepool.kernels.layer.pooling import Pool, Size
from tidepool.kernels.oracle.reference import activate, pool_reference
from tidepool.models.synchronised import SynchronisedBatchNorm


class ConvolutionHolder(Protocol):
    """What is read off a convolution: `nn.Conv1d` to `nn.Conv3d` without padding modes, and `layers.ConvActPool`."""

    @property
    def weight(self) -> Tensor: ...
    @property
    def bias(self) -> Tensor | None: ...
    @property
    def stride(self) -> Size: ...
    @property
    def padding(self) -> Size | str: ...
    @property
    def dilation(self) -> Size: ...
    @property
    def groups(self) -> int: ...


NormHolder = torch.nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Call:
    """One call of a fused op (or of `linear`, which `coverage.cover` adds): sizes and settings, without the tensors it
    was given."""

    op: str
    x_size: tuple[int, ...]
    y_size: tuple[int, ...]
    backend: str
    dtype: torch.dtype
    differentiated: bool
    """Whether a gradient is wanted at x."""
    conv: ConvolutionHolder | None = None
    norm: NormHolder | None = None
    linear: torch.nn.Linear | None = None
    residual: bool = False
    activation: NamedActivation = None
    pool: Pool = None
    pool_first: bool = False


_recorders: list[list[Call]] = []


@contextlib.contextmanager
def recorded_calls() -> Iterator[list[Call]]:
    """The calls of fused ops made inside the `with` block, in order, as they come."""
    calls: list[Call] = []
    _recorders.append(calls)
    try:
        yield calls
    finally:
        _recorders.remove(calls)


def _record(call: Call) -> None:
    for calls in _recorders:
        calls.append(call)


def _is_itself(module: Any) -> bool:
    """Whether a call of the module would do PyTorch's arithmetic of its class and nothing else: no hooks, no forward of
    a subclass or of the instance, no other padding than zeros. What only holds parameters for an op always is."""
    if not isinstance(module, torch.nn.modules.conv._ConvNd | NormHolder):
        return not isinstance(module, torch.nn.Module) or not _is_replacement(module)
    if isinstance(module, SynchronisedBatchNorm) and not module.training:
        return not module._forward_hooks and not module._forward_pre_hooks
    known = _CONVOLUTIONS if isinstance(module, torch.nn.modules.conv._ConvNd) else _NORMS
    kind = next((one for one in known if isinstance(module, one)), None)
    return (
        kind is not None
        and type(module).forward is kind.forward
        and not {"forward", "_conv_forward"} & set(vars(module))
        and getattr(type(module), "_conv_forward", None) is getattr(kind, "_conv_forward", None)
        and getattr(module, "padding_mode", "zeros") == "zeros"
        and not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
        and not module._backward_pre_hooks
    )


def _is_replacement(module: torch.nn.Module) -> bool:
    """Whether a module was put where an op takes parameters from and does something of its own, as an Identity does."""
    return not hasattr(module, "dilation")


_CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


def _as_modules(
    x: Tensor,
    conv: Any,
    norm: Any,
    *,
    residual: Tensor | None = None,
    activation: NamedActivation,
    pool: Pool,
    pool_first: bool = False,
) -> Tensor:
    """The same with the modules called: what a network's user put in place of the layers does what it does."""
    rank = x.dim() - 2
    y = conv(x)
    if pool_first:
        y = pool_reference(y, pool, rank)
    if norm is not None:
        y = norm(y)
    if residual is not None:
        y = y + residual
    y = activate(y, activation)
    return y if pool_first else pool_reference(y, pool, rank)


def conv_relu_pool(
    x: Tensor,
    conv: ConvolutionHolder,
    *,
    activation: NamedActivation = "relu",
    pool: Pool = None,
    backend: str,
) -> Tensor:
    """pool(activation(conv(x))): x (N, C, *spatial) -> (N, K, *output)."""
    if not _is_itself(conv):
        return _as_modules(x, conv, None, activation=activation, pool=pool)
    y = kernels.conv_relu_pool(
        x,
        conv.weight,
        conv.bias,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        activation=activation,
        pool=pool,
        backend=backend,
    )
    if _recorders:
        _record(_call("conv_relu_pool", x, y, backend, conv=conv, activation=activation, pool=pool))
    return y


def conv_norm_act(
    x: Tensor,
    conv: ConvolutionHolder,
    norm: NormHolder,
    *,
    residual: Tensor | None = None,
    activation: NamedActivation = "relu",
    pool: Pool = None,
    pool_first: bool = False,
    backend: str,
) -> Tensor:
    """pool(activation(norm(conv(x)) + residual)), with `pool_first` the pool between conv and norm.

    x (N, C, *spatial) -> (N, K, *output). The norm uses and updates what `nn.BatchNorm2d` would in the norm's mode:
    batch statistics in training and where it keeps no running ones, `num_batches_tracked`, and for momentum=None
    the average over all batches so far. Where either module was replaced, patched or hooked, the modules are called.
    """
    if isinstance(norm, SynchronisedBatchNorm) and norm.training and _is_itself(conv):
        return _over_processes(
            x, conv, norm, residual=residual, activation=activation, pool=pool, pool_first=pool_first, backend=backend
        )
    if not (_is_itself(conv) and _is_itself(norm)):
        given: dict[str, Any] = {"residual": residual, "activation": activation, "pool": pool, "pool_first": pool_first}
        return _as_modules(x, conv, norm, **given)
    momentum = 0.0 if norm.momentum is None else norm.momentum
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    batch_statistics = norm.training or norm.running_mean is None
    keep = not norm.training or norm.track_running_stats
    y = kernels.conv_norm_act(
        x,
        conv.weight,
        norm.weight,
        norm.bias,
        norm.running_mean if keep else None,
        norm.running_var if keep else None,
        conv_bias=conv.bias,
        residual=residual,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        training=batch_statistics,
        momentum=momentum,
        eps=norm.eps,
        activation=activation,
        pool=pool,
        pool_first=pool_first,
        backend=backend,
    )
    if _recorders:
        settings: dict[str, Any] = {"activation": activation, "pool": pool, "pool_first": pool_first}
        has_residual = residual is not None
        _record(_call("conv_norm_act", x, y, backend, conv=conv, norm=norm, residual=has_residual, **settings))
    return y


def _over_processes(
    x: Tensor,
    conv: ConvolutionHolder,
    norm: NormHolder,
    *,
    residual: Tensor | None,
    activation: NamedActivation,
    pool: Pool,
    pool_first: bool,
    backend: str,
) -> Tensor:
    """The same with the statistics of all processes: the convolution on its backend, then the norm with its reductions
    between statistics and normalising, residual, activation and pool as PyTorch's own."""
    y = conv_relu_pool(x, conv, activation=None, pool=pool if pool_first else None, backend=backend)
    y = norm(y)
    if residual is not None:
        y = y + residual
    y = activate(y, activation)
    return y if pool_first else pool_reference(y, pool, x.dim() - 2)


def global_average_pool(x: Tensor, *, keepdim: bool = True, backend: str) -> Tensor:
    """Mean over the spatial dimensions: (N, C, *spatial) -> (N, C, 1, ...), or (N, C) without `keepdim`."""
    y = kernels.global_average_pool(x, keepdim=keepdim, backend=backend)
    if _recorders:
        _record(_call("global_average_pool", x, y, backend))
    return y


def squeeze_excite(x: Tensor, gate: Tensor, *, backend: str) -> Tensor:
    """x * sigmoid(gate): x (N, C, *spatial), gate (N, C, 1, ...)."""
    y = kernels.squeeze_excite(x, gate, backend=backend)
    if _recorders:
        _record(_call("squeeze_excite", x, y, backend))
    return y


def _call(op: str, x: Tensor, y: Tensor, backend: str, **settings: Any) -> Call:
    return Call(op, tuple(x.shape), tuple(y.shape), backend, x.dtype, x.requires_grad, **settings)

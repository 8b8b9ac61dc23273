"""Who is compared: this project's backends, and PyTorch at its best.

Every backend gets the tensor layout it is fastest with: channels_last wherever there is one, and NCHW besides for
cuDNN, as its users mostly call it. cuDNN may choose its algorithm by trial (`cudnn.benchmark`) on all sides.
`torch.compile` in max-autotune mode is run without CUDA graphs of its own: graphs are on for every side or for none.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from tidepool.benchmarking.cases import LayerCase
from tidepool.kernels import conv_relu_pool
from tidepool.kernels.oracle.reference import conv_act_pool_reference, pool_reference

Layer = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class UnsupportedError(Exception):
    """The backend has no such layer or pass; the message says why, in one line."""


@dataclass(frozen=True)
class Backend:
    """One side of a comparison. `op` is what the op and the networks call it, `mode` torch.compile's mode, if any."""

    name: str
    title: str
    op: str
    channels_last: bool = True
    mode: str | None = None
    inference_only: bool = False

    @property
    def compiled(self) -> bool:
        """Whether torch.compile makes its code."""
        return self.mode is not None


BACKENDS = (
    Backend("triton", "this project's kernels", "triton"),
    Backend("auto", "this project's measured choice", "auto"),
    Backend("cudnn", "eager PyTorch, NCHW", "cudnn", channels_last=False),
    Backend("cudnn_channels_last", "eager PyTorch, channels_last", "cudnn"),
    Backend("compile", "torch.compile", "cudnn", mode="default"),
    Backend("compile_max_autotune", "torch.compile, max-autotune", "cudnn", mode="max-autotune-no-cudagraphs"),
    Backend("cudnn_conv_relu", "torch.cudnn_convolution_relu", "cudnn", inference_only=True),
)
BACKEND_NAMES = tuple(backend.name for backend in BACKENDS)
OURS = ("triton", "auto")


def backends(names: Iterable[str]) -> tuple[Backend, ...]:
    """The backends of those names, in BACKENDS' order. Raises ValueError, in one line, for another name."""
    asked = list(names)
    for name in asked:
        if name not in BACKEND_NAMES:
            raise ValueError(f"unknown backend {name!r}; expected some of: {', '.join(BACKEND_NAMES)}")
    return tuple(backend for backend in BACKENDS if backend.name in asked)


def build_layer(backend: Backend, case: LayerCase) -> Layer:
    """The layer as a function of x, weight and bias on that backend. Raises UnsupportedError."""
    if backend.name == "cudnn_conv_relu":
        return _cudnn_conv_relu(case)
    if not backend.compiled:
        return functools.partial(conv_relu_pool, **case.options, backend=backend.op)

    def layer(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return conv_act_pool_reference(x, weight, bias, **case.options)

    # What torch.compile keeps hangs on the code object: each layer gets one of its own.
    layer.__code__ = layer.__code__.replace(co_name=f"layer_{case.name}")
    return torch.compile(layer, dynamic=False, mode=None if backend.mode == "default" else backend.mode)


def _cudnn_conv_relu(case: LayerCase) -> Layer:
    """cuDNN's own fusion of convolution, bias and ReLU, then PyTorch's pool. Raises UnsupportedError."""
    if not (torch.backends.cudnn.is_available() and torch.cuda.is_available()):
        raise UnsupportedError("torch.cudnn_convolution_relu needs an NVIDIA GPU")
    if case.activation != "relu" or case.rank == 1:
        raise UnsupportedError("torch.cudnn_convolution_relu has ReLU and two or three dimensions only")
    stride, padding, dilation = (
        value if isinstance(value, tuple) else (value,) * case.rank
        for value in (
            case.options.get(name, default) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
    )
    groups = case.options.get("groups", 1)

    def layer(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = torch.cudnn_convolution_relu(x, weight, bias, stride, padding, dilation, groups)
        return pool_reference(y, case.pool, case.rank)

    return layer

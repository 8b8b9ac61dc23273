"""`conv_norm_act`: conv + batch norm + residual + activation + pool and its backward, on the backend of your choice."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tidepool.kernels.activations import Activation, NamedActivation
from tidepool.kernels.layer.arguments import check_backend
from tidepool.kernels.layer.learned_slope import check_slope, learned_slope
from tidepool.kernels.layer.norm_checks import check_norm_sizes, check_norm_tensors
from tidepool.kernels.layer.norm_settings import NormSettings, check_norm_numbers, parse_norm_layer
from tidepool.kernels.layer.pooling import Pool, Size
from tidepool.kernels.operators.conv_implementations import PLAIN_KEYS, check_device, dispatch_keys, no_mode_is_on
from tidepool.kernels.operators.norm_call import KNOWN, NormCall, norm_call
from tidepool.kernels.operators.norm_registration import call
from tidepool.kernels.ops.slope_behind_norm import activate_and_pool
from tidepool.kernels.oracle.reference import conv_norm_act_reference
from tidepool.kernels.runtime import mode
from tidepool.kernels.runtime.launch import dot_precision


def conv_norm_act(
    x: Tensor,
    weight: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    conv_bias: Tensor | None = None,
    residual: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: NamedActivation = "relu",
    pool: Pool = None,
    pool_first: bool = False,
    backend: str = "auto",
) -> Tensor:
    """y = pool(activation(batch_norm(conv(x)) + residual)), or with `pool_first` the pool between conv and norm.

    x (N, C, *spatial); weight (K, C/groups, *kernel); norm_weight, norm_bias (the affine part: None for 1 and 0),
    running_mean, running_var and conv_bias (K,) or None; residual of the size of what is normalised. One, two or three
    spatial dimensions; `stride`, `padding`, `dilation`, `groups`, `activation` and `pool` as for `conv_act_pool`. An
    activation with a learned slope takes one more pass over memory (`ops.slope_behind_norm`).
    Returns (N, K, *output) in the dtype of the convolution's output (promoted with the residual's), channels_last if x
    or weight is.

    With `training` the norm uses the batch's mean and biased variance per channel, and where running_mean and
    running_var are given updates them in place, `momentum` of the new (the variance unbiased) and 1 - momentum of the
    old, as `torch.nn.functional.batch_norm` does; a cumulative average is momentum = 1 / number of batches. Without it
    the norm uses the running statistics, which have to be given. The norm's tensors may be float32 beside 16-bit x.

    `backend`: "triton" runs this project's kernels alone; "cudnn" is eager PyTorch (oneDNN on a CPU); "compile" the
    same under torch.compile; "auto" is eager PyTorch.

    Raises ArgumentError (a ValueError and a RuntimeError) that names the argument; with `training` also where there is
    only one value per channel.
    """
    norm = (norm_weight, norm_bias, running_mean, running_var)
    settings = (stride, padding, dilation, groups, activation, pool, pool_first)
    tensors = (x, weight, *norm, conv_bias, residual)
    key = None
    if backend == "triton" and not torch.compiler.is_compiling():
        key = _plain_key(x, weight, tensors[2:], training, settings)
        known = None if key is None else KNOWN.get(key)
        if known is not None and momentum.__class__ is float and eps.__class__ is float and eps > 0:
            return call(tensors, momentum if training else None, eps, known.settings, known)
    check_backend(backend)
    check_norm_numbers(training, momentum, eps)
    layer = _checked(x, weight, norm, conv_bias, residual, training, settings)
    if backend == "triton":
        slope = learned_slope(activation)
        if slope is not None:
            u = conv_norm_act(
                x, weight, *norm, conv_bias=conv_bias, residual=residual, stride=stride, padding=padding,
                dilation=dilation, groups=groups, training=training, momentum=momentum, eps=eps, activation=None,
                pool=pool if pool_first else None, pool_first=pool_first, backend=backend,
            )  # fmt: skip
            return activate_and_pool(u, Activation("prelu", slope), None if pool_first else pool)
        if key is not None:
            check_device(x)
            KNOWN.remember(key, norm_call(x, weight, residual, layer))
        return call(tensors, float(momentum) if training else None, float(eps), layer)
    reference = _compiled_reference() if backend == "compile" else conv_norm_act_reference
    return reference(
        x, weight, *norm, conv_bias=conv_bias, residual=residual, stride=stride, padding=padding, dilation=dilation,
        groups=groups, activation=activation, pool=pool, pool_first=pool_first, training=training, momentum=momentum,
        eps=eps,
    )  # fmt: skip


def prepared_conv_norm_act(
    kernel: Sequence[int], *, training: bool, momentum: float, eps: float, backend: str,
    **settings: Any,
) -> Callable[..., Tensor]:  # fmt: skip
    """`conv_norm_act` as a function of (x, weight, norm_weight, norm_bias, running_mean, running_var, conv_bias,
    residual, slope), for calls whose tensors were checked before, by `check_conv_norm_act`, and have the sizes they had
    then. A `slope` that is not None is that of a PReLU in place of `activation`.

    As PyTorch's batch norm, and unlike `conv_norm_act`, it leaves the version counters of the running statistics as
    they are: a norm may be used by both in one step.
    """
    layer = parse_norm_layer(tuple(kernel), *(settings[name] for name in _SETTINGS))
    behind = None if settings["pool_first"] else settings["pool"]
    before = {**settings, "activation": None, "pool": settings["pool"] if settings["pool_first"] else None}
    before_slope = parse_norm_layer(tuple(kernel), *(before[name] for name in _SETTINGS))

    def call_eagerly(*tensors: Any) -> Tensor:
        x, weight, *norm, conv_bias, residual, slope = tensors
        activation = settings["activation"] if slope is None else Activation("prelu", slope)
        return conv_norm_act_reference(
            x, weight, *norm, conv_bias=conv_bias, residual=residual, training=training, momentum=momentum, eps=eps,
            **{**settings, "activation": activation},
        )  # fmt: skip

    known: tuple[Any, NormCall] | None = None

    def call_kernels(tensors: tuple[Any, ...], slope: Tensor | None) -> Tensor:
        nonlocal known
        chosen = layer if slope is None else before_slope
        call_of = None
        if not torch.compiler.is_compiling() and no_mode_is_on():
            x, weight = tensors[:2]
            key = (mode.forced, x.stride(), weight.stride(), dot_precision(x.dtype, x.device))
            if known is None or known[0] != key:
                check_device(x)
                known = key, norm_call(x, weight, tensors[7], chosen)
            call_of = known[1]
        u = call(tensors, momentum if training else None, eps, chosen, call_of)
        return u if slope is None else activate_and_pool(u, Activation("prelu", slope), behind)

    def call_fused(*given: Any) -> Tensor:
        tensors, slope = given[:-1], given[-1]
        statistics = [t for t in tensors[4:6] if t is not None and training]
        if not statistics or torch.compiler.is_compiling() or not no_mode_is_on():
            return call_kernels(tensors, slope)
        with torch.autograd._unsafe_preserve_version_counter(tuple(statistics)):
            return call_kernels(tensors, slope)

    return call_fused if backend == "triton" else call_eagerly


_SETTINGS = ("stride", "padding", "dilation", "groups", "activation", "pool", "pool_first")


def check_conv_norm_act(
    x: Tensor,
    weight: Tensor,
    norm: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    conv_bias: Tensor | None,
    residual: Tensor | None,
    *,
    training: bool,
    **settings: Any,
) -> None:
    """What `conv_norm_act` would say of these tensors (fake ones too) and settings. Raises ArgumentError."""
    _checked(x, weight, norm, conv_bias, residual, training, tuple(settings[name] for name in _SETTINGS))


def _checked(
    x: Tensor,
    weight: Tensor,
    norm: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    conv_bias: Tensor | None,
    residual: Tensor | None,
    training: bool,
    settings: tuple[Size, Size | str, Size, int, NamedActivation, Pool, bool],
) -> NormSettings:
    """The layer's settings. Raises ArgumentError for anything wrong with tensors or settings."""
    rank = weight.dim() - 2 if isinstance(weight, Tensor) else 0
    kernel = tuple(weight.shape[2:]) if rank in (1, 2, 3) else (1,)
    layer = parse_norm_layer(kernel, *settings)
    check_norm_tensors(x, weight, *norm, conv_bias, residual, operator.index(settings[3]), training)
    check_slope(x, weight, learned_slope(settings[4]), layer.norm.activation)
    check_norm_sizes(x.shape, weight.shape, None if residual is None else residual.shape, training, layer)
    return layer


def _plain_key(x: Tensor, weight: Tensor, others: tuple[Any, ...], training: bool, settings: tuple[Any, ...]) -> Any:
    """What `_checked` and `norm_call` depend on, as a key; `others` are the other tensors. None where there cannot be
    one (lists as settings, something not a tensor) or should not: autocast, a learned slope, subclasses and wrappers
    of tensors."""
    try:
        device = x.get_device()
        described: list[Any] = []
        for tensor in (x, weight, *others):
            if tensor is None:
                described.append(None)
                continue
            if tensor.get_device() != device or dispatch_keys(tensor) not in PLAIN_KEYS:
                return None
            described += (tensor.dtype, tensor.shape)
        activation, pool = settings[4:6]
        if torch.is_autocast_enabled(x.device.type) or learned_slope(activation) is not None:
            return None
        # Types too: a stride of True or 1.0 equals 1 and is refused all the same.
        kinds: Any = (training.__class__, *[s.__class__ for s in settings])
        if tuple in kinds:
            kinds += tuple([v.__class__ for s in settings if s.__class__ is tuple for v in s])
        key = (
            mode.forced, device, *described, x.stride(), weight.stride(), training, settings, kinds,
            None if pool is None else pool.kinds, dot_precision(x.dtype, x.device),
        )  # fmt: skip
        hash(key)
    except (AttributeError, TypeError, RuntimeError):
        return None
    return key


@functools.cache
def _compiled_reference() -> Callable[..., Tensor]:
    return torch.compile(conv_norm_act_reference)

"""An operator of ours in PyTorch's dispatcher: `register` for one with kernels, `register_composite` for a choice.

Operators are defined through the low-level `torch.library.Library`, with an `autograd.Function` at the Autograd key:
half the host time of `torch.library.custom_op`. `torch.ops.tidepool.<name>` calls them.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from tidepool.kernels.dispatch.differentiate import NotDifferentiable, apply, is_differentiated

_LIBRARY = torch.library.Library("tidepool", "DEF")


def register(
    schema: str,
    *,
    op: str,
    real: Callable[..., Any],
    fake: Callable[..., Any],
    record: Callable[..., Any] | None = None,
    lowered: Collection[int] = (),
    flops: Callable[..., int] | None = None,
) -> None:
    """Define `tidepool::<schema>`, an operator of the public function `op`.

    `real` runs it on a CPU and on a GPU; `fake` gives sizes, dtypes and formats. `record` is called with the operator's
    arguments where one of the tensors has to be differentiated; None: the results are internal and refuse to be
    differentiated further. `lowered`: positions of the arguments that autocast turns into the low precision (float64
    ones stay); with none the operator takes no part in autocast. `flops` is told the arguments with sizes in the place
    of tensors, and says what `torch.utils.flop_counter` counts; None: nothing.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    operator = getattr(torch.ops.tidepool, name).default
    for key in ("CPU", "CUDA"):
        _LIBRARY.impl(name, real, key)
    torch.library.register_fake(f"tidepool::{name}", fake, lib=_LIBRARY)
    _LIBRARY.impl(name, _autograd(operator, op, record or _refusing(operator, op)), "Autograd")
    if lowered:
        for device_type in ("cpu", "cuda"):
            _LIBRARY.impl(name, _autocast(operator, device_type, lowered), f"Autocast{device_type.upper()}")
    if flops is not None:
        register_flop_formula(getattr(torch.ops.tidepool, name))(flops)


def register_composite(schema: str, function: Callable[..., Any]) -> None:
    """Define `tidepool::<schema>` as a function of other operators, which traces see through."""
    _LIBRARY.define(schema)
    _LIBRARY.impl(schema.partition("(")[0], function, "CompositeImplicitAutograd")


def _autograd(operator: Any, op: str, record: Callable[..., Any]) -> Callable[..., Any]:
    def implementation(*arguments: Any) -> Any:
        if is_differentiated(*(a for a in arguments if isinstance(a, Tensor)), op=op):
            return record(*arguments)
        with torch._C._AutoDispatchBelowAutograd():  # what the dispatcher's own kernels do at this key
            return operator(*arguments)

    return implementation


def _refusing(operator: Any, op: str) -> Callable[..., Any]:
    return lambda *arguments: apply(NotDifferentiable, operator, op, *arguments, op=op)


def _autocast(operator: Any, device_type: str, lowered: Collection[int]) -> Callable[..., Any]:
    def implementation(*arguments: Any) -> Any:
        dtype = torch.get_autocast_dtype(device_type)
        cast = [_cast(a, dtype) if position in lowered else a for position, a in enumerate(arguments)]
        with torch.autocast(device_type, enabled=False):
            return operator(*cast)

    return implementation


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if tensor is None or not tensor.is_floating_point() or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(dtype)

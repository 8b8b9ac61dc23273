"""The registered operators `tidepool::conv_act_pool*`, and the short way to them.

    conv_act_pool          what users call; saves nothing
    conv_act_pool_forward  the same, with what backward needs: (y, codes or bits, winners), empty where there is none
    conv_act_pool_slope    of an activation with a learned slope: gradients with respect to the values that were kept
                           (`layer.learned_slope`) and to the slope
    conv_act_pool_dgrad    gradient with respect to x
    conv_act_pool_wgrad    gradients with respect to weight and bias

Through the dispatcher a layer's settings travel as one string, `layer.settings.Layer.text()`: a dispatch costs by the
argument, and unlike a number into a table a string means the same in another process (compiled graphs are cached on
disk).

On plain tensors outside every mode and transform, `call_direct` and backward skip the dispatcher, which would find
nothing to do on the way to the same functions.
"""

from typing import Any

import torch
from torch import Tensor

from tidepool.kernels.dispatch.register import register
from tidepool.kernels.operators import conv_implementations as implementations
from tidepool.kernels.operators.call import LayerCall
from tidepool.kernels.operators.conv_autograd import OP, ConvActPool, record
from tidepool.kernels.operators.flops import conv_flops, dgrad_flops, wgrad_flops

ops = torch.ops.tidepool
_record: Any = ConvActPool.apply  # type: ignore[attr-defined]


def may_call_directly(call: LayerCall) -> bool:
    """Whether nothing stands between a call on plain tensors and the kernels: no mode, transform, trace, autocast."""
    return implementations.no_mode_is_on() and not torch.is_autocast_enabled(call.device_type)


def call_direct(x: Tensor, weight: Tensor, bias: Tensor | None, call: LayerCall, slope: Tensor | None = None) -> Tensor:
    """What `ops.conv_act_pool` would do, where `may_call_directly`."""
    if slope is not None:
        differentiated = [t for t in (x, weight, bias, slope) if t is not None and t.requires_grad]
        if torch.is_grad_enabled() and differentiated:
            return _record(x, weight, bias, call.layer, call, slope)
        return implementations.run_inference(x, weight, bias, call, slope)
    if torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        return _record(x, weight, bias, call.layer, call)
    return implementations.run_inference(x, weight, bias, call)


_SAVED = "(Tensor, Tensor, Tensor)"
register(
    "conv_act_pool(Tensor x, Tensor weight, Tensor? bias, str layer, Tensor? slope=None) -> Tensor",
    op=OP,
    real=implementations.infer,
    fake=implementations.fake_infer,
    record=record,
    lowered=(0, 1, 2, 4),
    flops=conv_flops,
)
register(
    f"conv_act_pool_forward(Tensor x, Tensor weight, Tensor? bias, str layer, Tensor? slope=None) -> {_SAVED}",
    op=OP,
    real=implementations.forward,
    fake=implementations.fake_forward,
    flops=conv_flops,
)
register(
    "conv_act_pool_slope(Tensor grad, Tensor saved, Tensor slope, bool needs_z, bool needs_slope, str layer) "
    "-> (Tensor, Tensor)",
    op=OP,
    real=implementations.through_slope,
    fake=implementations.fake_through_slope,
)
register(
    "conv_act_pool_dgrad(Tensor grad, Tensor code, Tensor saved, Tensor weight, SymInt[] x_size, bool channels_last, "
    "str layer) -> Tensor",
    op=OP,
    real=implementations.dgrad,
    fake=implementations.fake_dgrad,
    flops=dgrad_flops,
)
register(
    "conv_act_pool_wgrad(Tensor grad, Tensor code, Tensor saved, Tensor x, Tensor weight, bool needs_weight, "
    "bool needs_bias, str layer) -> (Tensor, Tensor)",
    op=OP,
    real=implementations.wgrad,
    fake=implementations.fake_wgrad,
    flops=wgrad_flops,
)

"""The registered operators `tidepool::conv_norm_act*`.

    conv_norm_act                    with running statistics, which it only reads; saves nothing
    conv_norm_act_training           with the batch's statistics; updates running_mean and running_var in place
    conv_norm_act_forward(_training) the same, with what backward needs: (y, z, codes of the convolution's pool,
                                     coefficients, codes of the norm's stage), empty where there is none
    conv_norm_act_backward           gradients at z, residual, norm weight and norm bias; from z on, backward is
                                     conv_act_pool_dgrad and conv_act_pool_wgrad

What is updated in place is declared, so that torch.compile orders and keeps the updates. `layer` is the text
of a `layer.norm_settings.NormSettings`.
"""

import torch

from tidepool.kernels.dispatch.register import register
from tidepool.kernels.operators import norm_operators as operators
from tidepool.kernels.operators.flops import norm_flops
from tidepool.kernels.operators.norm_autograd import OP, call, record, record_training

__all__ = ["call", "ops"]

_TENSORS = (
    "Tensor x, Tensor weight, Tensor? norm_weight, Tensor? norm_bias, {mean} running_mean, {var} running_var, "
    "Tensor? conv_bias, Tensor? residual"
)
_FIXED = _TENSORS.format(mean="Tensor", var="Tensor") + ", float eps, str layer"
_UPDATED = _TENSORS.format(mean="Tensor(a!)?", var="Tensor(b!)?") + ", float momentum, float eps, str layer"
_SAVED = "(Tensor, Tensor, Tensor, Tensor, Tensor)"
_LOWERED = (0, 1, 6)
"""x, weight and conv_bias: as PyTorch's, the convolution in the low precision; the norm and what follows take what
comes."""
register(
    f"conv_norm_act({_FIXED}) -> Tensor",
    op=OP, real=operators.infer, fake=operators.fake_infer, record=record, lowered=_LOWERED,
    flops=norm_flops,
)  # fmt: skip
register(
    f"conv_norm_act_training({_UPDATED}) -> Tensor",
    op=OP, real=operators.infer_training, fake=operators.fake_infer_training, record=record_training, lowered=_LOWERED,
    flops=norm_flops,
)  # fmt: skip
register(
    f"conv_norm_act_forward({_FIXED}) -> {_SAVED}",
    op=OP, real=operators.forward, fake=operators.fake_forward, flops=norm_flops,
)  # fmt: skip
register(
    f"conv_norm_act_forward_training({_UPDATED}) -> {_SAVED}",
    op=OP, real=operators.forward_training, fake=operators.fake_forward_training, flops=norm_flops,
)  # fmt: skip
register(
    "conv_norm_act_backward(Tensor grad, Tensor z, Tensor code, Tensor coefficients, Tensor? residual, "
    "ScalarType norm_dtype, ScalarType? residual_dtype, bool training, bool[] needs, SymInt[] x_size, "
    "SymInt[] weight_size, str layer) -> (Tensor, Tensor, Tensor, Tensor)",
    op=OP, real=operators.backward, fake=operators.fake_backward,
)  # fmt: skip
ops = torch.ops.tidepool

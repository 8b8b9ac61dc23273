"""An activation with a learned slope, and a pool, behind a norm: a pass of its own over what the norm's kernels wrote.

    y = pool(activation(1 * u))        u = norm(conv(x)) + residual, rounded to its dtype as PyTorch's is

The kernels around a norm take no learned slope. Those of `conv_act_pool` do, and behind a filter of a single 1 for
every channel they give activation, pool and both gradients to the bit as they would of u itself: 1 * u is u.
"""

from torch import Tensor

from tidepool.kernels.activations import Activation
from tidepool.kernels.layer.pooling import Pool
from tidepool.kernels.ops.conv import conv_act_pool


def activate_and_pool(u: Tensor, activation: Activation, pool: Pool) -> Tensor:
    """pool(activation(u)) of u (N, K, *spatial) by this project's kernels; `activation` holds a slope of 1 or K
    elements. Autocast takes both in its dtype, as it does for `torch.nn.functional.prelu`."""
    slope = activation.learned_slope
    assert slope is not None
    activation = Activation(activation.name, slope.to(u.dtype))
    if u.shape[1] == 1:
        # Of one channel twice: a layer of one group is no depthwise one, and may round its products to TF32.
        twice = u.expand(-1, 2, *u.shape[2:])
        return _depthwise(twice, activation, pool)[:, :1].contiguous()
    return _depthwise(u, activation, pool)


def _depthwise(u: Tensor, activation: Activation, pool: Pool) -> Tensor:
    channels = u.shape[1]
    ones = u.new_ones(channels, 1, *(1,) * (u.dim() - 2))
    return conv_act_pool(u, ones, activation=activation, groups=channels, pool=pool, backend="triton")

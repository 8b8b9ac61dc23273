"""No activation: y = z."""

import triton.language as tl

from tidepool.kernels.activations.record import Formula
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def identity(z, A: tl.constexpr):
    return z


FORMULA = Formula(name="none", forward=identity, reference=lambda z, _: z, backward_needs="nothing", clips=True)

"""Division that is rounded once, for formulas of which PyTorch's results are quotients."""

import triton.language as tl

from tidepool.kernels.runtime.interpreting import device_function


@device_function
def quotient_rounded_once(value, DIVISOR: tl.constexpr):
    """`value / DIVISOR` to the nearest, as IEEE 754 and PyTorch's CPU kernels have it.

    `/` is `div.full.f32` in compiled float32 code, with an error of up to 2 roundings (PTX ISA 9.7.3.8), and a product
    with an approximate reciprocal under Triton 3.9: a quotient half-way between two 16-bit numbers then rounds to the
    other one.
    """
    if value.dtype == tl.float32:
        return tl.div_rn(value, DIVISOR)
    else:
        return value / DIVISOR

"""What the tests of divisions compile. In a file of its own, because Triton compiles from files."""

import triton.language as tl

from tidepool.kernels.device.arithmetic import exact_quotient, quotient, quotient_up, remainder
from tidepool.kernels.runtime.interpreting import device_function, kernel


@device_function
def plain_covering(
    p, j: tl.constexpr, out_size,
    WINDOW: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr,
):  # fmt: skip
    """`device.windows._covering` with the divisions that were miscompiled."""
    if PADDING > 0:
        p = p + PADDING
    o = p // STRIDE
    if j > 0:
        o = o - j
    element = p - o * STRIDE
    ok = (o >= 0) & (o < out_size)
    if DILATION > 1:
        ok = ok & (element % DILATION == 0)
        element = element // DILATION
    ok = ok & (element < WINDOW)
    return o, element, ok


@kernel
def every_division_kernel(value_ptr, result_ptr, DIVISOR: tl.constexpr, BLOCK: tl.constexpr):
    # One program: what each function of device.arithmetic that divides makes of BLOCK values.
    offs = tl.arange(0, BLOCK)
    value = tl.load(value_ptr + offs)
    tl.store(result_ptr + offs, quotient(value, DIVISOR))
    tl.store(result_ptr + BLOCK + offs, remainder(value, DIVISOR))
    tl.store(result_ptr + 2 * BLOCK + offs, quotient_up(value, DIVISOR))
    tl.store(result_ptr + 3 * BLOCK + offs, exact_quotient(value, DIVISOR))

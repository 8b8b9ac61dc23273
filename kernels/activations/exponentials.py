"""Exponentials that keep their relative accuracy near zero and do not overflow, for the activations made of them."""

import triton.language as tl

from tidepool.kernels.runtime.interpreting import device_function


@device_function
def expm1(z):
    """exp(z) - 1 for z <= 0. Above -1 by its series, nested, so that no two close numbers are subtracted: eleven terms
    leave 1 / 12! = 2e-9 of the result, below float32's rounding, nineteen 4e-19, below float64's."""
    term = tl.where(z > -1, z, 0.0)
    series = term * 0.0 + 1.0
    TERMS: tl.constexpr = 19 if z.dtype == tl.float64 else 11
    for back in tl.static_range(TERMS - 1):
        series = 1.0 + series * (term * (1.0 / (TERMS - back)))
    return tl.where(z > -1, z * series, tl.exp(z) - 1.0)


@device_function
def tanh(z):
    """-e / (e + 2) with e = exp(-2 |z|) - 1, and the sign of z."""
    e = expm1(-2.0 * tl.abs(z))
    size = -e / (e + 2.0)
    return tl.where(z < 0, -size, size)


@device_function
def sigmoid(z):
    """1 / (1 + exp(-z)), by exp(-|z|)."""
    e = tl.exp(-tl.abs(z))
    return tl.where(z < 0, e, 1.0) / (1.0 + e)

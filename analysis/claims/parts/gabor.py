"""Whether a filter looks like an edge or a grating: the share of its variance that the best Gabor function explains."""

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

Array = npt.NDArray[np.float64]
STARTS = 4


def gabor_parts(size: int, shape: Array) -> tuple[Array, Array]:
    """The cosine and the sine Gabor function on size x size pixels, a Gaussian times a plane wave.

    exp(-(u² + (γ v)²) / 2 σ²) cos(2π u / λ) and the same with sin, u and v being coordinates about (x0, y0) turned by
    θ (J. G. Daugman 1985). `shape` is (x0, y0, θ, log σ, log γ, log λ), in pixels and radians.
    """
    x0, y0, theta = shape[:3]
    sigma, gamma, wavelength = np.exp(shape[3:])
    line = np.arange(size) - (size - 1) / 2
    y, x = np.meshgrid(line - y0, line - x0, indexing="ij")
    u, v = x * math.cos(theta) + y * math.sin(theta), -x * math.sin(theta) + y * math.cos(theta)
    envelope = np.exp(-(u**2 + (gamma * v) ** 2) / (2 * sigma**2))
    return envelope * np.cos(2 * np.pi * u / wavelength), envelope * np.sin(2 * np.pi * u / wavelength)


def gabor_r2(weight: npt.ArrayLike) -> float:
    """R² of the best fit to a filter (R, R), amplitude, phase and a constant fitted too; 0 for a constant filter.

    Variable projection: amplitudes are solved for, and the six numbers of the shape are searched from four angles
    within bounds that keep the Gaussian and the wave at the filter's own scale.
    """
    pixels = np.asarray(weight, dtype=np.float64)
    total = float(((pixels - pixels.mean()) ** 2).sum())
    if total == 0:
        return 0.0
    size = len(pixels)
    half, low, high = size / 2, math.log(0.8), math.log(size)
    bounds = ([-half, -half, -math.pi, low, math.log(0.3), math.log(2.0)],
              [half, half, 2 * math.pi, high, math.log(2.0), math.log(4.0 * size)])  # fmt: skip
    least = total
    for start in range(STARTS):
        first = [0.0, 0.0, start * math.pi / STARTS, math.log(size / 4), 0.0, math.log(0.8 * size)]
        found = least_squares(_residual, first, bounds=bounds, args=(pixels,), max_nfev=40)
        least = min(least, float((found.fun**2).sum()))
    return 1 - least / total


def _residual(shape: Array, pixels: Array) -> Array:
    columns = np.stack([*(part.ravel() for part in gabor_parts(len(pixels), shape)), np.ones(pixels.size)], axis=1)
    solution, *_ = np.linalg.lstsq(columns, pixels.ravel(), rcond=None)
    residual: Array = columns @ solution - pixels.ravel()
    return residual

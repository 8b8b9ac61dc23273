"""From the counts of small sizes to those of a layer.

A launch's counts are taken to be sums of terms, each proportional to a number that is known at every size:

    programs   what a program does once: addresses, bias, workspace, what masks do not spare
    trips      trips of all programs through the loop over a split's pixels (wgrad) or over boxes of pixels (few
               channels), what it does on each; where no loop depends on sizes this is the first term again
    products   pairs of pixel and tap, of the windows of pooled outputs, that lie inside the image: masked loads of x.
               What a trip loads is masked, so that trips are no term of loads
    elements   pooled outputs, for dgrad input pixels: results stored, gradients loaded

Which of them a count is made of, `TERMS_OF` says. The factors are solved for by least squares from the cheapest sizes
that tell the terms apart, and held against one more size that took no part. Terms that no size tells apart are
proportional to each other at the layer's size too. How much the layer's count changes when the size that checks it is
solved with says how far the rule carries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tidepool.benchmarking.counting.launches import Sized, programs, trips
from tidepool.kernels.layer.geometry import Geometry, Shapes

TERMS_OF: dict[str, tuple[str, ...]] = {
    "load_bytes": ("programs", "products", "elements"),
    "load_sectors": ("programs", "products", "elements"),
    "store_bytes": ("programs", "elements"),
    "store_sectors": ("programs", "elements"),
    "cp_async_bytes": ("programs", "products", "elements"),
    "tma_bytes": ("programs", "trips"),
    "shared_wavefronts": ("programs", "trips"),
    "shared_least_wavefronts": ("programs", "trips"),
    "tensor_products": ("programs", "trips"),
    "warp_instructions": ("programs", "trips"),
}
_APART = 0.01
"""Singular values below this share of the largest are the same term told twice."""

_LEFT = 0.05
"""Of a layer's terms, what may be left that the sizes' do not combine to."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The four numbers of a launch."""

    programs: int
    trips: int
    products: int
    elements: int

    def vector(self, names: Sequence[str] = ("programs", "trips", "products", "elements")) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in names)


def terms_of(sized: Sized, kernel: str) -> Terms:
    """Of one of a layer's kernels at a size."""
    launch, shapes = sized.launches[kernel], sized.shapes
    pixels = shapes.batch * int(np.prod(shapes.input))
    return Terms(
        programs=programs(launch),
        trips=trips(launch),
        products=inside_pairs(sized.geometry, shapes),
        elements=pixels if kernel == "dgrad" else shapes.num_outputs,
    )


_WORDS = ("window", "pool_stride", "pool_padding", "pool_dilation", "kernel", "stride", "padding", "dilation")


def inside_pairs(geometry: Geometry, shapes: Shapes) -> int:
    """(pixel of a pooled output's window, tap) of all images whose input pixel exists."""
    total = shapes.batch
    for axis, name in enumerate("dhw"):
        g = {word: getattr(geometry, f"{word}_{name}") for word in _WORDS}
        outputs = np.arange(shapes.output[axis])[:, None, None]
        elements, taps = np.arange(g["window"])[None, :, None], np.arange(g["kernel"])[None, None, :]
        pixel = outputs * g["pool_stride"] - g["pool_padding"] + elements * g["pool_dilation"]
        there = (pixel >= 0) & (pixel < shapes.conv[axis])
        at = pixel * g["stride"] - g["padding"] + taps * g["dilation"]
        total *= int((there & (at >= 0) & (at < shapes.input[axis])).sum())
    return total


def _scaled(sizes: Sequence[Terms], names: Sequence[str], scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[sizes, terms] in units of `scale`, each row of sum 1; and the sums."""
    rows = _matrix(sizes, names) / scale
    sums = rows.sum(1)
    return rows / sums[:, None], sums


def _matrix(sizes: Sequence[Terms], names: Sequence[str]) -> np.ndarray:
    return np.array([one.vector(names) for one in sizes], np.float64)


def rank(sizes: Sequence[Terms], among: Sequence[Terms]) -> int:
    """How many terms these sizes tell apart, added up over the sets that counts are made of; `among` all there are."""
    found = 0
    for names in dict.fromkeys(TERMS_OF.values()):
        rows, _ = _scaled(sizes, names, _matrix(among, names).max(0))
        found += int(np.linalg.matrix_rank(rows, tol=_APART))
    return found


def determined(sizes: Sequence[Terms], to: Terms) -> bool:
    """Whether these sizes determine what is at `to`: whether its terms are a combination of theirs."""
    if not sizes:
        return False
    for names in dict.fromkeys(TERMS_OF.values()):
        scale = _matrix(sizes, names).max(0)
        rows, _ = _scaled(sizes, names, scale)
        wanted = np.array(to.vector(names)) / scale
        combined = wanted @ np.linalg.pinv(rows, rcond=_APART / 4) @ rows
        if np.abs(combined - wanted).max() > _LEFT * np.abs(wanted).max():
            return False
    return True


def extrapolated(sizes: Sequence[Terms], counts: Sequence[Mapping[str, int]], to: Terms) -> dict[str, float]:
    """Each count at `to`, from those at some sizes."""
    found = {}
    for name, terms in TERMS_OF.items():
        scale = _matrix(sizes, terms).max(0)
        rows, sums = _scaled(sizes, terms, scale)
        factors = np.linalg.pinv(rows, rcond=_APART / 4) @ (np.array([one[name] for one in counts]) / sums)
        found[name] = float(factors @ (np.array(to.vector(terms)) / scale))
    return found


def error_percent(predicted: float, counted: float) -> float:
    """Of a prediction, in percent of what was counted; 0 where neither is anything."""
    if counted == 0:
        return 0.0 if abs(predicted) < 0.5 else float("inf")
    return 100 * (predicted - counted) / counted

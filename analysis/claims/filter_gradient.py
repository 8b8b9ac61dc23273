"""The gradient of a shared filter is the sum of what each position gives: our kernels' terms, added and drawn."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from tidepool.analysis.claims.frame.claim import Claim, Measurement, Verdict
from tidepool.analysis.claims.frame.pictures import decode, encode
from tidepool.analysis.claims.frame.plotting import show_picture
from tidepool.analysis.claims.frame.samples import by_seed

WHOLE, REAL, MISSING = "whole numbers", "real numbers", "one position left out"
POSITIONS = 9
LIMIT = 40.0


def measure(case: str, seed: int) -> Iterator[Measurement]:
    import torch

    from tidepool.analysis.claims.parts.positions import gradient_terms

    generator = torch.Generator().manual_seed(seed)
    shapes = ((1, 1, 5, 5), (1, 1, 3, 3), (1, 1, 3, 3))
    draws = [torch.randint(-3, 4, shape, generator=generator).float() for shape in shapes]
    if case == REAL:
        draws = [torch.randn(shape, generator=generator) for shape in shapes]
    x, weight, dy = draws
    dy = torch.where(dy == 0, 1.0, dy)  # so that leaving a position out leaves something out
    terms, whole = gradient_terms(x, weight, dy, backend="triton")
    added = sum(terms[1:] if case == MISSING else terms, torch.zeros_like(whole))
    yield Measurement("differing_weights", int((added != whole).sum()))
    yield Measurement("largest_difference", float((added - whole).abs().max()))
    if case == WHOLE and seed == 0:
        for name, image in (
            ("image", x),
            ("incoming_gradient", dy),
            ("sum_of_terms", added),
            ("filter_gradient", whole),
        ):
            yield Measurement(name, float(image.sum()), None, encode(image[0, 0], low=-LIMIT, high=LIMIT))
        for place, term in enumerate(terms):
            yield Measurement("term", float(term.sum()), place, encode(term[0, 0], low=-LIMIT, high=LIMIT))


def conclude(table: pd.DataFrame) -> Verdict:
    whole, real, missing = (by_seed(table, case, "differing_weights") for case in (WHOLE, REAL, MISSING))
    exact = sum(value == 0 for value in whole.values())
    rounding = max(by_seed(table, REAL, "largest_difference").values())
    noticed = sum(value > 0 for value in missing.values())
    holds = exact == len(whole) and noticed > 0 and rounding < 1e-5
    return Verdict(
        "holds" if holds else "does not hold",
        f"On whole numbers the nine terms add up to the filter gradient to the bit in {exact} of {len(whole)} draws; "
        f"with one position left out they differ in {noticed} of {len(missing)}. On real numbers the largest "
        f"difference is {rounding:.1e}, the rounding of another order of summation "
        f"({sum(value > 0 for value in real.values())} of {len(real)} draws differ in a last bit). "
        "Nothing is estimated here, so there is no interval.",
    )


def draw(table: pd.DataFrame) -> Canvas:
    canvas = Canvas(figsize=(10, 4.2), layout="constrained")
    left, middle, right = canvas.subfigures(1, 3, squeeze=False, width_ratios=[1.1, 1.9, 1.1])[0]
    rows = table[table["picture"] != ""]
    pictures = dict(zip(rows["quantity"], rows["picture"], strict=True))
    for group, names, titles in (
        (left, ("image", "incoming_gradient"), ("image, 5×5", "incoming gradient, 3×3")),
        (right, ("sum_of_terms", "filter_gradient"), ("sum of the nine terms", "filter gradient, one call")),
    ):
        for axes, name, title in zip(group.subplots(2, 1), names, titles, strict=True):
            _numbers(axes, pictures[name], title)
    terms = rows[rows["quantity"] == "term"].sort_values("at")["picture"]
    middle.suptitle("the nine positions' terms: patch × its incoming gradient", fontsize=11)
    for axes, picture in zip(middle.subplots(3, 3).flat, terms, strict=True):
        _numbers(axes, picture)
    left.suptitle("what comes in", fontsize=11)
    right.suptitle("equal, to the bit", fontsize=11)
    return canvas


def _numbers(axes: Axes, picture: str, title: str = "") -> None:
    show_picture(axes, picture, title, colours="RdBu")
    values = decode(picture).astype(float) / 255 * 2 * LIMIT - LIMIT
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{round(value)}".replace("-", "−"), ha="center", va="center", fontsize=9)


CLAIM = Claim(
    place=2,
    title="The gradient of a shared filter is the sum over the positions it was applied at.",
    question="Are the terms of single positions, each from one backward pass of our kernels with only that position's "
    "incoming gradient, equal in sum to the filter gradient of one pass?",
    control="one position left out; real numbers, of which floating-point sums depend on the order.",
    anchor="the chain rule: dL/dw = Σ over positions p of dL/dy(p) · patch(p).",
    limits="how fast a kernel adds them: it never forms the terms one by one.",
    seconds=10,
    cases=(WHOLE, REAL, MISSING),
    measure=measure,
    conclude=conclude,
    draw=draw,
    caption="One 3×3 filter on a 5×5 image of whole numbers: blue is positive, red negative.",
)

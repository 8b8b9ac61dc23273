"""A dense layer on a 256x256 colour image needs 197 million weights, a convolution thousands; what a step costs."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from tidepool.analysis.claims.frame.claim import Claim, Measurement, Verdict
from tidepool.analysis.claims.frame.plotting import BLUE, GREEN, GREY, ORANGE, bars, panels
from tidepool.analysis.claims.frame.samples import by_seed, mean, mean_text

SIDE, UNITS, CHANNELS = 256, 1000, 64
DENSE, CONV3, CONV5 = "dense, 1,000 units", "conv 3×3, 64 filters", "conv 5×5, 64 filters"
CASES = (DENSE, CONV3, CONV5)
EXACT = 3 * SIDE * SIDE * UNITS + UNITS


def measure(case: str, seed: int) -> Iterator[Measurement]:
    import torch
    from torch import nn

    from tidepool.analysis.claims.parts.cost import step_cost
    from tidepool.models.layers import ConvActPool

    torch.manual_seed(seed)
    if case == DENSE:
        layer: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, UNITS))
    else:
        layer = ConvActPool(3, CHANNELS, 3 if case == CONV3 else 5, padding="same", activation=None)
    cost = step_cost(layer, torch.randn(1, 3, SIDE, SIDE))
    yield Measurement("parameters", cost.parameters)
    yield Measurement("step_ms", cost.step_ms)
    yield Measurement("held_bytes", cost.held_bytes)


def conclude(table: pd.DataFrame) -> Verdict:
    counts = {case: int(mean(by_seed(table, case, "parameters"))) for case in CASES}
    times = {case: mean_text(by_seed(table, case, "step_ms"), 0) for case in CASES}
    memory = {case: f"{1e-6 * mean(by_seed(table, case, 'held_bytes')):,.0f}" for case in CASES}
    exact = counts[DENSE] == EXACT and counts[CONV3] < 10_000 and counts[CONV5] < 10_000
    return Verdict(
        "holds" if exact else "does not hold",
        f"The dense layer has {counts[DENSE]:,} parameters (3·256·256·1,000 weights = 196,608,000, and 1,000 biases), "
        f"the convolutions {counts[CONV3]:,} and {counts[CONV5]:,}, whatever the size of the image. One training step "
        f"on one image took {times[DENSE]} ms against {times[CONV3]} and {times[CONV5]} ms; parameters, gradients and "
        f"what backward needs take {memory[DENSE]} MB against {memory[CONV3]} and {memory[CONV5]} MB (counted).",
    )


def draw(table: pd.DataFrame) -> Canvas:
    canvas, (left, middle, right) = panels(3, width=10.5, gridspec_kw={"width_ratios": [1.5, 1, 1]})
    sides = np.array([16, 32, 64, 128, 256])
    left.plot(sides, 3 * sides**2 * UNITS + UNITS, color=ORANGE, marker="s", label="dense, 1,000 units")
    left.plot(sides, np.full(5, 64 * 3 * 25 + 64), color=GREEN, marker="^", ls="--", label="conv 5×5, 64 filters")
    left.plot(sides, np.full(5, 64 * 3 * 9 + 64), color=BLUE, marker="o", label="conv 3×3, 64 filters")
    left.annotate(f"{EXACT:,}", (256, EXACT), ha="right", va="bottom", xytext=(0, 6), textcoords="offset points")
    left.set(xscale="log", yscale="log", xlabel="side of the colour image, pixels", title="Parameters", ylim=(500, 3e9))
    left.set_xticks(sides, [str(side) for side in sides])
    left.minorticks_off()
    left.legend(loc="center right", bbox_to_anchor=(1, 0.36))
    names, colours = ("dense", "conv 3×3", "conv 5×5"), (ORANGE, BLUE, GREEN)
    for axes, quantity, scale, title in (
        (middle, "step_ms", 1.0, "One step, ms"),
        (right, "held_bytes", 1e-6, "Memory, MB (counted)"),
    ):
        values = [[scale * v for v in by_seed(table, case, quantity).values()] for case in CASES]
        bars(axes, names, values, colours)
        axes.set(title=title, yscale="log")
        for place, group in enumerate(values):
            axes.annotate(f"{np.mean(group):,.0f}", (place, max(group)), ha="center", xytext=(0, 4), color=GREY,
                          textcoords="offset points")  # fmt: skip
        axes.margins(y=0.15)
    return canvas


CLAIM = Claim(
    place=1,
    title="A dense layer on a large image needs about 200 million weights, a convolution thousands.",
    question="How many parameters does one layer on a 256×256 colour image have, and what does one training step cost?",
    control="3×3 and 5×5 convolutions with 64 filters on the same image; five runs of each, on this machine's CPU.",
    anchor="the arithmetic, 256·256·3·1,000 = 196,608,000.",
    limits="how well either layer does its work; speed on a GPU. The convolutions do far more arithmetic for each "
    "parameter, so that time and memory differ less than the counts do, and their outputs are larger.",
    seconds=30,
    cases=CASES,
    measure=measure,
    conclude=conclude,
    draw=draw,
    caption="Parameters by image side; time and memory of one training step at 256×256, a dot a run.",
)

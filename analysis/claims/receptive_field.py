"""What a unit sees in effect, against what it could see: the effective receptive field by depth and by training."""

from collections.abc import Hashable, Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from tidepool.analysis.claims.frame.claim import Claim, Measurement, Verdict
from tidepool.analysis.claims.frame.pictures import encode
from tidepool.analysis.claims.frame.plotting import GREY, panels, plot_curve, show_picture
from tidepool.analysis.claims.frame.samples import by_seed, difference_text, mean, mean_text, per_seed

LINEAR, RELU, UNTRAINED, TRAINED = "linear, random", "ReLU, random", "before training", "after training"
DEPTHS = (2, 4, 8, 16, 32)
TRAINED_DEPTHS = (2, 4, 6)
SIZE = "effective_diameter_pixels"


def measure(case: str, seed: int) -> Iterator[Measurement]:
    import torch

    from tidepool.analysis.claims.parts import receptive_fields as fields

    torch.manual_seed(seed)
    if case in (LINEAR, RELU):
        for depth in DEPTHS:
            field = fields.random_field(depth, relu=case == RELU)
            picture = encode(field.sqrt()) if seed == 0 and depth in (8, 32) else ""
            yield Measurement(SIZE, fields.diameter(field), depth, picture)
        return
    for depth in TRAINED_DEPTHS:
        torch.manual_seed(seed)
        field = fields.digits_field(depth, seed, steps=600 if case == TRAINED else 0)
        yield Measurement(SIZE, fields.diameter(field), depth, encode(field.sqrt()) if seed == 0 and depth == 6 else "")


def exponents(table: pd.DataFrame, case: str) -> dict[Hashable, float]:
    """seed -> slope of log(diameter) by log(depth)."""
    rows = per_seed(table, case, SIZE)
    return {seed: float(np.polyfit(np.log(g["at"]), np.log(g["value"]), 1)[0]) for seed, g in rows.items()}


def conclude(table: pd.DataFrame) -> Verdict:
    slopes = {case: exponents(table, case) for case in (LINEAR, RELU)}
    deep = by_seed(table, RELU, SIZE, 32)
    before, after = (by_seed(table, case, SIZE, TRAINED_DEPTHS[-1]) for case in (UNTRAINED, TRAINED))
    root = all(0.4 < mean(slope) < 0.6 for slope in slopes.values())
    small = mean(deep) < 0.5 * 65
    return Verdict(
        "holds" if root and small else "holds in part" if root or small else "does not hold",
        f"The effective diameter grows with the depth to the power {mean_text(slopes[LINEAR], 2)} without and "
        f"{mean_text(slopes[RELU], 2)} with ReLU, where the square root has 0.5 and the "
        f"theoretical diameter 1. At depth 32 it is "
        f"{mean_text(deep)} pixels of 65 with ReLU. Training a stack of six on digits changes it from "
        f"{mean_text(before)} to {mean_text(after)} of 13 pixels ({difference_text(after, before, 1)})"
        f"{', against the anchor, which saw it grow' if mean(after) < mean(before) else ''}.",
    )


def draw(table: pd.DataFrame) -> Canvas:
    canvas, axes = panels(5, width=11.5, height=3.8, gridspec_kw={"width_ratios": [2.6, 1, 1, 1, 1]})
    first = axes[0]
    depths = np.array(DEPTHS)
    first.plot(depths, 2 * depths + 1, color=GREY, ls="--", label="theoretical, 2 L + 1")
    for number, case in enumerate((LINEAR, RELU)):
        plot_curve(first, table, case, SIZE, number, label=f"effective, {case}")
    first.set(xscale="log", yscale="log", xlabel="3×3 layers", ylabel="diameter, pixels", title="Square-root growth")
    first.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
    first.set_yticks([4, 8, 16, 32, 64], ["4", "8", "16", "32", "64"])
    first.minorticks_off()
    first.legend(fontsize=9)
    rows = table[table["picture"] != ""]
    shown = ((RELU, 8, "8 layers,\n17 pixels"), (RELU, 32, "32 layers,\n65 pixels"),
             (UNTRAINED, 6, "6 layers,\nuntrained"), (TRAINED, 6, "6 layers,\nafter training"))  # fmt: skip
    for frame, (case, depth, title) in zip(axes[1:], shown, strict=True):
        (picture,) = rows[(rows["case"] == case) & (rows["at"] == depth)]["picture"]
        show_picture(frame, picture, title, colours="magma")
    return canvas


CLAIM = Claim(
    place=6,
    title="A unit sees much less of its receptive field than it could, and depth widens that as its square root.",
    question="How wide is the part of the input that holds most of a unit's influence, and how does it grow with "
    "depth?",
    control="the theoretical receptive field of L layers of 3×3, 2 L + 1 pixels; the same networks after training.",
    anchor="Luo et al. (2016): Gaussian, growing about as the square root of the depth, larger after training.",
    limits="strides, pools and dilation, which widen it faster. The diameter is four standard deviations of the mean "
    "absolute gradient, as of a Gaussian; a different threshold gives other pixels and the same growth.",
    seconds=140,
    cases=(LINEAR, RELU, UNTRAINED, TRAINED),
    measure=measure,
    conclude=conclude,
    draw=draw,
    caption="Diameter by depth, mean of five draws with 95 % interval; and four fields (square root of the gradient), "
    "each in the frame of its theoretical size.",
)

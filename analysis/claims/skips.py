"""Skip connections let depth help: plain and residual stacks of 8, 20 and 56 layers, their losses and gradients."""

from collections.abc import Hashable, Iterator

import pandas as pd
from matplotlib.figure import Figure as Canvas

from tidepool.analysis.claims.frame.claim import Claim, Measurement, Outcome, Verdict
from tidepool.analysis.claims.frame.plotting import COLOURS, LINES, panels
from tidepool.analysis.claims.frame.samples import by_seed, curve, difference_text, mean, mean_text

DEPTHS = (8, 20, 56)
KINDS = ("plain", "residual")
CASES = tuple(f"{kind}, {depth} layers" for depth in DEPTHS for kind in KINDS)
STEPS, WINDOW = 120, 10
LAST, LOSS, NORM = "final_training_loss", "training_loss", "gradient_norm_at_start"


def measure(case: str, seed: int) -> Iterator[Measurement]:
    from tidepool.analysis.claims.parts.depth import gradient_norms, train_deep

    kind, depth = case.split(", ")
    layers = int(depth.split()[0])
    for place, norm in enumerate(gradient_norms(layers, residual=kind == "residual", seed=seed), start=1):
        yield Measurement(NORM, norm, place)
    losses, right = train_deep(layers, residual=kind == "residual", seed=seed, steps=STEPS)
    means = [sum(losses[i : i + WINDOW]) / WINDOW for i in range(0, STEPS, WINDOW)]
    for window, loss in enumerate(means, start=1):
        yield Measurement(LOSS, loss, WINDOW * window)
    yield Measurement(LAST, means[-1])
    yield Measurement("test_accuracy", right)


def conclude(table: pd.DataFrame) -> Verdict:
    last = {case: by_seed(table, case, LAST) for case in CASES}
    worse = difference_text(last["plain, 56 layers"], last["plain, 8 layers"])
    rescued = difference_text(last["plain, 56 layers"], last["residual, 56 layers"])
    gap = mean(last["plain, 56 layers"]) - mean(last["residual, 56 layers"])
    small = mean(last["plain, 8 layers"]) - mean(last["residual, 8 layers"])
    deeper = difference_text(last["residual, 56 layers"], last["residual, 8 layers"])
    helps = mean(last["residual, 56 layers"]) < mean(last["residual, 8 layers"])
    norms = {k: _ratio(table, f"{k}, 56 layers") for k in KINDS}
    outcome: Outcome = "does not hold" if gap <= max(small, 0) else "holds" if helps else "holds in part"
    return Verdict(
        outcome,
        f"After {STEPS} steps the plain net's training loss at 56 layers is {mean_text(last['plain, 56 layers'], 2)}, "
        f"{worse} over that of 8 layers, and {rescued} over the residual net's, which has "
        f"{mean_text(last['residual, 56 layers'], 2)}. With skips 56 layers are {deeper} from 8 layers' loss: so skips "
        f"{'let depth help' if helps else 'take away the harm of depth, which itself does not help in so few steps'}. "
        f"At the start the gradient of the first convolution is {norms['plain']} times the last one's in "
        f"the plain net of 56, {norms['residual']} times in the residual one. Three seeds at 20 and 56 "
        "layers: wide intervals.",
    )


def _ratio(table: pd.DataFrame, case: str) -> str:
    rows = table[(table["case"] == case) & (table["quantity"] == NORM)]
    ends: dict[Hashable, float] = {
        int(str(seed)): float(g.sort_values("at")["value"].iloc[0] / g.sort_values("at")["value"].iloc[-1])
        for seed, g in rows.groupby("seed")
    }
    return mean_text(ends, 1)


def draw(table: pd.DataFrame) -> Canvas:
    canvas, axes = panels(3, width=11.5, height=4.2)
    for (
        frame,
        kind,
    ) in zip(axes[:2], KINDS, strict=True):
        for number, depth in enumerate(DEPTHS):
            points = curve(table, f"{kind}, {depth} layers", LOSS)
            frame.plot(points["at"], points["mean"], color=COLOURS[number], ls=LINES[number], label=f"{depth} layers")
            frame.fill_between(points["at"], points["low"].clip(lower=0), points["high"], color=COLOURS[number],
                               alpha=0.15, lw=0)  # fmt: skip
        frame.set(title=f"{kind.capitalize()}: training loss", xlabel="step", ylim=(0, 2.6))
        frame.legend()
    for number, kind in enumerate(KINDS):
        points = curve(table, f"{kind}, 56 layers", NORM)
        axes[2].plot(
            points["at"], points["mean"], color=COLOURS[1 - number], ls=LINES[number], label=f"{kind}, 56 layers"
        )
    axes[2].set(title="Gradient norm at the start", xlabel="convolution, from the input", yscale="log")
    axes[2].legend()
    return canvas


CLAIM = Claim(
    place=8,
    title="Skip connections let depth help.",
    question="How do training loss and gradients change from 8 to 20 to 56 layers, with skips and without?",
    control="the same stacks without the addition: same weights at the start, same parameters, same batches, "
    "batch norm "
    "in both.",
    anchor="He et al. (2015), figures 1 and 6: at 56 layers the plain net's training error is above that of 20 layers, "
    "the residual net's below.",
    limits=f"a training to its end: {STEPS} steps on 8×8 digits, 8 filters wide. He et al. trained 64,000 steps on "
    "CIFAR-10.",
    seconds=110,
    cases=CASES,
    measure=measure,
    conclude=conclude,
    draw=draw,
    caption="Training loss in windows of ten steps, mean and 95 % interval; norm of each convolution's filter "
    "gradient.",
    fewer_seeds={case: 3 for case in CASES if not case.endswith(" 8 layers")},
)

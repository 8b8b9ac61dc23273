"""Weight sharing pays: the same network untied, and the control that takes its reason away, permuted pixels."""

from collections.abc import Hashable, Iterator

import pandas as pd
from matplotlib.figure import Figure as Canvas

from tidepool.analysis.claims.frame.claim import Claim, Measurement, Outcome, Verdict
from tidepool.analysis.claims.frame.plotting import BLUE, GREEN, ORANGE, panels
from tidepool.analysis.claims.frame.samples import above, by_seed, mean, percent, points, within

NETWORKS = ("conv", "untied", "mlp")
ORDERS = ("pixels in order", "pixels permuted")
CASES = tuple(f"{network}, {order}" for order in ORDERS for network in NETWORKS)
SAME = 0.01
ACCURACY = "test_accuracy"


def measure(case: str, seed: int) -> Iterator[Measurement]:
    import torch

    from tidepool.analysis.claims.parts.images import digits
    from tidepool.analysis.claims.parts.learning import accuracy, fit, parameters
    from tidepool.analysis.claims.parts.untied import tied_or_untied, with_permuted_pixels
    from tidepool.models import build_model

    name, order = case.split(", ")
    images = digits() if order == ORDERS[0] else with_permuted_pixels(digits())
    torch.manual_seed(seed)
    network: torch.nn.Module = (
        build_model("mlp", num_classes=10, in_channels=1, image_size=8)
        if name == "mlp"
        else tied_or_untied(tied=name == "conv")
    )
    fit(network, images.train, images.train_labels, steps=900, seed=seed, lr=2e-3)
    yield Measurement("parameters", parameters(network))
    yield Measurement(ACCURACY, accuracy(network, images.test, images.test_labels))


def _results(table: pd.DataFrame) -> dict[tuple[str, str], dict[Hashable, float]]:
    return {(n, o): by_seed(table, f"{n}, {o}", ACCURACY) for n in NETWORKS for o in ORDERS}


def conclude(table: pd.DataFrame) -> Verdict:
    right = _results(table)
    counts = {n: int(mean(by_seed(table, f"{n}, {ORDERS[0]}", "parameters"))) for n in NETWORKS}
    plain, permuted = ORDERS
    pays = above(right["conv", plain], right["untied", plain])
    falls = above(right["conv", plain], right["conv", permuted])
    same = within(right["mlp", plain], right["mlp", permuted], SAME)
    cheaper = within(right["conv", plain], right["untied", plain], SAME)
    outcome: Outcome = "does not hold"
    if pays or falls or cheaper:
        outcome = "holds" if pays and falls and same else "holds in part"
    return Verdict(
        outcome,
        f"With {counts['conv']:,} parameters the convolutional network got {percent(right['conv', plain])} "
        "of test digits "
        f"right, untied with {counts['untied']:,} {percent(right['untied', plain])}: sharing is worth "
        f"{points(right['conv', plain], right['untied', plain])}. With the pixels permuted the convolution falls by "
        f"{points(right['conv', plain], right['conv', permuted])}, the untied layers by "
        f"{points(right['untied', plain], right['untied', permuted])}, and the mlp's difference, "
        f"{points(right['mlp', plain], right['mlp', permuted])}, is {'' if same else 'not '}within ±1 point "
        "(two one-sided tests at 5 %). "
        + ("Sharing pays in accuracy. " if pays else "Against the claim, sharing is not shown to pay in accuracy: ")
        + (
            f"it pays in parameters, {counts['untied'] / counts['conv']:.0f} times fewer for an accuracy "
            "within ±1 point. "
            if cheaper and not pays
            else ""
        )
        + ("The convolution needs its neighbourhoods." if falls else "Nor is the fall under permutation shown."),
    )


def draw(table: pd.DataFrame) -> Canvas:
    canvas, (left, axes) = panels(2, width=9.5, gridspec_kw={"width_ratios": [1, 1.8]})
    right = _results(table)
    for place, (network, colour) in enumerate(zip(NETWORKS, (BLUE, GREEN, ORANGE), strict=True)):
        count = mean(by_seed(table, f"{network}, {ORDERS[0]}", "parameters"))
        left.bar(place, count, color=colour, alpha=0.75, width=0.7)
        left.annotate(f"{count:,.0f}", (place, count), ha="center", xytext=(0, 4), textcoords="offset points")
        for side, order in enumerate(ORDERS):
            values = [100 * v for v in right[network, order].values()]
            x = place + 0.38 * side - 0.19
            axes.bar(x, sum(values) / len(values), color=colour, alpha=(0.8, 0.3)[side], width=0.34)
            axes.plot([x] * len(values), values, "o", color="#1d2733", markersize=3)
    left.set(title="Parameters", yscale="log", ylim=(1e3, 4e5))
    axes.set(title="Test accuracy, %: pixels in order (dark), permuted (light)", ylim=(85, 100))
    for frame in (left, axes):
        frame.set_xticks(range(3), NETWORKS)
        frame.grid(axis="x", visible=False)
    return canvas


CLAIM = Claim(
    place=7,
    title="Weight sharing pays, because neighbouring pixels belong together.",
    question="Does a convolutional network beat the same network with weights of their own at every place?",
    control="one fixed permutation of the pixels of all images, which takes neighbourhood away and nothing else; "
    "an mlp, to which the order of the pixels means nothing.",
    anchor="Li, Zhang & Arora (2021) prove a gap in samples needed; no number of theirs is for these digits.",
    limits="larger images and data sets, where the untied layers' weights grow with the image. Accuracies of "
    "digits are close to their ceiling: 360 test digits, so that one digit is 0.28 points.",
    seconds=110,
    cases=CASES,
    measure=measure,
    conclude=conclude,
    draw=draw,
    caption="Two stages of 3×3 filters (16, 32) with max pools; a dot a seed. Accuracy begins at 85 %.",
)

"""The same patch at two places: a convolutional network cannot tell them apart, unless zeros at the edges say where."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure as Canvas

from tidepool.analysis.claims.frame.claim import Claim, Measurement, Outcome, Verdict
from tidepool.analysis.claims.frame.pictures import encode
from tidepool.analysis.claims.frame.plotting import BLUE, COLOURS, bars, show_picture
from tidepool.analysis.claims.frame.samples import by_seed, mean, percent

CIRCULAR, FULL, SAME, FULL_TWICE = "circular", "full", "same (zeros)", "full, two layers"
CASES = (CIRCULAR, FULL, SAME, FULL_TWICE)


def measure(case: str, seed: int) -> Iterator[Measurement]:
    import torch

    from tidepool.analysis.claims.parts.learning import accuracy, fit
    from tidepool.analysis.claims.parts.networks import Edges, Stack
    from tidepool.analysis.claims.parts.places import patches_at_two_places

    edges: Edges = {CIRCULAR: "circular", FULL: "full", SAME: "zeros", FULL_TWICE: "full"}[case]  # type: ignore[assignment]
    widths = (8, 8) if case == FULL_TWICE else (8,)
    torch.manual_seed(seed)
    network = Stack(1, widths, edges=edges, down="none", num_classes=2, over_pixels="max", kernel=5)
    train, labels = patches_at_two_places(200, 2 * seed)
    test, wanted = patches_at_two_places(200, 2 * seed + 1)
    fit(network, train, labels, steps=400, seed=seed)
    yield Measurement("test_accuracy", accuracy(network, test, wanted))
    if case == SAME and seed == 0:
        for place in (0, 1):
            yield Measurement("example", place, place, encode(test[place, 0], low=-2, high=2))


def conclude(table: pd.DataFrame) -> Verdict:
    results = {case: by_seed(table, case, "test_accuracy") for case in CASES}
    blind = max(abs(mean(results[case]) - 0.5) for case in (CIRCULAR, FULL)) < 0.02
    sees = mean(results[SAME]) > 0.95
    outcome: Outcome = "holds" if blind and sees else "holds in part" if blind or sees else "does not hold"
    return Verdict(
        outcome,
        f"Which of two places a patch is at was told right in {percent(results[CIRCULAR])} of test images "
        "with circular "
        f"edges, {percent(results[FULL])} with full padding, and {percent(results[SAME])} with zeros that keep the "
        "size, by one convolution each. Every test patch is shown once at each place, so that a network "
        "blind to place scores 50 % exactly. A second "
        f"convolution under full padding takes it to {percent(results[FULL_TWICE])}: the first one's bias "
        "ends at an edge "
        "that the second can see, so that full padding hides the place from one layer only.",
    )


def draw(table: pd.DataFrame) -> Canvas:
    canvas = Canvas(figsize=(9, 3.8), layout="constrained")
    first, second, axes = canvas.subplots(1, 3, width_ratios=[1, 1, 1.7])
    examples = table[table["quantity"] == "example"]["picture"]
    for place, (frame, picture) in enumerate(zip((first, second), examples, strict=False)):
        show_picture(frame, picture, f"class {place + 1}: {('top left', 'bottom right')[place]}", size=11)
    samples = [[100 * v for v in by_seed(table, case, "test_accuracy").values()] for case in CASES]
    bars(axes, ["circular", "full", "same\n(zeros)", "full,\n2 layers"], samples, COLOURS[:4])
    axes.axhline(50, color=BLUE, ls=":", lw=1)
    axes.text(3.5, 50, "chance", va="center", fontsize=9)
    axes.set(ylim=(0, 105), ylabel="test accuracy, %", title="Where is it?")
    return canvas


CLAIM = Claim(
    place=4,
    title="Zeros at the edges tell a convolutional network where things are.",
    question="Can a network of one 5×5 convolution and a maximum over all pixels learn whether a bright, noisy "
    "patch stands "
    "at the top left or the bottom right of an empty image?",
    control="edges joined in a circle, and full padding, under which every output sees the whole patch at both places.",
    anchor="Kayhan & van Gemert (2020): about 50 % under circular and full padding, about 100 % under same.",
    limits="how much a usual network makes of it: here the patch touches the edge and nothing else differs.",
    seconds=60,
    cases=CASES,
    measure=measure,
    conclude=conclude,
    draw=draw,
    caption="One patch at its two places, and test accuracy by padding: bars are means, dots seeds.",
)

"""Pooling adds some invariance to shifts, and how it fails: predictions of one image at two shifts, compared."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure as Canvas

from tidepool.analysis.claims.frame.claim import Claim, Measurement, Verdict
from tidepool.analysis.claims.frame.plotting import COLOURS, bars, panels
from tidepool.analysis.claims.frame.samples import above, by_seed, mean, percent, points

MLP = "mlp"
CONVOLUTIONAL = ("stride 2", "max pool", "average pool", "BlurPool", "polyphase")
CASES = (MLP, *CONVOLUTIONAL)
BEFORE, AFTER, ACCURACY = "consistency_before_training", "consistency_after_training", "test_accuracy"


def measure(case: str, seed: int) -> Iterator[Measurement]:
    import torch

    from tidepool.analysis.claims.parts.images import roomy_digits
    from tidepool.analysis.claims.parts.learning import accuracy, fit
    from tidepool.analysis.claims.parts.networks import Stack
    from tidepool.analysis.claims.parts.shifts import consistency
    from tidepool.models import build_model

    torch.manual_seed(seed)
    images = roomy_digits()
    network: torch.nn.Module = (
        build_model("mlp", num_classes=10, in_channels=1, image_size=16)
        if case == MLP
        else Stack(1, (16, 32), edges="circular", down=case)  # type: ignore[arg-type]
    )
    yield Measurement(BEFORE, consistency(network, images.test, farthest=4, pairs=10, seed=seed))
    fit(network, images.train, images.train_labels, steps=600, seed=seed)
    yield Measurement(AFTER, consistency(network, images.test, farthest=4, pairs=10, seed=seed))
    yield Measurement(ACCURACY, accuracy(network, images.test, images.test_labels))


def conclude(table: pd.DataFrame) -> Verdict:
    after = {case: by_seed(table, case, AFTER) for case in CASES}
    before = {case: by_seed(table, case, BEFORE) for case in CASES}
    right = {case: by_seed(table, case, ACCURACY) for case in CASES}
    pooled = all(above(after[case], after["stride 2"]) for case in ("max pool", "average pool", "BlurPool"))
    exact = mean(after["polyphase"]) == 1 and mean(before["polyphase"]) == 1
    return Verdict(
        "holds in part" if pooled or exact else "does not hold",
        "After training, one image at two shifts gets one class in "
        + ", ".join(f"{percent(after[case])} ({case})" for case in CASES)
        + f" of pairs. Against strides alone max pooling adds {points(after['max pool'], after['stride 2'])}, average "
        f"pooling {points(after['average pool'], after['stride 2'])}, BlurPool over max pooling "
        f"{points(after['BlurPool'], after['max pool'])}; only polyphase sampling is exact"
        f"{', before training too' if exact else ' in none of these runs'}. A convolution with strides alone is "
        f"{points(after['stride 2'], after[MLP])} from the mlp: the convolution by itself adds none. Accuracy on "
        f"unshifted digits is {percent(right[MLP])} (mlp), {percent(right['max pool'])} (max pool), "
        f"{percent(right['BlurPool'])} (BlurPool) and {percent(right['polyphase'])} (polyphase): invariance was paid "
        f"for here, BlurPool's with {points(right['BlurPool'], right['max pool'])}, against the anchor.",
    )


def draw(table: pd.DataFrame) -> Canvas:
    canvas, axes = panels(3, width=11, height=4.0)
    titles = (
        (BEFORE, "Consistency before training, %"),
        (AFTER, "… and after, %"),
        (ACCURACY, "Accuracy unshifted, %"),
    )
    names = ["mlp", "stride 2", "max", "average", "Blur-\nPool", "poly-\nphase"]
    colours = ("#7a8794", *COLOURS[1:2], *COLOURS[0:1], *COLOURS[2:])
    for frame, (quantity, title) in zip(axes, titles, strict=True):
        bars(frame, names, [[100 * v for v in by_seed(table, case, quantity).values()] for case in CASES], colours)
        frame.set(title=title, ylim=(0, 104))
        frame.tick_params(axis="x", labelsize=9)
    return canvas


CLAIM = Claim(
    place=5,
    title="Pooling adds some invariance to shifts.",
    question="How often does a network give one digit the same class at two random circular shifts of up to four "
    "pixels?",
    control="a fully connected network; convolutions with stride 2 and no pool; all before training and after it, with "
    "the accuracy on unshifted digits.",
    anchor="Zhang (2019): BlurPool raises consistency without costing accuracy; Chaman & Dokmanić (2021): 100 % with "
    "adaptive polyphase sampling.",
    limits="shifts other than circular ones, and natural images. No network saw a shifted digit in training. An "
    "untrained network that gives all images one class is consistent too, which is why accuracy stands beside it.",
    seconds=130,
    cases=CASES,
    measure=measure,
    conclude=conclude,
    draw=draw,
    caption="Two stages of 16 and 32 filters with circular edges, by how they halve the size; a dot a seed.",
)

"""Shift the input and a convolution's output shifts with it; strides, pools and zero padding break a share of that."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure as Canvas

from tidepool.analysis.claims.frame.claim import Claim, Measurement, Verdict
from tidepool.analysis.claims.frame.plotting import panels, plot_curve
from tidepool.analysis.claims.frame.samples import by_seed, mean, mean_text

PLAIN, ZEROS, STRIDE, MAX, AVERAGE = (
    "circular, stride 1",
    "zero padding, stride 1",
    "circular, stride 2",
    "circular, max pool 2",
    "circular, average pool 2",
)
CASES = (PLAIN, ZEROS, STRIDE, MAX, AVERAGE)
SHIFTS = tuple(range(9))


def measure(case: str, seed: int) -> Iterator[Measurement]:
    import torch

    from tidepool.analysis.claims.parts.images import roomy_digits, sample
    from tidepool.analysis.claims.parts.networks import Downsampling, EdgedConv
    from tidepool.analysis.claims.parts.shifts import broken_share

    torch.manual_seed(seed)
    down: Downsampling = {STRIDE: "stride 2", MAX: "max pool", AVERAGE: "average pool"}.get(case, "none")  # type: ignore[assignment]
    layer = EdgedConv(1, 8, "zeros" if case == ZEROS else "circular", down, "triton")
    x = sample(roomy_digits(), 16, 0, seed).train
    with torch.no_grad():
        for shift in SHIFTS:
            share, error = broken_share(layer, x, shift)
            yield Measurement("broken_share", share, shift)
            yield Measurement("relative_error", error, shift)


def conclude(table: pd.DataFrame) -> Verdict:
    worst = table[(table["case"] == PLAIN) & (table["quantity"] == "broken_share")]["value"].max()
    odd = {case: f"{mean_text(by_seed(table, case, 'relative_error', 3), 0, scale=100)} %" for case in CASES[1:]}
    even = {case: mean(by_seed(table, case, "broken_share", 4)) for case in (STRIDE, MAX, AVERAGE)}
    exact_by_two = all(value == 0 for value in even.values())
    return Verdict(
        "holds in part" if worst == 0 else "does not hold",
        f"At stride 1 with joined edges {'no output differs' if worst == 0 else 'some outputs differ'}, to the bit, at "
        f"any of {len(SHIFTS) - 1} shifts. A shift by three pixels changes, relative to the output's size, "
        f"{odd[ZEROS]} under zero padding, {odd[STRIDE]} under stride 2, "
        f"{odd[MAX]} under max pooling and {odd[AVERAGE]} under average pooling. Shifts by whole strides "
        f"{'stay exact' if exact_by_two else 'break as well'} there. So it holds of the convolution, and of a network "
        "that downsamples only for multiples of its total stride.",
    )


def draw(table: pd.DataFrame) -> Canvas:
    canvas, (left, right) = panels(2, height=4.0)
    for number, case in enumerate(CASES):
        plot_curve(left, table, case, "broken_share", number, scale=100)
        plot_curve(right, table, case, "relative_error", number, scale=100)
    left.set(xlabel="shift down and right, pixels", ylabel="outputs that differ in any bit, %", title="How many break")
    right.set(xlabel="shift down and right, pixels", ylabel="‖difference‖ / ‖output‖, %", title="By how much")
    canvas.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return canvas


CLAIM = Claim(
    place=3,
    title="Convolution is translation equivariant.",
    question="Is the output for a shifted image the shifted output, at each of eight diagonal circular shifts?",
    control="the same layer with zero padding, with stride 2, with a max pool and with an average pool. Under a shift "
    "by an odd number of pixels the nearer of the two whole shifts of the output is counted.",
    anchor="Azulay & Weiss (2019): subsampling breaks it; Kayhan & van Gemert (2020): so do zeros at the edges.",
    limits="what training does to it; layers are at their random start, digits stand in an empty frame of four pixels. "
    "It ran on our kernels in Triton's interpreter, whose sums have one order; another library's may differ by "
    "rounding.",
    seconds=15,
    cases=CASES,
    measure=measure,
    conclude=conclude,
    draw=draw,
    caption="16 digits, 8 random filters: mean over five draws and 95 % interval.",
)

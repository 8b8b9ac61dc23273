"""Figures of bench.py's measurements: ratios by case, the roofline, memory. Nothing that was not measured is drawn."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd

from tidepool.analysis.bench.kernel_speed import BEST, CONDITION, MEASURED, select
from tidepool.analysis.bench.records import BenchRecords
from tidepool.analysis.bench.views import OPPONENT_TITLES, condition_text, pass_title
from tidepool.analysis.drawing import RC, STYLES, Figure, Style, canvas_and_axes, figure, label_text, legend, slug

_MARKS = {
    "cudnn": Style("#9aa5b1", "-", "v", 1.2, 2),
    "cudnn_channels_last": STYLES["cudnn"],
    "compile": STYLES["compile"],
    "compile_max_autotune": Style("#0b4f8a", "-", "D", 1.4, 4),
    "cudnn_conv_relu": Style("#a01c1c", "-", "P", 1.2, 3),
}
_SIDES = {"auto": STYLES["auto"], "triton": STYLES["triton"], "cudnn_channels_last": STYLES["cudnn"]}
_PASSES_DRAWN = ("train", "forward")


def draw_bench(records: BenchRecords, ratios: pd.DataFrame) -> list[Figure]:
    """Every figure that the measurements allow."""
    figures: list[Figure] = []
    with mpl.rc_context(RC):
        figures += _ratios(ratios)
        figures += _rooflines(select(records).rows)
        figures += _memory(ratios)
    return figures


def _ratios(ratios: pd.DataFrame) -> Iterator[Figure]:
    """One figure a card, suite and pass: `auto` beside every opponent, a row a case, losers left of the line."""
    drawn = ratios[
        (ratios["backend"] == "auto")
        & (ratios["status"] == MEASURED)
        & ratios["pass"].isin(_PASSES_DRAWN)
        & (ratios["opponent"] != BEST)
    ]
    for key, group in drawn.groupby([*CONDITION, "suite", "pass"], sort=False):
        named = dict(zip([*CONDITION, "suite", "pass"], key, strict=True))
        names = list(dict.fromkeys(group["case"]))[::-1]
        canvas, axes = canvas_and_axes(width=7.4, height=1.3 + 0.21 * len(names))
        for opponent, marks in group.groupby("opponent", sort=False):
            style, name = _MARKS[str(opponent)], OPPONENT_TITLES[str(opponent)]
            rows = [names.index(case) for case in marks["case"]]
            values = marks["ratio"].to_numpy(dtype=np.float64)
            ends = marks[["ratio_ci95_low", "ratio_ci95_high"]].to_numpy(dtype=np.float64)
            axes.hlines(rows, ends[:, 0], ends[:, 1], color=style.colour, lw=1.1, zorder=style.order)
            axes.scatter(values, rows, s=22, marker=style.marker, facecolor=style.colour, lw=0, zorder=style.order + 1,
                         label=name)  # fmt: skip
        axes.axvline(1.0, color="#1d2733", lw=1)
        axes.set_xscale("log")
        axes.set_xticks(_ticks(drawn["ratio"]), [f"{tick:g}" for tick in _ticks(drawn["ratio"])])
        axes.minorticks_off()
        axes.set_yticks(range(len(names)), [label_text(name) for name in names], fontsize=8)
        axes.set_ylim(-0.7, len(names) - 0.3)
        axes.set_xlabel("opponent's time / auto's (right of 1: auto is faster)")
        legend(axes)
        where = f"{named['suite']}, {pass_title(named['pass'])}, {condition_text(named)}"
        caption = (
            f"{where}: median over processes of the ratio of times; bars are 95 % bootstrap intervals over processes, "
            "none with one process."
        )
        yield figure(canvas, f"bench-ratio-{slug(where)}", "ratios", caption)


def _rooflines(rows: pd.DataFrame) -> Iterator[Figure]:
    """One figure a card, dtype and pass: achieved rate over arithmetic intensity of the fused pass, under the roof."""
    timed = rows[(rows["status"] == "timed") & rows["flops"].gt(0) & rows["pass"].isin(_PASSES_DRAWN)]
    for key, group in timed.groupby([*CONDITION, "pass"], sort=False):
        named = dict(zip([*CONDITION, "pass"], key, strict=True))
        canvas, axes = canvas_and_axes(width=5.6, height=4.0)
        medians = group.groupby(["backend", "case"])[["flops", "fused_bytes", "time_ms_p50"]].median()
        intensity = medians["flops"] / medians["fused_bytes"]
        rate = medians["flops"] / medians["time_ms_p50"] / 1e9
        copy, matrix = group["copy_bytes_per_s"].median(), group["matmul_tflops"].median()
        reach = np.geomspace(max(intensity.min() / 2, 1e-2), intensity.max() * 2, 200)
        axes.plot(reach, np.minimum(reach * copy / 1e12, matrix), color="#1d2733", lw=1.4,
                  label=f"measured: {copy / 1e12:.3g} TB/s, {matrix:.4g} TFLOP/s")  # fmt: skip
        for backend, style in _SIDES.items():
            if backend in intensity.index.get_level_values("backend"):
                axes.scatter(intensity[backend], rate[backend], s=24, marker=style.marker, facecolor=style.colour,
                             lw=0, alpha=0.85, zorder=style.order, label=label_text(backend))  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("operations per byte of the fused pass")
        axes.set_ylabel("achieved TFLOP/s")
        legend(axes)
        where = f"{pass_title(named['pass'])}, {condition_text(named)}"
        caption = (
            f"{where}: each mark is a case. All backends stand at the fused pass's intensity, so a mark's height below "
            "the line is what is left to win."
        )
        yield figure(canvas, f"bench-roofline-{slug(where)}", "roofline", caption)


def _memory(ratios: pd.DataFrame) -> Iterator[Figure]:
    """One figure a card and suite: most memory of a training step beside eager channels_last and max-autotune."""
    opponents = ("cudnn_channels_last", "compile_max_autotune")
    drawn = ratios[
        (ratios["backend"] == "auto")
        & (ratios["pass"] == "train")
        & ratios["opponent"].isin(opponents)
        & ratios["memory_ratio"].notna()
    ]
    for key, group in drawn.groupby([*CONDITION, "suite"], sort=False):
        named = dict(zip([*CONDITION, "suite"], key, strict=True))
        names = list(dict.fromkeys(group["case"]))[::-1]
        canvas, axes = canvas_and_axes(width=7.4, height=1.3 + 0.21 * len(names))
        for opponent, marks in group.groupby("opponent", sort=False):
            style = _MARKS[str(opponent)]
            rows = [names.index(case) for case in marks["case"]]
            axes.scatter(marks["memory_ratio"].astype("float64"), rows, s=22, marker=style.marker,
                         facecolor=style.colour, lw=0, zorder=style.order,
                         label=f"of {OPPONENT_TITLES[str(opponent)]}'s")  # fmt: skip
        axes.axvline(1.0, color="#1d2733", lw=1)
        axes.set_xlim(left=0)
        axes.set_yticks(range(len(names)), [label_text(name) for name in names], fontsize=8)
        axes.set_ylim(-0.7, len(names) - 0.3)
        axes.set_xlabel("auto's peak memory / opponent's (left of 1: auto needs less)")
        legend(axes)
        where = f"{named['suite']}, training step, {condition_text(named)}"
        caption = f"{where}: inputs, weights and gradients held, plus the most PyTorch allocated above them in a step."
        yield figure(canvas, f"bench-memory-{slug(where)}", "memory", caption)


def _ticks(ratios: pd.Series) -> list[float]:
    """Powers of two, and halves between them near 1, that cover the ratios."""
    values = ratios.to_numpy(dtype=np.float64)
    low, high = min(float(values.min()), 0.8), max(float(values.max()), 1.25)
    ladder = [0.0625, 0.125, 0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0, 16.0, 32.0]
    return [tick for tick in ladder if low / 1.2 <= tick <= high * 1.2]

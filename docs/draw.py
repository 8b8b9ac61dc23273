"""The README's two pictures: `python docs/draw.py` writes them here, with `--check` it says whether they are current.

one_kernel.svg       four kernels and what they write to memory, beside the one that replaces them
predicted_bytes.svg  bytes of a training step, fused over eager, per list of layers in results/predictions
"""

import io
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

HERE = Path(__file__).resolve().parent
PREDICTIONS = HERE.parent / "results" / "predictions" / "predictions.csv"
STYLE = {"svg.hashsalt": "tidepool", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
INK, GREY, BLUE, ORANGE = "#1d2733", "#4a5664", "#0b4f8a", "#c46f12"


def box(axes: Axes, x: float, y: float, width: float, text: str, colour: str, *, filled: bool) -> None:
    """A kernel (filled) or a tensor in memory (outlined), its centre at (x, y)."""
    shape = FancyBboxPatch(
        (x - width / 2, y - 0.32),
        width,
        0.64,
        boxstyle="round,pad=0.02,rounding_size=0.12",
        facecolor=colour if filled else "white",
        edgecolor=colour,
        linewidth=1.4,
    )
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", color="white" if filled else colour, fontsize=9.5)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    """From one box to another."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=colour, linewidth=1.3))


def one_kernel() -> Figure:
    """Eager: conv, bias, ReLU and pool, each with its result in memory. Fused: one kernel, y and a byte per output."""
    figure = Figure(figsize=(8.6, 3.5), layout="constrained")
    axes = figure.add_subplot(xlim=(0, 17.2), ylim=(0, 7))
    axes.set_axis_off()
    axes.text(0.1, 6.55, "eager: four kernels", color=ORANGE, fontsize=11, weight="bold", va="center")
    box(axes, 1.0, 5.5, 1.5, "x, w", INK, filled=False)
    for number, (kernel, result) in enumerate((("conv", "N·K·H·W"), ("+ bias", "N·K·H·W"), ("ReLU", "N·K·H·W"))):
        x = 3.2 + 3.6 * number
        box(axes, x, 5.5, 1.5, kernel, ORANGE, filled=True)
        box(axes, x + 1.8, 4.1, 1.9, result, ORANGE, filled=False)
        arrow(axes, (x + 0.4, 5.15), (x + 1.25, 4.45), ORANGE)
        arrow(axes, (x + 2.35, 4.45), (x + 3.2, 5.15), ORANGE)
    arrow(axes, (1.8, 5.5), (2.4, 5.5), INK)
    box(axes, 14.0, 5.5, 1.5, "max pool", ORANGE, filled=True)
    arrow(axes, (14.8, 5.5), (15.3, 5.5), INK)
    box(axes, 16.2, 5.5, 1.7, "y + int64\nindex", INK, filled=False)
    axes.text(0.1, 2.85, "Tidepool: one kernel", color=BLUE, fontsize=11, weight="bold", va="center")
    box(axes, 1.0, 1.6, 1.5, "x, w", INK, filled=False)
    arrow(axes, (1.8, 1.6), (2.4, 1.6), INK)
    box(
        axes,
        8.6,
        1.6,
        12.3,
        "conv + bias + ReLU + max pool: what lies between stays in registers",
        BLUE,
        filled=True,
    )
    arrow(axes, (14.8, 1.6), (15.3, 1.6), INK)
    box(axes, 16.2, 1.6, 1.7, "y + one\nbyte each", INK, filled=False)
    axes.text(
        8.6, 0.55, "backward reads y's gradient and that byte; the full-size gradient is never written", ha="center",
        va="center", color=GREY, fontsize=9.5,
    )  # fmt: skip
    return figure


def predicted_bytes() -> Figure:
    """Every case of results/predictions as a dot, the geometric mean of its family as a bar."""
    rows = pd.read_csv(PREDICTIONS)
    rows = rows[(rows["pass"] == "train") & (rows["device"] == "H200")]
    rows = rows.assign(label=rows["family"].where(rows["suite"] == "blocks", rows["family"] + " networks"))
    labels, edge = list(dict.fromkeys(rows["label"])), rows["bytes_ratio"].max() + 0.14
    figure = Figure(figsize=(8.6, 0.9 + 0.27 * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    for position, label in enumerate(labels):
        ratios = rows.loc[rows["label"] == label, "bytes_ratio"].to_numpy()
        mean = float(np.exp(np.log(ratios).mean()))
        axes.barh(position, mean, height=0.62, color="#9dbbd8" if "networks" not in label else "#c9d6c4")
        axes.plot(ratios, np.full(len(ratios), position), "o", color=BLUE, markersize=3.2)
        axes.text(-0.012, position, f"{label} ({len(ratios)})", ha="right", va="center", color=INK, fontsize=9)
        axes.text(edge, position, f"{mean:.2f}", ha="right", va="center", color=INK, fontsize=9)
    axes.axvline(1.0, color=ORANGE, linewidth=1.4)
    axes.text(1.01, -0.95, "eager PyTorch", color=ORANGE, va="center", fontsize=9)
    axes.text(edge, -0.95, "mean", ha="right", va="center", color=INK, fontsize=9)
    axes.set(xlim=(0, edge), ylim=(len(labels) - 0.4, -1.4), yticks=[])
    axes.set_xlabel("bytes moved in a training step, fused over eager (counted, bf16; not a measurement)", color=GREY)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure


def drawn() -> dict[str, str]:
    """The pictures as SVG, by file name: the same bytes from the same data."""
    texts = {}
    with matplotlib.rc_context(STYLE):
        for name, draw in (("one_kernel", one_kernel), ("predicted_bytes", predicted_bytes)):
            buffer = io.StringIO()
            draw().savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
            texts[f"{name}.svg"] = "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
    return texts


def main(arguments: list[str]) -> int:
    """Write the pictures, or with --check say which of them the data has left behind."""
    stale = [name for name, svg in drawn().items() if not (HERE / name).is_file() or (HERE / name).read_text() != svg]
    if arguments == ["--check"]:
        for name in stale:
            print(f"docs/{name}: not what docs/draw.py draws from results/predictions; run it", file=sys.stderr)
        return 1 if stale else 0
    if arguments:
        print(f"docs/draw.py: expected --check or nothing, but got {' '.join(arguments)}", file=sys.stderr)
        return 2
    for name, svg in drawn().items():
        (HERE / name).write_text(svg)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

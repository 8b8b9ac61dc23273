"""Figures: which are drawn, that they are the same every time, and what they leave out."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.runs.run_writer import write_run, write_sweep
from tidepool.analysis.drawing import Figure
from tidepool.analysis.runs.figures import draw, read_confusion
from tidepool.analysis.runs.records import read_records
from tidepool.analysis.runs.tables import all_tables


def drawn(folder: Path) -> list[Figure]:
    records = read_records([folder])
    return draw(records, all_tables(records))


@pytest.fixture(scope="module")
def quickstart_figures(tmp_path_factory: pytest.TempPathFactory) -> list[Figure]:
    """The figures of a sweep without a GPU, drawn once; for tests that only look at them."""
    return drawn(write_sweep(tmp_path_factory.mktemp("runs") / "quickstart", media=True))


def sections(figures: list[Figure]) -> list[str]:
    return [figure.section for figure in figures]


def test_every_figure_is_well_formed_svg_without_dates_or_addresses(quickstart_figures: list[Figure]) -> None:
    figures = quickstart_figures
    assert {"overview", "curves", "accuracy", "agreement", "pictures"} == set(sections(figures))
    for figure in figures:
        assert ET.fromstring(figure.svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert "matplotlib.org" not in figure.svg
        assert "<dc:date>" not in figure.svg


def test_figures_are_the_same_bytes_every_time(quickstart: Path, quickstart_figures: list[Figure]) -> None:
    assert drawn(quickstart) == quickstart_figures


def test_names_are_unique(runs: Path) -> None:
    for lr in (0.1, 0.2):
        for backend in ("triton", "cudnn"):
            write_run(runs / f"{backend}{lr}", backend=backend, config={"lr": lr}, media=True)
    names = [figure.name for figure in drawn(runs)]
    assert len(names) == len(set(names))


def test_curves_of_all_four_metrics_per_condition(quickstart_figures: list[Figure]) -> None:
    names = [figure.name for figure in quickstart_figures if figure.section == "curves"]
    assert [name.split("-01-")[0] for name in names] == [
        "curve-train-loss", "curve-train-accuracy", "curve-test-loss", "curve-test-accuracy"
    ]  # fmt: skip


def test_a_test_split_that_is_read_once_is_no_curve(runs: Path) -> None:
    folder = write_run(runs / "a", steps=3)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in rows if "test/loss" in row]
    last = dict(evaluations[-1])
    for row in evaluations:
        row["val/loss"], row["val/accuracy"] = row.pop("test/loss"), row.pop("test/accuracy")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, last]))
    names = [figure.name for figure in drawn(runs) if figure.section == "curves"]
    assert [name.split("-01-")[0] for name in names] == [
        "curve-train-loss", "curve-train-accuracy", "curve-val-loss", "curve-val-accuracy"
    ]  # fmt: skip


def test_speed_bars_show_compiled_runs_only(runs: Path) -> None:
    write_sweep(runs / "s", seeds=2, gpu=True)
    write_run(runs / "s" / "interpreted", backend="compile", summary={"kernel_mode": "interpreted"}, gpu=True)
    (figure,) = [figure for figure in drawn(runs) if figure.section == "speed"]
    assert "cudnn" in figure.svg
    assert "triton" in figure.svg
    assert "compile" not in figure.svg


def test_one_bar_is_no_chart(quickstart_figures: list[Figure]) -> None:
    assert "speed" not in sections(quickstart_figures)


def test_a_diverged_run_is_named_in_its_curve(runs: Path) -> None:
    write_sweep(runs / "s", seeds=1)
    write_run(runs / "s" / "lost", backend="triton", seed=5, status="diverged", accuracy=math.nan)
    assert "diverged: triton, lost" in next(f.svg for f in drawn(runs) if f.name.startswith("curve-train-loss"))


def test_values_under_the_pointer_stand_where_the_marks_do(quickstart_figures: list[Figure]) -> None:
    figure = next(figure for figure in quickstart_figures if figure.name == "parity")
    assert len(figure.points) == 3
    assert all(0 < x < 1 and 0 < y < 1 for x, y, _ in figure.points)
    texts = {text.split("\n")[1] for _, _, text in figure.points}
    assert any(re.fullmatch(r"seed 0: 97.22 % beside 97.22 %", text) for text in texts)


def test_no_speed_figure_without_a_compiled_run(runs: Path) -> None:
    write_run(runs / "a", backend="triton")
    assert "speed" not in sections(drawn(runs))


def test_diverged_and_unfinished_runs_are_drawn_without_error(runs: Path) -> None:
    write_run(runs / "a", backend="triton", status="diverged", accuracy=math.nan, rounding=math.nan)
    write_run(runs / "b", backend="cudnn", status=None, steps=4)
    assert "curves" in sections(drawn(runs))


def test_long_runs_are_thinned_and_the_caption_says_so(runs: Path) -> None:
    write_run(runs / "a", backend="cudnn", steps=900)
    figure = next(figure for figure in drawn(runs) if figure.name.startswith("curve-train-loss"))
    assert "Each point is the mean of up to 6 recorded steps." in figure.caption
    assert len(figure.svg) < 60_000


def test_interval_beyond_the_view_is_said(runs: Path) -> None:
    figure = next(figure for figure in drawn(write_sweep(runs, seeds=2)) if figure.section == "accuracy")
    assert "An interval goes on beyond the figure" in figure.caption


def test_dollar_signs_and_markup_in_names_are_text(runs: Path) -> None:
    folder = write_run(runs / "a", backend="cudnn")
    (folder / "media").mkdir()
    (folder / "media" / "confusion.csv").write_text("true,predicted,count\n$x_1$,<b>&,3\n<b>&,<b>&,4\n")
    figure = next(figure for figure in drawn(runs) if figure.section == "pictures")
    texts = [
        "".join(element.itertext()) for element in ET.fromstring(figure.svg).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert "$x_1$" in texts
    assert "<b>&" in texts


def test_of_more_conditions_than_the_limit_the_best_few_are_drawn(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidepool.analysis.runs.figures.MOST_CONDITIONS", 2)
    monkeypatch.setattr("tidepool.analysis.runs.figures._BEST_OF_MANY", 1)
    for index in range(1, 4):
        write_run(runs / f"{index:02d}", backend="cudnn", config={"lr": index}, steps=3, accuracy=0.9 + 0.01 * index)
    assert [figure.name for figure in drawn(runs) if figure.section == "accuracy"] == [
        "accuracy-01-lenet5-on-digits-fp32-lr-3"
    ]


def test_confusion_keeps_class_order_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "confusion.csv"
    path.write_text("true,predicted,count\ncat,dog,2\ncat,cat,5\nant,ant,4\ndog,cat,1\n")
    labels, matrix = read_confusion(path) or ([], np.empty(0))
    assert labels == ["cat", "ant", "dog"]
    assert matrix.tolist() == [[5, 0, 2], [0, 4, 0], [1, 0, 0]]


def test_confusion_of_numbers_is_in_numeric_order(tmp_path: Path) -> None:
    path = tmp_path / "confusion.csv"
    path.write_text("true,predicted,count\n10,2,1\n9,9,1\n")
    labels, _ = read_confusion(path) or ([], None)
    assert labels == ["2", "9", "10"]


@pytest.mark.parametrize(
    "content", ["", "true,predicted,count\n", "a,b\n1,2\n", "true,predicted,count\n1,1,x\n", "\x00"]
)
def test_unusable_confusion_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "confusion.csv").write_text(content)
    assert read_confusion(tmp_path / "confusion.csv") is None


def test_missing_confusion_is_none(tmp_path: Path) -> None:
    assert read_confusion(tmp_path / "confusion.csv") is None

"""What a report says of bench.py's measurements: tables, sections, the first screen, the text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tidepool.analysis import page
from tidepool.analysis.bench.kernel_speed import ALL, BEST, CONDITION, MEASURED, OURS, mean_table, ratio_table, select
from tidepool.analysis.bench.records import BenchRecords
from tidepool.analysis.bench.views import (
    case_view,
    condition_text,
    host_cost_table,
    host_cost_view,
    mean_cell,
    mean_view,
    pass_title,
    prediction_table,
    prediction_view,
    worst_cell,
)
from tidepool.analysis.drawing import Figure
from tidepool.analysis.page import Section
from tidepool.analysis.text import markdown, plain, significant, write_csv

BENCH_TITLE = "The kernels beside cuDNN and torch.compile"


def bench_tables(records: BenchRecords) -> dict[str, pd.DataFrame]:
    """The tables of what there is, by file name: kernel_speed, kernel_speed_means, host_time, predicted."""
    tables: dict[str, pd.DataFrame] = {}
    if len(records.cases) or len(records.timings):
        tables["kernel_speed"] = ratio_table(records)
        tables["kernel_speed_means"] = mean_table(tables["kernel_speed"], records)
    if len(records.host_cost):
        tables["host_time"] = host_cost_table(records)
    if len(records.predictions):
        tables["predicted"] = prediction_table(records)
    return tables


def bench_sections(records: BenchRecords, tables: dict[str, pd.DataFrame], figures: Sequence[Figure]) -> list[Section]:
    """(key, heading, parts) of every section that there is something for."""
    sections: list[Section] = []
    if "kernel_speed" in tables:
        sections.append(("kernel-speed", "Speed of layers and networks", _speed_parts(records, tables, figures)))
        grid = page.figure_grid([figure for figure in figures if figure.section == "roofline"])
        if grid:
            sections.append(("roofline", "Against the card's limits", [grid]))
        grid = page.figure_grid([figure for figure in figures if figure.section == "memory"], wide=True)
        if grid:
            sections.append(("memory", "Memory of a training step", [grid]))
        sections.append(("cases", "Every case", _case_parts(tables["kernel_speed"])))
    if "host_time" in tables:
        intro = (
            "What the host spends on one forward and backward: launches stubbed on this project's side, tensors of one "
            "element on eager PyTorch's, both sides in turns in one process."
        )
        view = host_cost_view(tables["host_time"])
        sections.append(("host-cost", "Host time", [page.paragraphs([intro]), page.table(view)]))
    if "predicted" in tables:
        intro = (
            "Bytes and bounds worked out without a GPU, at the vendors' published rates: assumed, not measured. The "
            "bound ratio is eager's bound over the fused one's, the most that fusing can win."
        )
        view = prediction_view(tables["predicted"])
        sections.append(
            (
                "predictions",
                "Predicted, not measured",
                [page.paragraphs([intro]), page.table(view)],
            )
        )
    return sections


def bench_answers(records: BenchRecords, tables: dict[str, pd.DataFrame]) -> list[tuple[str, list[str]]]:
    """(name, sentences) of a first screen about measurements alone."""
    answers = [("Compared", _compared(records))]
    if "kernel_speed_means" in tables:
        answers.append(("Result", result_lines(tables["kernel_speed_means"])))
    answers.append(("Not measured", _missing(records, tables) or ["Nothing left out."]))
    return answers


def result_lines(means: pd.DataFrame) -> list[str]:
    """One sentence a card, suite and pass on `auto` over the whole list; none where no list is complete."""
    lines = []
    whole = means[(means["family"] == ALL) & (means["backend"] == "auto")]
    for key, group in whole.groupby([*CONDITION, "suite", "pass"], sort=False):
        named = dict(zip([*CONDITION, "suite", "pass"], key, strict=True))
        by_opponent = {row["opponent"]: row for _, row in group.iterrows()}
        eager, best = by_opponent.get("cudnn_channels_last"), by_opponent.get(BEST)
        if eager is None or best is None or not best["cases_measured"]:
            continue
        lines.append(
            f"{named['suite']}, {pass_title(named['pass'])}, {condition_text(named)}: auto is {mean_cell(eager)} times "
            f"as fast as cuDNN channels_last and {mean_cell(best)} times as fast as the fastest opponent of each case; "
            f"least {worst_cell(best)}."
        )
    return lines or ["No geometric mean: nothing was timed on a GPU with compiled kernels."]


def bench_text(records: BenchRecords) -> str:
    """The comparison for a terminal."""
    tables = bench_tables(records)
    lines = [BENCH_TITLE, *_compared(records)]
    if "kernel_speed_means" in tables:
        lines += result_lines(tables["kernel_speed_means"])
        whole = mean_view(tables["kernel_speed_means"], families=False)
        lines += [plain(whole)] if len(whole) else []
    if "host_time" in tables:
        lines.append(plain(host_cost_view(tables["host_time"]).drop(columns="Compared")))
    if "predicted" in tables:
        found = tables["predicted"]
        for (device, pass_, dtype), group in found.groupby(["device", "pass", "dtype"], sort=False):
            ratios = group["bytes_ratio"]
            lines.append(
                f"  predicted for {device}, {pass_title(pass_)}, {dtype}: fused kernels move "
                f"{significant(ratios.min())} to {significant(ratios.max())} of eager's bytes over {len(group)} cases"
            )
    lines += _missing(records, tables)
    return "\n".join(lines)


def write_bench_tables(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Write each table as ``<name>.csv`` in full and, as its reader sees it, ``<name>.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_csv(table, folder / f"{name}.csv")
        (folder / f"{name}.md").write_text(markdown(_view(name, table)), encoding="utf-8")


def _view(name: str, table: pd.DataFrame) -> pd.DataFrame:
    if name == "kernel_speed":
        return pd.concat([case_view(table, backend) for backend in OURS], ignore_index=True).fillna("–")
    if name == "kernel_speed_means":
        return mean_view(table, families=True)
    return host_cost_view(table) if name == "host_time" else prediction_view(table)


def _compared(records: BenchRecords) -> list[str]:
    selected = select(records)
    rows = selected.rows
    if rows.empty:
        lines = [f"{len(records.cases)} cases are listed; none has been timed."] if len(records.cases) else []
    else:
        processes = rows["process"].nunique()
        cards = ", ".join(sorted({text or "no GPU" for text in rows["gpu"]}))
        lines = [f"{rows['case'].nunique()} cases on {cards}, {len(rows)} rows from {processes} processes."]
        versions = rows[["torch", "triton", "cuda", "driver", "conv_library"]].drop_duplicates().iloc[-1]
        commits = ", ".join(sorted({commit[:12] or "not recorded" for commit in rows["commit"]}))
        lines.append(
            f"PyTorch {versions['torch']}, Triton {versions['triton']}, CUDA {versions['cuda']}, driver "
            f"{versions['driver']}, {versions['conv_library']}; commit {commits}."
        )
    if len(records.predictions):
        found = records.predictions
        cards = ", ".join(dict.fromkeys(found["device"]))
        lines.append(f"Bounds of {found['case'].nunique()} cases on {cards}, worked out and not measured.")
    if len(records.host_cost):
        lines.append(f"Host time of a step on {', '.join(sorted(set(records.host_cost['cpu'])))}.")
    if selected.older:
        lines.append(f"{selected.older} rows of earlier code or versions are left out.")
    if selected.interpreted:
        lines.append(f"{selected.interpreted} rows are interpreted: not a speed measurement, and in no ratio.")
    return lines


def _missing(records: BenchRecords, tables: dict[str, pd.DataFrame]) -> list[str]:
    lines = [] if len(records.timings) else ["No time of a layer or network is in these records."]
    wrong = records.correctness[~records.correctness["status"].isin(["right", "unsupported"])]
    for _, row in wrong.drop_duplicates(["case", "backend", "dtype"], keep="last").iterrows():
        lines.append(f"{row['case']}, {row['dtype']}: {row['backend']} is {row['status']} ({row['reason']}).")
    if "kernel_speed" in tables:
        ratios = tables["kernel_speed"]
        auto = ratios[(ratios["backend"] == "auto") & (ratios["opponent"] == BEST)]
        missing = int((auto["status"] != MEASURED).sum())
        if missing:
            lines.append(f"auto beside the best opponent: {missing} of {len(auto)} cases and passes are not measured.")
    return lines


def _speed_parts(records: BenchRecords, tables: dict[str, pd.DataFrame], figures: Sequence[Figure]) -> list[str]:
    notes = [
        "A ratio is the opponent's time over ours: above 1 we are faster. A geometric mean is over every case of the "
        "suite's list, fixed beforehand, losers included; it is not formed while one is missing. Intervals are "
        "bootstraps over processes. Memory is ours over cuDNN channels_last's."
    ]
    whole = mean_view(tables["kernel_speed_means"], families=False)
    means = tables["kernel_speed_means"]
    families = mean_view(means[(means["pass"] == "train") & (means["backend"] == "auto")], families=True)
    parts = [page.table(whole), page.paragraphs(notes)]
    parts.append(page.figure_grid([figure for figure in figures if figure.section == "ratios"], wide=True))
    if len(families):
        parts += [
            "<h3>By family, auto, training step</h3>",
            page.table(families.drop(columns=["Pass", "Backend"])),
        ]
    return parts


def _case_parts(ratios: pd.DataFrame) -> list[str]:
    parts = []
    for backend in OURS:
        parts += [f"<h3>{page.text(backend)}</h3>", page.table(case_view(ratios, backend))]
    return parts

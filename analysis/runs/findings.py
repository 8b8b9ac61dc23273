"""What the records say, in sentences: the first screen of the report and the text a sweep prints at its end."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from tidepool.analysis.conditions import CONDITION, REFERENCE, condition_title, device_names
from tidepool.analysis.runs.records import Records
from tidepool.analysis.runs.speed import MEASURED
from tidepool.analysis.runs.views import equivalence_text, shown
from tidepool.analysis.text import UNTIMED, number, plain, significant

_MOST_RESULTS = 6


def title(records: Records) -> str:
    """``triton beside cudnn: lenet5 on digits``; counts where there are several networks or data sets."""
    names = _distinct(records.runs["backend"])
    others = [name for name in names if name != REFERENCE]
    sides = ", ".join(others or names) + (f" beside {REFERENCE}" if others and REFERENCE in names else "")
    return f"{sides}: {_some(records.runs['model'], 'networks')} on {_some(records.runs['data'], 'data sets')}"


def compared(records: Records) -> list[str]:
    """What was compared: how many runs of what, on which backends and seeds."""
    runs = records.runs
    libraries = []
    for name in _distinct(runs["backend"]):
        mine = runs[runs["backend"].map(lambda b, name=name: str(b) == name)]
        ran = [text for text in _distinct(mine["conv_library"]) if text not in (name, "?")]
        libraries.append(f"{name} (ran on {', '.join(ran)})" if ran else name)
    networks, data, dtypes = (_some(runs[column], column) for column in ("model", "data", "dtype"))
    seeds = _seed_text(runs["seed"])
    kinds = [f"{count} {status}" for status, count in sorted(Counter(runs["status"]).items(), key=_status_order)]
    return [
        f"{_count(len(runs), 'run')} ({', '.join(kinds)}) of {networks} on {data}, {dtypes}, {seeds}.",
        f"Backends: {'; '.join(libraries)}.",
    ]


def machines(records: Records) -> list[str]:
    """On what it ran: processors and versions as the runs recorded them."""
    runs = records.runs
    devices = Counter(device_names(runs))
    parts = [name if len(devices) == 1 else f"{name} ({_count(n, 'run')})" for name, n in sorted(devices.items())]
    lines = ["; ".join("machine not recorded" if part == "?" else part for part in parts)]
    lines[0] += "." if has_gpu(records) else "; no GPU."
    if "environment/commit" in runs and runs["environment/commit"].notna().any():
        dirty = runs["environment/dirty"].map(lambda v: v is True).any() if "environment/dirty" in runs else False
        commits = ", ".join(commit[:12] for commit in _distinct(runs["environment/commit"].dropna()))
        lines.append(f"Commit {commits}{', with uncommitted changes' if dirty else ''}.")
    versions = [
        f"{label} {', '.join(_distinct(runs[f'environment/{key}'].dropna()))}"
        for key, label in (
            ("python", "Python"),
            ("torch", "PyTorch"),
            ("triton", "Triton"),
            ("cuda", "CUDA"),
            ("cudnn", "cuDNN"),
        )
        if f"environment/{key}" in runs and runs[f"environment/{key}"].notna().any()
    ]
    if versions:
        lines.append(", ".join(versions) + ".")
    return lines


def results(accuracy: pd.DataFrame, limit: int = _MOST_RESULTS) -> list[str]:
    """One sentence for each condition and backend beside the reference; the mean alone where there is no reference."""
    lines = []
    several = len(accuracy[CONDITION].drop_duplicates()) > 1
    by_key = {(*(row[name] for name in CONDITION), row["backend"]): row for row in accuracy.to_dict("records")}
    for key, row in by_key.items():
        reference = by_key.get((*key[:-1], REFERENCE))
        if row["backend"] == REFERENCE and any(other[:-1] == key[:-1] and other != key for other in by_key):
            continue
        prefix = f"{condition_title(dict(zip(CONDITION, key, strict=False)))}: " if several else "Test accuracy: "
        lines.append(prefix + _result(row, reference))
    if len(lines) > limit:
        return [*lines[:limit], f"{len(lines) - limit} more in the accuracy table."]
    return lines


def not_measured(records: Records, tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """What these records do not show, each in a sentence."""
    lines = []
    speed, accuracy = tables["speed"], tables["accuracy"]
    for words in UNTIMED.values():
        untimed = _distinct(speed.loc[speed["measurement"] == words, "backend"])
        if untimed:
            lines.append(f"Speed of {', '.join(untimed)}: {words}. It is in no ratio and no bar.")
    if not lines and speed["speedup_vs_cudnn"].isna().all():
        lines.append("No speed ratio: no backend ran compiled beside the reference on the same machine.")
    if not has_gpu(records):
        lines.append("Nothing here ran on a GPU.")
    verdicts = accuracy.loc[accuracy["backend"] != REFERENCE, "equivalence"].astype(str)
    few = int(verdicts.str.startswith("too few seeds").sum())
    if few:
        lines.append(f"Equivalence: too few seeds for a verdict in {_of(few, len(verdicts), 'comparison')}.")
    undeclared = int((verdicts == "margin not declared").sum())
    if undeclared:
        lines.append(f"Equivalence: margin not declared in {_of(undeclared, len(verdicts), 'comparison')}.")
    left_out = Counter(status for status in records.runs["status"] if status != "finished")
    if left_out:
        kinds = ", ".join(f"{count} {status}" for status, count in sorted(left_out.items(), key=_status_order))
        lines.append(f"{kinds} of {_count(len(records.runs), 'run')}: counted in the tables, in no mean.")
    if tables["agreement"].empty:
        lines.append("The first losses could not be compared: no seed was run on both sides.")
    if (speed["measurement"] == MEASURED).any():
        lines.append("Step times are those of training runs, with whatever else the machine was doing meanwhile.")
    return lines


def agreement(table: pd.DataFrame) -> str:
    """One sentence on the first losses; empty where none could be compared."""
    if table.empty:
        return ""
    worst = table["max_relative_difference"].max(skipna=False)
    size = "NaN" if math.isnan(worst) else significant(worst, 2)
    limits = sorted(set(table["limit"].dropna()))
    limit = f"; limit {limits[0]:g} in fp32" if limits else ""
    agree = int((table["agreement"] == "agrees").sum())
    judged = int(table["agreement"].isin(["agrees", "differs"]).sum())
    count = f"; {agree} of {judged} agree" if judged else ""
    return f"First losses, same seed: largest relative difference {size}{limit}{count}."


def questions(records: Records) -> list[str]:
    """The description of each sweep the runs belong to, as it was declared."""
    return [
        " ".join(str(sweep["description"]).split())
        for _, sweep in sorted(records.sweeps.items())
        if isinstance(sweep.get("description"), str) and sweep["description"].strip()
    ]


def terminal_text(records: Records, tables: Mapping[str, pd.DataFrame]) -> str:
    """The whole comparison as plain text, one block a question."""
    lines = [title(records), "", *compared(records), *machines(records), "", "Test accuracy"]
    accuracy = shown("accuracy", tables["accuracy"])
    lines += _grouped(accuracy.drop(columns=["Method", "Equivalence"]))
    lines += [*_bullets(results(tables["accuracy"])), ""]
    if sentence := agreement(tables["agreement"]):
        lines += [sentence, ""]
    speed = shown("speed", tables["speed"])
    if not speed.empty:
        lines += ["Speed in training", *_grouped(speed.drop(columns=["Machine", "Kernels", "p20–p80 ms"])), ""]
    missing = not_measured(records, tables)
    if missing:
        lines += ["Not measured", *_bullets(missing)]
    return "\n".join(lines).rstrip() + "\n"


def has_gpu(records: Records) -> bool:
    """Whether any run recorded a GPU."""
    names = [column for column in ("environment/gpu", "environment/gpu_name") if column in records.runs]
    return any(isinstance(value, str) and value != "" for name in names for value in records.runs[name])


def _result(row: Any, reference: Any) -> str:
    mine = _mean_text(row)
    if reference is None or row["backend"] == REFERENCE:
        return f"{mine}. No {REFERENCE} runs to compare." if row["backend"] != REFERENCE else f"{mine}."
    text = f"{mine}; {_mean_text(reference)}."
    difference = row["difference_points"]
    if not math.isnan(difference):
        low, high = row["difference_ci95_low_points"], row["difference_ci95_high_points"]
        if math.isnan(low) or math.isnan(high):
            interval = "too few values for an interval"
        elif low == high:
            interval = "no spread and so no interval"
        else:
            interval = f"95 % interval {number(low, 2, signed=True)} to {number(high, 2, signed=True)}"
        text += f" Difference {number(difference, 2, signed=True)} points, {interval}, {row['difference_method']}."
    verdict = equivalence_text(row)
    if verdict.startswith(("equivalen", "different")):
        return f"{text} {verdict[0].upper()}{verdict[1:]}."
    return f"{text} Equivalence: {verdict}."


def _mean_text(row: Any) -> str:
    n, mean = int(row["n_seeds"]), row["test_accuracy_mean_percent"]
    if n == 0:
        return f"{row['backend']}: no finished run"
    value = "NaN" if math.isnan(mean) else f"{number(mean, 2)} %"
    spread = "" if math.isnan(row["test_accuracy_std_points"]) else f", sd {number(row['test_accuracy_std_points'], 2)}"
    return f"{row['backend']} {value} (n = {n}{spread})"


def _grouped(view: pd.DataFrame) -> list[str]:
    lines = []
    for name, group in view.groupby("Compared", sort=False):
        lines += [f"  {name}", plain(group.drop(columns="Compared"), indent="    ")]
    return lines


def _bullets(lines: Iterable[str]) -> list[str]:
    return [textwrap.fill(line, 110, initial_indent="  - ", subsequent_indent="    ") for line in lines]


def _distinct(values: Iterable[Any]) -> list[str]:
    return sorted({"?" if value is None else str(value) for value in values if value == value})


def _some(values: Iterable[Any], plural: str) -> str:
    names = _distinct(values)
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} {plural}"


def _seed_text(seeds: Iterable[Any]) -> str:
    distinct = {seed for seed in seeds if seed is not None}
    if not distinct:
        return "no seed recorded"
    if len(distinct) == 1:
        return f"seed {next(iter(distinct))}"
    if all(isinstance(seed, int) for seed in distinct) and max(distinct) - min(distinct) == len(distinct) - 1:
        return f"seeds {min(distinct)}–{max(distinct)}"
    return f"{len(distinct)} seeds"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _of(part: int, whole: int, noun: str) -> str:
    return f"the one {noun}" if part == whole == 1 else f"{part} of {_count(whole, noun)}"


def _status_order(item: tuple[str, int]) -> tuple[bool, str]:
    return (item[0] != "finished", item[0])

"""The verdicts at the top of the page: accuracy, speed, the best run, how runs ended, what was left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from tidepool.analysis.conditions import REFERENCE, varying_settings
from tidepool.analysis.page import Badge
from tidepool.analysis.runs.findings import has_gpu
from tidepool.analysis.runs.records import Records
from tidepool.analysis.runs.speed import MEASURED
from tidepool.analysis.text import UNTIMED, number, significant


def verdicts(records: Records, tables: Mapping[str, pd.DataFrame], whole: Records) -> list[Badge]:
    """One badge a question, in the order a reader asks them; ``records`` are those of ``whole`` that are compared,
    beside which it may hold searches."""
    best = _best(records, "Best compared run" if len(records.runs) < len(whole.runs) else "Best run")
    found = [_accuracy(tables["accuracy"]), _speed(records, tables["speed"]), best, _ended(whole)]
    return [badge for badge in (*found, *left_out_badge(records)) if badge is not None]


def left_out_badge(records: Records) -> list[Badge]:
    """On records that could not be read; none where all could."""
    count = len(records.left_out)
    named = Badge("Left out", f"{count} record{'s' * (count > 1)}", "named at the end of this page", "bad")
    return [named] if count else []


def _accuracy(accuracy: pd.DataFrame) -> Badge | None:
    compared = accuracy[accuracy["difference_method"] != ""].to_dict("records")
    if not compared:
        return None
    if len(compared) == 1:
        return _one_accuracy(compared[0])
    equal = sum(row["equivalence"] == "equivalent" for row in compared)
    differ = sum(str(row["equivalence"]).startswith("different") for row in compared)
    identical = sum(str(row["equivalence"]).startswith("identical") for row in compared)
    parts = [(equal, "equal within their margin"), (identical, "identical at every seed"), (differ, "different")]
    note = ", ".join(f"{count} {words}" for count, words in parts if count)
    open_ = len(compared) - equal - identical - differ
    note += f"{', ' if note else ''}{open_} without a verdict" if open_ else ""
    tone = "bad" if differ else "good" if not open_ else "warn"
    return Badge("Accuracy", f"{equal + identical} of {len(compared)} comparisons equal", note, tone)


def _one_accuracy(row: Any) -> Badge:
    margin = "" if math.isnan(row["margin_points"]) else f"±{row['margin_points']:g} points"
    seeds = f"{row['n_seeds']} seeds"
    low, high = row["difference_ci95_low_points"], row["difference_ci95_high_points"]
    difference = f"{row['backend']} − {row['reference']}: {number(row['difference_points'], 2, signed=True)} points"
    if not math.isnan(low) and low < high:
        difference += f", 95 % {number(low, 2, signed=True)} to {number(high, 2, signed=True)}"
    words = str(row["equivalence"])
    if words == "equivalent":
        return Badge("Accuracy", f"equal within {margin}, {seeds}", difference, "good")
    if words.startswith("identical"):
        return Badge("Accuracy", f"identical at every seed, {seeds}", f"{difference}; margin {margin}", "good")
    if words.startswith("different"):
        return Badge("Accuracy", f"differs by more than {margin}", f"{difference}; {seeds}", "bad")
    return Badge("Accuracy", words, difference + (f"; margin {margin}" if margin else ""), "warn")


def _speed(records: Records, speed: pd.DataFrame) -> Badge:
    ratios = speed[speed["speedup_vs_cudnn"].notna()].to_dict("records")
    if ratios:
        best = max(ratios, key=lambda row: row["speedup_vs_cudnn"])
        low, high = best["speedup_ci95_low"], best["speedup_ci95_high"]
        spread = "" if math.isnan(low) else f", 95 % {significant(low)} to {significant(high)}"
        note = f"{best['model']}, {best['backend']} over {REFERENCE}, {best['device']}{spread}"
        if len(ratios) > 1:
            note += f"; slowest of {len(ratios)}: {significant(min(row['speedup_vs_cudnn'] for row in ratios))}×"
        sure = low > 1 if not math.isnan(low) else False
        return Badge("Speed in training", f"{significant(best['speedup_vs_cudnn'])}×", note, "good" if sure else "")
    untimed = sorted(mode for mode, words in UNTIMED.items() if (speed["measurement"] == words).any())
    reason = f"kernels {' and '.join(untimed)}" if untimed else "no backend ran compiled beside the reference"
    if (speed["measurement"] == MEASURED).any() and not has_gpu(records):
        reason += "; no GPU"
    return Badge("Speed", "not measured", reason)


def _best(records: Records, name: str) -> Badge | None:
    """The finished run with the highest validation accuracy, or test accuracy where there is no validation split."""
    finished = records.runs[records.runs["status"] == "finished"]
    by = "val_accuracy" if finished["val_accuracy"].notna().any() else "test_accuracy"
    if finished.empty or not finished[by].notna().any():
        return None
    place = int(finished[by].argmax())
    run = finished.iloc[place]
    settings = varying_settings(records.runs)
    at = list(records.runs.index).index(finished.index[place])
    chosen = [f"{name} {_short(texts[at])}" for name, texts in settings.items()]
    seed = [] if run["seed"] is None else [f"seed {run['seed']}"]
    note = ", ".join([str(run["model"]), str(run["backend"]), *chosen[:6], *seed])
    if by == "test_accuracy":
        return Badge(name, f"{number(100 * run[by], 2)} % on the test split", f"{note}; chosen by test accuracy")
    test = "" if math.isnan(run["test_accuracy"]) else f"; test {number(100 * run['test_accuracy'], 2)} %"
    return Badge(f"{name} by validation", f"{number(100 * run[by], 2)} %{test}", note)


def _short(text: str) -> str:
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text


def _ended(records: Records) -> Badge:
    count = Counter(records.runs["status"].tolist())
    total = len(records.runs)
    rest = ", ".join(f"{number_} {name}" for name, number_ in sorted(count.items()) if name != "finished")
    tone = "bad" if count["diverged"] or count["failed"] else "warn" if rest else "good"
    return Badge("Runs", f"{count['finished']} of {total} finished", rest or "none failed, none diverged", tone)

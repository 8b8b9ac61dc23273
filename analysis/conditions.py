"""Which runs may be compared: those that differ only in backend and seed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

REFERENCE = "cudnn"

Condition = dict[str, str]
# Config fields that do not change what is trained: two runs that differ only here are repeats of one another.
_BOOKKEEPING = frozenset(
    {"data", "model", "dtype", "backend", "seed", "run_dir", "name", "group", "project", "track", "resume", "progress",
     "data_dir", "device", "eval_every", "log_every", "checkpoint_every",
     "checkpoint_every_steps", "checkpoint_every_minutes", "keep_checkpoints", "schema_version"}
)  # fmt: skip
CONDITION = ["data", "model", "dtype", "settings"]
NONE = "none"
NOT_GIVEN = ("none", "false", "0", "0.0", "", "{}", "[]")
"""Texts of values that a setting has where it is not used; what a run without the field is taken for."""


def conditions(runs: pd.DataFrame) -> Iterator[tuple[Condition, pd.DataFrame]]:
    """Split runs into those that differ only in backend and seed, in a fixed order.

    Yields ({"data", "model", "dtype", "settings"}, the runs); ``settings`` names, as ``lr=0.1, epochs=3``, the other
    config fields that vary among the runs of that data set, network and dtype, and is empty where none does. Runs of
    different settings are never pooled into one mean. A field that some runs lack, because they are older than it, does
    not set them apart from runs that have it and do not use it.
    """
    frame, spans = ordered(runs)
    for condition, start, end in spans:
        yield condition, frame.iloc[start:end]


def ordered(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[Condition, int, int]]]:
    """The runs with their CONDITION as columns, in order, and the span of rows of each condition (`conditions`)."""
    named = {name: ["?" if value is None else str(value) for value in runs[name]] for name in CONDITION[:3]}
    frame = runs.assign(**named, settings=_settings(list(zip(*named.values(), strict=True)), varying_settings(runs)))
    frame = frame.iloc[_order(frame)]
    keys = list(zip(*(frame[name].tolist() for name in CONDITION), strict=True))
    starts = [i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
    spans = zip(starts, [*starts[1:], len(keys)], strict=True)
    return frame, [(dict(zip(CONDITION, keys[start], strict=True)), start, end) for start, end in spans]


def rows_by(names: list[Any], start: int, end: int) -> dict[str, list[int]]:
    """Where each name stands from ``start`` to ``end``, in order of first occurrence."""
    rows: dict[str, list[int]] = {}
    for row in range(start, end):
        rows.setdefault(str(names[row]), []).append(row)
    return rows


def _settings(kinds: list[tuple[str, ...]], texts: dict[str, list[str]]) -> list[str]:
    """The settings of each run that vary among those of its kind: ``lr=0.1, epochs=3``."""
    varying = {name: _varying_kinds(kinds, column) for name, column in texts.items()}
    return [
        ", ".join(f"{name}={column[i]}" for name, column in texts.items() if kind in varying[name])
        for i, kind in enumerate(kinds)
    ]


def _varying_kinds(kinds: list[tuple[str, ...]], column: list[str]) -> set[tuple[str, ...]]:
    first: dict[tuple[str, ...], str] = {}
    return {kind for kind, text in zip(kinds, column, strict=True) if first.setdefault(kind, text) != text}


def varying_settings(runs: pd.DataFrame) -> dict[str, list[str]]:
    """The settings that vary among runs of one data set, network and dtype, by name, as texts a run each; backend, seed
    and bookkeeping left out."""
    kinds = [tuple(map(str, row)) for row in zip(*(runs[name].tolist() for name in CONDITION[:3]), strict=True)]
    names = [name for name in runs.columns if name.startswith("config/") and name[7:] not in _BOOKKEEPING]
    texts = {name[7:]: _texts(runs[name].tolist()) for name in names}
    return {name: column for name, column in texts.items() if _varying_kinds(kinds, column)}


def condition_title(condition: Condition) -> str:
    """``lenet5 on digits, fp32`` and, where settings vary, ``; lr=0.1``."""
    title = f"{condition['model']} on {condition['data']}, {condition['dtype']}"
    return f"{title}; {condition['settings']}" if condition["settings"] else title


def backends(group: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The runs of each backend, the reference last."""
    names = group["backend"].tolist()
    distinct = list(dict.fromkeys(names))
    for name in distinct:
        yield str(name), group if len(distinct) == 1 else group[[other == name for other in names]]


def device_name(run: Any) -> str:
    """The accelerator a run's environment names, or else its CPU, or ``?``."""
    for names in (("gpu", "gpu_name"), ("cpu", "cpu_name", "host_cpu")):
        for name in names:
            value = run.get(f"environment/{name}")
            if isinstance(value, str) and value:
                return value
    return "?"


def device_names(runs: pd.DataFrame) -> list[str]:
    """`device_name` of each run."""
    wanted = [f"environment/{name}" for name in ("gpu", "gpu_name", "cpu", "cpu_name", "host_cpu")]
    there = [name for name in wanted if name in runs]
    rows = zip(*(runs[name].tolist() for name in there), strict=True) if there else [()] * len(runs)
    return [device_name(dict(zip(there, row, strict=True))) for row in rows]


def _texts(values: list[Any]) -> list[str]:
    """The values of one setting as texts. Where a value is missing or None and others have one that stands for "not
    used", it is that one."""
    known: dict[Any, str] = {}
    texts = [_remembered(value, known) for value in values]
    distinct = set(texts)
    if NONE in distinct and len(distinct) > 1:
        unused = next((text for text in NOT_GIVEN[1:] if text in distinct), NONE)
        texts = [unused if text == NONE else text for text in texts]
    return texts


def _remembered(value: Any, known: dict[Any, str]) -> str:
    try:
        key = (value.__class__, value)
        if key not in known:
            known[key] = _value_text(value)
        return known[key]
    except TypeError:  # a list or a mapping
        return _value_text(value)


def _value_text(value: Any) -> str:
    if value is None:
        return NONE
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _order(frame: pd.DataFrame) -> np.ndarray:
    """Where each row belongs: by condition, backend with the reference last, seed, run."""
    columns = [frame[name].tolist() for name in (*CONDITION, "backend", "seed", "run")]
    keys = [(*row[:4], row[4] == REFERENCE, str(row[4]), _seed_order(row[5]), str(row[6]))
            for row in zip(*columns, strict=True)]  # fmt: skip
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.intp)


def _seed_order(seed: Any) -> tuple[int, float, str]:
    return (0, seed, "") if isinstance(seed, int | float) else (1, 0.0, str(seed))

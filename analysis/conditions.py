"""Which runs may be compared: those that differ only in backend and seed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd

REFERENCE = "cudnn"

# Config fields that do not change what is trained: two runs that differ only here are repeats of one another.
_BOOKKEEPING = frozenset(
    {"data", "model", "dtype", "backend", "seed", "run_dir", "name", "group", "project", "track", "resume", "progress",
     "data_dir", "device", "eval_every", "log_every", "checkpoint_every",
     "checkpoint_every_steps", "checkpoint_every_minutes", "keep_checkpoints", "schema_version"}
)  # fmt: skip
CONDITION = ["data", "model", "dtype", "settings"]


def conditions(runs: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Split runs into those that differ only in backend and seed, in a fixed order.

    Yields ({"data", "model", "dtype", "settings"}, the runs); ``settings`` names, as ``lr=0.1, epochs=3``, the other
    config fields that vary among the runs given, and is empty where none does. Runs of different settings are never
    pooled into one mean.
    """
    fields = [name for name in runs.columns if name.startswith("config/") and name[7:] not in _BOOKKEEPING]
    texts = {name: runs[name].map(_value_text) for name in fields}
    varying = [name for name in fields if texts[name].nunique() > 1]
    frame = runs.assign(
        **{name: runs[name].map(lambda v: "?" if v is None else str(v)) for name in ("data", "model", "dtype")},
        settings=[", ".join(f"{n[7:]}={texts[n].iloc[i]}" for n in varying) for i in range(len(runs))],
    )
    for _, group in frame.groupby(CONDITION, sort=True):
        order = group.assign(_seed=group["seed"].map(_seed_order), _backend=group["backend"].map(_backend_order))
        ordered = order.sort_values(["_backend", "_seed", "run"]).drop(columns=["_seed", "_backend"])
        yield {name: str(group[name].iloc[0]) for name in CONDITION}, ordered


def condition_title(condition: dict[str, str]) -> str:
    """``lenet5 on digits, fp32`` and, where settings vary, ``; lr=0.1``."""
    title = f"{condition['model']} on {condition['data']}, {condition['dtype']}"
    return f"{title}; {condition['settings']}" if condition["settings"] else title


def backends(group: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The runs of each backend, the reference last."""
    for name in dict.fromkeys(group["backend"]):
        yield str(name), group[group["backend"].map(lambda b, name=name: b == name)]


def device_name(run: pd.Series) -> str:
    """The accelerator a run's environment names, or else its CPU, or ``?``."""
    for names in (("gpu", "gpu_name"), ("cpu", "cpu_name", "host_cpu")):
        for name in names:
            value = run.get(f"environment/{name}")
            if isinstance(value, str) and value:
                return value
    return "?"


def _value_text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _seed_order(seed: Any) -> tuple[int, float, str]:
    return (0, seed, "") if isinstance(seed, int | float) else (1, 0.0, str(seed))


def _backend_order(backend: Any) -> tuple[bool, str]:
    return (backend == REFERENCE, str(backend))

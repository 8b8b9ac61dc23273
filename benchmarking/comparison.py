"""What is to be compared, and what of it the records hold already."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tidepool.benchmarking import machine
from tidepool.benchmarking.cases import Case, LayerCase
from tidepool.benchmarking.model_workload import MODEL_PASSES
from tidepool.benchmarking.opponents import Backend
from tidepool.benchmarking.precision import precision_record, set_precision
from tidepool.benchmarking.records import checks, timings
from tidepool.benchmarking.workload import PASSES, plan_text
from tidepool.kernels.auto import table as plan_table
from tidepool.kernels.layer.dtypes import BY_NAME

TIMED, WRONG, UNSUPPORTED, CRASHED = "timed", "wrong", "unsupported", "crashed"
OUT_OF_MEMORY, FAILED, RIGHT = "out of memory", "failed", "right"


@dataclass(frozen=True)
class Comparison:
    """What to compare and how; `replicate` counts fresh processes from 0."""

    out: Path
    suite: str
    cases: tuple[Case, ...]
    backends: tuple[Backend, ...]
    dtype: str
    passes: tuple[str, ...]
    replicate: int = 0
    rounds: int = 1
    cuda_graph: bool = False
    seed: int = 0
    since: str = ""  # only rows measured at that time or later count as measured

    def passes_of(self, case: Case) -> tuple[str, ...]:
        """The asked passes that there are for a case."""
        existing = PASSES if isinstance(case, LayerCase) else MODEL_PASSES
        return tuple(pass_ for pass_ in self.passes if pass_ in existing)

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages whose code is timed."""
        return ("kernels", "models") if self.suite == "models" else ("kernels",)


Item = tuple[Case, str]


def remaining(comparison: Comparison, device: torch.device) -> list[Item]:
    """The cases and passes of a comparison that have not been measured yet with this code on this card."""
    found = measured(comparison, device)
    return [
        (case, pass_)
        for case in comparison.cases
        for pass_ in comparison.passes_of(case)
        if any((case.name, pass_, backend.name) not in found for backend in comparison.backends)
    ]


def measured(comparison: Comparison, device: torch.device) -> dict[tuple[str, str, str], str]:
    """Status by (case, pass, backend) of what this replicate need not measure again.

    A crash counts for every replicate: what ended one process would end the next. A time of `auto` counts while it
    would still run as it did.
    """
    identity = machine.identity(machine.machine_record(device, comparison.packages))
    wanted = {"dtype": comparison.dtype, "cuda_graph": comparison.cuda_graph, **identity}
    texts = {name: "" if value is None else str(value) for name, value in wanted.items()}
    rows, _ = timings(comparison.out).read()
    plans = _plans(comparison, device)
    return {
        (row["case"], row["pass"], row["backend"]): row["status"]
        for row in rows
        if all(row[name] == text for name, text in texts.items())
        and row["measured_at"] >= comparison.since
        and (row["replicate"] == str(comparison.replicate) or row["status"] == CRASHED)
        and row["plan"] in ("", plans.get(row["case"]))
    }


def _plans(comparison: Comparison, device: torch.device) -> dict[str, str]:
    """How `auto` would run each layer now, by its tables as they are on disk, on one line as records hold it."""
    set_precision(comparison.dtype)
    plan_table.forget()
    dtype = BY_NAME[comparison.dtype]
    layers = [case for case in comparison.cases if isinstance(case, LayerCase)]
    return {case.name: " ".join(plan_text(case, dtype, device).split()) for case in layers}


def checked(comparison: Comparison, environment: dict[str, Any]) -> set[tuple[str, str]]:
    """(case, backend) of rows in correctness.csv of this dtype, code and card."""
    wanted = {"dtype": comparison.dtype, **machine.identity(environment)}
    texts = {name: "" if value is None else str(value) for name, value in wanted.items()}
    rows, _ = checks(comparison.out).read()
    return {(row["case"], row["backend"]) for row in rows if all(row[name] == text for name, text in texts.items())}


def unchecked(comparison: Comparison, device: torch.device) -> tuple[Case, ...]:
    """The cases that correctness.csv does not have every backend of."""
    found = checked(comparison, machine.machine_record(device, comparison.packages))
    names = [backend.name for backend in comparison.backends]
    return tuple(case for case in comparison.cases if any((case.name, name) not in found for name in names))


def check_row(
    comparison: Comparison,
    environment: dict[str, Any],
    case: Case,
    backend: Backend,
    status: str,
    reason: str | None,
    judged: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A row of correctness.csv; `judged` says how, where it came to that."""
    return {
        "measured_at": machine.now(),
        "suite": comparison.suite,
        "case": case.name,
        "backend": backend.name,
        "dtype": comparison.dtype,
        "status": status,
        "reason": reason,
        **(judged or {}),
        **{name: environment[name] for name in ("gpu", "torch", "triton", "commit", "source")},
    }


def timing_row(
    comparison: Comparison,
    environment: dict[str, Any],
    process: str,
    case: Case,
    pass_: str,
    backend: Backend,
    status: str,
    reason: str | None,
) -> dict[str, Any]:
    """A row of timings.csv without its figures."""
    return {
        "measured_at": machine.now(),
        "process": process,
        "replicate": comparison.replicate,
        "suite": comparison.suite,
        "case": case.name,
        "family": case.family,
        "pass": pass_,
        "backend": backend.name,
        "dtype": comparison.dtype,
        "status": status,
        "reason": reason,
        "rounds": comparison.rounds,
        "cuda_graph": comparison.cuda_graph,
        "kernel_mode": machine.mode_of(backend.op),
        **precision_record(),
        **environment,
    }

"""What a sweep reads and writes as files: its own sweep.json, and the records its runs leave."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidepool.records import RecordError, decode, metric_lines, number, read_json, write_json
from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.parameters import read_parameter
from tidepool.sweeping.points import parameters_key
from tidepool.sweeping.spec import Sweep, parse_margin

SWEEP_FILE = "sweep.json"
# What decides which runs there are and how they are judged; the rest of a sweep file may be reworded at any time.
_DECIDING_KEYS = ("program", "method", "command", "metric", "early_terminate")


def write_sweep_file(sweep: Sweep, directory: Path) -> None:
    """Write sweep.json: the sweep file as loaded, its name, and the margin declared in its description."""
    own = {"name": sweep.name, "margin_points": sweep.margin_points}
    write_json(directory / SWEEP_FILE, {**sweep.content, **own})


def read_sweep_file(directory: Path) -> dict[str, Any] | None:
    """The sweep.json in `directory`, or None where there is none.

    Raises:
        SweepError: it cannot be read.
    """
    try:
        return read_json(directory / SWEEP_FILE)
    except RecordError as error:
        raise SweepError(str(error)) from None


def check_same_sweep(sweep: Sweep, earlier: Mapping[str, Any], where: str) -> None:
    """Refuse to resume `earlier` (content of a sweep.json) under a file that asks for something else.

    A grid may gain values and run_cap may change: no run already made loses its place. The margin may not: it was
    declared before the runs.

    Raises:
        SweepError: one line with file, key and what to do.
    """
    way_out = f"give the sweep another name or remove {where}"
    for key in _DECIDING_KEYS:
        if sweep.content.get(key) != earlier.get(key):
            raise SweepError(f"{sweep.path}: {key}: differs from {where}; {way_out}")
    if parse_margin(earlier.get("description", "")) != sweep.margin_points:
        reason = f"differs from {where}, and a margin is declared before the runs; {way_out}"
        raise SweepError(f"{sweep.path}: description: the margin {reason}")
    old, new = earlier.get("parameters", {}), sweep.content["parameters"]
    for name in sorted({*old, *new}):
        if name in old and name in new:
            same = old[name] == new[name] and repr(old[name]) == repr(new[name])
            if same or (sweep.method == "grid" and _only_adds(name, old[name], new[name])):
                continue
        raise SweepError(f"{sweep.path}: parameters.{name}: differs from {where}; {way_out}")


def _only_adds(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    before, after = (
        {parameters_key({name: value}) for value in read_parameter(name, settings, method="grid").grid_values()}
        for settings in (old, new)
    )
    return before <= after


def read_summary(run_dir: Path) -> dict[str, Any]:
    """The summary.json of a run, or an empty mapping where there is none to read."""
    try:
        return read_json(run_dir / "summary.json") or {}
    except RecordError:
        return {}


def metric_history(run_dir: Path, name: str) -> list[float]:
    """Every value of the metric `name` in a run's metrics.jsonl, in the order it was logged; NaN left as it is."""
    try:
        found = [_number(row.get(name)) for _, row in metric_lines(run_dir / "metrics.jsonl") if row is not None]
    except OSError:
        return []
    return [value for value in found if value is not None]


def metric_value(run_dir: Path, name: str) -> float | None:
    """The finite value a finished run has for the metric `name` (``test/accuracy``), or None.

    From its summary (``test_accuracy``) where it is there, else the last that was logged.
    """
    number = _number(read_summary(run_dir).get(name.replace("/", "_")))
    if number is None:
        history = metric_history(run_dir, name)
        number = history[-1] if history else None
    return number if number is not None and math.isfinite(number) else None


def _number(value: Any) -> float | None:
    value = decode(value)
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def write_failure(run_dir: Path, params: Mapping[str, Any], reason: str) -> None:
    """Give a run that ended before it wrote any record the least a comparison needs to count it.

    Its summary.json says that it failed and why. Where another run of the sweep has a config.json, so does it: that
    run's settings with `params`.
    """
    if (run_dir / "summary.json").exists():
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    if not (run_dir / "config.json").exists():
        for sibling in sorted(run_dir.parent.glob("*/config.json")):
            with contextlib.suppress(RecordError):
                write_json(run_dir / "config.json", {**(read_json(sibling) or {}), **params})
                break
    known = {name: params[name] for name in ("data", "model", "backend", "dtype", "seed") if name in params}
    write_json(run_dir / "summary.json", {"status": "failed", "exit_reason": reason, **known})


def last_line(log: Path) -> str:
    """The last line with something on it in a run's output, shortened to 300 characters; empty without one."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""

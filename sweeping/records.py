"""What a sweep reads and writes as files: its own sweep.json, and the records its runs leave."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tidepool.records import RecordError, decode, metric_lines, number, read_json, write_json
from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.parameters import Value
from tidepool.sweeping.points import drawn_point
from tidepool.sweeping.spec import Metric, Sweep

SWEEP_FILE = "sweep.json"
POINTS_FOLDER = "points"


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
        raise SweepError(f"{error}; deleting it is safe: the same command writes it again") from None


def read_summary(run_dir: Path) -> dict[str, Any]:
    """The summary.json of a run, or an empty mapping where there is none to read."""
    try:
        return read_json(run_dir / "summary.json") or {}
    except RecordError:
        return {}


def write_point(run_dir: Path, params: Mapping[str, Value], command: str) -> None:
    """Write points/<run>.json beside a run's folder, which holds nothing but the run's records: the parameters the
    sweep gave it, and the command that repeats it."""
    folder = run_dir.parent / POINTS_FOLDER
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{run_dir.name}.json", {"params": dict(params), "command": command})


def recorded_params(directory: Path, key: str) -> dict[str, Value] | None:
    """The parameters of the run that was made for the place `key` of a search, whose folder is still there; None
    without one."""
    for folder, params in _points(directory, f"{key}_*.json"):
        if folder.is_dir() and drawn_point(key, params).folder == folder.name:
            return params
    return None


def finished_params(directory: Path) -> list[dict[str, Value]]:
    """The parameters of the runs that finished in the folders of a sweep."""
    points = _points(directory, "*.json")
    return [params for folder, params in points if read_summary(folder).get("status") == "finished"]


def _points(directory: Path, pattern: str) -> Iterator[tuple[Path, dict[str, Value]]]:
    """The folders of runs, and the parameters the sweep gave each."""
    for file in sorted((directory / POINTS_FOLDER).glob(pattern)):
        with contextlib.suppress(RecordError):
            params = (read_json(file) or {}).get("params")
            if isinstance(params, dict):
                yield directory / file.stem, params


def metric_history(run_dir: Path, name: str) -> list[float]:
    """Every value of the metric `name` in a run's metrics.jsonl, in the order it was logged; NaN left as it is."""
    try:
        found = [as_number(row.get(name)) for _, row in metric_lines(run_dir / "metrics.jsonl") if row is not None]
    except OSError:
        return []
    return [value for value in found if value is not None]


def metric_values(run_dir: Path, metrics: Sequence[Metric]) -> tuple[float, ...]:
    """The finite value a finished run has for each of `metrics`; empty where one of them has none."""
    values = [metric_value(run_dir, metric.name) for metric in metrics]
    return () if None in values else tuple(value for value in values if value is not None)


def metric_value(run_dir: Path, name: str) -> float | None:
    """The finite value a finished run has for the metric `name` (``val/accuracy``), or None.

    From its summary (as ``val_accuracy`` or ``val/accuracy``) where it is there, else the last that was logged.
    """
    summary = read_summary(run_dir)
    found = [as_number(summary.get(key)) for key in (name.replace("/", "_"), name)]
    value = next((each for each in found if each is not None), None)
    if value is None:
        history = metric_history(run_dir, name)
        value = history[-1] if history else None
    return value if value is not None and math.isfinite(value) else None


def as_number(value: Any) -> float | None:
    """`value` as a float, infinite where it is too large for one; None where it is no number at all."""
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

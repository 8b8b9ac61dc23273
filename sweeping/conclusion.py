"""What a sweep says at its end, and while it runs where it is asked: outcomes, best run, leaderboard, report."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tidepool.records import write_json
from tidepool.sweeping.ledger import Result
from tidepool.sweeping.spec import Sweep
from tidepool.sweeping.trials import LASTING, Entry
from tidepool.sweeping.words import counted

_MOST_LISTED = 20  # points that went wrong
_BAD = ("failed", "refused", "diverged")


def done(results: Iterable[Result]) -> int:
    """How many points have a lasting outcome."""
    return sum(result.outcome in LASTING for result in results)


def conclude(
    sweep: Sweep,
    directory: Path,
    results: Sequence[Result],
    complain: Callable[[str], int],
    *,
    runs: Path | None = None,
) -> bool:
    """Print the sweep's result and write points.json and the report; whether a point finished. The runs' folders lie in
    `runs`, by default `directory`."""
    lie_in = runs or directory
    _print_lines(bad_lines(lie_in, results))
    rows = point_rows(sweep, lie_in, results)
    _print_result(sweep, directory, rows)
    folders = _here(lie_in, results)
    if folders:
        _report(sweep, folders, directory / "report", complain)
    return any(result.outcome == "finished" for result in results)


def bad_lines(directory: Path, results: Sequence[Result]) -> list[str]:
    """A line for each point that went wrong, and one with their number."""
    bad = [result for result in results if result.outcome in _BAD]
    lines = [f"{r.outcome}: {directory / (r.folder or r.key)} ({r.reason or 'no reason given'})" for r in bad]
    if len(lines) > _MOST_LISTED:
        lines[_MOST_LISTED:] = [f"… and {len(lines) - _MOST_LISTED} more, in points.json"]
    if bad:
        counts = Counter(result.outcome for result in bad)
        kinds = ", ".join(f"{counts[kind]} {kind}" for kind in _BAD if counts[kind])
        lines.append(f"{kinds} of {counted(len(results), 'run')}; to run one again, remove its folder")
    return lines


def point_rows(sweep: Sweep, directory: Path, results: Sequence[Result]) -> list[dict[str, Any]]:
    """The points that have an outcome, as analysis reads them."""
    names = [metric.name for metric in sweep.metrics]
    return [
        {
            "run": str(directory / result.folder) if result.folder else result.key,
            "outcome": result.outcome,
            "reason": result.reason,
            "params": dict(result.params or {}),
            "values": dict(zip(names, result.values, strict=False)),
            "command": shlex.join(sweep.repeating_argv(result.params or {})),
        }
        for result in results
        if result.outcome in LASTING
    ]


def _print_result(sweep: Sweep, directory: Path, rows: list[dict[str, Any]]) -> None:
    """Print best run and leaderboard, and keep the points for the report."""
    # pandas, for which a sweep need not wait at its start
    from tidepool.analysis.sweeps import POINTS_FILE, of_content, sweep_text

    write_json(directory / POINTS_FILE, {"points": rows})
    if rows:
        print(f"\n{sweep_text(of_content({**sweep.content, 'name': sweep.name}, rows)).strip()}\n")


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _here(directory: Path, results: Sequence[Result]) -> list[Path]:
    """The folders of the points with an outcome, those on this machine."""
    folders = [directory / r.folder for r in results if r.outcome in LASTING and r.folder is not None]
    here = [folder for folder in folders if folder.is_dir()]
    if len(here) < len(folders):
        away = len(folders) - len(here)
        print(f"{counted(away, 'run')} on another machine: in the leaderboard, and not in figures of curves")
    return here


def _report(sweep: Sweep, folders: Sequence[Path], out: Path, complain: Callable[[str], int]) -> None:
    """Write the report; print the comparison of bench.py's measurements, and of training runs on varied backends."""
    from tidepool.analysis.report import comparison_text, write_report

    varied = any(p.name == "backend" and not p.is_constant for p in sweep.parameters)
    try:
        if text := comparison_text(folders, training=varied).strip():
            print(f"{text}\n")
        print(f"report: {write_report(folders, out)}")
    except ValueError as error:
        complain(f"no report: {error}")


def status_text(sweep: Sweep, directory: Path, results: Sequence[Result], running: Sequence[Entry]) -> str:
    """How far the sweep is: counts, what runs where, what went wrong, and the best so far."""
    from tidepool.analysis.sweeps import of_content, sweep_text

    counts = Counter(result.outcome for result in results)
    order = ("finished", "stopped", *_BAD, "running", "waiting")
    parts = ", ".join(f"{counts[kind]:,} {kind}" for kind in order if counts[kind])
    lines = [f"{sweep.name}: {counted(len(results), 'point')}, {parts}"]
    for entry in running:
        machine = "" if entry.owner is None else f" on {entry.owner.machine.partition(' ')[0]}"
        lines.append(f"running: {directory / (entry.folder or entry.key)}{machine}, attempt {entry.attempt}")
    lines += bad_lines(directory, results)
    rows = point_rows(sweep, directory, results)
    if rows:
        lines += ["", sweep_text(of_content({**sweep.content, "name": sweep.name}, rows)).strip()]
    return "\n".join(lines)

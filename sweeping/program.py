"""The command `tidepool sweep`, which `sweep.py` is too: reads a sweep file, runs it here or by W&B, and compares."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tidepool.installation import checkout
from tidepool.records import OneLineParser
from tidepool.sweeping import online, records
from tidepool.sweeping.command import build_argv
from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.ledger import LASTING, Ledger, Result
from tidepool.sweeping.machine import core_count, gpu_ids
from tidepool.sweeping.points import Point, random_points
from tidepool.sweeping.progress import Progress
from tidepool.sweeping.runner import Ending, Runner
from tidepool.sweeping.spec import Sweep, read_sweep
from tidepool.sweeping.storage import STORAGE_ERRORS, check_url, default_url, storage_reason

RUNS = Path("runs")

Complain = Callable[[str, int], int]
"""Prints one line on stderr and returns the exit code it was given."""

_DESCRIPTION = """Run a W&B sweep file here, in parallel processes, then compare the runs and write a report.
Exit code: 0 every run finished, 1 some failed or diverged, 2 bad arguments or input, 130 stopped by Ctrl-C.
The same command resumes it: nothing that finished is run again."""


def _parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    parser = OneLineParser(
        prog=prog,
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        refusal=SweepError,
    )
    parser.add_argument("file", type=Path, help="a W&B sweep file, such as sweeps/quickstart.yaml")
    parser.add_argument("--workers", type=_workers, metavar="N", help="runs at a time (one per GPU, else one per core)")
    parser.add_argument(
        "--storage", metavar="URL", help="postgresql://… to share the sweep among machines (SQLite beside the runs)"
    )
    parser.add_argument("--online", action="store_true", help="run it through W&B: wandb sweep and wandb agent")
    parser.add_argument("--dry_run", action="store_true", help="print every run's command line and start nothing")
    return parser.parse_args(arguments)


def _workers(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def main(arguments: Sequence[str], *, prog: str = "tidepool sweep") -> int:
    """Run the command; returns its exit code."""
    complain = partial(_complain, prog)
    try:
        options = _parse(arguments, prog)
        sweep = read_sweep(options.file, home=checkout(), online=options.online)
        if options.storage is not None:
            if options.online:
                raise SweepError("--storage: W&B keeps the state of an --online sweep; give one or the other")
            check_url(options.storage)
        for name in metrics_on_the_test_split(sweep.content):
            complain(
                f"warning: {options.file}: metric.name: {name} chooses by the test split, which a run reads once, at "
                f"its end; val/{name.partition('/')[2]} is for choosing",
                0,
            )
        if options.dry_run:
            return _dry_run(sweep, options)
        if options.online:
            return _run_online(sweep, options, complain)
        return _run_here(sweep, options, complain)
    except SweepError as error:
        return complain(str(error), 2)
    except STORAGE_ERRORS as error:
        return complain(f"the sweep's storage failed ({storage_reason(error)}); the same command resumes", 1)
    except OSError as error:
        return complain(f"{error.filename or 'the sweep'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return complain("stopped; the same command resumes", 130)


def metrics_on_the_test_split(content: Mapping[str, Any]) -> list[str]:
    """Names of a sweep's metrics that are the test split's."""
    metric = content.get("metric") or []
    names = [str(one["name"]) for one in ([metric] if isinstance(metric, Mapping) else metric)]
    return [name for name in names if name.startswith("test/")]


def _complain(prog: str, message: str, code: int) -> int:
    print(f"{prog}: {' '.join(message.split())}", file=sys.stderr)
    return code


def _dry_run(sweep: Sweep, options: argparse.Namespace) -> int:
    if options.online:
        print(shlex.join(online.sweep_argv(sweep, sweep.path)))
        print(shlex.join(online.agent_argv("<entity>/<project>/<sweep id>")))
        return 0
    if sweep.method == "bayes":
        open_params = {p.name: p.settings["value"] if p.is_constant else p.describe() for p in sweep.parameters}
        points = [Point("run", open_params, "run-<number>_<digest>")]
    elif sweep.method == "random":
        assert sweep.run_cap is not None  # read_sweep refuses a search without one
        points = random_points(sweep.parameters, sweep.run_cap)
    else:
        points = sweep.points()
    for point in points:
        run_dir = RUNS / sweep.name / (point.folder or "")
        params = sweep.run_params(point.params or {}, run_dir)
        print(shlex.join(build_argv(sweep.command, program=sweep.program, params=params, run_dir=run_dir)))
    if sweep.method == "bayes":
        print(f"{sweep.run_cap} runs, each chosen from the results of those before it")
    else:
        print(f"{len(points)} runs")
    return 0


def _run_here(sweep: Sweep, options: argparse.Namespace, complain: Complain) -> int:
    directory = RUNS / sweep.name
    points = sweep.points()
    earlier = records.read_sweep_file(directory)
    if earlier is not None:
        records.check_same_sweep(sweep, earlier, str(directory / records.SWEEP_FILE))
    directory.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(options.storage or default_url(directory), sweep, directory)
    try:
        stored = ledger.stored_sweep()
        if stored is not None:
            records.check_same_sweep(sweep, stored, f"the sweep {sweep.name} in --storage")
        records.write_sweep_file(sweep, directory)
        ledger.store_sweep()
        ledger.plan(points)
        gpus = gpu_ids()
        workers = min(options.workers or len(gpus) or core_count(), len(points))
        progress = Progress(total=len(points), workers=workers, metric=sweep.metric.name if sweep.metric else None)
        try:
            ending = Runner(sweep, ledger, directory, points, workers, gpus, progress).run()
        finally:
            progress.close()
    finally:
        ledger.close()
    return _conclude(sweep, directory, ending, complain)


def _conclude(sweep: Sweep, directory: Path, ending: Ending, complain: Complain) -> int:
    outcomes = Counter(result.outcome for result in ending.results)
    done = sum(outcomes[outcome] for outcome in LASTING)
    if ending.refusal is not None:
        return complain(f"{sweep.path}: a run refused its arguments: {ending.refusal}", 2)
    if ending.signal is not None:
        total = len(ending.results)
        return complain(f"stopped with {done} of {total} runs done; the same command resumes", 128 + ending.signal)
    if ending.target_reached and sweep.metric is not None:
        print(f"{sweep.metric.name} has reached its target {sweep.metric.target:g}; no further runs were started")
    for result in ending.results:
        if result.outcome in ("failed", "diverged"):
            where, why = directory / (result.folder or result.key), result.reason or "no reason given"
            print(f"{result.outcome}: {where} ({why})")
    reported = _report(directory, _run_folders(directory, ending.results), complain)
    bad = outcomes["failed"] + outcomes["diverged"]
    if bad:
        lost = f"{outcomes['failed']} failed, {outcomes['diverged']} diverged"
        return complain(f"{lost} of {done} runs; to run one again, remove its folder", 1)
    return 0 if reported else 1


def _run_folders(directory: Path, results: Sequence[Result]) -> list[Path]:
    done = [result for result in results if result.outcome in LASTING and result.folder is not None]
    folders = [directory / str(result.folder) for result in done]
    here = [folder for folder in folders if folder.is_dir()]
    if len(here) < len(folders):
        print(f"{len(folders) - len(here)} runs have their records on another machine; the comparison is of the rest")
    return here


def _report(directory: Path, folders: Sequence[Path], complain: Complain) -> bool:
    """Print the comparison and write the report; whether that went well."""
    if not folders:
        print("no run has a record here, so there is nothing to compare")
        return False
    # pandas and matplotlib, for which a sweep need not wait at its start
    from tidepool.analysis.report import comparison_text, write_report

    try:
        print(f"\n{comparison_text(folders).strip()}\n")
        print(f"report: {write_report(folders, directory / 'report')}")
    except ValueError as error:
        complain(f"no report: {error}", 1)
        return False
    return True


def _run_online(sweep: Sweep, options: argparse.Namespace, complain: Complain) -> int:
    directory = RUNS / sweep.name
    earlier = records.read_sweep_file(directory)
    if earlier is not None:
        records.check_same_sweep(sweep, earlier, str(directory / records.SWEEP_FILE))
    online.check_login()
    directory.mkdir(parents=True, exist_ok=True)
    registered = online.register(sweep, directory)
    records.write_sweep_file(sweep, directory)
    gpus = gpu_ids()
    workers = options.workers or len(gpus) or core_count()
    print(f"sweep {registered.path}: {workers} W&B agents, each with a log in {directory}", flush=True)
    code = online.run_agents(sweep, registered.path, directory, workers=workers, gpus=gpus)
    if code > 128:
        return complain("stopped; the same command resumes the same W&B sweep", code)
    if code:
        words = records.last_line(directory / "agent-0.log")
        return complain(f"a W&B agent ended with exit code {code} ({words})", 1)
    folders = online.recorded_runs(registered.group, RUNS)
    reported = _report(directory, folders, complain)
    bad = sum(records.read_summary(folder).get("status") != "finished" for folder in folders)
    return complain(f"{bad} of {len(folders)} runs did not finish", 1) if bad else 0 if reported else 1

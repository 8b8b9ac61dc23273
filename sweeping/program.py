"""The command `tidepool sweep`, which `sweep.py` is too: reads a sweep file, runs it here or by W&B, and compares."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tidepool.installation import checkout
from tidepool.records import OneLineParser
from tidepool.sweeping import conclusion, online, records, reset
from tidepool.sweeping.argument_check import check_arguments
from tidepool.sweeping.command import build_argv
from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.ledger import Ledger
from tidepool.sweeping.machine import core_count, gpu_ids
from tidepool.sweeping.points import Point, startup_runs
from tidepool.sweeping.progress import Progress
from tidepool.sweeping.runner import Ending, Limits, Runner
from tidepool.sweeping.same_sweep import check_same_sweep
from tidepool.sweeping.sequence import combinations
from tidepool.sweeping.spec import Sweep, read_sweep
from tidepool.sweeping.storage import (
    DATABASE,
    STORAGE_ERRORS,
    check_url,
    default_url,
    is_damage,
    safe_to_delete,
    storage_reason,
)
from tidepool.sweeping.words import counted

RUNS = Path("runs")

Complain = Callable[[str, int], int]
"""Prints one line on stderr and returns the exit code it was given."""

_DESCRIPTION = """Run a W&B sweep file here, in parallel processes, then say which run is best and write a report.
Exit code: 0 every point has an outcome and at least one finished, 1 none finished or the storage stayed unreachable,
2 bad arguments or input, 130 and 143 stopped. The same command resumes it: nothing that finished is run again."""


def _parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    parser = OneLineParser(
        prog=prog,
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        refusal=SweepError,
    )
    parser.add_argument("file", type=Path, help="a W&B sweep file, such as sweeps/quickstart.yaml")
    parser.add_argument("--workers", type=_count, metavar="N", help="runs at a time (one per GPU, else one per core)")
    parser.add_argument(
        "--storage", metavar="URL", help="postgresql://… to share the sweep among machines (SQLite beside the runs)"
    )
    parser.add_argument("--retries", type=_count_or_none, default=1, metavar="N", help="of a run that fails (1)")
    parser.add_argument("--max_failures", type=_count, metavar="N", help="stop once so many points have gone wrong")
    parser.add_argument("--budget_s", type=_seconds, metavar="S", help="stop cleanly after so long; exit code 143")
    parser.add_argument("--run_limit_s", type=_seconds, metavar="S", help="a run that takes longer has failed")
    parser.add_argument("--online", action="store_true", help="run it through W&B: wandb sweep and wandb agent")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry_run", action="store_true", help="print every run's command line and start nothing")
    what.add_argument("--status", action="store_true", help="say how far the sweep is and what is best so far")
    parser.add_argument("--reset", action="store_true", help="begin anew; what has been run is set aside, not deleted")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _count_or_none(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")


def main(arguments: Sequence[str], *, prog: str = "tidepool sweep") -> int:
    """Run the command; returns its exit code."""
    complain = partial(_complain, prog)
    ledger = Path(DATABASE)
    try:
        options = _parse(arguments, prog)
        sweep = read_sweep(options.file, home=checkout(), online=options.online)
        ledger = RUNS / sweep.name / DATABASE
        _check_options(options)
        return _do(sweep, options, complain)
    except SweepError as error:
        return complain(str(error), 2)
    except STORAGE_ERRORS as error:
        return complain(_storage_failed(error, None if options.storage else ledger), 1)
    except OSError as error:
        return complain(f"{error.filename or 'the sweep'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return complain("stopped; the same command resumes", 130)


def _check_options(options: argparse.Namespace) -> None:
    if options.storage is not None:
        if options.online:
            raise SweepError("--storage: W&B keeps the state of an --online sweep; give one or the other")
        check_url(options.storage)
    if options.status and options.online:
        raise SweepError("--status: W&B shows how far an --online sweep is")
    if options.reset and (options.dry_run or options.status):
        raise SweepError("--reset: does not go with --dry_run or --status, which change nothing")


def _do(sweep: Sweep, options: argparse.Namespace, complain: Complain) -> int:
    if options.status:
        return _status(sweep, options)
    for name in metrics_on_the_test_split(sweep):
        complain(
            f"warning: {options.file}: metric.name: {name} chooses by the test split, which a run reads once, at "
            f"its end; val/{name.partition('/')[2]} is for choosing",
            0,
        )
    if options.dry_run:
        return _dry_run(sweep, options)
    if options.reset:
        check_arguments(sweep)
        set_aside = reset.set_aside(sweep, RUNS / sweep.name, options.storage)
        print(f"the runs of before are in {set_aside}" if set_aside else "there was nothing to set aside")
    return (_run_online if options.online else _run_here)(sweep, options, complain)


def metrics_on_the_test_split(sweep: Sweep) -> list[str]:
    """Names of a sweep's metrics that are the test split's."""
    return [metric.name for metric in sweep.metrics if metric.name.startswith("test/")]


def _storage_failed(error: Exception, file: Path | None) -> str:
    line = f"the sweep's storage failed ({storage_reason(error)})"
    return f"{line}; {safe_to_delete(file)}" if file and is_damage(error) else f"{line}; the same command resumes"


def _complain(prog: str, message: str, code: int) -> int:
    print(f"{prog}: {' '.join(message.split())}", file=sys.stderr)
    return code


def _dry_run(sweep: Sweep, options: argparse.Namespace) -> int:
    check_arguments(sweep)
    if options.online:
        print(shlex.join(online.sweep_argv(sweep, sweep.path)))
        print(shlex.join(online.agent_argv("<entity>/<project>/<sweep id>")))
        return 0
    points = sweep.points()
    drawn = [point for point in points if point.params is not None]
    for point in drawn:
        _print_command(sweep, point)
    if len(drawn) < len(points):
        ranges = {p.name: p.settings["value"] if p.is_constant else p.describe() for p in sweep.parameters}
        _print_command(sweep, Point("run", ranges, "run-<number>_<digest>"))
        print(f"{counted(len(points), 'run')}: {startup_runs(len(points))} drawn beforehand, as above, and each of the "
              "others chosen from the results of those before it")  # fmt: skip
    else:
        print(counted(len(points), "run"))
    return 0


def _print_command(sweep: Sweep, point: Point) -> None:
    run_dir = RUNS / sweep.name / (point.folder or "")
    params = sweep.run_params(point.params or {}, run_dir)
    print(shlex.join(build_argv(sweep.command, program=sweep.program, params=params, run_dir=run_dir)))


def _status(sweep: Sweep, options: argparse.Namespace) -> int:
    directory = RUNS / sweep.name
    ledger = Ledger(options.storage or default_url(directory), sweep, directory, create=False)
    try:
        ledger.plan(sweep.points())
        print(conclusion.status_text(sweep, directory, ledger.results(), ledger.running()))
    finally:
        ledger.close()
    return 0


def _run_here(sweep: Sweep, options: argparse.Namespace, complain: Complain) -> int:
    directory = RUNS / sweep.name
    points = sweep.points()
    earlier = records.read_sweep_file(directory)
    if earlier is None or earlier.get("parameters") != sweep.content["parameters"]:
        check_arguments(sweep)
    with _new_ledger(sweep, options, directory) as ledger:
        _check_earlier(sweep, ledger, directory, earlier)
        records.write_sweep_file(sweep, directory)
        ledger.store_sweep()
        ledger.plan(points)
        if sweep.run_cap is not None and sweep.method == "random" and len(points) < sweep.run_cap:
            print(f"only {counted(combinations(sweep.parameters) or len(points), 'combination')} can be drawn, "
                  f"fewer than run_cap {sweep.run_cap}: each is run once")  # fmt: skip
        return _run_points(sweep, ledger, options, complain)


@contextlib.contextmanager
def _new_ledger(sweep: Sweep, options: argparse.Namespace, directory: Path) -> Iterator[Ledger]:
    """The sweep's ledger, open. Where it does not open, no folder is left that was not there before."""
    made = [folder for folder in (directory, directory.parent) if not folder.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    try:
        ledger = Ledger(options.storage or default_url(directory), sweep, directory)
    except BaseException:
        if made:
            (directory / f"{DATABASE}.lock").unlink(missing_ok=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    try:
        yield ledger
    finally:
        ledger.close()


def _check_earlier(sweep: Sweep, ledger: Ledger, directory: Path, earlier: dict[str, object] | None) -> None:
    """Refuse another sweep under this one's name; where nothing of it is done, forget it."""
    stored = ledger.stored_sweep()
    entries = ledger.entries()
    done = [entry.params or {} for entry in entries if entry.outcome not in ("failed", "refused")]
    if stored is not None:
        check_same_sweep(sweep, stored, done, f"the sweep {sweep.name} as it was begun")
        if not done and stored != dict(sweep.content):
            ledger.begin_anew()
    elif earlier is not None:
        finished = records.finished_params(directory)
        check_same_sweep(sweep, earlier, finished, str(directory / records.SWEEP_FILE))


def _run_points(sweep: Sweep, ledger: Ledger, options: argparse.Namespace, complain: Complain) -> int:
    directory, gpus = RUNS / sweep.name, gpu_ids()
    workers = min(options.workers or len(gpus) or core_count(), max(ledger.total, 1))
    progress = Progress(total=ledger.total, workers=workers, metrics=sweep.metrics)
    limits = Limits(options.retries, options.max_failures, options.budget_s, options.run_limit_s)
    try:
        ending = Runner(sweep, ledger, directory, workers, gpus, progress, limits).run()
    finally:
        progress.close()
    return _conclude(sweep, directory, ending, complain)


def _conclude(sweep: Sweep, directory: Path, ending: Ending, complain: Complain) -> int:
    done, total = conclusion.done(ending.results), len(ending.results)
    if ending.target_reached and sweep.metric is not None:
        print(f"{sweep.metric.name} has reached its target {sweep.metric.target:g}; no further runs were started")
    if ending.signal is not None or ending.over_budget:
        why = "stopped" if ending.signal else "the time is up: stopped"
        code = 128 + ending.signal if ending.signal else 143
        return complain(f"{why} with {done} of {counted(total, 'run')} done; the same command resumes", code)
    finished = conclusion.conclude(sweep, directory, ending.results, lambda line: complain(line, 1))
    if ending.gave_up is not None:
        return complain(f"{sweep.path}: {ending.gave_up}", 1)
    return 0 if finished else complain("no run finished; to run one again, remove its folder", 1)


def _run_online(sweep: Sweep, options: argparse.Namespace, complain: Complain) -> int:
    directory = RUNS / sweep.name
    earlier = records.read_sweep_file(directory)
    if earlier is not None:
        where = str(directory / records.SWEEP_FILE)
        check_same_sweep(sweep, earlier, online.finished_params(sweep, directory, RUNS), where)
    online.check_login()
    if earlier is None:
        check_arguments(sweep)
    directory.mkdir(parents=True, exist_ok=True)
    registered = online.register(sweep, directory)
    records.write_sweep_file(sweep, directory)
    gpus = gpu_ids()
    workers = options.workers or len(gpus) or core_count()
    print(f"sweep {registered.path}: {counted(workers, 'W&B agent')}, each with a log in {directory}", flush=True)
    code = online.run_agents(sweep, registered.path, directory, workers=workers, gpus=gpus)
    if code > 128:
        return complain("stopped; the same command resumes the same W&B sweep", code)
    if code:
        words = records.last_line(directory / "agent-0.log")
        return complain(f"a W&B agent ended with exit code {code} ({words})", 1)
    folders = online.recorded_runs(registered.group, RUNS)
    results = online.results(sweep, folders)
    finished = conclusion.conclude(sweep, directory, results, lambda line: complain(line, 1), runs=RUNS)
    return 0 if finished else complain("no run finished", 1)

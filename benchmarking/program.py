"""The command `tidepool bench`, which `bench.py` is too: predict, visit, or time a suite in fresh processes.

Exit codes: 0 done or out of budget, 1 failed, 2 bad arguments or no GPU, 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from tidepool.benchmarking import machine, run_record
from tidepool.benchmarking.budget import Budget
from tidepool.benchmarking.command_line import Options, UsageError, parse_options
from tidepool.benchmarking.comparison import Comparison, remaining
from tidepool.benchmarking.counting import run as counting
from tidepool.benchmarking.predict import named_device, predictions, table_text, write_predictions
from tidepool.benchmarking.predict_model import predict_model
from tidepool.benchmarking.records import write_cases
from tidepool.benchmarking.session import Announce
from tidepool.benchmarking.suites import suite
from tidepool.benchmarking.supervisor import Spawn, WorkerError, run_replicate, spawn_worker
from tidepool.benchmarking.tuning import TUNED_FOLDER
from tidepool.benchmarking.visit import visit
from tidepool.kernels.auto.table import ENVIRONMENT_VARIABLE
from tidepool.records import RecordError

COUNTERS_OUT = Path("results/counters")
CHECKS_AT_ONCE = 4
"""Processes that check layers side by side in a visit: each may hold some gigabytes of the card's memory."""
NO_GPU = "timing needs an NVIDIA GPU, and none was found; --predict and --counters work without one"


def main(arguments: Sequence[str], *, prog: str = "tidepool bench") -> int:
    """Run the command; returns its exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        options = parse_options(arguments, prog=prog)
        left = run(options, lambda line: print(line, flush=True))
    except (UsageError, RecordError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    except WorkerError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{prog}: stopped by SIGINT; the same command resumes", file=sys.stderr)
        return 128 + signal.SIGINT
    for line in left:
        print(f"left: {line}")
    if left:
        print("the budget is over; the same command resumes")
    elif not options.predict:
        print(f"done: {options.out}")
    return 0


def run(
    options: Options,
    announce: Announce,
    *,
    device: torch.device | None = None,
    spawn: Spawn | None = None,
    budget: Budget | None = None,
) -> list[str]:
    """Do what `options` say; returns what the budget left undone, a line each.

    A visit's tuned tables lie in <out>/tuned, unless TIDEPOOL_TUNED names a place. `device`, `spawn` and `budget` are
    the GPU, real processes and the real clock unless given. Raises UsageError where
    there is no GPU or a folder cannot be used, WorkerError, RecordError.
    """
    if options.predict:
        return _in_run_folder(options, torch.device("cpu"), announce, lambda: _predict(options, announce))
    if options.counters:
        return _count(options, budget or Budget(options.budget_s), announce)
    if device is None:
        if not torch.cuda.is_available():
            raise UsageError(NO_GPU)
        device = torch.device("cuda", torch.cuda.current_device())
    place, clock = device, budget or Budget(options.budget_s)
    start = spawn or partial(spawn_worker, quiet=not options.progress)
    if options.visit:  # here and in every process it starts
        os.environ.setdefault(ENVIRONMENT_VARIABLE, str((options.out / TUNED_FOLDER).absolute()))
    with run_record.FolderLock(options.out):
        if options.visit:
            settings = options.comparison(options.dtypes[0], since=_since(options))
            together = 1 if spawn else CHECKS_AT_ONCE
            return visit(settings, options.dtypes, options.processes, place, clock, start, announce, at_once=together)
        return _in_run_folder(options, place, announce, lambda: _time(options, place, clock, start, announce))


def _in_run_folder(
    options: Options, device: torch.device, announce: Announce, work: Callable[[], list[str]]
) -> list[str]:
    """Do `work` with a record of the run around it where --run_dir asks for one."""
    folder = options.run_dir
    if folder is None:
        return work()
    with ExitStack() as held:
        if options.predict:
            held.enter_context(run_record.FolderLock(folder))
        if run_record.begin(options, folder, device):
            announce(f"the run in {folder} has finished already; nothing was changed")
            return []
        left = work()
        run_record.end(folder, options, left)
        return left


def _predict(options: Options, announce: Announce) -> list[str]:
    devices = [named_device(name) for name in options.predict_on]
    for dtype in options.dtypes:
        found = predictions(options.layers(), dtype, options.passes, devices)
        found += [("train", predict_model(case, dtype, device)) for device in devices for case in options.networks()]
        announce(table_text(found, dtype))
        if options.out_given:
            added = write_predictions(options.out, options.suite, dtype, found)
            announce(f"{added} rows -> {options.out / 'predictions.csv'}")
    return []


def _count(options: Options, budget: Budget, announce: Announce) -> list[str]:
    jobs = counting.jobs_of(options.suite, options.layers(), options.dtypes, options.targets)
    out = options.out if options.out_given else COUNTERS_OUT
    with run_record.FolderLock(out):
        return counting.run(jobs, out, budget, announce)


def _time(options: Options, device: torch.device, budget: Budget, spawn: Spawn, announce: Announce) -> list[str]:
    write_cases(options.out, options.suite, suite(options.suite))
    since = _since(options)
    comparisons = [
        replace(options.comparison(dtype, since=since), replicate=index)
        for index in range(options.processes)
        for dtype in options.dtypes
    ]
    for comparison in comparisons:
        if not run_replicate(comparison, device, budget, spawn, announce):
            break
    return [line for comparison in comparisons if (line := _left(comparison, device))]


def _left(comparison: Comparison, device: torch.device) -> str:
    items = remaining(comparison, device)
    if not items:
        return ""
    case, pass_ = items[0]
    where = f"process {comparison.replicate}, {comparison.dtype}"
    return f"{where}: {len(items)} cases and passes left, next {case.name}, {pass_}"


def _since(options: Options) -> str:
    """From when on rows count as measured."""
    return machine.now() if options.resume == "never" else ""

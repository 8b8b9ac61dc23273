"""What bench.py does with checked options: predict, visit, or time a suite in fresh processes."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch

from benchmarking import machine, run_record
from benchmarking.budget import Budget
from benchmarking.command_line import Options, UsageError
from benchmarking.comparison import Comparison, remaining
from benchmarking.predict import named_device, predictions, table_text, write_predictions
from benchmarking.predict_model import predict_model
from benchmarking.records import write_cases
from benchmarking.session import Announce
from benchmarking.suites import suite
from benchmarking.supervisor import Spawn, run_replicate, spawn_worker
from benchmarking.tuning import TUNED_FOLDER
from benchmarking.visit import visit
from kernels.plan_table import ENVIRONMENT_VARIABLE

CHECKS_AT_ONCE = 4
"""Processes that check layers side by side in a visit: each may hold some gigabytes of the card's memory."""
NO_GPU = "timing needs an NVIDIA GPU, and none was found; --predict alone works without one"


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
    there is no GPU or a folder cannot be used, WorkerError, RecordFileError.
    """
    if options.predict:
        return _in_run_folder(options, torch.device("cpu"), announce, lambda: _predict(options, announce))
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

"""Measure how layers run fastest on this GPU, and write the table that `backend="auto"` goes by.

    tidepool tune [--suite vgg16 ... | --shapes "x=64x3x32x32 weight=16x3x3x3 padding=1 pool=max2" ...]
        [--batch_size N] [--dtype bf16] [--passes inference train] [--budget_s S] [--table FILE] [--retune]
        [--workers N]
        [--dry_run [--target sm_90]]

Layers that the table holds for exactly this machine are skipped, so a command that was cut short goes on where it
stopped; the table is written after every layer. See kernels/PLAN.md. Exit 0 when all is measured or the budget is
spent, 2 on bad arguments or without a GPU.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tidepool.kernels.auto.plan import Choice, candidates, kernels_run_on, plan_from_json, problem_of
from tidepool.kernels.auto.table import (
    Entry,
    TableError,
    forget,
    key_of,
    machine_of,
    read_table,
    table_name,
    user_folder,
    with_entry,
    write_table,
)
from tidepool.kernels.layer.dtypes import BY_NAME
from tidepool.kernels.oracle.error_rule import RuleCase
from tidepool.kernels.runtime.errors import ArgumentError
from tidepool.kernels.runtime.launch import operand_kind, programs_in_flight
from tidepool.kernels.runtime.mode import interpreting_asked, mode_of
from tidepool.kernels.runtime.targets import SM_90, Target, target_named
from tidepool.kernels.runtime.timing import CudaTimer, Timer
from tidepool.kernels.tune.ahead import CompileAhead, compiling_for
from tidepool.kernels.tune.layer import PASSES, Report, TuningError, call_of, tile_words, tune_layer
from tidepool.kernels.tune.suites import SUITES, LayerTextError, TuneLayer, layer_from_words
from tidepool.records import OneLineParser


@dataclass
class Outcome:
    """Names of layers: measured now, found measured, not reached within the budget, and without any right candidate."""

    measured: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def default_table(device: torch.device) -> Path:
    """The user's own table for the device's model."""
    return user_folder() / table_name(machine_of(device).gpu)


def tune_layers(
    layers: Iterable[RuleCase],
    dtype: torch.dtype,
    device: torch.device,
    *,
    timer: Timer,
    report: Report,
    table_path: Path,
    budget_s: float | None = None,
    passes: Sequence[str] = PASSES,
    retune: bool = False,
    compiler: CompileAhead | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Measure the layers that the table does not hold for this machine, and add them to it one by one.

    `budget_s` seconds from now on no layer is begun, and of the one under way no further tiles are tried. `compiler`
    compiles a layer's candidates side by side before they are timed. Raises TableError when the file is there and is no
    table, ArgumentError for a layer that the op refuses.
    """
    began, outcome = clock(), Outcome()
    entries = read_table(table_path)

    def in_time() -> bool:
        return budget_s is None or clock() - began < budget_s

    for layer in layers:
        known = _known(entries, layer, dtype, device)
        if known is not None and not retune and known.get("complete") and set(passes) <= set(known.get("passes", ())):
            outcome.skipped.append(layer.name)
            report(f"{layer.name}: measured before")
            continue
        if not in_time():
            outcome.left.append(layer.name)
            continue
        plan = None if known is None else plan_from_json(known["plan"])
        if compiler is not None:
            left = None if budget_s is None else budget_s - (clock() - began)
            listed = all_candidates(layer, dtype, device, passes)
            compiled = compiler.compile(layer, dtype, operand_kind(dtype, device), listed, left)
            report(f"{layer.name}: compiled {compiled} kernels")
        try:
            entry = tune_layer(
                layer, dtype, device, timer=timer, report=report, passes=passes, known=plan, may_go_on=in_time
            )
        except TuningError as error:
            outcome.failed.append(layer.name)
            report(str(error))
            continue
        entries = with_entry(read_table(table_path), entry)  # read again: another process may have added to it
        write_table(table_path, entries)
        (outcome.measured if entry["complete"] else outcome.left).append(layer.name)
    forget()
    return outcome


def _known(entries: list[Entry], layer: RuleCase, dtype: torch.dtype, device: torch.device) -> Entry | None:
    call = call_of(layer, dtype, device)
    key = (machine_of(device), problem_of(call, layer.bias, dtype, operand_kind(dtype, device)))
    return next((entry for entry in entries if key_of(entry) == key), None)


def all_candidates(
    layer: RuleCase, dtype: torch.dtype, device: torch.device, passes: Sequence[str]
) -> list[tuple[str, Choice]]:
    """Every pass of a layer with every way to run it on the device, and unpooling."""
    call, programs = call_of(layer, dtype, device), programs_in_flight(device)
    target, operands = mode_of(device).target, operand_kind(dtype, device)
    found = [("unpool", Choice("fused"))] if "train" in passes else []
    for pass_ in _kernel_passes(passes):
        choices = candidates(pass_, call.geometry, call.shapes, target, operands, programs)
        found += [(pass_, choice) for choice in choices]
    return found


def _kernel_passes(passes: Sequence[str]) -> list[str]:
    wanted = ["inference"] if "inference" in passes else []
    return wanted + (["forward", "dgrad", "wgrad"] if "train" in passes else [])


def _listed(layer: TuneLayer, dtype: torch.dtype, operands: str, target: Target, passes: Sequence[str]) -> list[str]:
    """A line for each candidate of a layer."""
    call = call_of(layer, dtype, torch.device("meta"))
    lines = []
    for pass_ in _kernel_passes(passes):
        for choice in candidates(
            pass_, call.geometry, call.shapes, target, operands, programs_wanted=4 * target.multiprocessors
        ):
            lines.append(f"{layer.name}  {pass_:9}  {_words(choice)}")
    return lines


def _words(choice: Choice) -> str:
    return choice.way if choice.tile is None else f"{choice.way:8}  {tile_words(choice.tile)}"


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = OneLineParser(prog=prog, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", nargs="+", choices=sorted(SUITES), default=[], help="layers of these networks")
    parser.add_argument("--shapes", nargs="+", default=[], metavar="LAYER", help="layers in words, one argument each")
    parser.add_argument("--batch_size", type=int, help="instead of the layers' own")
    parser.add_argument("--dtype", choices=sorted(BY_NAME), default="bf16")
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument("--budget_s", type=float, help="begin nothing new after that many seconds")
    parser.add_argument("--table", type=Path, help="the file to write (default: the user's own for this GPU)")
    parser.add_argument("--retune", action="store_true", help="measure anew what the table holds already")
    parser.add_argument("--workers", type=int, help="processes that compile (default: one less than there are cores)")
    parser.add_argument("--dry_run", action="store_true", help="list the candidates and measure nothing; needs no GPU")
    parser.add_argument("--target", default=SM_90.name, help="GPU of a dry run: sm_89, gfx942, ... (default: sm_90)")
    return parser


def _layers(options: argparse.Namespace) -> list[TuneLayer]:
    names = options.suite or ([] if options.shapes else sorted(SUITES))
    layers = [layer for name in names for layer in SUITES[name]]
    layers += [layer_from_words(text) for text in options.shapes]
    if options.batch_size is not None:
        if options.batch_size < 1:
            raise LayerTextError(f"expected --batch_size of at least 1, got {options.batch_size}")
        layers = [layer.at_batch(options.batch_size) for layer in layers]
    return layers


def main(arguments: Sequence[str], *, prog: str = "tidepool tune") -> int:
    """Run the command; returns its exit status."""
    parser = _parser(prog)
    options = parser.parse_args(arguments)
    try:
        target = target_named(options.target)
    except ValueError as error:
        parser.error(str(error))
    dtype, operands = BY_NAME[options.dtype], {"tf32": "tf32", "fp32": "ieee"}.get(options.dtype, "half")
    try:
        layers = _layers(options)
        for layer in layers:
            call_of(layer, dtype, torch.device("meta"))
        if options.budget_s is not None and not options.budget_s > 0:
            raise LayerTextError(f"expected --budget_s above 0, got {options.budget_s:g}")
        if options.workers is not None and options.workers < 1:
            raise LayerTextError(f"expected --workers of at least 1, got {options.workers}")
        if options.dry_run:
            for layer in layers:
                print("\n".join(_listed(layer, dtype, operands, target, options.passes)))
            return 0
        unfit = _unfit()
        if unfit:
            print(f"{prog}: {unfit} (--dry_run lists what would be timed)", file=sys.stderr)
            return 2
        return _measure(options, layers, dtype)
    except (LayerTextError, ArgumentError, TableError, OSError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2


def _unfit() -> str:
    """Why nothing can be timed here; empty if it can."""
    if not torch.cuda.is_available():
        return "tuning times kernels on a GPU, and none was found"
    if interpreting_asked():
        return "tuning times compiled kernels, and TRITON_INTERPRET has them interpreted"
    if not kernels_run_on(torch.device("cuda", torch.cuda.current_device())):
        return "the kernels need an NVIDIA GPU of compute capability 8.0 or more, and this one has less"
    return ""


def _measure(options: argparse.Namespace, layers: list[TuneLayer], dtype: torch.dtype) -> int:
    device = torch.device("cuda", torch.cuda.current_device())
    if dtype == torch.float32:
        precision = "tf32" if options.dtype == "tf32" else "ieee"
        torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = True  # cuDNN at its best
    table = options.table or default_table(device)
    number = 0

    def report(line: str) -> None:
        print(line, flush=True)

    def counted() -> Iterable[TuneLayer]:
        nonlocal number
        for layer in layers:
            number += 1
            report(f"[{number}/{len(layers)}] {layer.name}")
            yield layer

    with compiling_for(device, options.workers) as compiler:
        outcome = tune_layers(
            counted(),
            dtype,
            device,
            timer=CudaTimer(graph=False),
            report=report,
            table_path=table,
            budget_s=options.budget_s,
            passes=options.passes,
            retune=options.retune,
            compiler=compiler,
        )
    print(
        f"{table}: {len(outcome.measured)} layers measured, {len(outcome.skipped)} measured before, "
        f"{len(outcome.left)} left, {len(outcome.failed)} without a right candidate"
    )
    return 0

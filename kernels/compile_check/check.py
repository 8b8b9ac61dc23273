"""Cross-compile the kernels, at the tiles they ship and those the rules pick, for every target, without a GPU.

    python -m tidepool.kernels.compile_check [--targets sm_90 gfx942 ...] [--cases NAME ...] [--everything]
    python -m tidepool.kernels.compile_check --run [--targets sm_90 sm_80] [--schedule late] [--cases NAME ...]

Prints one row per compiled kernel: registers a thread, spills, shared memory, tensor-core instructions and the
occupancy those allow; on sm_80 and sm_90 also the cycles of one program, microseconds of the case's launch on a whole
GPU and what binds it, which are modelled, uncalibrated (simulator/sass): the loop with the products runs as often as
the case's layer has it, and kernels without products take every loop to run 16 times. Exit 1 on a spill, on shared
memory over the target's limit, on a vector division that LLVM may miscompile, or where tensor-core instructions are
expected and none is there, or the other way round; 2 on bad flags.

Without `--everything` it compiles what CI does: on sm_80, sm_90, sm_100 and gfx942 every shipped tile and one listed
layer of each kind, on sm_90 every listed layer; on the other targets one tile of each kernel.
Layers that are named are compiled whole on every target. `--record FILE.csv` appends a line a target to the table of
versions (results/compiled_versions).

`--run` executes compiled code instead, on the simulated GPU (simulator/): every shipped tile, and small layers of every
kind, whose results are compared as `run.py` says. Exit 1 on a wrong result or on what no correct kernel does, a race,
an access out of bounds, a wait without end. `--record FILE.csv` takes a line a run then.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import Empty
from typing import Any

from tqdm import tqdm

from tidepool import simulator
from tidepool.installation import AS_MODULE, child_environment
from tidepool.kernels.compile_check.compile import SIMULATED
from tidepool.kernels.compile_check.record import append_record, append_runs
from tidepool.kernels.compile_check.rows import RAN_HEADING, Ran, Row, heading
from tidepool.kernels.compile_check.run import ran_on, run_names
from tidepool.kernels.compile_check.work import WHOLE, Selection, case_names, rows_on
from tidepool.kernels.runtime.targets import TARGETS, Target, target_named
from tidepool.records import OneLineParser

_WAIT_S = 0.2


def _check_share(target: str, selection: Selection, results: Any) -> float:
    """In a process of its own: rows and progress go to the queue; returns the seconds of processor time."""
    place = (target, selection.share)
    rows = ran_on if selection.schedule else rows_on
    for row in rows(target_named(target), selection, lambda done, of: results.put((place, done, of))):
        results.put(row)
    return time.process_time() + sum(os.times()[2:4])


class Check:
    """The rows of a selection on several targets, and the processor seconds that each target took."""

    def __init__(self, targets: tuple[Target, ...], selection: Selection, workers: int | None = None) -> None:
        self._targets, self._selection = targets, selection
        self._workers = workers or os.cpu_count() or 1
        self.seconds: dict[str, float] = {}

    def rows(self) -> Iterator[Row | Ran]:
        """Every row as it comes, with progress on stderr. To compile needs TRITON_INTERPRET=0."""
        # A process for each target: Triton keeps a kernel's first target for as long as the process lives. Few targets
        # are shared out among the processors; the longest begin first.
        shares = max(self._workers // len(self._targets), 1)
        ordered = sorted(self._targets, key=lambda target: target not in WHOLE)
        context = multiprocessing.get_context("spawn")
        with (
            context.Manager() as manager,
            ProcessPoolExecutor(self._workers, mp_context=context, max_tasks_per_child=1) as pool,
        ):
            results = manager.Queue()
            running: dict[Future[float], str] = {}
            for target in ordered:
                for share in range(shares):
                    part = _share_of(self._selection, share, shares)
                    running[pool.submit(_check_share, target.name, part, results)] = target.name
            yield from self._received(running, results)

    def _received(self, running: dict[Future[float], str], results: Any) -> Iterator[Row | Ran]:
        progress: dict[tuple[str, int], tuple[int, int]] = {}
        bar = tqdm(total=len(running), unit="share", file=sys.stderr, mininterval=1, disable=None)
        while running or not results.empty():
            for future in [future for future in running if future.done()]:
                name = running.pop(future)
                self.seconds[name] = self.seconds.get(name, 0.0) + future.result()
            try:
                received = results.get(timeout=_WAIT_S)
            except Empty:
                continue
            if isinstance(received, Row | Ran):
                yield received
            else:
                place, done, of = received
                progress[place] = (done, of)
                bar.n = sum(done / of for done, of in progress.values())
                bar.set_postfix_str(" ".join(dict.fromkeys(t for (t, _), (d, o) in progress.items() if d < o)))
        bar.close()


def _share_of(selection: Selection, share: int, shares: int) -> Selection:
    return replace(selection, share=share, shares=shares)


def _parser(prog: str) -> OneLineParser:
    parser = OneLineParser(prog=prog, description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", metavar="TARGET", help="default: all, of --run all that are simulated")
    parser.add_argument("--cases", nargs="+", default=[], metavar="NAME", help="only these layers (default: all)")
    parser.add_argument("--everything", action="store_true", help="every tile and layer on every target")
    parser.add_argument("--record", type=Path, metavar="FILE.csv", help="append a line a target (--run: a run) to it")
    parser.add_argument("--run", action="store_true", help="execute compiled code on a simulated GPU")
    parser.add_argument("--schedule", default="eager", help=f"of --run: {', '.join(simulator.KINDS)}, seeded:<seed>")
    return parser


def _targets(options: argparse.Namespace) -> tuple[Target, ...]:
    """The targets asked for, each once. Raises ValueError for one that is not known or cannot run."""
    known = SIMULATED if options.run else [target.name for target in TARGETS]
    targets = tuple(dict.fromkeys(target_named(name) for name in options.targets or known))
    if unable := [target.name for target in targets if target.name not in known]:
        raise ValueError(f"--run takes the simulated targets {', '.join(known)}, but got {unable[0]}")
    return targets


def _named(options: argparse.Namespace) -> str:
    """The selection in a word, for the record."""
    return "cases" if options.cases else "everything" if options.everything else "ci"


def main(arguments: Sequence[str], *, prog: str = "tidepool check") -> int:
    """Run the command; returns its exit status."""
    parser = _parser(prog)
    options = parser.parse_args(arguments)
    try:
        targets = _targets(options)
        simulator.schedule_named(options.schedule)
    except ValueError as error:
        parser.error(str(error))
    names = run_names() if options.run else case_names()
    if unknown := set(options.cases) - set(names):
        parser.error(f"unknown case {min(unknown)!r}: expected one of {', '.join(names)}")
    selection = Selection(names=tuple(options.cases), everything=options.everything)
    if options.run:
        return _run(targets, replace(selection, schedule=options.schedule), options.record)
    if os.environ.get("TRITON_INTERPRET") != "0":
        # Interpreting is settled when a kernel module is read: compile in a child that reads them with it off.
        command = [sys.executable, *AS_MODULE, "tidepool.kernels.compile_check", *arguments]
        return subprocess.run(command, env={**child_environment(), "TRITON_INTERPRET": "0"}, check=False).returncode
    print(heading())
    compilation = Check(targets, selection)
    rows = _printed(compilation)
    if options.record is not None:
        append_record(options.record, targets, rows, compilation.seconds, _named(options))
    return _ended(f"{len(rows)} kernels compiled for {', '.join(map(str, targets))}", rows)


def _run(targets: tuple[Target, ...], selection: Selection, record: Path | None) -> int:
    """Execute instead; returns the exit status."""
    print(RAN_HEADING)
    check = Check(targets, selection)
    rows = _printed(check)
    if record is not None:
        append_runs(record, rows)
    names, schedule = ", ".join(map(str, targets)), selection.schedule
    return _ended(f"{len(rows)} runs on simulated {names}, schedule {schedule}", rows)


def _printed(check: Check) -> list[Any]:
    rows = []
    for row in check.rows():
        print(row.line(), flush=True)
        rows.append(row)
    return rows


def _ended(what: str, rows: Sequence[Row | Ran]) -> int:
    problems = sum(bool(row.problem) for row in rows)
    print(f"{what}: {problems} with problems")
    return 1 if problems or not rows else 0

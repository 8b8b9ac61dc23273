"""Everything one visit to a GPU should do, in order, each piece resuming where the last visit left it.

1  correctness of every layer, in every dtype asked for
2  the card's ceilings: copy bandwidth and matrix rate
3  tuning: a plan for every layer, into the table that `backend="auto"` reads
4  times of the blocks suite on every backend, forward and training step
5  times of the models suite
6  the blocks' other passes, then further processes of 4 to 6: each process is a replicate
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from tidepool.benchmarking import machine
from tidepool.benchmarking.budget import Budget
from tidepool.benchmarking.comparison import Comparison, remaining, unchecked
from tidepool.benchmarking.jobs import Job
from tidepool.benchmarking.model_workload import MODEL_PASSES
from tidepool.benchmarking.opponents import backends
from tidepool.benchmarking.records import write_cases
from tidepool.benchmarking.session import Announce
from tidepool.benchmarking.state import State
from tidepool.benchmarking.suites import suite
from tidepool.benchmarking.supervisor import Spawn, run_checks, run_once, run_replicate

CHECKED_FIRST = ("compile",)
"""Checked with `triton` in stage 1 for what it compiles; max-autotune times what it compiles: the card to itself."""
FIRST_PASSES = ("forward", "train")
VISIT = "visit"


@dataclass(frozen=True)
class Stage:
    """One piece of a visit: its name, whether anything is left of it, and how to resume; `advance` returns False where
    the budget ended it."""

    name: str
    left: Callable[[], int]
    advance: Callable[[], bool]


def visit(
    settings: Comparison,
    dtypes: tuple[str, ...],
    replicates: int,
    device: torch.device,
    budget: Budget,
    spawn: Spawn,
    announce: Announce,
    *,
    at_once: int = 1,
) -> list[str]:
    """Go through the stages until the budget ends; returns what is left, one line a stage, nothing where all is done.

    `settings` names the folder, rounds, CUDA graphs and seed, the layers, backends and passes; networks are all of
    theirs. `at_once` processes check side by side; whatever is timed has the card to itself. Raises WorkerError,
    RecordError.
    """
    state = State(settings.out)
    for name in ("blocks", "models"):
        write_cases(settings.out, name, suite(name))
    stages = list(_stages(settings, dtypes, replicates, device, budget, spawn, announce, at_once))
    for stage in stages:
        if stage.left() == 0:
            continue
        announce(f"visit: {stage.name}")
        state.put(VISIT, {"stage": stage.name, "at": machine.now()})
        if not stage.advance():
            break
    left = [f"{stage.name}: {count} left" for stage in stages if (count := stage.left())]
    state.put(VISIT, {"stage": "done" if not left else left[0], "at": machine.now()})
    return left


def _stages(
    settings: Comparison,
    dtypes: tuple[str, ...],
    replicates: int,
    device: torch.device,
    budget: Budget,
    spawn: Spawn,
    announce: Announce,
    at_once: int,
) -> Iterator[Stage]:
    state = State(settings.out)
    blocks = replace(settings, passes=tuple(pass_ for pass_ in settings.passes if pass_ in FIRST_PASSES))
    asked = [backend.name for backend in settings.backends]
    first = backends(["triton", *(name for name in CHECKED_FIRST if name in asked)])
    for dtype in dtypes:
        yield _check_stage(replace(blocks, backends=first, dtype=dtype), device, budget, spawn, announce, at_once)
    for dtype in dtypes:
        for kind in ("ceilings", "tune"):
            yield _once_stage(kind, replace(blocks, dtype=dtype), device, budget, spawn, state)
    others = tuple(pass_ for pass_ in settings.passes if pass_ not in FIRST_PASSES)
    models = replace(settings, suite="models", cases=suite("models"), passes=MODEL_PASSES)
    for index in range(replicates):
        for comparison in (blocks, models, replace(blocks, passes=others)):
            for dtype in dtypes:
                timed = replace(comparison, dtype=dtype, replicate=index)
                yield _time_stage(timed, device, budget, spawn, announce)


def _check_stage(
    comparison: Comparison, device: torch.device, budget: Budget, spawn: Spawn, announce: Announce, at_once: int
) -> Stage:
    def left() -> int:
        return len(unchecked(comparison, device))

    def advance() -> bool:
        return run_checks(comparison, device, budget, spawn, announce, at_once=at_once)

    return Stage(f"correctness of the blocks suite in {comparison.dtype}", left, advance)


def _once_stage(
    kind: str, comparison: Comparison, device: torch.device, budget: Budget, spawn: Spawn, state: State
) -> Stage:
    """A piece whose end its process writes into the state file, for this card and code."""
    key = Job(kind, comparison, None).key
    identity = machine.identity(machine.machine_record(device, comparison.packages))

    def left() -> int:
        return int(state.get(key) != identity)

    def advance() -> bool:
        return run_once(kind, comparison, budget, spawn) and not left()

    return Stage(f"{kind} in {comparison.dtype}", left, advance)


def _time_stage(
    comparison: Comparison, device: torch.device, budget: Budget, spawn: Spawn, announce: Announce
) -> Stage:
    def left() -> int:
        return len(remaining(comparison, device))

    def advance() -> bool:
        return run_replicate(comparison, device, budget, spawn, announce)

    passes = " and ".join(comparison.passes)
    name = f"times of {comparison.suite}, {passes}, {comparison.dtype}, process {comparison.replicate}"
    return Stage(name, left, advance)

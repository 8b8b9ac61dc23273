"""One launch: the grid in chunks, each run by a machine; what was counted comes back."""

import time
from dataclasses import dataclass

import numpy as np

from tidepool.simulator.chunk import Chunk, Launch
from tidepool.simulator.counters import Counters
from tidepool.simulator.faults import Fault
from tidepool.simulator.global_memory import Footprint
from tidepool.simulator.machine import Machine
from tidepool.simulator.ptx import Instruction
from tidepool.simulator.registers import LANES
from tidepool.simulator.schedule import Schedule

_LANES = 1 << 14
_SHARED = 1 << 22
"""The most lanes, and bytes of shared memory, of a chunk: more do not fit the caches, fewer cost Python's time."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a launch did."""

    kernel: str
    programs: int
    warp_instructions: int
    seconds: float
    counters: Counters
    footprints: tuple[Footprint, ...]


def run(launch: Launch, schedule: Schedule) -> Report:
    """Run every program of the grid. Raises Fault for what no correct program does, UnknownCode for unknown PTX."""
    if launch.threads % LANES:
        raise Fault("convergence", f"{launch.threads} threads a program: expected whole warps of {LANES}")
    if len(launch.parameters) != launch.program.parameter_bytes:
        raise Fault("bounds", f"{len(launch.parameters)} parameter bytes of {launch.program.parameter_bytes}")
    began = time.perf_counter()
    programs = launch.grid[0] * launch.grid[1] * launch.grid[2]
    counters = Counters(schedule.count)
    if schedule.checks:
        launch.memory.track(atomics=any("global" in one.opcode for one in _atomics(launch)))
    if schedule.count:
        launch.memory.record()
    each = chunk_size(launch, schedule)
    executed = [0] * len(launch.program.instructions)
    with np.errstate(all="ignore"):
        for first in range(0, programs, each):
            numbers = np.arange(first, min(first + each, programs))
            machine = Machine(Chunk(launch, numbers, schedule, counters))
            machine.run()
            executed = [a + b for a, b in zip(executed, machine.executed, strict=True)]
    for one, count in zip(launch.program.instructions, executed, strict=True):
        if count:
            counters.add(one.line, f"warp instructions {one.name}", count)
    return Report(
        kernel=launch.program.name,
        programs=programs,
        warp_instructions=sum(executed),
        seconds=time.perf_counter() - began,
        counters=counters,
        footprints=launch.memory.footprints(),
    )


def chunk_size(launch: Launch, schedule: Schedule) -> int:
    """How many programs run at a time: one where programs may wait for one another by atomics, in the grid's order."""
    if schedule.programs:
        return schedule.programs
    if any("cas" in one.opcode or "exch" in one.opcode for one in _atomics(launch)):
        return 1
    shared = max(launch.shared_bytes + launch.program.shared_bytes, 1)
    return max(min(_LANES // launch.threads, _SHARED // shared), 1)


def _atomics(launch: Launch) -> list[Instruction]:
    return [one for one in launch.program.instructions if one.name in ("atom", "red")]

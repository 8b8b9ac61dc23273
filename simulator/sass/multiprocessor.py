"""One partition of a multiprocessor, cycle by cycle: warps of the programs that share it walk their path.

What every warp of a program does, those of the other three partitions do at the same time: so one partition's issue
slot and pipes are simulated, and what the multiprocessor has once (shared memory, the way to L2) is charged for all.
Of the warps that can issue in a cycle the oldest does.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from tidepool.simulator.sass.assumed import Machine
from tidepool.simulator.sass.machine_code import BARRIERS, Control
from tidepool.simulator.sass.opcodes import Kind, Work

_PLAIN, _WGMMA, _BARRIER = Kind.PLAIN, Kind.WGMMA, Kind.BARRIER
"""Asked for at every issue, and an enumeration is slow to look into."""


class Step(NamedTuple):
    """One place on the path: control, work, and how many executions it stands for."""

    control: Control
    work: Work
    weight: float


@dataclass(slots=True)
class _Program:
    """A block of threads: when its last warp passed each place, who waits at its barrier, its TMA copies by round."""

    start: float
    passed: list[float]
    warps: int
    at_barrier: list[int] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Warp:
    """`leads`: it alone starts the program's TMA copies; `reason`: what it waits for; `issued`: when it last was."""

    program: _Program
    leads: bool
    reason: str = "start"
    place: int = 0
    issued: float = 0
    barriers: list[tuple[float, str]] = field(default_factory=lambda: [(0.0, "")] * BARRIERS)
    copied: float = 0
    copies: list[float] = field(default_factory=list)
    multiplied: list[float] = field(default_factory=list)
    rounds_waited: int = 0


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Cycles from a program's start until it has passed each place, on average, and the weighted cycles that a warp
    waits, by reason."""

    passed: list[float]
    waited: dict[str, float]


class Partition:
    """`programs` of `warps` warps each share the multiprocessor."""

    def __init__(self, machine: Machine, steps: Sequence[Step], warps: int, programs: int) -> None:
        partitions = int(machine["partitions"])
        simulated = max(1, -(-programs * min(warps, partitions) // partitions))
        of_program = -(-warps // partitions)
        self._machine, self._steps = machine, steps
        self._per_warp = programs * warps / (simulated * of_program)
        self._per_program = programs / simulated
        self._programs = [
            _Program(number * machine["start: stagger"], [0.0] * len(steps), of_program) for number in range(simulated)
        ]
        self._warps = [
            _Warp(program, not number, issued=program.start - 1)
            for program in self._programs
            for number in range(of_program)
        ]
        self._bytes_a_cycle, self._queue = machine["bytes: l2"], machine["queue: memory"]
        self._in_flight, self._waiting_products = machine["queue: l2"], int(machine["tensor: products waiting"])
        self._free: dict[str, float] = defaultdict(float)
        self._issue_free = self._shared_free = self._l2_free = 0.0
        self._products: list[float] = []
        self._waited: dict[str, float] = defaultdict(float)
        self._waiting = [(warp.program.start, number) for number, warp in enumerate(self._warps)]

    def run(self) -> Timeline:
        """Every warp to its end."""
        waiting, warps, steps = self._waiting, self._warps, self._steps
        heapify(waiting)
        while waiting:
            ready, number = heappop(waiting)
            warp = warps[number]
            step = steps[warp.place]
            at = self._earliest(step.work, ready, warp)
            if at > ready and waiting and waiting[0] < (at, number):
                heappush(waiting, (at, number))
            else:
                self._issue(warp, number, step, at)
        warps_of_all = len(warps)
        waited = {reason: cycles / warps_of_all for reason, cycles in self._waited.items()}
        return Timeline(passed=self._averages(), waited=waited)

    def _averages(self) -> list[float]:
        count = len(self._programs)
        starts = sum(program.start for program in self._programs)
        return [(sum(times) - starts) / count for times in zip(*(p.passed for p in self._programs), strict=True)]

    def _earliest(self, work: Work, ready: float, warp: _Warp) -> float:
        """When what is shared lets a warp that is ready issue; the warp is told what it waits for."""
        at = ready
        if self._issue_free > at:
            at, warp.reason = self._issue_free, "issue slots"
        if work.pipe:
            free = self._products_free() if work.kind is _WGMMA else self._free[work.pipe]
            if free > at:
                at, warp.reason = free, work.pipe
        if work.shared and self._shared_free - self._queue > at:
            at, warp.reason = self._shared_free - self._queue, "shared memory"
        if work.l2 and self._l2_free - self._in_flight > at:
            at, warp.reason = self._l2_free - self._in_flight, "L2"
        return at

    def _products_free(self) -> float:
        """When the queue of products takes another one."""
        depth = self._waiting_products
        return self._products[-depth] if len(self._products) >= depth else 0.0

    def _issue(self, warp: _Warp, number: int, step: Step, at: float) -> None:
        """Issue at cycle `at`, and let go on whoever can."""
        control, work, weight = step
        program, place = warp.program, warp.place
        if at > program.passed[place]:
            program.passed[place] = at
        waited = at - warp.issued - 1
        if waited > 0:
            self._waited[warp.reason] += waited * weight
        self._issue_free, warp.issued = at + 1, at
        done = self._work(warp, work, at)
        if control.write is not None or control.read is not None:
            self._set_barriers(warp, step, at, done)
        warp.place = place + 1
        if work.kind is _BARRIER:
            self._meet(program, number, done)
        else:
            self._go_on(warp, number, at + (control.stall or 1), "stall counts")

    def _work(self, warp: _Warp, work: Work, at: float) -> float:
        """Occupy what the work needs; when its result is there."""
        if work.kind is not _PLAIN:
            return self._special(warp, work, at)
        if work.pipe:
            self._free[work.pipe] = at + work.hold
        if work.shared or work.l2:
            return self._through_memory(work, at, self._per_warp) + work.latency
        return at + work.latency

    def _through_memory(self, work: Work, at: float, times: float) -> float:
        """Queue for shared memory and L2; when both have been passed."""
        passed = at
        if work.shared:
            passed = self._shared_free = max(self._shared_free, at) + work.shared * times
        if work.l2:
            self._l2_free = max(self._l2_free, at) + work.l2 * times / self._bytes_a_cycle
            passed = max(passed, self._l2_free)
        return passed

    def _special(self, warp: _Warp, work: Work, at: float) -> float:
        kind = work.kind
        if kind is Kind.WGMMA:
            return self._multiply(warp, work, at)
        if kind is Kind.COPY:
            warp.copied = self._through_memory(work, at, self._per_warp) + work.latency
        elif kind is Kind.COPY_GROUP:
            warp.copies.append(max(warp.copied, at))
        elif warp.leads and kind is Kind.EXPECT:
            warp.program.rounds.append(at)
        elif warp.leads and kind is Kind.TENSOR_COPY:
            self._copy_tensor(warp.program, work, at)
        elif kind is Kind.MBARRIER_WAIT:
            warp.rounds_waited += 1
        return at + work.latency

    def _multiply(self, warp: _Warp, work: Work, at: float) -> float:
        """A product in the queue of the tensor core; a group ends with the ones before it, all in order."""
        start = max(self._free["tensor"], at)
        self._free["tensor"] = start + work.hold
        self._products.append(start)
        done = start + work.hold + work.latency
        if work.count:
            warp.multiplied.append(done)
        return done

    def _copy_tensor(self, program: _Program, work: Work, at: float) -> None:
        """A copy belongs to the round that was told of last."""
        done = self._through_memory(work, at, self._per_program) + work.latency
        rounds = program.rounds
        if rounds:
            rounds[-1] = max(rounds[-1], done)
        else:
            rounds.append(done)

    def _set_barriers(self, warp: _Warp, step: Step, at: float, done: float) -> None:
        control, work = step.control, step.work
        if control.write is not None:
            self._set(warp, control.write, done, work.wait)
        if control.read is not None:
            queued = self._shared_free if work.shared else at
            self._set(warp, control.read, max(at, queued) + work.reads, work.wait)

    def _set(self, warp: _Warp, barrier: int, until: float, reason: str) -> None:
        if until > warp.barriers[barrier][0]:
            warp.barriers[barrier] = (until, reason)

    def _meet(self, program: _Program, number: int, done: float) -> None:
        """At the program's barrier: nobody goes on until all are there."""
        program.at_barrier.append(number)
        if len(program.at_barrier) == program.warps:
            going, program.at_barrier = program.at_barrier, []
            for one in going:
                self._go_on(self._warps[one], one, done, "barriers")

    def _go_on(self, warp: _Warp, number: int, ready: float, reason: str) -> None:
        """Let the warp wait for its next place; nothing where it has come to its end."""
        if warp.place == len(self._steps):
            return
        control, work, _ = self._steps[warp.place]
        for barrier in control.waits:
            until, what = warp.barriers[barrier]
            if until > ready:
                ready, reason = until, what
        if work.kind is not _PLAIN:
            until = self._awaited(warp, work)
            if until > ready:
                ready, reason = until, work.wait
        warp.reason = reason
        heappush(self._waiting, (ready, number))

    def _awaited(self, warp: _Warp, work: Work) -> float:
        """When the groups, or the round of copies, are there that an instruction waits for."""
        if work.kind is Kind.MBARRIER_WAIT:
            rounds, number = warp.program.rounds, warp.rounds_waited
            return rounds[number] if number < len(rounds) else 0.0
        if work.kind is Kind.COPY_WAIT:
            groups = warp.copies
        elif work.kind is Kind.WGMMA_WAIT:
            groups = warp.multiplied
        else:
            return 0.0
        return max(groups[: len(groups) - work.count], default=0.0)

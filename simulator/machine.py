"""Runs a chunk of programs from start to end: fetch, branches, waiting, and the order of what no rule orders.

Lanes that a branch parts go on one after the other until the instruction where their ways meet, as long as nothing on
the way makes warps wait for one another; else each warp goes on as a context of its own. Contexts that come free
together at the same place are joined again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tidepool.simulator.chunk import Chunk, Context, Level
from tidepool.simulator.faults import Fault
from tidepool.simulator.instructions import Run, decode
from tidepool.simulator.instructions.barriers import Barriers
from tidepool.simulator.instructions.copies import Copies
from tidepool.simulator.instructions.tensor_copies import TensorCopies
from tidepool.simulator.instructions.warpgroup import WARPS, Products
from tidepool.simulator.numbers import Array
from tidepool.simulator.ptx import Instruction, Program
from tidepool.simulator.ptx.flow import BRANCHES, ENDS
from tidepool.simulator.registers import LANES
from tidepool.simulator.waiting import Wait

_WAITING = ("bar", "barrier", "mbarrier", "wgmma", "setmaxnreg", "cp")
_REST = 0.3
"""How often a seeded schedule lets others go first at an instruction that warps may wait at."""


@dataclass(frozen=True)
class Step:
    """An instruction made ready: what runs it, and for a branch where its ways meet."""

    instruction: Instruction
    run: Run | None
    join: int
    waits_within: bool

    @property
    def may_rest(self) -> bool:
        """Whether others may be let first here."""
        return self.instruction.name in (*_WAITING, "atom", "red")


def steps_of(program: Program) -> list[Step]:
    """The program's instructions made ready. Raises UnknownCode."""
    if not program.steps:
        program.steps = [
            Step(
                one,
                None if one.name in BRANCHES + ENDS else decode(one),
                program.joins.get(one.number, -1),
                one.number in program.joins and _waits_between(program, one, program.joins[one.number]),
            )
            for one in program.instructions
        ]
    return program.steps


def _waits_between(program: Program, branch: Instruction, join: int) -> bool:
    """Whether a warp can meet an instruction that waits for others between a branch and where its ways meet."""
    seen: set[int] = set()
    ahead = [*branch.targets, branch.number + 1]
    while ahead:
        at = ahead.pop()
        if at in seen or at == join or at >= len(program.instructions):
            continue
        seen.add(at)
        one = program.instructions[at]
        if one.name in _WAITING and one.opcode[:2] != ("bar", "warp"):
            return True
        ahead += one.targets
        if not (one.name in BRANCHES + ENDS and one.guard is None):
            ahead.append(at + 1)
    return False


class Machine:
    """Runs one chunk."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.steps = steps_of(chunk.program)
        self.executed = [0] * len(self.steps)
        self.contexts = list(self._start())

    def _start(self) -> Iterator[Context]:
        chunk = self.chunk
        end = len(self.steps)
        together = chunk.warps
        if chunk.schedule.seeded:
            grouped = any(step.instruction.name == "wgmma" for step in self.steps)
            together = WARPS if grouped else 1
        for first in range(0, chunk.warps, together):
            last = min(first + together, chunk.warps)
            warps = (last - first) * chunk.ctas
            yield Context(chunk, first * chunk.per_warp, last * chunk.per_warp, [Level(0, end, None, warps)])

    def run(self) -> None:
        """Run to the end. Raises Fault, with the source line and instruction where it has one."""
        random, seeded = self.chunk.random, self.chunk.schedule.seeded
        while self.contexts:
            free = [context for context in self.contexts if context.waits is None]
            if free:
                self._go(free[int(random.integers(len(free)))] if seeded else free[0])
                if seeded and random.random() < _REST:
                    self._deliver_anything()
            if not self._wake() and all(context.waits for context in self.contexts) and self.contexts:
                self._stalled()
        self._check_the_end()

    def _go(self, context: Context) -> None:
        """Run a context until it waits, parts, rests or ends."""
        stack, steps, executed = context.stack, self.steps, self.executed
        seeded = self.chunk.schedule.seeded
        while stack:
            level = stack[-1]
            at = level.at
            if at == level.join:
                stack.pop()
                continue
            step = steps[at]
            one = step.instruction
            mask = level.mask
            if one.guard is not None:
                mask, some = self._guarded(context, one, mask)
                if not some:
                    executed[at] += level.warps
                    level.at = at + 1
                    continue
            executed[at] += level.warps
            if step.run is None:
                if not self._flow(context, step, mask):
                    return
                continue
            if seeded and step.may_rest and not context.rested and self.chunk.random.random() < _REST:
                context.rested = True
                return
            context.rested = False
            wait = self._execute(context, step, mask)
            if wait is not None:
                context.waits = wait
                return
            level.at = at + 1
        self.contexts.remove(context)

    @staticmethod
    def _guarded(context: Context, one: Instruction, mask: Array | None) -> tuple[Array | None, bool]:
        """The lanes that the guard lets through (None: all), and whether there are any."""
        assert one.guard is not None
        holds = context.read(one.guard.number)
        if one.guard_negated:
            holds = ~holds
        if holds.shape[0] == 1:
            return mask, bool(holds[0])
        if mask is not None:
            holds = holds & mask
        elif holds.all():
            return None, True
        return holds, bool(holds.any())

    def _execute(self, context: Context, step: Step, mask: Array | None) -> Wait | None:
        assert step.run is not None
        try:
            wait: Wait | None = step.run(context, mask)
        except Fault as fault:
            raise fault.at(step.instruction.line, step.instruction.text) from None
        return wait

    def _flow(self, context: Context, step: Step, mask: Array | None) -> bool:
        """A branch or an end; False where the context is no more."""
        one, level = step.instruction, context.stack[-1]
        if one.name in ENDS:
            self._end(context, mask)
            return bool(context.stack)
        if one.name == "brx":
            return self._switch(context, step, mask)
        if mask is None or mask is level.mask or (level.mask is not None and bool((mask == level.mask).all())):
            level.at = one.targets[0]
            return True
        taken = mask
        left = ~taken if level.mask is None else level.mask & ~taken
        if step.waits_within and self._parts_a_program(context, taken, left):
            self._part(context, [taken, left])
            return False
        level.at = step.join
        for target, lanes in ((one.number + 1, left), (one.targets[0], taken)):
            if target != step.join:
                context.stack.append(Level(target, step.join, lanes, int(context.warps_of(lanes).sum())))
        return True

    def _parts_a_program(self, context: Context, taken: Array, left: Array) -> bool:
        """Whether warps of the same program go different ways; of one warp's lanes some cannot be parted."""
        a, b = context.warps_of(taken), context.warps_of(left)
        return bool((a.any(0) & b.any(0)).any() and not (a & b).any())

    def _part(self, context: Context, ways: list[Array]) -> None:
        """A context of its own for each of the ways, at the same instruction."""
        self.contexts.remove(context)
        for lanes in ways:
            stack = []
            for level in context.stack:
                mask = lanes if level.mask is None else level.mask & lanes
                stack.append(Level(level.at, level.join, mask, int(context.warps_of(mask).sum())))
            self.contexts.append(Context(self.chunk, context.low, context.high, stack))

    def _switch(self, context: Context, step: Step, mask: Array | None) -> bool:
        """brx.idx: each warp goes to the place that its index says."""
        one, level = step.instruction, context.stack[-1]
        index = context.spread(context.read(one.operands[0].number))  # type: ignore[union-attr]
        there = np.ones(context.size, np.bool_) if mask is None else mask
        kinds = np.unique(index[there])
        if len(kinds) == 1:
            level.at = one.targets[int(kinds[0])]
            return True
        self._part(context, [there & (index == kind) for kind in kinds])
        return False

    def _end(self, context: Context, mask: Array | None) -> None:
        level = context.stack[-1]
        over = mask if mask is not None else level.mask
        if over is None or (level.mask is None and bool(over.all())):
            over = np.ones(context.size, np.bool_)
        kept = []
        for one in context.stack:
            one.mask = ~over if one.mask is None else one.mask & ~over
            one.warps = int(context.warps_of(one.mask).sum())
            if one.mask.any():
                kept.append(one)
        if kept and kept[-1] is level:
            level.at += 1
        context.stack[:] = kept
        for cta, warp in context.warp_pairs(over):
            self.chunk.ended[cta, warp] = True
        if not kept:
            self.contexts.remove(context)
        self.chunk.part(Barriers).recount()

    def _wake(self) -> bool:
        """Let contexts go on whose waiting is over; whether there were any."""
        woken = []
        for context in self.contexts:
            wait = context.waits
            if wait is None:
                continue
            ready = wait.ready()
            mask = context.stack[-1].mask
            if ready.all() if mask is None else ready[mask].all():
                self._resume(context, wait)
                woken.append(context)
        if len(woken) > 1 and not self.chunk.schedule.seeded:
            self._join(woken)
        return bool(woken)

    @staticmethod
    def _resume(context: Context, wait: Wait) -> None:
        context.waits = None
        if not wait.again:
            context.stack[-1].at += 1

    def _join(self, woken: list[Context]) -> None:
        """One context for those of one slice that are at the same place."""
        by_place: dict[object, Context] = {}
        for context in woken:
            key = (context.low, context.high, tuple((level.at, level.join) for level in context.stack))
            other = by_place.setdefault(key, context)
            if other is context:
                continue
            for mine, its in zip(other.stack, context.stack, strict=True):
                assert mine.mask is not None
                assert its.mask is not None
                mine.mask = mine.mask | its.mask
                mine.warps += its.warps
            self.contexts.remove(context)
        for context in by_place.values():
            if all(level.mask is not None and level.mask.all() for level in context.stack):
                for level in context.stack:
                    level.mask = None

    def _deliver_anything(self) -> None:
        """Seeded: some asynchronous work happens now that need not."""
        if self.chunk.random.random() < 0.5:
            self.chunk.part(TensorCopies).deliver(None)
        else:
            self.chunk.part(Copies).move_some()

    def _stalled(self) -> None:
        """Nothing can go on: something arrives, or some programs go on without the others, or it is a deadlock."""
        waits = [(context, context.waits) for context in self.contexts if context.waits is not None]
        wanted = [barrier for _, wait in waits if wait.kind == "mbarrier" for barrier in wait.on]
        if self.chunk.part(TensorCopies).deliver(wanted):
            return
        for context, wait in waits:
            mask = context.stack[-1].mask
            there = np.ones(context.size, np.bool_) if mask is None else mask
            held = context.warps_of(there & ~wait.ready())
            ready = there & np.repeat(~held.reshape(-1), LANES)
            if ready.any():
                self._part(context, [ready, there & ~ready])
                free, other = self.contexts[-2:]
                self._resume(free, wait)
                other.waits = wait
                return
        raise Fault("deadlock", "; ".join(self._told(context) for context in self.contexts))

    def _told(self, context: Context) -> str:
        one = self.steps[context.stack[-1].at].instruction
        mask = context.stack[-1].mask
        warps = sorted({warp for _, warp in context.warp_pairs(mask)})
        kind = context.waits.kind if context.waits else "nothing"
        return f"warps {warps} wait for {kind} at {one.line} [{one.text}]"

    def _check_the_end(self) -> None:
        for kind, name in ((Copies, "cp.async"), (TensorCopies, "a tensor copy"), (Products, "wgmma")):
            if self.chunk.part(kind).left_over():
                raise Fault("leftover", f"{name} still under way at the end of the program")

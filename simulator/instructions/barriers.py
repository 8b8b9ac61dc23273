"""Barriers, mbarriers, fences and registers handed over (PTX ISA 8.7, sections 9.7.13.1 to .4, .15 and 9.7.17.5)."""

import numpy as np

from tidepool.simulator.chunk import Chunk, Context
from tidepool.simulator.faults import Fault, UnknownCode
from tidepool.simulator.instructions.memory import whole_warps
from tidepool.simulator.instructions.registry import (
    Run,
    address_reader,
    constant_of,
    instruction,
    raw_reader,
    writer,
)
from tidepool.simulator.numbers import Array
from tidepool.simulator.ptx import Address, Instruction, Operand, Sink
from tidepool.simulator.registers import LANES
from tidepool.simulator.waiting import Wait


class Barriers:
    """The sixteen barriers of each program of a chunk: which warps have come, and for how many it waits."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.came: dict[int, Array] = {}
        self.threads: dict[int, Array] = {}
        self.everyone: dict[int, Array] = {}
        self.left = np.zeros((chunk.ctas, chunk.warps), np.bool_)

    def arrive(self, barrier: int, warps: Array, threads: int | None, waits: bool) -> None:
        """`warps` [ctas, warps] come to a barrier of so many threads, None: all that have not ended."""
        came = self.came.setdefault(barrier, np.zeros_like(self.left))
        wanted = self.threads.setdefault(barrier, np.zeros(self.chunk.ctas, np.int64))
        ctas = np.nonzero(warps.any(1))[0]
        living = LANES * (~self.chunk.ended).sum(1)
        count = living[ctas] if threads is None else np.full(len(ctas), threads)
        if (came[ctas].any(1) & (wanted[ctas] != count)).any():
            raise Fault(
                "barrier", f"barrier {barrier} of {int(count[0])} threads, where others wait with another count"
            )
        if (came & warps).any():
            raise Fault("barrier", f"a warp comes twice to barrier {barrier}")
        wanted[ctas] = count
        self.everyone.setdefault(barrier, np.zeros(self.chunk.ctas, np.bool_))[ctas] = threads is None
        came |= warps
        if waits:
            self.left &= ~warps
        there = LANES * came[ctas].sum(1)
        if (there > count).any():
            raise Fault("barrier", f"more threads come to barrier {barrier} than the {int(count[0])} it counts")
        self._open(barrier, ctas[there == count])

    def _open(self, barrier: int, ctas: Array) -> None:
        came = self.came[barrier]
        full = ctas[came[ctas].all(1)]
        if len(full):
            self.chunk.order.meet_all(full)
        for cta in ctas[~came[ctas].all(1)]:
            self.chunk.order.meet(int(cta), np.nonzero(came[cta])[0])
        self.left[ctas] |= came[ctas]
        came[ctas] = False

    def recount(self) -> None:
        """Warps have ended: barriers that wait for all may have all."""
        living = LANES * (~self.chunk.ended).sum(1)
        for barrier, came in self.came.items():
            all_there = self.everyone[barrier] & (LANES * came.sum(1) == living)
            ready = np.nonzero(came.any(1) & all_there)[0]
            if len(ready):
                self._open(barrier, ready)


def _by_cta(context: Context, mask: Array | None) -> Array:
    """[ctas, warps of a program]: which warps take part."""
    warps = np.zeros((context.chunk.ctas, context.chunk.warps), np.bool_)
    first = context.low // context.chunk.per_warp
    part = context.warps_of(mask).T
    warps[:, first : first + part.shape[1]] = part
    return warps


@instruction("bar", "barrier", modifiers="sync warp arrive aligned cta")
def _barrier(one: Instruction) -> Run:
    if "warp" in one.opcode:
        return lambda context, mask: None
    barrier = raw_reader(one.operands[0], 32)
    threads = raw_reader(one.operands[1], 32) if len(one.operands) > 1 else None
    waits = "arrive" not in one.opcode

    def run(context: Context, mask: Array | None) -> Wait | None:
        if not context.warps_whole(mask):
            raise Fault("convergence", "part of a warp at a barrier")
        lane = int(context.chosen(mask)[0])
        number = int(context.spread(barrier(context))[lane])
        count = None if threads is None else int(context.spread(threads(context))[lane])
        state = context.chunk.part(Barriers)
        warps = _by_cta(context, mask)
        state.arrive(number, warps, count, waits)
        if not waits or state.left[warps].all():
            return None
        cta, warp = context.ctas_and_warps(np.arange(context.size))
        return Wait("barrier", lambda: state.left[cta, warp], again=False, on=number)

    return run


class Mbarrier:
    """The mbarriers at one shared address, one a program (section 9.7.13.15.2): arrivals and bytes still to come in
    this phase, how many phases are over, and what is known by whoever sees the last one's end."""

    def __init__(self, chunk: Chunk, address: int) -> None:
        self.chunk, self.address = chunk, address
        self.agent = chunk.order.new_agent()
        self.there = np.zeros(chunk.ctas, np.bool_)
        self.count, self.pending, self.bytes, self.phase, self.copies = np.zeros((5, chunk.ctas), np.int64)
        self.made_by = np.zeros((2, chunk.ctas), np.int64)
        self._clocks = np.zeros((2, 2, chunk.ctas, chunk.order.agents), np.int32)  # now and at the end; known, fenced

    @property
    def clocks(self) -> Array:
        missing = self.chunk.order.agents - self._clocks.shape[-1]
        if missing:
            self._clocks = np.pad(self._clocks, [(0, 0)] * 3 + [(0, missing)])
        return self._clocks

    def make(self, cta: int, warp: int, count: int) -> None:
        self.there[cta] = True
        self.count[cta] = self.pending[cta] = count
        self.bytes[cta] = self.phase[cta] = 0
        self.made_by[:, cta] = warp, self.chunk.order.knows[cta, warp, warp]

    def check(self, cta: int, warp: int) -> None:
        """Raises Fault where there is none, or a warp cannot know of it."""
        if not self.there[cta]:
            raise Fault("barrier", f"no mbarrier at shared address {self.address}")
        maker, at = self.made_by[:, cta]
        if maker != warp and self.chunk.order.knows[cta, warp, maker] < at:
            raise Fault("race", "mbarrier used with no barrier after it was made")

    def arrive(self, cta: int, warp: int, count: int, expected: int) -> None:
        order = self.chunk.order
        clocks = self.clocks
        clocks[0, 0, cta] = np.maximum(clocks[0, 0, cta], order.knows[cta, warp])
        clocks[0, 1, cta] = np.maximum(clocks[0, 1, cta], order.fenced[cta, warp])
        order.knows[cta, warp, warp] += 1
        self.bytes[cta] += expected
        self.pending[cta] -= count
        self._settle(cta)

    def copied(self, cta: int, size: int, number: int) -> None:
        """Copy `number` of this mbarrier has arrived with its bytes."""
        self.clocks[0, 0, cta, self.agent] = max(self.clocks[0, 0, cta, self.agent], number)
        self.bytes[cta] -= size
        self._settle(cta)

    def _settle(self, cta: int) -> None:
        if self.pending[cta] < 0:
            raise Fault("barrier", "more arrivals at an mbarrier than it counts in a phase")
        if self.pending[cta] == 0 and self.bytes[cta] == 0:
            self.phase[cta] += 1
            self.pending[cta] = self.count[cta]
            self.clocks[1, :, cta] = self.clocks[0, :, cta]

    def acquire(self, ctas: Array, warps: Array) -> None:
        """Warps have seen the end of a phase."""
        order, clocks = self.chunk.order, self.clocks
        order.knows[ctas, warps] = np.maximum(order.knows[ctas, warps], clocks[1, 0, ctas])
        order.fenced[ctas, warps] = np.maximum(order.fenced[ctas, warps], clocks[1, 1, ctas])


class Mbarriers:
    """The mbarriers of a chunk by shared address."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.at: dict[int, Mbarrier] = {}

    def make(self, address: int, cta: int, warp: int, count: int) -> None:
        if address % 8:
            raise Fault("alignment", "mbarrier at a shared address that is no multiple of 8")
        if address not in self.at:
            self.at[address] = Mbarrier(self.chunk, address)
        self.at[address].make(cta, warp, count)

    def get(self, address: int, cta: int, warp: int) -> Mbarrier:
        """The mbarrier there. Raises Fault where there is none."""
        found = self.at.get(address)
        if found is None:
            raise Fault("barrier", f"no mbarrier at shared address {address}")
        found.check(cta, warp)
        return found


def lanes_with(context: Context, mask: Array | None, addresses: Array) -> list[tuple[int, int, int, int]]:
    """(lane of the slice, program, warp, address) of the lanes that take part."""
    lanes = context.chosen(mask)
    ctas, warps = context.ctas_and_warps(lanes)
    return list(zip(lanes.tolist(), ctas.tolist(), warps.tolist(), addresses[lanes].tolist(), strict=True))


@instruction(
    "mbarrier",
    modifiers="init inval arrive arrive_drop expect_tx complete_tx try_wait test_wait parity shared shared_cta "
    "release acquire cta noComplete",
)
def _mbarrier(one: Instruction) -> Run:
    kind = one.opcode[1]
    if kind in ("try_wait", "test_wait"):
        return _wait(one)
    address: Operand = next(operand for operand in one.operands if isinstance(operand, Address))
    read_address = address_reader(address)
    last = one.operands[-1]
    read_count = raw_reader(last, 32) if not isinstance(last, Address) else None
    if kind not in ("init", "inval", "arrive", "expect_tx") or not isinstance(one.operands[0], Sink | Address):
        raise UnknownCode(f"mbarrier.{kind}")
    expects = "expect_tx" in one.opcode

    def run(context: Context, mask: Array | None) -> None:
        state = context.chunk.part(Mbarriers)
        counts = context.spread(read_count(context)) if read_count else np.ones(context.size, np.int64)
        for lane, cta, warp, where in lanes_with(context, mask, read_address(context)):
            count = int(counts[lane])
            if kind == "init":
                state.make(where, cta, warp, count)
                continue
            barrier = state.get(where, cta, warp)
            if kind == "inval":
                barrier.there[cta] = False
            elif kind == "expect_tx":
                barrier.bytes[cta] += count
            else:
                barrier.arrive(cta, warp, 1 if expects else count, count if expects else 0)

    return run


def _wait(one: Instruction) -> Run:
    """Waits for the phase of a parity to be over: the phase that is under way has the parity of those before it."""
    if "parity" not in one.opcode:
        raise UnknownCode("mbarrier waits by state")
    destination, address, parity_operand = one.operands[:3]
    read_address, read_parity = address_reader(address), raw_reader(parity_operand, 32)
    write = writer(destination, "pred")

    def run(context: Context, mask: Array | None) -> Wait | None:
        state = context.chunk.part(Mbarriers)
        lanes = context.chosen(mask)
        ctas, warps = context.ctas_and_warps(lanes)
        wanted = read_address(context)[lanes] * 2 + (context.spread(read_parity(context))[lanes] & 1)
        waited = [(state.at.get(int(key) >> 1), int(key) & 1, wanted == key) for key in np.unique(wanted)]
        for barrier, _, which in waited:
            first = int(np.argmax(which))
            if barrier is None:
                raise Fault("barrier", f"no mbarrier at shared address {int(wanted[first]) >> 1}")
            for cta, warp in np.unique(np.stack([ctas[which], warps[which]], 1), axis=0):
                barrier.check(int(cta), int(warp))

        def ready() -> Array:
            result = np.ones(context.size, np.bool_)
            for barrier, parity, which in waited:
                result[lanes[which]] = (barrier.phase[ctas[which]] & 1) != parity
            return result

        if not ready()[lanes].all():
            return Wait("mbarrier", ready, again=True, on=[barrier for barrier, _, _ in waited])
        for barrier, _, which in waited:
            barrier.acquire(ctas[which], warps[which])
        write(context, np.array([True]), mask)
        return None

    return run


@instruction(
    "fence", "membar", modifiers="proxy async async_shared_cta async_global acq_rel sc cta gpu sys gl release acquire "
    "mbarrier_init cluster alias tensormap_generic global shared_cta",
)  # fmt: skip
def _fence(one: Instruction) -> Run:
    proxy = "proxy" in one.opcode and any(part.startswith("async") for part in one.opcode)
    between_programs = "proxy" not in one.opcode and bool({"gpu", "sys", "gl"} & set(one.opcode))

    def run(context: Context, mask: Array | None) -> None:
        order = context.chunk.memory.order
        if proxy:
            warps = _by_cta(context, mask)
            context.chunk.order.fence(*np.nonzero(warps))
        elif between_programs and order is not None:
            order.fence(context.chunk.number_of[context.chosen(mask) + context.low])

    return run


class RegisterPool:
    """Registers a thread of each warp has, and those that a program's warps have given up (section 9.7.17.5)."""

    def __init__(self, chunk: Chunk) -> None:
        self.have = np.full((chunk.ctas, chunk.warps), chunk.program.registers_at_start or 0)
        self.free = np.zeros(chunk.ctas, np.int64)


@instruction("setmaxnreg", modifiers="inc dec sync aligned")
def _set_registers(one: Instruction) -> Run:
    wanted = constant_of(one.operands[0])
    more = "inc" in one.opcode
    if wanted % 8 or not 24 <= wanted <= 256:
        raise UnknownCode("count of registers that is no multiple of 8 from 24 to 256")

    def run(context: Context, mask: Array | None) -> Wait | None:
        whole_warps(context, mask)
        pool: RegisterPool = context.chunk.part(RegisterPool)
        warps = _by_cta(context, mask)
        have = pool.have[warps]
        if ((have > wanted) if more else (have < wanted)).any():
            raise Fault("register", f"setmaxnreg.{one.opcode[1]} to {wanted} from {int(have[0])}")
        needed = np.where(warps, wanted - pool.have, 0).sum(1)
        if (needed > pool.free).any():
            return Wait("registers", lambda: _free_lanes(context, pool, needed), again=True)
        pool.free -= needed
        pool.have[warps] = wanted
        return None

    return run


def _free_lanes(context: Context, pool: RegisterPool, needed: Array) -> Array:
    ctas, _ = context.ctas_and_warps(np.arange(context.size))
    return (needed <= pool.free)[ctas]

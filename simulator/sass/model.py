"""The cycle model whole: machine code and the facts of a launch in, modelled cycles and what binds them out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidepool.simulator.sass.assumed import Machine
from tidepool.simulator.sass.machine_code import Instruction
from tidepool.simulator.sass.multiprocessor import Partition, Step, Timeline
from tidepool.simulator.sass.opcodes import Kind, works
from tidepool.simulator.sass.path import ASSUMED_TRIPS, loops_of, walk
from tidepool.simulator.sass.trips import product_trips

BINDS_FROM = 0.75
"""A resource that works for this share of the cycles binds; where none does, what is waited for longest."""
_WARP = 32


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What machine code does not tell.

    `threads` of a program, `shared` bytes of its memory, `resident`: programs that a multiprocessor has room for.
    `programs` of the whole launch and `memory_bytes`, what it moves to and from DRAM (None: not known). `trips` of
    every loop, or by the address of a loop's first instruction. `counts`: how often a warp executes the instruction at
    an address (absent: never), where known. `tensor_copy`: bytes of one TMA copy, None: the stages that mbarriers
    are made for share the shared memory evenly, and the copies of a stage share it as well.

    `products`: multiply-adds that a program makes on tensor cores; they say how often the loop that has them runs, and
    `around` is how often the loop around that one does. None: `trips` say it.
    """

    threads: int
    shared: int = 0
    resident: int = 1
    programs: int | None = None
    memory_bytes: int | None = None
    trips: int | Mapping[int, int] = ASSUMED_TRIPS
    counts: Mapping[int, float] | None = None
    tensor_copy: int | None = None
    products: int | None = None
    around: int = 1

    def __post_init__(self) -> None:
        for name, number in (("threads", self.threads), ("resident", self.resident), ("programs", self.programs)):
            if number is not None and number < 1:
                raise ValueError(f"{name} {number}: expected at least 1")

    @property
    def warps(self) -> int:
        """Of a program."""
        return -(-self.threads // _WARP)


@dataclass(frozen=True, kw_only=True)
class Waves:
    """A whole launch: rounds in which every place has a program, programs of the last round (0: it is full as well),
    cycles of all, seconds at the machine's clock, and the tensor cores' share of those."""

    full: int
    tail: int
    cycles: float
    seconds: float
    tensor_share: float
    binds: str


@dataclass(frozen=True, kw_only=True)
class Modelled:
    """Modelled, not measured. `cycles` of one program from start to end while `resident` of them share a
    multiprocessor; `busy`: the share of these cycles that each resource works; `waits`: that a warp waits, by reason.
    """

    target: str
    cycles: float
    resident: int
    instructions: float
    busy: Mapping[str, float]
    waits: Mapping[str, float]
    waves: Waves | None

    @property
    def tensor_share(self) -> float:
        """Of the cycles in which the tensor cores work."""
        return self.busy["tensor"]

    @property
    def binds(self) -> str:
        """The resource that works longest, if it hardly pauses; else "wait: " and what is waited for longest."""
        busiest = max(self.busy, key=lambda resource: self.busy[resource])
        if self.busy[busiest] >= BINDS_FROM or not self.waits:
            return busiest
        return f"wait: {max(self.waits, key=lambda reason: self.waits[reason])}"


def model(code: Sequence[Instruction], launch: Launch, machine: Machine) -> Modelled:
    """Model a kernel's `code` on a machine.

    Raises UnknownOpcode for code that the model does not know, ValueError for branches to no instruction.
    """
    steps = _steps(code, launch, machine)
    if launch.programs is None:
        return _modelled(steps, launch, machine, launch.resident, None)
    places = int(machine["multiprocessors"])
    resident = min(launch.resident, -(-launch.programs // places))
    full, tail = divmod(launch.programs, places * resident)
    whole = _modelled(steps, launch, machine, resident, None)
    left = -(-tail // places)
    last = None if not tail else whole if left == resident else _modelled(steps, launch, machine, left, None)
    waves = _waves(whole, last, full, tail, launch, machine)
    return Modelled(**{**vars(whole), "waves": waves})


def _steps(code: Sequence[Instruction], launch: Launch, machine: Machine) -> list[Step]:
    done = works(code, machine, _tensor_copy(code, launch))
    visits = walk(code, _trips(code, launch), launch.counts)
    return [Step(code[visit.number].control, done[visit.number], visit.weight) for visit in visits]


def _trips(code: Sequence[Instruction], launch: Launch) -> int | Mapping[int, int]:
    """Of every loop, or by address: those with products as these say, the others as given."""
    if launch.products is None:
        return launch.trips
    found = product_trips(code, launch.products, launch.around, launch.warps)
    others = {code[loop.first].address: ASSUMED_TRIPS for loop in loops_of(code)}
    given = dict.fromkeys(others, launch.trips) if isinstance(launch.trips, int) else others | dict(launch.trips)
    return given | found


def _tensor_copy(code: Sequence[Instruction], launch: Launch) -> int:
    """Bytes of one TMA copy."""
    if launch.tensor_copy is not None:
        return launch.tensor_copy
    stages = sum(instruction.opcode.startswith("SYNCS.EXCH") for instruction in code)
    copies = sum(instruction.name == "UTMALDG" for instruction in code)
    rounds = sum("ARRIVE.TRANS64" in instruction.opcode for instruction in code)
    return launch.shared // stages * rounds // copies if stages and copies and rounds else 0


def _modelled(steps: Sequence[Step], launch: Launch, machine: Machine, resident: int, waves: Waves | None) -> Modelled:
    timeline = Partition(machine, steps, launch.warps, resident).run()
    needed = {name: cycles * resident for name, cycles in busy(steps, launch.warps, machine).items()}
    cycles = max(_elapsed(steps, timeline), *needed.values())
    return Modelled(
        target=machine.target,
        cycles=cycles,
        resident=resident,
        instructions=sum(step.weight for step in steps),
        busy={name: amount / cycles for name, amount in needed.items()},
        waits={reason: waited / cycles for reason, waited in timeline.waited.items()},
        waves=waves,
    )


def _elapsed(steps: Sequence[Step], timeline: Timeline) -> float:
    """Cycles of the whole path: those of each place as often as it stands for."""
    before, cycles = 0.0, 1.0
    for step, passed in zip(steps, timeline.passed, strict=True):
        cycles += step.weight * (passed - before)
        before = passed
    return cycles


_RESOURCES = ("issue slots", "alu", "fma", "half", "imad", "xu", "fp64", "uniform", "tensor", "shared memory", "L2")


def busy(steps: Sequence[Step], warps: int, machine: Machine) -> dict[str, float]:
    """Cycles that one program of `warps` warps keeps each resource busy: no schedule takes fewer."""
    found = dict.fromkeys(_RESOURCES, 0.0)
    of_partition = warps / machine["partitions"]
    for step in steps:
        work, weight = step.work, step.weight
        found["issue slots"] += weight * of_partition
        if work.pipe:
            found[work.pipe] += weight * work.hold * of_partition
        if work.shared or work.l2:
            times = weight * _times(work.kind, warps)
            found["shared memory"] += work.shared * times
            found["L2"] += work.l2 * times / machine["bytes: l2"]
    return found


def _times(kind: Kind, warps: int) -> float:
    """How many of a program's warps charge an instruction: a product is a warp group's, a TMA copy the program's."""
    if kind is Kind.TENSOR_COPY:
        return 1
    return -(-warps // 4) if kind is Kind.WGMMA else warps


def _waves(whole: Modelled, last: Modelled | None, full: int, tail: int, launch: Launch, machine: Machine) -> Waves:
    """Rounds one after the other, and no less time than memory takes for the bytes of all."""
    cycles = full * whole.cycles + (last.cycles if last else 0.0)
    hertz = machine["clock: GHz"] * 1e9
    memory = (launch.memory_bytes or 0) / (machine["memory: GB/s"] * 1e9) * hertz
    working = whole.tensor_share * whole.cycles / whole.resident * (launch.programs or 0) / machine["multiprocessors"]
    total = max(cycles, memory)
    return Waves(
        full=full,
        tail=tail,
        cycles=total,
        seconds=total / hertz,
        tensor_share=working / total,
        binds="memory" if memory > cycles else whole.binds,
    )

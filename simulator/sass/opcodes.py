"""What each opcode occupies, for how long, and what those wait for who wait for its result."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from tidepool.simulator.sass.assumed import Machine
from tidepool.simulator.sass.machine_code import Instruction

LANES = 32


class UnknownOpcode(ValueError):  # noqa: N818  (an opcode that is meant, not a failure)
    """Code that the model does not know; the message names the opcode and its address."""


class Kind(Enum):
    """What an instruction does besides occupying a pipe."""

    PLAIN = auto()
    COPY = auto()  # cp.async
    COPY_GROUP = auto()  # the copies before it are a group
    COPY_WAIT = auto()
    TENSOR_COPY = auto()  # TMA from global to shared memory
    EXPECT = auto()  # an mbarrier is told of the copies to come
    MBARRIER_WAIT = auto()
    WGMMA = auto()
    WGMMA_WAIT = auto()
    BARRIER = auto()  # all warps of a program


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One instruction of one warp on a machine.

    `pipe` of a partition is held for `hold` cycles ("": none). The result comes after `latency` cycles, `wait` naming
    what waits for it; `reads`: how long its operands are read. `shared`: cycles of shared memory, of the whole
    multiprocessor; `l2`: bytes through L2. `count`: groups that may stay outstanding at a wait.
    """

    kind: Kind = Kind.PLAIN
    pipe: str = ""
    hold: float = 0
    latency: float = 0
    wait: str = "other"
    reads: float = 0
    shared: float = 0
    l2: int = 0
    count: int = 0


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


_PIPES = {
    "alu": _names(
        "ISETP SEL LOP3 PRMT LEA IADD3 IADD SHF FSETP FSET FMNMX FSEL VIADD VIADDMNMX PLOP3 IMNMX VIMNMX VIMNMX3 MOV "
        "P2R R2P SGXT BMSK IABS F2FP VOTE HSETP2 HSET2 HMNMX2 VHMNMX LEPC I2FP VABSDIFF VABSDIFF4 LOP FCHK MATCH MOVM"
    ),
    "fma": _names("FADD FFMA FMUL FSWZADD"),
    "half": _names("HADD2 HFMA2 HMUL2"),
    "imad": _names("IMAD IMUL IDP CS2R"),
    "xu": _names("MUFU I2F F2I F2F FRND I2I FLO POPC BREV"),
    "fp64": _names("DADD DMUL DFMA DSETP DMNMX"),
    "uniform": _names(
        "UIADD3 UIMAD UISETP ULDC ULEA ULOP3 UMOV UPRMT USEL USGXT USHF UPLOP3 UBMSK UFLO UPOPC UBREV UP2UR UR2UP "
        "R2UR VOTEU UF2FP"
    ),
}
_PIPE_OF = {name: pipe for pipe, names in _PIPES.items() for name in names}
_LATENCY_OF_PIPE = {"xu": "latency: xu", "fp64": "latency: fp64", "uniform": "latency: uniform"}
_NO_PIPE = _names(
    "BRA EXIT NOP BSSY BSYNC BREAK BMOV WARPSYNC CALL RET ELECT YIELD NANOSLEEP CCTL PREEXIT ACQBULK KILL RPCMOV"
)
_LATENCIES = {
    "latency: constant": (_names("LDC"), "constants"),
    "latency: special register": (_names("S2R S2UR"), "special registers"),
    "latency: fence": (_names("MEMBAR FENCE ERRBAR CCTLL UTMACMDFLUSH UTMACCTL CCTLT"), "fences"),
}
_LATENCY_OF = {name: (latency, wait) for latency, (names, wait) in _LATENCIES.items() for name in names}
_SHARED_LOADS = _names("LDS LDSM ATOMS LDL")
_SHARED_STORES = _names("STS STSM STL")
_GLOBAL_LOADS = _names("LDG LD ATOMG ATOM")
_GLOBAL_STORES = _names("STG ST RED REDG")
_MMA_SHAPES = {
    "HMMA": {"16816": 2048, "1688": 1024, "1684": 512},
    "IMMA": {"16832": 4096, "16816": 2048, "8816": 1024},
    "DMMA": {"884": 256, "16816": 2048, "1688": 1024, "1684": 512},
}
"""Multiply-adds of mma.sync, by the digits of m, n and k."""
_WARPGROUP_PRODUCTS = _names("HGMMA IGMMA QGMMA")
_WIDTHS = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}


def works(instructions: Iterable[Instruction], machine: Machine, tensor_copy: int = 0) -> list[Work]:
    """The work of each instruction; `tensor_copy`: bytes of one TMA copy, which machine code does not tell.

    Raises UnknownOpcode, with address, for what is not in the tables.
    """
    plain = {name: _in_pipe(pipe, machine) for name, pipe in _PIPE_OF.items()} | dict.fromkeys(_NO_PIPE, Work())
    return [
        Work() if instruction.never else plain.get(instruction.name) or _work(instruction, machine, tensor_copy)
        for instruction in instructions
    ]


def _work(instruction: Instruction, machine: Machine, tensor_copy: int) -> Work:
    name = instruction.name
    if name in _LATENCY_OF:
        latency, wait = _LATENCY_OF[name]
        return Work(latency=machine[latency], wait=wait, reads=machine["read: registers"])
    if name in _MMA_SHAPES:
        return _mma(instruction, machine)
    if name in _WARPGROUP_PRODUCTS:
        return _warpgroup_product(instruction, machine)
    return _memory(instruction, machine) or _waiting(instruction, machine, tensor_copy) or _unknown(instruction)


def _unknown(instruction: Instruction) -> Work:
    reason = ": its warps take paths of their own, and the model knows one" if instruction.name == "USETMAXREG" else ""
    raise UnknownOpcode(f"unknown opcode {instruction.opcode} at {instruction.address:#x}{reason}")


def _in_pipe(pipe: str, machine: Machine) -> Work:
    latency = machine[_LATENCY_OF_PIPE.get(pipe, "latency: other")]
    return Work(pipe=pipe, hold=machine[f"pipe: {pipe}"], latency=latency, wait=pipe, reads=machine["read: registers"])


def _rate(opcode: str, machine: Machine) -> float:
    """Multiply-adds a cycle of a partition's tensor core."""
    name = opcode.partition(".")[0]
    if name in ("IMMA", "IGMMA", "QGMMA"):
        return machine["tensor: int8"]
    if name == "DMMA":
        return machine["tensor: fp64"]
    return machine["tensor: tf32"] if "TF32" in opcode else machine["tensor: half"]


def _mma(instruction: Instruction, machine: Machine) -> Work:
    """mma.sync: a warp's product in its partition's tensor core."""
    shapes = _MMA_SHAPES[instruction.name]
    shape = next((part for part in instruction.opcode.split(".") if part in shapes), None)
    if shape is None:
        return _unknown(instruction)
    rate = _rate(instruction.opcode, machine) * machine["tensor: share for mma.sync"]
    hold = shapes[shape] / rate
    latency = max(machine["latency: mma"], hold)
    return Work(pipe="tensor", hold=hold, latency=latency, wait="tensor", reads=machine["read: registers"])


def _warpgroup_product(instruction: Instruction, machine: Machine) -> Work:
    """wgmma: a warp's quarter, 16 rows. The whole warp group reads B, and A where it is not in registers, from shared
    memory, 32 bytes a row or column."""
    shape = re.search(r"\.64x(\d+)x(\d+)", instruction.opcode)
    if shape is None:
        return _unknown(instruction)
    columns, depth = int(shape[1]), int(shape[2])
    in_shared = 64 if instruction.operands.split(", ")[1].startswith("gdesc") else 0
    shared = (columns + in_shared) * 32 / machine["bytes: shared"]
    hold = max(16 * columns * depth / _rate(instruction.opcode, machine), shared)
    return Work(
        kind=Kind.WGMMA, pipe="tensor", hold=hold, latency=machine["latency: wgmma"], wait="tensor", shared=shared,
        reads=machine["read: registers"], count=int("gsb0" in instruction.operands),
    )  # fmt: skip


def _width(opcode: str) -> int:
    """Bytes a lane."""
    return next((_WIDTHS[part] for part in opcode.split(".") if part in _WIDTHS), 4)


def _shared_cycles(opcode: str, machine: Machine) -> float:
    """Of a warp's access without bank conflicts: a matrix of 8 × 8 × 2 bytes at a time, or all lanes' bytes."""
    parts = opcode.split(".")
    if parts[0] in ("LDSM", "STSM"):
        return (4 if "4" in parts else 2 if "2" in parts else 1) * 128 / machine["bytes: shared"]
    return max(1, _width(opcode) * LANES / machine["bytes: shared"])


def _memory(instruction: Instruction, machine: Machine) -> Work | None:
    """Loads, stores and copies by the lanes of a warp; None: something else."""
    name, opcode = instruction.name, instruction.opcode
    shared = _shared_cycles(opcode, machine)
    reads, through_l2 = machine["read: registers"], _width(opcode) * LANES
    if name == "SHFL":
        return Work(latency=machine["latency: shuffle"], wait="shuffles", reads=reads, shared=1)
    if name in _SHARED_LOADS:
        return Work(latency=machine["latency: shared"], wait="shared loads", reads=reads, shared=shared)
    if name in _SHARED_STORES:
        return Work(latency=machine["latency: shared store"], wait="shared stores", reads=reads, shared=shared)
    if name in _GLOBAL_LOADS:
        return Work(latency=machine["latency: global"], wait="global loads", reads=reads, shared=shared, l2=through_l2)
    if name in _GLOBAL_STORES:
        latency = machine["latency: global store"]
        return Work(latency=latency, wait="global stores", reads=latency, shared=shared, l2=through_l2)
    if name == "LDGSTS":
        latency = machine["latency: copy"]
        return Work(kind=Kind.COPY, latency=latency, wait="copies", reads=reads, shared=shared, l2=through_l2)
    return None


def _waiting(instruction: Instruction, machine: Machine, tensor_copy: int) -> Work | None:
    """Barriers, groups and what they count; None: something else."""
    name, opcode = instruction.name, instruction.opcode
    if name in ("BAR", "UCGABAR_WAIT"):
        return Work(kind=Kind.BARRIER, latency=machine["latency: barrier"], wait="barriers")
    if name == "LDGDEPBAR":
        return Work(kind=Kind.COPY_GROUP, wait="copies")
    if name == "DEPBAR":
        return Work(kind=Kind.COPY_WAIT, wait="copies", count=_last_number(instruction))
    if name == "WARPGROUP":
        waits = "DEPBAR" in opcode
        return Work(kind=Kind.WGMMA_WAIT, wait="tensor", count=_last_number(instruction)) if waits else Work()
    if name in ("UTMALDG", "UBLKCP"):
        shared = tensor_copy / machine["bytes: shared"]
        latency = machine["latency: tensor copy"]
        return Work(kind=Kind.TENSOR_COPY, latency=latency, wait="tensor copies", shared=shared, l2=tensor_copy)
    if name in ("UTMASTG", "UTMAREDG"):
        shared = tensor_copy / machine["bytes: shared"]
        return Work(latency=machine["latency: global store"], wait="tensor stores", shared=shared, l2=tensor_copy)
    return _mbarrier(opcode, machine) if name == "SYNCS" else None


def _mbarrier(opcode: str, machine: Machine) -> Work:
    latency, reads = machine["latency: mbarrier"], machine["read: registers"]
    if "TRYWAIT" in opcode:
        return Work(kind=Kind.MBARRIER_WAIT, latency=latency, wait="tensor copies", reads=reads)
    kind = Kind.EXPECT if "ARRIVE" in opcode and "TRANS64" in opcode else Kind.PLAIN
    return Work(kind=kind, latency=latency, wait="mbarriers", reads=reads)


def _last_number(instruction: Instruction) -> int:
    found = re.search(r"0x([0-9a-f]+)\s*$", instruction.operands)
    return int(found[1], 16) if found else 0

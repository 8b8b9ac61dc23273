"""Machine code as NVIDIA's disassembler prints it: instructions with the control word of each.

An instruction of sm_70 and later is 128 bits. Bits 105 to 125 steer its issue (Jia et al., "Dissecting the NVIDIA Volta
GPU Architecture via Microbenchmarking", arXiv:1804.06826, section 2.1): cycles to stall after it (4 bits), yield (1),
the barrier that its result sets (3) and the one that its operands' reading sets (3), 7 meaning none, and a mask of the
six barriers to wait for before it (6).
"""

import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

BARRIERS = 6
_BYTES = 16
_LINE = re.compile(
    r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s*/\* 0x[0-9a-f]{16} \*/(?:\s*\n\s+/\* 0x([0-9a-f]{16}) \*/)?", re.MULTILINE
)
_BARE_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", re.MULTILINE)
_PARTS = re.compile(r"(?:@(!?U?P[T\d]+)\s+)?([A-Z][\w.]*)\s*(.*)", re.DOTALL)
_ADDRESS = re.compile(r"(^|[\s,])(-?0x[0-9a-f]+)$")  # below 0 where distinct instructions stand by themselves


@dataclass(frozen=True, slots=True)
class Control:
    """How an instruction is issued: cycles until the warp's next one, barriers set and barriers waited for."""

    stall: int = 1
    write: int | None = None
    read: int | None = None
    waits: tuple[int, ...] = ()


@dataclass(frozen=True)
class Instruction:
    """One instruction: address in bytes from the kernel's first, predicate ("" always), opcode with its modifiers."""

    address: int
    opcode: str
    operands: str = ""
    predicate: str = ""
    control: Control = Control()

    @cached_property
    def name(self) -> str:
        """The opcode without modifiers."""
        return self.opcode.partition(".")[0]

    @property
    def never(self) -> bool:
        """Whether its predicate is false always."""
        return self.predicate == "!PT"

    @property
    def target(self) -> int:
        """The address that a branch, or call, goes to. Raises ValueError where none is written."""
        found = _ADDRESS.search(self.operands)
        if found is None:
            raise ValueError(f"{self.opcode} {self.operands} at {self.address:#x}: expected an address to go to")
        return int(found[2], 16)


def parse(text: str) -> list[Instruction]:
    """The instructions of one kernel, as `cuobjdump -sass` or `nvdisasm --binary -hex` print them.

    Raises ValueError where there is none, or an instruction without its second word.
    """
    found = list(_lines(text))
    if not found:
        raise ValueError("no instructions: expected disassembly with encodings, as cuobjdump -sass prints it")
    return found


def _lines(text: str) -> Iterator[Instruction]:
    for line in _LINE.finditer(text):
        if line[3] is None:
            raise ValueError(f"instruction at {line[1]} has no control word: expected two words of 16 hex digits")
        address = int(line[1], 16)
        predicate, opcode, operands = _parts(address, line[2])
        yield Instruction(address, opcode, operands, predicate, control_of(int(line[3], 16)))


def _parts(address: int, text: str) -> tuple[str, str, str]:
    """Predicate, opcode and operands."""
    parts = _PARTS.match(text)
    if parts is None:
        raise ValueError(f"instruction at {address:#x} is not understood: {text!r}")
    predicate, opcode, operands = parts.groups("")
    return predicate, opcode, operands


def control_of(word: int) -> Control:
    """The control fields of an instruction's upper 64 bits."""
    return _control(word >> 41 & 0x1FFFF)


@cache
def _control(bits: int) -> Control:
    waits = tuple(barrier for barrier in range(BARRIERS) if bits >> 11 >> barrier & 1)
    return Control(bits & 0xF, _barrier(bits >> 5), _barrier(bits >> 8), waits)


def _barrier(bits: int) -> int | None:
    number = bits & 7
    return number if number < BARRIERS else None


def kernel_code(cubin: bytes) -> bytes:
    """The machine code of a cubin's one kernel. Raises ValueError where there is none, or more."""
    codes = [code for name, code in _sections(cubin) if name.startswith(".text.")]
    if len(codes) != 1:
        raise ValueError(f"cubin holds {len(codes)} kernels: expected one")
    return codes[0]


def _sections(cubin: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an ELF file's sections (System V ABI, chapter 4)."""
    if cubin[:5] != b"\x7fELF\x02":
        raise ValueError("not a cubin: expected a 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names_in = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", cubin, table + number * size) for number in range(count)]
    names = headers[names_in][4]
    for name, _, _, _, offset, length in headers:
        end = cubin.index(b"\0", names + name)
        yield cubin[names + name : end].decode(), cubin[offset : offset + length]


def disassemble(cubins: Sequence[bytes], target: str, nvdisasm: Path) -> list[list[Instruction]]:
    """The instructions of cubins of one target ("sm_90"), by one run of the disassembler over each distinct one once:
    its start and the printing are most of the time.

    Raises ValueError for what is no cubin of one kernel, subprocess.CalledProcessError where the tool fails.
    """
    codes = [list(struct.iter_unpack("<QQ", kernel_code(cubin))) for cubin in cubins]
    distinct: dict[_Words, _Words] = {}  # as they first stand somewhere: not every control word goes with every opcode
    for low, high in (words for code in codes for words in code):
        distinct.setdefault((low, high & ~_CONTROL), (low, high))
    read = dict(zip(distinct, _disassembled(list(distinct.values()), target, nvdisasm), strict=True))
    return [
        [read[low, high & ~_CONTROL].at(_BYTES * number, high) for number, (low, high) in enumerate(code)]
        for code in codes
    ]


_Words = tuple[int, int]
"""The lower and the upper 64 bits of an instruction."""
_CONTROL = 0x1FFFF << 41
"""The control fields among the upper 64 bits: two instructions that differ in these only read the same."""
_GOES = ("BRA", "CALL", "BSSY", "RET", "BRX", "JMP")


@dataclass(frozen=True)
class _Read:
    """What was read of an encoding; `ahead`: how far from it the instruction is that it goes to, if any."""

    predicate: str
    opcode: str
    operands: str
    ahead: int | None

    def at(self, address: int, high: int) -> Instruction:
        """The instruction at an address, with the control word of its upper 64 bits."""
        operands = self.operands
        if self.ahead is not None:
            operands = _ADDRESS.sub(rf"\g<1>{address + self.ahead:#x}", operands)
        return Instruction(address, self.opcode, operands, self.predicate, control_of(high))


def _disassembled(distinct: Sequence[_Words], target: str, nvdisasm: Path) -> list[_Read]:
    if not distinct:
        return []
    with tempfile.NamedTemporaryFile(suffix=".bin") as binary:
        binary.write(b"".join(struct.pack("<QQ", *words) for words in distinct))
        binary.flush()
        kind = target.upper().replace("_", "") + ("a" if target == "sm_90" else "")
        command = [str(nvdisasm), "--binary", kind, "-ndf", binary.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [_read(int(address, 16), text) for address, text in _BARE_LINE.findall(done.stdout)]


def _read(address: int, text: str) -> _Read:
    predicate, opcode, operands = _parts(address, text)
    found = _ADDRESS.search(operands) if opcode.partition(".")[0] in _GOES else None
    return _Read(predicate, opcode, operands, None if found is None else int(found[2], 16) - address)

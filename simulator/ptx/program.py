"""The records that a PTX text is parsed into. Section numbers are those of the PTX ISA 8.7."""

import functools
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Register:
    """A register by its number in the program, with its width in bits; 1 for a predicate (section 5.2)."""

    number: int
    bits: int


@dataclass(frozen=True)
class Immediate:
    """A constant. Floating-point ones (0f.., 0d..) are their bits (section 4.5)."""

    value: int


@dataclass(frozen=True)
class Special:
    """A read-only special register such as %tid.x (section 10)."""

    name: str


@dataclass(frozen=True)
class Symbol:
    """The address of a parameter or of a shared variable."""

    name: str


@dataclass(frozen=True)
class Sink:
    """`_`, a destination that is not wanted."""


@dataclass(frozen=True)
class Vector:
    """`{a, b, ...}`."""

    items: tuple["Operand", ...]


@dataclass(frozen=True)
class Pair:
    """`a|b`, two destinations of one instruction."""

    first: "Operand"
    second: "Operand"


@dataclass(frozen=True)
class Address:
    """`[base + offset]`; `[map, {coordinates}]` of a tensor copy has its coordinates besides."""

    base: "Operand"
    offset: int
    coordinates: tuple["Operand", ...] = ()


Operand = Register | Immediate | Special | Symbol | Sink | Vector | Pair | Address


@dataclass(frozen=True)
class Parameter:
    """A kernel parameter: its place among the parameter bytes, and whether it points to global memory."""

    offset: int
    size: int
    pointer: bool


@dataclass
class Instruction:
    """One instruction. `opcode` is split at its dots; `guard` is the predicate register of `@p` or `@!p`."""

    number: int
    opcode: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Register | None
    guard_negated: bool
    line: str
    text: str
    targets: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The opcode without its modifiers."""
        return self.opcode[0]

    @property
    def type(self) -> str:
        """The last modifier, for most instructions the type of the operands."""
        return self.opcode[-1]


@dataclass(kw_only=True)
class Program:
    """One kernel, parsed from `text`. `joins` has for every branch the instruction at which its ways meet again;
    `steps` is for whoever runs it to keep what was made ready."""

    text: str
    name: str
    target: str
    parameters: dict[str, Parameter]
    parameter_bytes: int
    instructions: list[Instruction]
    widths: list[int]
    registers_at_start: int | None
    shared: dict[str, int]
    shared_bytes: int
    joins: dict[int, int] = field(default_factory=dict)
    steps: list[Any] = field(default_factory=list)

    @functools.cached_property
    def guesses(self) -> frozenset[int]:
        """The loads from the very place of a compare-and-swap, by number: compilers begin their loops so where there is
        no atomic of a kind (LLVM's for bfloat16 sums on sm_80)."""
        swapped = {one.operands[1] for one in self.instructions if one.name == "atom" and "cas" in one.opcode}
        return frozenset(
            one.number for one in self.instructions if one.name == "ld" and one.operands[1] in swapped
        )  # fmt: skip

"""PTX text as a program: instructions, parameters, registers, and where branches meet again."""

from tidepool.simulator.ptx.parse import parse
from tidepool.simulator.ptx.program import (
    Address,
    Immediate,
    Instruction,
    Operand,
    Pair,
    Parameter,
    Program,
    Register,
    Sink,
    Special,
    Symbol,
    Vector,
)

__all__ = [
    "Address",
    "Immediate",
    "Instruction",
    "Operand",
    "Pair",
    "Parameter",
    "Program",
    "Register",
    "Sink",
    "Special",
    "Symbol",
    "Vector",
    "parse",
]

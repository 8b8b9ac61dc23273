"""Machine code written by hand, for tests: a line an instruction, its control word in words behind it."""

import re

from tidepool.simulator.sass import Control, Instruction

_FIELDS = re.compile(r"\s*(stall|write|read|waits)=(\S+)")


def code(text: str) -> list[Instruction]:
    """Instructions of lines like `@P0 LDG.E R1, [R2.64] ; write=0 stall=2`, 16 bytes each; stall is 1 if not given."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return [_instruction(number, line) for number, line in enumerate(lines)]


def _instruction(number: int, line: str) -> Instruction:
    words, _, control = line.partition(";")
    predicate, _, rest = words.strip().partition(" ") if words.startswith("@") else ("", "", words.strip())
    opcode, _, operands = rest.partition(" ")
    return Instruction(16 * number, opcode, operands.strip(), predicate.removeprefix("@"), _control(control))


def _control(text: str) -> Control:
    given = dict(_FIELDS.findall(text))
    waits = tuple(int(barrier) for barrier in given.pop("waits", "").split(",") if barrier)
    return Control(waits=waits, **{name: int(number) for name, number in given.items()})

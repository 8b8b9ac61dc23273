"""Moves between registers, and instructions that are hints (PTX ISA 8.7, section 9.7.9)."""

from tidepool.simulator.chunk import Context
from tidepool.simulator.instructions.registry import Run, instruction, raw_reader, writer
from tidepool.simulator.numbers import Array, bits_of
from tidepool.simulator.ptx import Instruction, Register


@instruction("mov", "cvta", modifiers="to global shared param const")
def _move(one: Instruction) -> Run:
    destination, source = one.operands
    bits = bits_of(one.type)
    read = raw_reader(source, bits)
    if isinstance(destination, Register) and isinstance(source, Register) and destination.bits == source.bits:
        target, number = destination.number, source.number

        def share(context: Context, mask: Array | None) -> None:
            context.registers.share(number)
            context.write(target, context.read(number), mask)

        return share
    write = writer(destination, "pred" if bits == 1 else f"b{bits}")
    return lambda context, mask: write(context, read(context), mask)


@instruction("prefetch", "griddepcontrol", "nanosleep", modifiers="wait launch_dependents global L1 L2")
def _hint(one: Instruction) -> Run:
    return lambda context, mask: None

"""Whether the simulator knows a kernel's code, without running it."""

from tidepool.simulator.faults import UnknownCode
from tidepool.simulator.instructions import decode
from tidepool.simulator.ptx import parse
from tidepool.simulator.ptx.flow import BRANCHES, ENDS

_decoded: set[tuple[str, ...]] = set()
"""Opcodes, with their modifiers, that an instruction of was decoded."""


def unknown_code(ptx: str) -> str:
    """What of a PTX text the simulator cannot run, in one line; empty where it can run all of it."""
    try:
        for one in parse(ptx).instructions:
            if one.opcode not in _decoded and one.name not in BRANCHES + ENDS:
                decode(one)
                _decoded.add(one.opcode)
    except UnknownCode as error:
        return str(error)
    return ""


def forget_known() -> None:
    """Decode every opcode anew."""
    _decoded.clear()

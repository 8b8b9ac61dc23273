"""A model of one multiprocessor's cycles, read off machine code and its control words. Modelled, not measured.

    from tidepool.simulator.sass import Launch, disassemble, machine_named, model
    (code,) = disassemble([cubin], "sm_90", nvdisasm)
    found = model(code, Launch(threads=128, resident=2, programs=1568), machine_named("sm_90"))
    found.cycles, found.binds, found.tensor_share, found.waves.seconds

README.md in this folder says what is modelled, what is assumed and what it cannot say.
"""

from tidepool.simulator.sass.assumed import MACHINES, SM_80, SM_90, Machine, UnknownTarget, machine_named
from tidepool.simulator.sass.machine_code import Control, Instruction, disassemble, parse
from tidepool.simulator.sass.model import Launch, Modelled, Waves, model
from tidepool.simulator.sass.opcodes import UnknownOpcode
from tidepool.simulator.sass.path import ASSUMED_TRIPS

__all__ = [
    "ASSUMED_TRIPS",
    "MACHINES",
    "SM_80",
    "SM_90",
    "Control",
    "Instruction",
    "Launch",
    "Machine",
    "Modelled",
    "UnknownOpcode",
    "UnknownTarget",
    "Waves",
    "disassemble",
    "machine_named",
    "model",
    "parse",
]

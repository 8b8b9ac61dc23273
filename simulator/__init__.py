"""Runs compiled GPU code on a CPU: PTX, a grid, parameter bytes and memory in, the same memory and what was done out.

Knows nothing of the kernels of this project. Importing it loads neither torch nor Triton.
"""

from tidepool.simulator.devices import Device, asked, clear_caches, current, device, follow, stay
from tidepool.simulator.faults import Fault, UnknownCode
from tidepool.simulator.known import unknown_code
from tidepool.simulator.launch import Report
from tidepool.simulator.schedule import KINDS, Schedule, schedule_named
from tidepool.simulator.targets import TARGETS

__all__ = [
    "KINDS",
    "TARGETS",
    "Device",
    "Fault",
    "Report",
    "Schedule",
    "UnknownCode",
    "asked",
    "clear_caches",
    "current",
    "device",
    "follow",
    "schedule_named",
    "stay",
    "unknown_code",
]

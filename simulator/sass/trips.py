"""How often the loop with a program's products runs, from how many products the program makes.

The multiply-adds of one program are known from its tile and its layer; those of one trip, and those outside the loop,
from the shapes of the tensor instructions. What an unrolling compiler does to the number of trips comes out by itself.
"""

import re
from collections.abc import Sequence

from tidepool.simulator.sass.machine_code import Instruction
from tidepool.simulator.sass.path import Loop, loops_of, walk

_MMA = {"16816": 2048, "1688": 1024, "1684": 512, "884": 256}
"""Multiply-adds of mma.sync by the digits of m, n and k."""
_WARPGROUP = re.compile(r"^[HIQ]GMMA\.(?:\w+\.)*?64x(\d+)x(\d+)")
_WARPS = 4
"""Of a warp group."""


def multiply_adds(instruction: Instruction, warps: int) -> int:
    """Of a program of `warps` warps that all execute the instruction once; 0 where it is none of a tensor core's."""
    if instruction.never:
        return 0
    group = _WARPGROUP.match(instruction.opcode)
    if group is not None:
        return 64 * int(group[1]) * int(group[2]) * max(warps // _WARPS, 1)
    if instruction.name not in ("HMMA", "DMMA"):
        return 0
    shape = next((part for part in instruction.opcode.split(".") if part in _MMA), None)
    return 0 if shape is None else _MMA[shape] * warps


def product_trips(code: Sequence[Instruction], products: int, around: int, warps: int) -> dict[int, int]:
    """Trips by the address of a loop's first instruction, so that a program makes `products` multiply-adds.

    `around`: trips of the loop around that loop, where there is one with the same products. Empty where none has any.
    """
    made = [multiply_adds(instruction, warps) for instruction in code]
    busy = [loop for loop in loops_of(code) if any(made[loop.first : loop.last + 1])]
    inner = [loop for loop in busy if not any(_within(other, loop) for other in busy)]
    if not inner:
        return {}
    main = max(inner, key=lambda loop: (sum(made[loop.first : loop.last + 1]), loop.first - loop.last))
    trips = {code[loop.first].address: around if _within(main, loop) else 1 for loop in busy}
    visits = walk(code, dict.fromkeys(trips, 1))
    outside = sum(visit.weight * made[visit.number] for visit in visits if not main.holds(visit.number))
    one_trip = sum(visit.weight * made[visit.number] for visit in visits if main.holds(visit.number))
    nested = any(_within(main, loop) for loop in busy)
    wanted = products / (around if nested else 1) - outside
    if one_trip:
        for loop in (main, *(loop for loop in busy if _entangled(main, loop))):
            trips[code[loop.first].address] = max(1, round(wanted / one_trip))
    return trips


def _entangled(one: Loop, other: Loop) -> bool:
    """Whether two loops share a part, and neither lies in the other: the walk over tiles and the sum within a tile,
    made one loop, have two ways back."""
    apart = one.last < other.first or other.last < one.first
    return not apart and not _within(one, other) and not _within(other, one) and one is not other


def _within(inner: Loop, outer: Loop) -> bool:
    return inner is not outer and outer.first <= inner.first and inner.last <= outer.last

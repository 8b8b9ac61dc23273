"""Reductions across lanes of which a compiler contracted one side, found in PTX.

A butterfly (`shfl.sync.bfly`, PTX ISA 9.7.9.6) leaves one sum in every lane as long as each adds what came to what it
sent: a + b in one lane is b + a in the other. Where what it sent is a product, `fma` adds its own product before that
is rounded to the other's rounded one, and the lanes hold different sums (`device.arithmetic.summed` prevents it).

The rule: no `fma` has for its addend what a butterfly brought, 64-bit numbers put together of two halves included.
"""

import re

_EXCHANGED = re.compile(r"shfl\.sync\.bfly\.b32\s+(%\w+)")
_JOINED = re.compile(r"mov\.b64\s+(%\w+), \{\s*(%\w+), (%\w+)\s*\}")
_COPIED = re.compile(r"mov\.\w+\s+(%\w+), (%\w+);")
_FUSED = re.compile(r"fma\.\S+\s+%\w+, %\w+, \S+, (%\w+);")


def contracted_sums(ptx: str) -> list[str]:
    """A line for each `fma` of a kernel's PTX that the rule finds, in order."""
    came: set[str] = set()
    found = []
    for line in ptx.splitlines():
        if exchanged := _EXCHANGED.search(line):
            came.add(exchanged[1])
        elif joined := _JOINED.search(line):
            came |= {joined[1]} if came & {joined[2], joined[3]} else set()
        elif copied := _COPIED.search(line):
            came |= {copied[1]} if copied[2] in came else set()
        elif (fused := _FUSED.search(line)) and fused[1] in came:
            found.append(f"one lane's product is added unrounded to the other's rounded: {line.strip()}")
    return found

"""Vector divisions in LLVM IR that LLVM's NVPTX backend gets wrong, found in the text.

The LLVM of Triton 3.6, 3.7 and 3.8 expands a signed vector division by powers of two lane by lane into shifts, and for
a lane that divides by 1 shifts by the width of the integer, which is undefined; the lane is put right afterwards, but
not where it was folded first (docs/upstream/llvm-nvptx-sdiv.md). LLVM's vectorizer makes such lanes of its own accord,
as 0 / 1, beside divisions that a kernel asked for.

The rule: `sdiv` or `srem` by a constant vector of which every lane is a power of two or the negative of one, not all
the same, and of which a lane is 1 or -1 where the dividend's lane is a constant. Known to come out wrong is the
constant 0 over 1; other constants, and -1, take the same expansion and were right where they were tried. A lane known
at run time alone is never folded, and divisors that are all equal are expanded as one.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

_VALUE = r"(%[\w.\-]+|zeroinitializer|poison|undef|splat \([^)]*\)|<[^<>]*>)"
_VECTOR = r"<(\d+) x i\d+>"
_DIVISION = re.compile(rf"(sdiv|srem) (?:exact )?({_VECTOR}) {_VALUE}, {_VALUE}")
_INSERTED = re.compile(rf"insertelement {_VECTOR} {_VALUE}, i\d+ (\S+), i\d+ (\d+)")
_SHUFFLED = re.compile(rf"shufflevector {_VECTOR} {_VALUE}, {_VECTOR} {_VALUE}, {_VECTOR} {_VALUE}")
_CONVERTED = re.compile(rf"(?:sext|zext|trunc|freeze)(?: \w+)* {_VECTOR} {_VALUE}")
_COMBINED = re.compile(rf"(add|sub|mul|shl|lshr|ashr|and|or|xor)(?: \w+)* {_VECTOR} {_VALUE}, {_VALUE}")
_FUNCTION = re.compile(r"^define .*?^}", re.MULTILINE | re.DOTALL)
_DEFINITION = re.compile(r"^\s+(%[\w.\-]+) = (.*)$", re.MULTILINE)

_OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "shl": lambda a, b: a << b,
    "lshr": lambda a, b: a >> b,
    "ashr": lambda a, b: a >> b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}

Lane = int | None
"""A vector's element: the constant that it is, or None for what is known at run time (or is poison)."""


@dataclass(frozen=True)
class VectorDivision:
    """A division that the rule of this module finds: its operation and type, its divisors, and the lanes at risk."""

    operation: str
    divisors: tuple[int, ...]
    lanes: tuple[int, ...]

    def __str__(self) -> str:
        by = ", ".join(map(str, self.divisors))
        return f"{self.operation} by <{by}> may leave lane {', '.join(map(str, self.lanes))} undefined"


def vector_divisions(llir: str) -> list[VectorDivision]:
    """The divisions in the text of an LLVM module that the rule finds, in order."""
    return [found for text in _FUNCTION.findall(llir) for found in _Function(text).divisions()]


class _Function:
    """The values of one function by name, and of vectors the elements, as far as they have been asked for."""

    def __init__(self, text: str) -> None:
        self._definitions: dict[str, str] = dict(_DEFINITION.findall(text))
        self._seen: dict[tuple[str, int], list[Lane]] = {}

    def divisions(self) -> Iterator[VectorDivision]:
        for definition in self._definitions.values():
            if (division := _DIVISION.match(definition)) is None:
                continue
            operation, kind, count, dividend, divisor = division.groups()
            divisors = [lane for lane in self._lanes(divisor, int(count)) if lane is not None]
            if len(divisors) == int(count) and _expanded_by_lanes(divisors):
                dividends = self._lanes(dividend, int(count))
                lanes = [i for i, one in enumerate(divisors) if abs(one) == 1 and dividends[i] is not None]
                if lanes:
                    yield VectorDivision(f"{operation} {kind}", tuple(divisors), tuple(lanes))

    def _lanes(self, value: str, count: int) -> list[Lane]:
        """The elements of a vector, read back through what put it together; None each where that is not seen."""
        if not value.startswith("%"):
            return _constants(value, count)
        if (value, count) not in self._seen:
            self._seen[value, count] = self._defined(self._definitions.get(value, ""), count)
        return self._seen[value, count]

    def _defined(self, definition: str, count: int) -> list[Lane]:
        if found := _INSERTED.match(definition):
            lanes = list(self._lanes(found[2], count))
            lanes[int(found[4])] = _number(found[3])
            return lanes
        if found := _SHUFFLED.match(definition):
            both = [*self._lanes(found[2], int(found[1])), *self._lanes(found[4], int(found[3]))]
            return [None if at is None else both[at] for at in _constants(found[6], count)]
        if found := _CONVERTED.match(definition):
            return self._lanes(found[2], count)
        if found := _COMBINED.match(definition):
            pairs = zip(self._lanes(found[3], count), self._lanes(found[4], count), strict=True)
            return [_combined(found[1], a, b) for a, b in pairs]
        return [None] * count


def _expanded_by_lanes(divisors: list[int]) -> bool:
    return len(set(divisors)) > 1 and all(one and abs(one) & (abs(one) - 1) == 0 for one in divisors)


def _combined(operation: str, a: Lane, b: Lane) -> Lane:
    if operation in ("mul", "and") and 0 in (a, b):
        return 0
    return None if a is None or b is None else _OPERATIONS[operation](a, b)


def _constants(text: str, count: int) -> list[Lane]:
    if text in ("poison", "undef"):
        return [None] * count
    if text == "zeroinitializer":
        return [0] * count
    if text.startswith("splat"):
        return [_number(text[7:-1].split()[-1])] * count
    return [_number(element.split()[-1]) for element in text[1:-1].split(",")]


def _number(text: str) -> Lane:
    return int(text) if re.fullmatch(r"-?\d+", text) else None

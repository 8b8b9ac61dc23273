"""The draws of a random search: one quasi-random sequence a sweep, from its name, the same on every machine.

A scrambled Sobol sequence covers each parameter's range evenly however few draws there are: of the first 4, one lies in
each quarter of every parameter, of the first 8 one in each eighth. Where only so many combinations are possible, one
that was drawn is not drawn again. Source: Owen 1998, "Scrambling Sobol and Niederreiter-Xing points".
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tidepool.sweeping.parameters import Native, Parameter, Value, natives_of

_FIRST_BLOCK = 64
_MOST_REPEATS = 1000  # draws in a row that were there before, until the rest is enumerated
_MOST_ENUMERATED = 1_000_000


@dataclass(frozen=True)
class Draw:
    """One draw: the values a run is given, and the same in the search's own terms, without constants."""

    params: dict[str, Value]
    natives: dict[str, Native]


def sweep_seed(name: str, seed: int | None) -> int:
    """The seed of everything a sweep draws."""
    text = name if seed is None else f"{name}\0{seed}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def draws(parameters: Sequence[Parameter], seed: int) -> Iterator[Draw]:
    """The sequence of a search over `parameters`; it ends where every combination has been drawn."""
    drawn = (_draw(parameters, quantiles) for quantiles in _quantiles(parameters, seed))
    if not all(parameter.is_discrete for parameter in parameters):
        yield from drawn
        return
    seen: set[tuple[Native, ...]] = set()
    repeats = 0
    for draw in drawn:
        mark = _mark(draw.params)
        repeats = repeats + 1 if mark in seen else 0
        if not repeats:
            seen.add(mark)
            yield draw
        elif repeats == _MOST_REPEATS:
            break
    yield from _rest(parameters, seed, seen)


def combinations(parameters: Sequence[Parameter]) -> int | None:
    """How many different draws there can be, None where they cannot be counted."""
    values = [parameter.discrete_values() for parameter in parameters]
    return None if None in values else math.prod(len(each) for each in values if each is not None)


def _quantiles(parameters: Sequence[Parameter], seed: int) -> Iterator[list[float]]:
    count = sum(not parameter.is_constant for parameter in parameters)
    if count == 0:
        yield from itertools.repeat([])
        return
    from scipy.stats import qmc  # a second's import that only a search needs

    sequence, block = qmc.Sobol(count, seed=seed), _FIRST_BLOCK
    while True:
        yield from sequence.random(block).tolist()
        block = sequence.num_generated  # powers of two, which the sequence's evenness rests on


def _draw(parameters: Sequence[Parameter], quantiles: list[float]) -> Draw:
    remaining = iter(quantiles)
    params: dict[str, Value] = {}
    natives: dict[str, Native] = {}
    for parameter in parameters:
        if parameter.is_constant:
            params[parameter.name] = parameter.settings["value"]
        else:
            natives[parameter.name] = parameter.native(next(remaining))
            params[parameter.name] = parameter.value(natives[parameter.name])
    return Draw(params, natives)


def _mark(params: dict[str, Value]) -> tuple[Native, ...]:
    return tuple(f"{type(value).__name__} {value!r}" for value in params.values())


def _rest(parameters: Sequence[Parameter], seed: int, seen: set[tuple[Native, ...]]) -> Iterator[Draw]:
    """What has not been drawn of all combinations, shuffled; nothing where they are too many to list."""
    import numpy as np

    total = combinations(parameters)
    if total is None or total > _MOST_ENUMERATED or total <= len(seen):
        return
    values = [parameter.discrete_values() or () for parameter in parameters]
    names = [parameter.name for parameter in parameters]
    whole = [dict(zip(names, each, strict=True)) for each in itertools.product(*values)]
    for index in np.random.default_rng(seed).permutation(total):
        if _mark(whole[index]) not in seen:
            yield Draw(whole[index], natives_of(parameters, whole[index]))

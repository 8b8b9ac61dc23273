"""The record of one claim: what is asked, how it is measured, what the rows say, how they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd
from matplotlib.figure import Figure as Canvas

Outcome = Literal["holds", "holds in part", "does not hold", "undecided"]
SEEDS = 5


class MissingDataError(RuntimeError):
    """A case needs data that is not on this machine. The message is one line: what, and how to give it."""


@dataclass(frozen=True)
class Measurement:
    """One number: `quantity` names it with its unit, `at` is its place on an axis (samples, depth, shift) or None.

    `picture` is a small grey image, as `frame.pictures.encode` writes it, that belongs to the number.
    """

    quantity: str
    value: float
    at: float | None = None
    picture: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the rows say: the outcome in a word, and sentences with means, differences and their 95 % intervals."""

    outcome: Outcome
    found: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim. `measure(case, seed)` gives the rows of one cell; cells are what a killed run resumes by."""

    place: int
    """In the chapter, from 1."""
    title: str
    """What is said, as a sentence."""
    question: str
    control: str
    anchor: str
    """What others found, to stand beside."""
    limits: str
    """What it does not show."""
    seconds: int
    """Processor time of a whole run, about."""
    cases: tuple[str, ...]
    measure: Callable[[str, int], Iterable[Measurement]]
    conclude: Callable[[pd.DataFrame], Verdict]
    draw: Callable[[pd.DataFrame], Canvas]
    caption: str
    fewer_seeds: Mapping[str, int] = field(default_factory=dict)
    """Cases too slow for five seeds, with how many they have."""

    def cells(self, seeds: int = SEEDS) -> list[tuple[str, int]]:
        """Every (case, seed), seed by seed, so that a run that is stopped has whole seeds."""
        return [
            (case, seed) for seed in range(seeds) for case in self.cases if seed < self.fewer_seeds.get(case, seeds)
        ]

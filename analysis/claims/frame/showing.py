"""The chapter "CNNs, claim by claim": what a folder of recorded claims shows, drawn and said from its rows alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tidepool.analysis.claims.frame.claim import Claim, Verdict
from tidepool.analysis.claims.frame.plotting import styled
from tidepool.analysis.claims.frame.record import read_table
from tidepool.analysis.claims.frame.registry import claim_names, load_claim
from tidepool.analysis.drawing import Figure, figure
from tidepool.records import write_atomically

SECTION = "claims"
CLAIMS_TITLE = "CNNs, claim by claim"


@dataclass(frozen=True)
class Shown:
    """One claim of the chapter: its figure first, then its paragraphs, as plain text."""

    name: str
    title: str
    verdict: Verdict
    figure: Figure
    paragraphs: tuple[str, ...]


def chapter(folder: Path) -> list[Shown]:
    """Every claim whose rows lie in `folder`, in the chapter's order; empty where there are none. No torch.

    Raises RecordError, in one line, where rows cannot be read.
    """
    tables = {name: read_table(folder / f"{name}.csv") for name in claim_names()}
    return [shown(name, table) for name, table in tables.items() if not table.empty]


def shown(name: str, table: pd.DataFrame) -> Shown:
    claim = load_claim(name)
    verdict = claim.conclude(table)
    return Shown(name, claim.title, verdict, drawing(name, table), paragraphs(claim, verdict))


def drawing(name: str, table: pd.DataFrame) -> Figure:
    """The claim's figure as the report takes it."""
    claim = load_claim(name)
    with styled():
        canvas = claim.draw(table)
        return figure(canvas, f"claim-{name}", SECTION, claim.caption)


def paragraphs(claim: Claim, verdict: Verdict) -> tuple[str, ...]:
    return (
        f"Asked: {claim.question} Control: {claim.control}",
        f"Found: the claim {verdict.outcome}. {verdict.found}",
        f"Beside it: {claim.anchor} Not shown: {claim.limits}",
    )


def text_of(claim: Claim, verdict: Verdict) -> str:
    """The claim as a page of Markdown."""
    return "\n\n".join([f"# {claim.title}", *paragraphs(claim, verdict)]) + "\n"


def write_conclusion(folder: Path, name: str) -> Verdict:
    """Conclude from the rows in `folder` and write `<name>.md`, `.svg` and `.png` beside them."""
    table = read_table(folder / f"{name}.csv")
    claim = load_claim(name)
    verdict = claim.conclude(table)
    drawn = drawing(name, table)
    for ending, content in (
        (".md", text_of(claim, verdict).encode()),
        (".svg", drawn.svg.encode()),
        (".png", drawn.png),
    ):
        write_atomically(folder / f"{name}{ending}", content)
    return verdict

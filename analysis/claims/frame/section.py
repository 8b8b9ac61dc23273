"""The chapter as a section of the report's page: every claim in the folders that the report reads, figure first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tidepool.analysis import page
from tidepool.analysis.claims.frame.record import read_table
from tidepool.analysis.claims.frame.registry import claim_names
from tidepool.analysis.claims.frame.showing import CLAIMS_TITLE, SECTION, Shown, shown

TONES = {"holds": "good", "holds in part": "warn", "does not hold": "bad", "undecided": ""}


def claims_under(paths: Sequence[Path | str]) -> list[Shown]:
    """The claims recorded in each of `paths` or in its folder `claims`, one of each name. No torch.

    Raises RecordError, in one line, where rows cannot be read.
    """
    found = claim_tables(paths)
    return [shown(name, read_table(found[name])) for name in claim_names() if name in found]


def claim_tables(paths: Sequence[Path | str]) -> dict[str, Path]:
    """The file of each claim's rows, by its name: of several the first."""
    folders = [folder for path in paths for folder in (Path(path), Path(path) / "claims")]
    files = [folder / f"{name}.csv" for folder in reversed(folders) for name in claim_names()]
    return {file.stem: file for file in files if file.with_suffix(".json").is_file() and file.is_file()}


def claims_section(claims: Sequence[Shown]) -> list[page.Section]:
    """The section; none where there is no claim."""
    parts = [part for claim in claims for part in _parts(claim)]
    return [(SECTION, CLAIMS_TITLE, parts)] if parts else []


def claims_screen(claims: Sequence[Shown]) -> str:
    """The first screen of a report about claims alone: a verdict a claim."""
    return page.badges(
        page.Badge(claim.name.replace("_", " "), claim.verdict.outcome, claim.title, TONES[claim.verdict.outcome])
        for claim in claims
    )


def _parts(claim: Shown) -> list[str]:
    return [
        f"<h3>{page.text(claim.title)}</h3>",
        page.figure_grid([claim.figure], wide=True),
        page.paragraphs(claim.paragraphs),
    ]

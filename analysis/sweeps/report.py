"""What a report on runs says of the sweeps they belong to, and which of its own parts it then leaves out.

Runs of a sweep that varied no backends are compared by their configuration, in its leaderboard. One comparison for each
combination of parameters, with figures of its own, would say nothing of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tidepool.analysis.drawing import Figure
from tidepool.analysis.page import Section
from tidepool.analysis.runs import Records
from tidepool.analysis.sweeps.figures import draw_sweeps
from tidepool.analysis.sweeps.points import SweepPoints, read_sweeps
from tidepool.analysis.sweeps.sections import search_screen, sweep_sections

_COMPARISONS = ("accuracy", "curves", "agreement")
"""Sections and tables that compare backends."""


@dataclass(frozen=True)
class SweepReport:
    """The sweeps, their figures, and the runs among which backends are compared (None where there are none)."""

    sweeps: list[SweepPoints]
    figures: list[Figure]
    compared: Records | None

    def sections(self, others: list[Section]) -> list[Section]:
        """The sweeps' sections before ``others``, of which those that compare backends are left out where none are."""
        kept = [one for one in others if self.compared is not None or one[0] not in _COMPARISONS]
        return [*sweep_sections(self.sweeps, self.figures), *kept]

    def left_out(self) -> tuple[str, ...]:
        """The tables that would compare backends where none are compared."""
        return () if self.compared is not None else _COMPARISONS

    def first_screen(self, records: Records) -> str | None:
        """The first screen, where the report is on searches alone."""
        return search_screen(self.sweeps, records) if self.compared is None else None

    def title(self) -> str | None:
        """The title, where the report is on searches alone."""
        names = ", ".join(sweep.name for sweep in self.sweeps)
        return f"Sweep {names}" if self.compared is None else None


def sweep_report(records: Records) -> SweepReport:
    """The sweeps of ``records``."""
    sweeps = [sweep for sweep in read_sweeps(records) if sweep.objectives and (sweep.varied or sweep.seeds > 1)]
    searches = {folder for folder, sweep in _by_folder(records, sweeps).items() if not sweep.varies_backends}
    compared = records.runs[~records.runs["sweep"].isin(searches)]
    if compared.empty:
        return SweepReport(sweeps, draw_sweeps(sweeps, records), None)
    metrics = records.metrics[records.metrics["run"].isin(compared["run"])]
    kept = replace(records, runs=compared.reset_index(drop=True), metrics=metrics)
    return SweepReport(sweeps, draw_sweeps(sweeps, records), kept)


def _by_folder(records: Records, sweeps: list[SweepPoints]) -> dict[str, SweepPoints]:
    by_name = {sweep.name: sweep for sweep in sweeps}
    names = {folder: str(content.get("name", "sweep")) for folder, content in records.sweeps.items()}
    return {folder: by_name[name] for folder, name in names.items() if name in by_name}

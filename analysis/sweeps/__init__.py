"""The result of a sweep: best run, leaderboard, importance of parameters, Pareto front, and figures of these."""

from tidepool.analysis.sweeps.figures import draw_sweeps
from tidepool.analysis.sweeps.points import POINTS_FILE, SweepPoints, of_content, read_sweeps
from tidepool.analysis.sweeps.report import SweepReport, sweep_report
from tidepool.analysis.sweeps.sections import search_screen, sweep_sections
from tidepool.analysis.sweeps.tables import sweep_tables, write_sweep_tables
from tidepool.analysis.sweeps.words import sweep_text

__all__ = [
    "POINTS_FILE",
    "SweepPoints",
    "SweepReport",
    "draw_sweeps",
    "of_content",
    "read_sweeps",
    "search_screen",
    "sweep_report",
    "sweep_sections",
    "sweep_tables",
    "sweep_text",
    "write_sweep_tables",
]

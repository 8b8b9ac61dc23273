"""The report on training runs: reading, tables, figures, sentences, sections; and the record of a sweep."""

from tidepool.analysis.runs import findings
from tidepool.analysis.runs.figures import draw
from tidepool.analysis.runs.recording import RESULTS, record
from tidepool.analysis.runs.records import NoRunsError, Records, read_records
from tidepool.analysis.runs.sections import first_screen, run_sections
from tidepool.analysis.runs.tables import all_tables, recorded_tables, write_tables
from tidepool.analysis.runs.views import shown

__all__ = [
    "RESULTS",
    "NoRunsError",
    "Records",
    "all_tables",
    "draw",
    "findings",
    "first_screen",
    "read_records",
    "record",
    "recorded_tables",
    "run_sections",
    "shown",
    "write_tables",
]

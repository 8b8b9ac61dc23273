"""The report on bench.py's measurements: reading, ratios, tables, figures, sections."""

from tidepool.analysis.bench.figures import draw_bench
from tidepool.analysis.bench.readme_block import measurement_block
from tidepool.analysis.bench.records import BenchRecords, read_bench_records
from tidepool.analysis.bench.sections import (
    BENCH_TITLE,
    bench_answers,
    bench_sections,
    bench_tables,
    bench_text,
    write_bench_tables,
)

__all__ = [
    "BENCH_TITLE",
    "BenchRecords",
    "bench_answers",
    "bench_sections",
    "bench_tables",
    "bench_text",
    "draw_bench",
    "measurement_block",
    "read_bench_records",
    "write_bench_tables",
]

"""What programs leave on disk and how it is read back: the ground of training, sweeps, benchmarks and reports.

Nothing here imports torch or another package of this project. The format of recorded sweeps, which needs pyarrow, is
`tidepool.records.recorded_sweep`.
"""

from tidepool.records.checksums import checksum_path, checksum_state, write_checksum
from tidepool.records.command_line import OneLineParser
from tidepool.records.environment import SOURCE, cpu_name, driver_version, git_state, package_version
from tidepool.records.folders import (
    BENCH_KIND,
    FIRST_DEFAULTS,
    LATER_FIELDS,
    STATUSES,
    find_folders,
    is_run,
    shown_path,
)
from tidepool.records.json_files import is_temporary, read_json, replacing, write_atomically, write_json
from tidepool.records.metrics import MetricsWriter, Row, keep_rows, metric_lines, read_rows
from tidepool.records.schema import SCHEMA_VERSION, RecordError, check_schema_version
from tidepool.records.table import Table
from tidepool.records.values import decode, encode, number

__all__ = [
    "BENCH_KIND",
    "FIRST_DEFAULTS",
    "LATER_FIELDS",
    "SCHEMA_VERSION",
    "SOURCE",
    "STATUSES",
    "MetricsWriter",
    "OneLineParser",
    "RecordError",
    "Row",
    "Table",
    "check_schema_version",
    "checksum_path",
    "checksum_state",
    "cpu_name",
    "decode",
    "driver_version",
    "encode",
    "find_folders",
    "git_state",
    "is_run",
    "is_temporary",
    "keep_rows",
    "metric_lines",
    "number",
    "package_version",
    "read_json",
    "read_rows",
    "replacing",
    "shown_path",
    "write_atomically",
    "write_checksum",
    "write_json",
]

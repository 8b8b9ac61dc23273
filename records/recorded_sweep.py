"""The record of a sweep, small enough to commit: results/<name>/.

runs.parquet      a row a run: how it ended, its settings as `config/<field>`, its machine as `environment/<field>`
curves.parquet    a row a run and step: `run`, `step`, `epoch`, `time_s`, and each metric where it was measured
sweep.json        the sweep file as it was run
environment.json  what the runs have in common, and the command that rebuilds the record
manifest.json     SHA-256 and number of rows of the others

Every other table is derived from these. A column holds one kind of value; one of several kinds, lists or mappings is
kept as JSON, and says so in its metadata. The same rows give the same bytes on one version of pyarrow.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidepool.records.folders import shown_path
from tidepool.records.json_files import read_json, replacing, write_json
from tidepool.records.schema import RecordError, check_schema_version
from tidepool.records.values import decode, encode, number

RUNS, CURVES = "runs.parquet", "curves.parquet"
SWEEP, ENVIRONMENT = "sweep.json", "environment.json"
MANIFEST = "manifest.json"
FILES = (RUNS, CURVES, SWEEP, ENVIRONMENT)
CURVE_KEYS = ("run", "step", "epoch", "time_s")

Row = dict[str, Any]
_AS_JSON = {b"encoding": b"json"}


@dataclass(frozen=True)
class RecordedSweep:
    """What a record holds: rows of runs.parquet and curves.parquet, and the content of the JSON files."""

    runs: list[Row]
    curves: list[Row]
    sweep: dict[str, Any]
    environment: dict[str, Any]


def is_recorded_sweep(files: Iterable[str]) -> bool:
    """Whether a folder with these files holds a record, be it a damaged one."""
    names = set(files)
    return bool({RUNS, CURVES} & names) or {MANIFEST, SWEEP} <= names


def write_recorded_sweep(folder: Path, record: RecordedSweep) -> None:
    """Write the five files into `folder`, the manifest last. Raises RecordError where they cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_rows(folder / RUNS, sorted(record.runs, key=lambda row: row["run"]))
        _write_rows(folder / CURVES, sorted(record.curves, key=lambda row: (row["run"], row["step"])))
        write_json(folder / SWEEP, record.sweep)
        write_json(folder / ENVIRONMENT, record.environment)
        files: dict[str, dict[str, Any]] = {name: {"sha256": _sha256(folder / name)} for name in FILES}
        files[RUNS]["rows"], files[CURVES]["rows"] = len(record.runs), len(record.curves)
        write_json(folder / MANIFEST, {"files": files})
    except OSError as error:
        raise RecordError(f"{shown_path(folder)}: cannot be written ({error.strerror or error})") from None


def read_recorded_sweep(folder: Path, *, curves: bool = True) -> RecordedSweep:
    """The record in `folder`, or all of it but the rows of curves, which `read_curves` gives as columns.

    Raises RecordError, in one line, for the first thing that `problems` names.
    """
    for problem in problems(folder):
        raise RecordError(problem)
    return RecordedSweep(
        runs=_read_rows(folder / RUNS),
        curves=_read_rows(folder / CURVES) if curves else [],
        sweep=decode(read_json(folder / SWEEP)),
        environment=decode(read_json(folder / ENVIRONMENT)),
    )


def read_curves(folder: Path) -> dict[str, np.ndarray]:
    """The columns of curves.parquet: `run` as text, `step` as whole numbers, the rest as floats. Where nothing was
    measured an array is masked; NaN was measured. Raises RecordError where the file cannot be read."""
    table = _read_table(folder / CURVES)
    return {field.name: _array(field, column) for field, column in zip(table.schema, table.columns, strict=True)}


def _array(field: pa.Field, column: pa.ChunkedArray) -> np.ndarray:
    missing = np.asarray(column.is_null())
    if _is_json(field):
        values = [math.nan if text is None else number(json.loads(text)) for text in column.to_pylist()]
        return np.ma.masked_array(np.array(values, dtype=np.float64), missing)
    if pa.types.is_string(field.type):
        return np.array(column.to_pylist(), dtype=object)
    kind = pa.int64() if field.name == "step" else pa.float64()
    filled = column.cast(kind).fill_null(0) if column.null_count else column.cast(kind)
    return np.ma.masked_array(filled.to_numpy(), missing)


def problems(folder: Path) -> list[str]:
    """A line for each thing that is wrong with the record in `folder`: a missing file, one that is not as it was
    recorded, another schema version. None where it is whole.
    """
    try:
        manifest = read_json(folder / MANIFEST)
        if manifest is None:
            return [f"{shown_path(folder / MANIFEST)}: missing, so nothing says whether the record is whole"]
        check_schema_version(manifest.get("schema_version"), shown_path(folder / MANIFEST))
    except RecordError as error:
        return [str(error)]
    files = manifest["files"] if isinstance(manifest.get("files"), dict) else {}
    return [line for name in FILES if (line := _problem(folder / name, files.get(name)))]


def _problem(path: Path, entry: Any) -> str:
    """What is wrong with one file of a record, given what the manifest says of it; empty where nothing is."""
    shown = shown_path(path)
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
        return f"{shown_path(path.parent / MANIFEST)}: has no SHA-256 of {path.name}"
    if not path.is_file():
        return f"{shown}: missing, though {MANIFEST} names it"
    if _sha256(path) != entry["sha256"]:
        return f"{shown}: not as it was recorded, its SHA-256 differs from that in {MANIFEST}"
    try:
        if path.suffix == ".json":
            check_schema_version((read_json(path) or {}).get("schema_version"), shown)
    except RecordError as error:
        return str(error)
    return ""


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row)) or list(CURVE_KEYS)
    columns = [_column(name, [row.get(name) for row in rows]) for name in names]
    table = pa.table([values for _, values in columns], schema=pa.schema([field for field, _ in columns]))
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_statistics=False)


def _column(name: str, values: list[Any]) -> tuple[pa.Field, pa.Array]:
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) < 2 and kinds <= {str, bool, int, float}:
        try:
            array = pa.array(values, from_pandas=False)
            return pa.field(name, array.type), array
        except (OverflowError, pa.ArrowInvalid):  # a whole number beyond 64 bits
            pass
    texts = [None if value is None else json.dumps(encode(value), sort_keys=True) for value in values]
    return pa.field(name, pa.string(), metadata=_AS_JSON), pa.array(texts, pa.string())


def _read_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"{shown_path(path)}: cannot be read as Parquet ({error})") from None


def _is_json(field: pa.Field) -> bool:
    return _AS_JSON.items() <= (field.metadata or {}).items()


def _read_rows(path: Path) -> list[Row]:
    table = _read_table(path)
    columns = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        columns[field.name] = column.to_pylist()
        if _is_json(field):
            columns[field.name] = [None if text is None else decode(json.loads(text)) for text in columns[field.name]]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

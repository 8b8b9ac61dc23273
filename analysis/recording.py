"""A sweep's small evidence, copied below ``results/``: tables, environment, sweep file, and no machine's paths."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.networks import networks_table
from analysis.records import SCHEMA_VERSION, RecordError, Records, read_records, shown_path
from analysis.tables import all_tables

RESULTS = "results"
# An absolute path with at least one folder in it; its last part may stay.
_MACHINE_PATH = re.compile(r"(?<![\w./…-])/(?:[^\s/'\":,;]+/)+([^\s/'\":,;]*)")
# What of the runs' environments is kept: nothing that names a machine, its folders or its users.
_ENVIRONMENT = (
    "cpu", "cpu_threads", "device", "gpu", "gpu_capability", "gpu_memory_bytes", "driver", "cuda", "cudnn", "torch",
    "triton", "python",
)  # fmt: skip


def record(folder: Path, out: Path) -> tuple[Records, dict[str, Any]]:
    """Copy the small evidence of the sweep in ``folder`` into ``out``: tables, merged environment, sweep.json.

    Returns the records read and the environment written. Raises RecordError, in one line, where ``folder`` is not one
    sweep, its runs disagree on the commit, no sweep file rebuilds it, or ``out`` is not below results/.
    """
    if Path(os.path.abspath(RESULTS)) not in Path(os.path.abspath(out)).parents:
        raise RecordError(f"{out}: expected a folder below {RESULTS}/, such as {RESULTS}/quickstart")
    folder = Path(os.path.abspath(folder))
    here = shown_path(folder)
    records = read_records([folder])
    if list(records.sweeps) != [here]:
        raise RecordError(f"{here}: expected the folder of one sweep, with its sweep.json")
    name = str(records.sweeps[here].get("name"))
    sweep_command = shlex.join(["python", "sweep.py", _sweep_file(name)])
    own_command = ["python", "-m", "analysis.readme", "--record", f"runs/{name}", "--out", shown_path(out)]
    environment = _merged_environment(records, here)
    environment["command"] = f"{sweep_command} && {shlex.join(own_command)}"
    texts = {
        f"{stem}.csv": _portable(table, here, f"runs/{name}").to_csv(index=False, lineterminator="\n")
        for stem, table in (all_tables(records) | {"networks": networks_table(records)}).items()
    }
    texts["environment.json"] = json.dumps(environment, indent=2, ensure_ascii=False) + "\n"
    try:
        texts["sweep.json"] = (folder / "sweep.json").read_text(encoding="utf-8")
        out.mkdir(parents=True, exist_ok=True)
        for file_name, text in texts.items():
            (out / file_name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecordError(f"{out}: cannot be written ({error.strerror or error})") from error
    return records, environment


def _sweep_file(name: str) -> str:
    """The file under sweeps/ that makes the sweep called ``name``."""
    for path in sorted(Path("sweeps").glob("*.yaml")):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue  # not the one: it could not have been run
        if isinstance(content, dict) and str(content.get("name", path.stem)) == name:
            return path.as_posix()
    raise RecordError(f"no file in sweeps/ makes the sweep {name!r}, so no command rebuilds its record")


def _merged_environment(records: Records, where: str) -> dict[str, Any]:
    """The runs' environments as one: a value where they agree, a list where they do not. One commit, or RecordError."""
    recorded = {
        name.removeprefix("environment/"): list(records.runs[name])
        for name in records.runs.columns
        if name.startswith("environment/")
    }
    missing = [None] * len(records.runs)
    commits = Counter(c if isinstance(c, str) else None for c in recorded.get("commit", missing))
    if len(commits) > 1:
        counts = ", ".join(f"{count} at {commit[:12] if commit else 'none'}" for commit, count in commits.most_common())
        raise RecordError(f"{where}: runs disagree on the commit ({counts}); run the sweep again from one commit")
    dates = sorted(date for date in recorded.get("date", missing) if isinstance(date, str))
    dirty = recorded.get("dirty", missing)
    merged: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "commit": next(iter(commits)),
        "dirty": True if True in dirty else None if None in dirty else False,
        "date": dates[0] if dates else None,
        "last_date": dates[-1] if dates else None,
        "runs": len(records.runs),
    }
    for name in (*_ENVIRONMENT, *(name for name in recorded if name.startswith("precision/"))):
        texts = {json.dumps(value): value for value in recorded.get(name, missing)}
        values = [texts[text] for text in sorted(texts)]
        merged[name.replace("/", "_")] = values[0] if len(values) == 1 else values
    return merged


def _portable(table: pd.DataFrame, folder: str, written: str) -> pd.DataFrame:
    """``table`` as any machine would write it: paths in ``folder`` as in ``written``, other absolute ones cut short."""

    def portable(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        inside = value == folder or value.startswith(f"{folder}/")
        return written + value[len(folder) :] if inside else _MACHINE_PATH.sub(r"…/\1", value)

    words = {
        name: pd.Series([portable(value) for value in table[name]], index=table.index, dtype="object")
        for name in table.columns
        if not pd.api.types.is_numeric_dtype(table[name])
    }
    return table.assign(**words)

"""Tables of measured plans: one JSON file per GPU model, shipped in kernels/tuned and the user's own in a cache folder.

    {"schema_version": 1, "entries": [{"machine": {...}, "problem": {...}, "plan": {...}, "times_ms": [...]}, ...]}

An entry holds for a `Machine` (GPU model, its multiprocessors, versions of torch and triton, hash of the kernels'
sources) and a `Problem` (layer, sizes, dtype, memory format). A file that cannot be read, or not as this, is ignored
with one warning; writing replaces a file whole.
"""

import dataclasses
import functools
import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton

from tidepool.kernels.runtime.caches import cleared_by
from tidepool.records import RecordError, check_schema_version, read_json, write_json
from tidepool.simulator import targets

SHIPPED = Path(__file__).parents[1] / "tuned"
ENVIRONMENT_VARIABLE = "TIDEPOOL_TUNED"
_SOURCES = ("runtime", "activations", "layer", "device", "tiles", "conv")
Entry = dict[str, Any]


class TableError(ValueError):
    """A file that is no table, or an entry that is none; the message is one line and names both."""


@dataclass(frozen=True)
class Machine:
    """What measured times hold for besides the problem."""

    gpu: str
    multiprocessors: int
    torch: str
    triton: str
    kernels: str


@dataclass(frozen=True)
class Problem:
    """A layer on tensors: `layer` is `layer.settings.Layer.text()`, sizes are x's and weight's."""

    op: str
    layer: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    bias: bool
    dtype: str
    memory_format: str


def kernel_sources() -> list[Path]:
    """The sources that decide what a tile compiles to."""
    kernels = Path(__file__).parents[1]
    return [*sorted(path for folder in _SOURCES for path in (kernels / folder).glob("*.py")), Path(targets.__file__)]


@functools.cache
def kernels_hash() -> str:
    """Twelve hexadecimal digits over `kernel_sources`."""
    digest = hashlib.sha256()
    for path in kernel_sources():
        digest.update(f"{path.parent.name}/{path.name}".encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@functools.cache
def machine_of(device: torch.device) -> Machine:
    """This machine, with that GPU; a CPU is named so, with one multiprocessor."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gpu, multiprocessors = properties.name, properties.multi_processor_count
    else:
        gpu, multiprocessors = "cpu", 1
    return Machine(gpu, multiprocessors, torch.__version__, triton.__version__, kernels_hash())


def user_folder() -> Path:
    """Where the user's own tables lie: $TIDEPOOL_TUNED, else tidepool in the cache folder."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidepool"


def table_name(gpu: str) -> str:
    """File name of a GPU model's table."""
    return re.sub(r"[^a-z0-9]+", "_", gpu.lower()).strip("_") + ".json"


def read_table(path: Path) -> list[Entry]:
    """The entries of a table; none of a file that does not exist. Raises TableError for anything not a table."""
    try:
        content = read_json(path)
        if content is None:
            return []
        check_schema_version(content.get("schema_version"), str(path))
    except RecordError as error:
        raise TableError(str(error)) from error
    entries = content.get("entries")
    if not isinstance(entries, list):
        raise TableError(f"{path}: expected a list of entries, found {type(entries).__name__}")
    for number, entry in enumerate(entries):
        _check(entry, f"{path}: entry {number}")
    return entries


def _check(entry: Any, where: str) -> None:
    if not isinstance(entry, dict) or not {"machine", "problem", "plan", "times_ms"} <= entry.keys():
        raise TableError(f"{where}: expected an object with machine, problem, plan and times_ms")
    for name, made in (("machine", Machine), ("problem", Problem)):
        wanted = {field.name for field in dataclasses.fields(made)}
        if not isinstance(entry[name], dict) or entry[name].keys() != wanted:
            raise TableError(f"{where}: expected {name} to have the fields {', '.join(sorted(wanted))}")
    if not isinstance(entry["plan"], dict) or not isinstance(entry["times_ms"], list):
        raise TableError(f"{where}: expected plan to be an object and times_ms a list")


def key_of(entry: Entry) -> tuple[Machine, Problem]:
    """Machine and problem of a checked entry."""
    problem = {**entry["problem"], "x": tuple(entry["problem"]["x"]), "weight": tuple(entry["problem"]["weight"])}
    return Machine(**entry["machine"]), Problem(**problem)


def make_entry(machine: Machine, problem: Problem, plan: dict[str, Any], times_ms: list[dict[str, Any]]) -> Entry:
    """An entry as it is written."""
    return {
        "machine": dataclasses.asdict(machine),
        "problem": {**dataclasses.asdict(problem), "x": list(problem.x), "weight": list(problem.weight)},
        "plan": plan,
        "times_ms": times_ms,
    }


def write_table(path: Path, entries: Iterable[Entry]) -> None:
    """Replace the table whole. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"entries": list(entries)})


def with_entry(entries: Iterable[Entry], new: Entry) -> list[Entry]:
    """The entries with `new` in the place of the one for its machine and problem, or at the end."""
    key = key_of(new)
    return [entry for entry in entries if key_of(entry) != key] + [new]


# --- What a process plans by -----------------------------------------------------------------------------------------


class _Loaded:
    """The tables for one GPU model, shipped and the user's, the latter before the former."""

    def __init__(self, gpu: str) -> None:
        self.exact: dict[tuple[Machine, Problem], Entry] = {}
        self.hints: dict[tuple[str, int, Problem], Entry] = {}
        for folder in (SHIPPED, user_folder()):
            try:
                entries = read_table(folder / table_name(gpu))
                keys = [key_of(entry) for entry in entries]
            except (TableError, TypeError) as error:
                message = str(error) if isinstance(error, TableError) else f"{folder / table_name(gpu)}: {error}"
                warn_once(f"{message}; the table is ignored")
                continue
            for (machine, problem), entry in zip(keys, entries, strict=True):
                self.exact[machine, problem] = entry
                self.hints[machine.gpu, machine.multiprocessors, problem] = entry
        content = json.dumps([*self.exact.values()], sort_keys=True)
        self.digest = hashlib.sha256(content.encode()).hexdigest()[:16]


_generation = 0


def generation() -> int:
    """Counts calls of `forget`: part of the key of what is cached from tables."""
    return _generation


def forget() -> None:
    """Read the tables anew at the next use, for instance after tuning in this process."""
    global _generation
    _generation += 1
    _loaded.cache_clear()


cleared_by(forget)


@functools.cache
def _loaded(gpu: str) -> _Loaded:
    loaded = _Loaded(gpu)
    _compare_ranks(gpu, loaded.digest)
    return loaded


def find(machine: Machine, problem: Problem) -> tuple[Entry | None, bool]:
    """The entry for a problem and whether it was measured on exactly this machine; (None, False) where there is none.

    Reads the tables at first use. Raises RuntimeError where another rank of this job has read other tables.
    """
    loaded = _loaded(machine.gpu)
    entry = loaded.exact.get((machine, problem))
    if entry is not None:
        return entry, True
    return loaded.hints.get((machine.gpu, machine.multiprocessors, problem)), False


def _compare_ranks(gpu: str, digest: str) -> None:
    """Hold this rank's tables against the first rank's that came here, through the job's key-value store.

    No collective: a rank that never uses `auto` keeps nobody waiting.
    """
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return
    store = distributed.distributed_c10d._get_default_store()
    ours = f"{gpu}, tables {digest}, kernels {kernels_hash()}"
    first = store.compare_set(f"tidepool_plan_{_generation}", "", ours).decode()
    if first != ours:
        raise RuntimeError(
            f"backend='auto' would run differently on rank {distributed.get_rank()} ({ours}) than on the first rank "
            f"({first}): give all ranks the same tuning tables and GPUs, or name a backend"
        )


@functools.cache
def warn_once(message: str) -> None:
    """Warn, the first time that this is said in the process."""
    warnings.warn(message, RuntimeWarning, stacklevel=2)

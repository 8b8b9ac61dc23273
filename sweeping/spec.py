"""A checked sweep: what `sweep.py` runs, read from a W&B sweep file and refused in one line where it is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidepool.installation import AS_MODULE
from tidepool.sweeping.command import DEFAULT_COMMAND, check_command
from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.parameters import Parameter, Value, read_parameter
from tidepool.sweeping.points import Point, grid_points, search_points
from tidepool.sweeping.schema import check_schema
from tidepool.sweeping.yaml_text import load_sweep_file

# Set by sweep.py for every run: where it writes, how it resumes, what it is called. Not for the sweep file.
OWN_PARAMETERS = ("run_dir", "resume", "name", "group")

# Run as commands of this package where no clone lies around it.
OWN_PROGRAMS = ("train.py", "bench.py")

_PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*")
_LONGEST_NAME = 100  # in a folder's name and, with an ending, a database's; W&B's groups end at 128
_MARGIN = re.compile(r"\bmargin\s*=\s*(\d+(?:\.\d+)?|\.\d+)\s*(?:percentage\s+)?(?:points?\b|%)", re.IGNORECASE)
_MARGIN_WORD = re.compile(r"\bmargin\s*=\s*[^;\n]*", re.IGNORECASE)


@dataclass(frozen=True)
class Metric:
    """What a search optimises. `target`: the sweep ends once a run reaches it."""

    name: str
    maximize: bool
    target: float | None


@dataclass(frozen=True)
class Hyperband:
    """Early stopping as W&B does it; iterations count rows of metrics.jsonl that hold the metric."""

    bands: tuple[int, ...]
    eta: float
    strict: bool


@dataclass(frozen=True)
class Sweep:
    """A checked sweep. `content` is the file as loaded, `program` the words that ``${program}`` stands for;
    `margin_points` is in percentage points of accuracy."""

    path: Path
    content: Mapping[str, Any]
    name: str
    program: tuple[str, ...]
    method: str
    command: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    metric: Metric | None
    early_terminate: Hyperband | None
    run_cap: int | None
    project: str | None
    entity: str | None
    margin_points: float | None

    def points(self) -> list[Point]:
        """Every place of the sweep in the order they are started."""
        if self.method == "grid":
            return grid_points(self.parameters, self.run_cap)
        assert self.run_cap is not None  # read_sweep refuses a search without one
        return search_points(self.run_cap)

    def run_params(self, params: Mapping[str, Value], run_dir: Path) -> dict[str, Value]:
        """`params` and what sweep.py adds to every run: its folder, resuming after an interruption, its names."""
        added: dict[str, Value] = {"run_dir": str(run_dir), "resume": "auto", "group": self.name, "name": run_dir.name}
        if self.project is not None and "project" not in params:
            added["project"] = self.project
        if "progress" not in params:
            added["progress"] = False
        return {**params, **added}


def read_sweep(path: Path, *, home: Path | None, online: bool = False) -> Sweep:
    """The sweep in the YAML file `path`.

    Its program is looked for in the working directory, then in `home`, the root of the clone this code lies in. For a
    file of that clone it is the other way round, so that a stranger's train.py in the working directory is not run.
    Where neither has it, `train.py` and `bench.py` are this package's own commands.
    With `online`, keys only W&B's servers can honour are let through.

    Raises:
        SweepError: one line with file, key and reason.
    """
    content = load_sweep_file(path)
    check_schema(content, path)
    try:
        return _checked(path, content, home, online)
    except SweepError as error:
        raise SweepError(f"{path}: {error}") from None


def _checked(path: Path, content: dict[str, Any], home: Path | None, online: bool) -> Sweep:
    method = content["method"]
    _refuse_keys(content, online)
    for name in content["parameters"]:
        if not _PARAMETER_NAME.fullmatch(name):
            raise SweepError(f"parameters.{name}: a parameter's name is letters, digits, '_', '.' and '-'")
        if name in OWN_PARAMETERS:
            raise SweepError(f"parameters.{name}: the sweep sets {name} itself for every run; leave it out")
    parameters = tuple(read_parameter(name, keys, method=method) for name, keys in content["parameters"].items())
    metric = _metric(content.get("metric"))
    if metric is None and method == "bayes":
        raise SweepError("metric: is missing; method: bayes needs a metric to optimise")
    run_cap = content.get("run_cap")
    if run_cap is None and method != "grid" and not online:
        raise SweepError(f"run_cap: is missing; method: {method} never ends by itself, so say how many runs to make")
    command = tuple(str(word) for word in content.get("command", DEFAULT_COMMAND))
    check_command(command)
    return Sweep(
        path=path,
        content=content,
        name=_name(content.get("name", path.stem)),
        program=_program(content["program"], home, path),
        method=method,
        command=command,
        parameters=parameters,
        metric=metric,
        early_terminate=_hyperband(content.get("early_terminate"), metric),
        run_cap=None if run_cap is None else int(run_cap),
        project=content.get("project"),
        entity=content.get("entity"),
        margin_points=parse_margin(content.get("description", "")),
    )


def _refuse_keys(content: Mapping[str, Any], online: bool) -> None:
    """Refuse the keys of W&B's own search where it does not run, and the one that asks for a third way."""
    if online:
        if content.get("controller", {}).get("type") == "local":
            raise SweepError("controller.type: local needs `wandb controller`; leave it out, with or without --online")
        return
    if "controller" in content:
        raise SweepError("controller: says where W&B searches, but the search runs here; drop it, or use --online")
    for key in ("impute", "impute_while_running"):
        if key in content.get("metric", {}):
            raise SweepError(f"metric.{key}: only W&B's own search reads it; leave it out, or use --online")


def _name(name: str) -> str:
    if len(name) > _LONGEST_NAME:
        raise SweepError(f"name: has {len(name)} letters; it names a folder, so use at most {_LONGEST_NAME}")
    if not _SWEEP_NAME.fullmatch(name) or name.endswith((" ", ".")):
        raise SweepError(f"name: {name!r} cannot name a folder; use letters, digits, spaces, '.', '_' and '-'")
    return name


def _program(program: str, home: Path | None, file: Path) -> tuple[str, ...]:
    places = [Path(program)]
    if home is not None:
        places.insert(0 if file.resolve().is_relative_to(home) else 1, home / program)
    for place in places:
        if place.is_file():
            return (program if place.resolve() == Path(program).resolve() else str(place),)
    if program in OWN_PROGRAMS:
        return (*AS_MODULE, "tidepool", program.removesuffix(".py"))
    raise SweepError(f"program: {program} is not a file in {Path.cwd()}")


def _metric(content: Mapping[str, Any] | None) -> Metric | None:
    if content is None:
        return None
    return Metric(content["name"], content.get("goal", "minimize") == "maximize", content.get("target"))


def _hyperband(content: Mapping[str, Any] | None, metric: Metric | None) -> Hyperband | None:
    if content is None:
        return None
    if metric is None:
        raise SweepError("early_terminate: needs a metric to judge runs by; metric is missing")
    eta = float(content.get("eta", 3))
    if "max_iter" in content and "s" in content:
        if "min_iter" in content:
            raise SweepError("early_terminate.min_iter: give either min_iter, or max_iter and s")
        bands = tuple(sorted(int(content["max_iter"] / eta**k) for k in range(1, int(content["s"]) + 1)))
        bands = tuple(band for band in bands if band >= 1)
        if not bands:
            raise SweepError(f"early_terminate.max_iter: {content['max_iter']} leaves no step to judge at; raise it")
    elif "min_iter" in content:
        for key in ("max_iter", "s"):
            if key in content:
                raise SweepError(f"early_terminate.{key}: give either min_iter, or max_iter and s")
        first = int(content["min_iter"])
        bands = tuple(sorted({int(first * eta**k) for k in range(100) if first * eta**k < 1e9}))
    else:
        raise SweepError("early_terminate: hyperband needs min_iter, or max_iter and s")
    return Hyperband(bands, eta, content.get("strict", True))


def parse_margin(description: str) -> float | None:
    """The equivalence margin declared in a sweep's description, in percentage points; None where none is declared.

    Raises:
        SweepError: a margin that cannot be read, is zero, or is declared twice.
    """
    declared = [found.group(0).strip() for found in _MARGIN_WORD.finditer(description)]
    if not declared:
        return None
    if len(declared) > 1:
        raise SweepError(f"description: declares a margin twice ({' and '.join(declared)})")
    match = _MARGIN.match(declared[0])
    if match is None:
        raise SweepError(f"description: cannot read {declared[0]!r}; write it as margin=0.3 points")
    margin = float(match.group(1))
    if margin <= 0:
        raise SweepError(f"description: {declared[0]!r}: a margin is more than 0 points")
    return margin

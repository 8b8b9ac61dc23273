"""A checked sweep: what `sweep.py` runs, read from a W&B sweep file and refused in one line where it is wrong."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidepool.installation import AS_MODULE
from tidepool.sweeping.command import DEFAULT_COMMAND, build_argv, check_command
from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.parameter_keys import nested, read_parameters
from tidepool.sweeping.parameters import Parameter, Value
from tidepool.sweeping.points import Point, bayes_points, grid_points, random_points
from tidepool.sweeping.schema import check_schema
from tidepool.sweeping.sequence import sweep_seed
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
_SEED = re.compile(r"\bsearch_seed\s*=\s*([^\s;.,]*)", re.IGNORECASE)


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
    """A checked sweep. `content` is the file as loaded, `program` the words that ``${program}`` stands for; `metrics`
    are its objectives, more than one in a search for a front; `margin_points` is in percentage points of accuracy."""

    path: Path
    content: Mapping[str, Any]
    name: str
    program: tuple[str, ...]
    method: str
    command: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    metrics: tuple[Metric, ...]
    early_terminate: Hyperband | None
    run_cap: int | None
    project: str | None
    entity: str | None
    margin_points: float | None
    search_seed: int | None

    @property
    def metric(self) -> Metric | None:
        """What the sweep goes by where it has one objective, or its first."""
        return self.metrics[0] if self.metrics else None

    @property
    def seed(self) -> int:
        """The seed of all that is drawn: from the sweep's name, and `search_seed` where the description gives one."""
        return sweep_seed(self.name, self.search_seed)

    def points(self) -> list[Point]:
        """Every place of the sweep in the order they are started."""
        if self.method == "grid":
            return grid_points(self.parameters, self.run_cap)
        assert self.run_cap is not None  # read_sweep refuses a search without one
        return (random_points if self.method == "random" else bayes_points)(self.parameters, self.run_cap, self.seed)

    def repeating_argv(self, params: Mapping[str, Value]) -> list[str]:
        """The command that repeats the run with these parameters by hand, in a new folder of its own."""
        given = nested(self.parameters, params)
        argv = build_argv(self.command, program=self.program, params=given, run_dir=Path("runs") / self.name / "run")
        short = {"/usr/bin/env": None, sys.executable: "python"}
        return [word for each in argv if (word := short.get(each, each)) is not None]

    def run_params(self, params: Mapping[str, Value], run_dir: Path) -> dict[str, Value]:
        """`params` and what sweep.py adds to every run: its folder, resuming after an interruption, its names."""
        added: dict[str, Value] = {"run_dir": str(run_dir), "resume": "auto", "group": self.name, "name": run_dir.name}
        if self.project is not None and "project" not in params:
            added["project"] = self.project
        if "progress" not in params:
            added["progress"] = False
        return {**nested(self.parameters, params), **added}


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
    parameters = read_parameters(content["parameters"], method=method)
    for parameter in parameters:
        for key in parameter.path:
            if not _PARAMETER_NAME.fullmatch(key):
                raise SweepError(
                    f"parameters.{parameter.name}: a parameter's name is letters, digits, '_', '.' and '-'"
                )
        if parameter.path[0] in OWN_PARAMETERS:
            name = parameter.path[0]
            raise SweepError(f"parameters.{name}: the sweep sets {name} itself for every run; leave it out")
    metrics = _metrics(content.get("metric"))
    if online and len(metrics) > 1:
        raise SweepError("metric: is a list, which W&B's search does not take; name one, or leave out --online")
    if not metrics and method == "bayes":
        raise SweepError("metric: is missing; method: bayes needs a metric to optimise")
    run_cap = content.get("run_cap")
    if run_cap is None and method != "grid" and not online:
        raise SweepError(f"run_cap: is missing; method: {method} never ends by itself, so say how many runs to make")
    command = tuple(str(word) for word in content.get("command", DEFAULT_COMMAND))
    description = content.get("description", "")
    check_command(command, description)
    return Sweep(
        path=path,
        content=content,
        name=_name(content.get("name", path.stem)),
        program=_program(content["program"], home, path),
        method=method,
        command=command,
        parameters=parameters,
        metrics=metrics,
        early_terminate=_hyperband(content.get("early_terminate"), metrics),
        run_cap=None if run_cap is None else int(run_cap),
        project=content.get("project"),
        entity=content.get("entity"),
        margin_points=parse_margin(description),
        search_seed=parse_search_seed(description),
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
        if any(key in metric for metric in _listed(content.get("metric"))):
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


def _listed(metric: Any) -> list[Mapping[str, Any]]:
    return metric if isinstance(metric, list) else [] if metric is None else [metric]


def _metrics(content: Any) -> tuple[Metric, ...]:
    found = tuple(
        Metric(metric["name"], metric.get("goal", "minimize") == "maximize", metric.get("target"))
        for metric in _listed(content)
    )
    names = [metric.name for metric in found]
    for index, metric in enumerate(found):
        if names.index(metric.name) < index:
            raise SweepError(f"metric[{index}].name: {metric.name} is an objective already; name each once")
        if len(found) > 1 and metric.target is not None:
            raise SweepError(f"metric[{index}].target: a target goes with one metric, not with a list of them")
    return found


def _hyperband(content: Mapping[str, Any] | None, metrics: tuple[Metric, ...]) -> Hyperband | None:
    if content is None:
        return None
    if not metrics:
        raise SweepError("early_terminate: needs a metric to judge runs by; metric is missing")
    if len(metrics) > 1:
        raise SweepError("early_terminate: judges runs by one metric; metric is a list")
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


def parse_search_seed(description: str) -> int | None:
    """The seed declared in a sweep's description as search_seed=7, for a search that draws something else; None
    without one.

    Raises:
        SweepError: it is no whole number, or declared twice.
    """
    declared = _SEED.findall(description)
    if len(declared) > 1:
        raise SweepError("description: declares a search_seed twice")
    if declared and not (declared[0].isascii() and declared[0].isdigit()):
        raise SweepError(f"description: search_seed={declared[0]}; expected a whole number of 0 or more")
    return int(declared[0]) if declared else None

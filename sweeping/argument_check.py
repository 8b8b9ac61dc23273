"""Names, types and choices of a sweep's parameters, checked by the program's own parser before anything starts.

Only this project's train.py and bench.py can be asked; of another program the first runs show what it refuses.
A process of their own does it: the parser brings torch with it, which a sweep does without.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidepool.installation import AS_MODULE, checkout, child_environment
from tidepool.sweeping.command import build_argv
from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.parameter_keys import nested
from tidepool.sweeping.parameters import Parameter, Value
from tidepool.sweeping.spec import OWN_PROGRAMS, Sweep

_CHECKERS = {"train.py": "tidepool.training.argument_check", "bench.py": "tidepool.benchmarking.argument_check"}
_DECIDES_FLAGS = ("data", "model")
"""Parameters whose value decides what other flags there are."""
_MOST_CONTEXTS = 24
_MOST_TEXTS = 50  # of one parameter


@dataclass(frozen=True)
class _Question:
    """One value of one parameter, beside values of those that decide what flags there are."""

    name: str
    params: Mapping[str, Value]


def check_arguments(sweep: Sweep) -> None:
    """Refuse a sweep with a parameter that its program does not have, or with a value of a type or choice that it does
    not take, with any data set and network of the sweep.

    Raises:
        SweepError: one line with file, parameter and the program's own words.
    """
    module = _checker(sweep)
    if module is None:
        return
    questions = list(_questions(sweep))
    complaints = _ask(module, [_words(sweep, question) for question in questions])
    answers: dict[tuple[str, str], list[str | None]] = {}
    for question, complaint in zip(questions, complaints, strict=True):
        answers.setdefault((question.name, repr(question.params[question.name])), []).append(complaint)
    for (name, _), said in answers.items():
        if all(said):
            raise SweepError(f"{sweep.path}: parameters.{name}: {said[0]}")


def _checker(sweep: Sweep) -> str | None:
    """The module that checks arguments of the sweep's program, None where it is not one of ours."""
    home = checkout()
    for name in OWN_PROGRAMS:
        ours = sweep.program[-1] == name.removesuffix(".py") and len(sweep.program) > 1
        if ours or (home is not None and Path(sweep.program[-1]).resolve() == home / name):
            return _CHECKERS[name]
    return None


def _questions(sweep: Sweep) -> Iterator[_Question]:
    values = {parameter.name: _telling_values(parameter) for parameter in sweep.parameters}
    deciding = {name: values[name] for name in _DECIDES_FLAGS if name in values}
    for context in itertools.islice(itertools.product(*deciding.values()), _MOST_CONTEXTS):
        beside = dict(zip(deciding, context, strict=True))
        for name in beside:
            yield _Question(name, {name: beside[name]})
        for name, telling in values.items():
            if name not in deciding:
                yield from (_Question(name, {**beside, name: value}) for value in telling)


def _telling_values(parameter: Parameter) -> list[Value]:
    """Values that differ in what a parser looks at: every text, and one of each other type."""
    if parameter.distribution in ("constant", "categorical", "categorical_w_probabilities"):
        settings = parameter.settings
        values = [settings["value"]] if parameter.is_constant else list(settings["values"])
    else:
        values = [parameter.value(parameter.native(quantile)) for quantile in (0.1, 0.5, 0.9)]
    texts = [value for value in values if isinstance(value, str)]
    others = {type(value): value for value in reversed(values) if not isinstance(value, str)}
    return [*texts[:_MOST_TEXTS], *others.values()]


def _words(sweep: Sweep, question: _Question) -> list[str]:
    """The arguments that reach the program."""
    own = sweep.run_params({}, Path("runs") / sweep.name / "run")
    params = {**nested(sweep.parameters, question.params), **own}
    before, after = _around_the_program(sweep.command)
    skipped = len(build_argv(before, program=sweep.program, params=params, run_dir=Path("run")))
    whole = build_argv([*before, *after], program=sweep.program, params=params, run_dir=Path("run"))
    return whole[skipped:]


def _around_the_program(command: Sequence[str]) -> tuple[list[str], list[str]]:
    end = list(command).index("${program}") + 1 if "${program}" in command else 0
    return list(command[:end]), list(command[end:])


def _ask(module: str, argument_lists: list[list[str]]) -> list[str | None]:
    """What the program's parser says of each list of arguments; None where it takes it."""
    done = subprocess.run(
        [sys.executable, *AS_MODULE, module],
        input=json.dumps(argument_lists),
        capture_output=True,
        text=True,
        env=child_environment(),
        check=False,
    )
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()
        raise SweepError(f"the arguments cannot be checked ({words[-1] if words else 'no reason given'})")
    answers: list[str | None] = json.loads(done.stdout)
    return answers

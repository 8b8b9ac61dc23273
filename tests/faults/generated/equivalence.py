"""Arguments that a mutant changes no result: `equivalent.toml`, rule by rule, which every run reads.

An argument speaks of the mutants of a rule whose place it describes; all it says of the place has to hold. A mutant
that an argument speaks of and a test catches shows the argument wrong, and a run says so.
"""

import fnmatch
import functools
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.generated.mutants import Mutant, functions
from tests.faults.generated.rules import RULES
from tests.faults.syntax import Code, occurrences, parse

ARGUMENTS = Path(__file__).with_name("equivalent.toml")


class ArgumentError(ValueError):
    """`equivalent.toml` says something that no rule or pattern is; the message says what and where."""


@dataclass(frozen=True, kw_only=True)
class Argument:
    """Why mutants of `rule` are equivalent in functions like `function` (`file::name`, with `*`).

    `old` and `new` are the mutant's own code, `within` a pattern of syntax around it, of which, where it is a call,
    `argument` is the one that holds the mutant, counted from 0; of several in a list one has to hold, and what is
    empty is not asked for.
    """

    name: str
    rule: str
    why: str
    function: str | list[str] = "*"
    old: str | list[str] = ""
    new: str | list[str] = ""
    within: str | list[str] = ""
    argument: int | None = None

    def holds(self, mutant: Mutant, source: str) -> bool:
        """Whether it speaks of the mutant of a file with that source."""
        return (
            mutant.rule == self.rule
            and any(fnmatch.fnmatchcase(f"{mutant.file}::{mutant.function}", each) for each in _listed(self.function))
            and (not self.old or mutant.old in _listed(self.old))
            and (not self.new or mutant.edit.text in _listed(self.new))
            and (not self.within or any(_contains(node, mutant.edit.node) for node in self._around(mutant, source)))
        )

    def _around(self, mutant: Mutant, source: str) -> Iterator[Code]:
        function = _function(source, mutant.function)
        for found in (one for each in _listed(self.within) for one in occurrences(parse(each, block=True), function)):
            if self.argument is None:
                yield found.node
            else:
                yield from getattr(found.node, "args", [])[self.argument : self.argument + 1]


def _listed(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


def read_arguments(path: Path = ARGUMENTS) -> list[Argument]:
    """All of them. Raises ArgumentError where one names no rule, gives no reason or holds no pattern."""
    given = tomllib.loads(path.read_text(encoding="utf-8"))
    return [argument for name, fields in given.items() for argument in _read(name, fields)]


def _read(name: str, fields: dict[str, object]) -> list[Argument]:
    rules = fields.pop("rules", None)
    if not isinstance(rules, list) or not rules or set(rules) - set(RULES):
        raise ArgumentError(f"{name}: rules = {rules}, expected a list of {', '.join(RULES)}")
    try:
        arguments = [Argument(name=name, rule=rule, **fields) for rule in rules]  # type: ignore[arg-type]
        for pattern in filter(None, _listed(arguments[0].within)):
            parse(pattern, block=True)
    except (TypeError, SyntaxError) as error:
        raise ArgumentError(f"{name}: {error}") from error
    return arguments


def argument_for(mutant: Mutant, source: str, arguments: Iterable[Argument]) -> str:
    """The name of the first argument that speaks of the mutant, empty where none does."""
    return next((argument.name for argument in arguments if argument.holds(mutant, source)), "")


@functools.lru_cache(maxsize=512)
def _function(source: str, name: str) -> Code:
    return next(function for function in functions(source) if function.name == name)


def _contains(outer: Code, inner: Code) -> bool:
    begins = (outer.lineno, outer.col_offset) <= (inner.lineno, inner.col_offset)
    return begins and (inner.end_lineno or 0, inner.end_col_offset or 0) <= (
        outer.end_lineno or 0,
        outer.end_col_offset or 0,
    )

"""Arguments that a fault in compiled code changes no result: `equivalent.toml`, which every run reads.

An argument speaks of a rule's faults at the places it describes; all it says of the place has to hold. A fault that an
argument speaks of and something notices shows the argument wrong, and the run says so.
"""

import fnmatch
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.kernels.compiled.ptx_faults import RULES

ARGUMENTS = Path(__file__).with_name("equivalent.toml")


class ArgumentError(ValueError):
    """`equivalent.toml` says something that no rule or pattern is; the message says what and where."""


@dataclass(frozen=True, kw_only=True)
class Argument:
    """Why faults of `rules` are equivalent in subjects like one of `subjects` (with *).

    `place` is which of a rule's places in a kernel (0 or 1; both where it is None), `before` and `after` are patterns
    of the kernel's PTX up to the place and from its end on, and where `masked` is false the place's mask is a constant
    that lets everything through.
    """

    name: str
    rules: tuple[str, ...]
    why: str
    subjects: tuple[str, ...] = ("*",)
    place: int | None = None
    before: str = ""
    after: str = ""
    masked: bool = True

    def holds(self, rule: str, subject: str, place: int, ptx: str, match: re.Match[str]) -> bool:
        """Whether it speaks of the fault of `rule` that changes `match`, its place number `place` in the kernel."""
        return (
            rule in self.rules
            and any(fnmatch.fnmatchcase(subject, pattern) for pattern in self.subjects)
            and self.place in (None, place)
            and re.match(self.before, ptx[: match.start()], re.DOTALL) is not None
            and re.match(self.after, ptx[match.end() :], re.DOTALL) is not None
            and (self.masked or _lets_everything(ptx, match[0]))
        )


def _lets_everything(ptx: str, place: str) -> bool:
    """Whether the guard of an instruction, or a copy's number of bytes, is set once in the kernel, and to a constant
    that masks nothing."""
    guarded = re.match(r"@!?(%p\d+)\b", place)
    copying = re.search(r"(0x[0-9a-f]+), (%r\d+);$", place)
    if guarded:
        return _settings(ptx, guarded[1]) == ["-1"]
    return copying is not None and _settings(ptx, copying[2]) == [str(int(copying[1], 16))]


def _settings(ptx: str, register: str) -> list[str]:
    """The other operands of every instruction that has the register for its first."""
    return re.findall(rf"\n\s*\S+\s+(?:%\w+\|)?{register}\b,? ?([^;]*);", ptx)


def read_arguments(path: Path = ARGUMENTS) -> list[Argument]:
    """All of them. Raises ArgumentError where one names no rule, gives no reason or holds no pattern."""
    given = tomllib.loads(path.read_text(encoding="utf-8"))
    return [_read(name, fields) for name, fields in given.items()]


def _read(name: str, fields: dict[str, object]) -> Argument:
    known = {rule.name for rule in RULES}
    rules = fields.get("rules")
    if not isinstance(rules, list) or not rules or set(rules) - known:
        raise ArgumentError(f"{name}: rules = {rules}, expected a list of {', '.join(sorted(known))}")
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    try:
        argument = Argument(name=name, **given)  # type: ignore[arg-type]
        re.compile(argument.before)
        re.compile(argument.after)
    except (TypeError, re.error) as error:
        raise ArgumentError(f"{name}: {error}") from error
    return argument


def argument_for(
    rule: str, subject: str, place: int, ptx: str, match: re.Match[str], arguments: Iterable[Argument]
) -> str:
    """The name of the first argument that speaks of the fault, empty where none does."""
    return next((one.name for one in arguments if one.holds(rule, subject, place, ptx, match)), "")

"""Every mutant of the kernels and device functions, and the order in which a seed takes them.

Left out are default values and annotations of parameters, docstrings, and what the interpreter never runs
(`if INTERPRETING: ... else: ...`, the second part): no detector could tell. A mutant's name does not depend on
line numbers or on other functions, so that a seed takes the same ones after an edit elsewhere.
"""

import ast
import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.generated.rules import RULES, Edit, axes
from tests.faults.mutation import FOLDER
from tests.faults.syntax import edited

MARKS = ("kernel", "device_function")
"""Decorators of what is mutated."""
LEAST_A_RULE, LEAST_A_FUNCTION = 20, 2
"""Mutants that come first in every order, where there are as many."""


@dataclass(frozen=True)
class Mutant:
    """One changed place of a function: the edit, and the first and last line of the statement (or its head) it is in.

    `nth` tells apart places of a function where a rule makes the same of the same code.
    """

    rule: str
    file: str
    function: str
    old: str
    edit: Edit
    nth: int
    lines: tuple[int, int]

    @functools.cached_property
    def name(self) -> str:
        """What tells it from all others, in letters and digits."""
        what = (self.rule, self.file, self.function, self.old, self.edit.text, str(self.nth))
        return hashlib.sha256("\0".join(what).encode()).hexdigest()[:12]

    @property
    def line(self) -> int:
        """Where the changed code begins."""
        return self.edit.node.lineno

    def applied(self, source: str) -> str:
        """The file's source with this one change. Raises SyntaxError where that would not parse."""
        return edited(source, self.edit.node, self.edit.text)


def functions(source: str) -> list[ast.FunctionDef]:
    """The kernels and device functions of a module."""
    return [
        statement
        for statement in ast.parse(source).body
        if isinstance(statement, ast.FunctionDef)
        and any(isinstance(mark, ast.Name) and mark.id in MARKS for mark in statement.decorator_list)
    ]


@functools.lru_cache(maxsize=512)
def mutants_of(source: str, file: str) -> tuple[Mutant, ...]:
    """Every mutant of a module, in the order of its code; of two that read alike the first."""
    found = [mutant for function in functions(source) for mutant in _of_function(function, file)]
    different = {(m.edit.node.lineno, m.edit.node.col_offset, m.old, m.edit.text): m for m in reversed(found)}
    return tuple(mutant for mutant in reversed(different.values()) if _changes(mutant))


def all_mutants(root: Path) -> list[Mutant]:
    """Every mutant of the tree at `root`."""
    paths = sorted((root / FOLDER).rglob("*.py"))
    return [m for path in paths for m in mutants_of(path.read_text(encoding="utf-8"), str(path.relative_to(root)))]


def in_order(mutants: Iterable[Mutant], seed: int) -> list[Mutant]:
    """All of them as the seed shuffles them. The first ones go round the rules until each has had `LEAST_A_RULE`, then
    round the functions; a longer sample begins with a shorter one.
    """
    shuffled = sorted(mutants, key=lambda mutant: hashlib.sha256(f"{seed} {mutant.name}".encode()).digest())
    by_rule, by_function = defaultdict(list), defaultdict(list)
    for mutant in shuffled:
        by_rule[mutant.rule].append(mutant)
        by_function[mutant.file, mutant.function].append(mutant)
    first = [
        *_round(list(by_rule.values()), LEAST_A_RULE),
        *_round(list(by_function.values()), LEAST_A_FUNCTION),
    ]
    return list(dict.fromkeys([*first, *shuffled]))


def _round(groups: Sequence[Sequence[Mutant]], turns: int) -> list[Mutant]:
    return [group[turn] for turn in range(turns) for group in groups if turn < len(group)]


def _of_function(function: ast.FunctionDef, file: str) -> Iterator[Mutant]:
    names = frozenset(_names(function))
    seen: Counter[tuple[str, ...]] = Counter()
    for node, statement in _places(function.body, skipped=set()):
        for rule, make in RULES.items():
            for edit in make(node, names):
                key = (rule, old := _text(edit.node), edit.text)
                yield Mutant(rule, file, function.name, old, edit, seen[key], _lines(statement))
                seen[key] += 1


def _names(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _places(body: Sequence[ast.stmt], skipped: set[int]) -> Iterator[tuple[ast.AST, ast.stmt]]:
    """Each node that a rule may look at, with the innermost statement around it."""
    for statement in body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        yield statement, statement
        for part in _own(statement):
            for node in ast.walk(part):
                if id(node) not in skipped:
                    skipped.update(id(axis) for axis in axes(node))
                    yield node, statement
        for inner in _taken(statement):
            yield from _places(inner, skipped)


def _own(statement: ast.stmt) -> list[ast.AST]:
    """The expressions of a statement, its blocks, names of its targets and annotations left out."""
    if isinstance(statement, ast.If):
        return [statement.test]
    if isinstance(statement, ast.For):
        return [statement.iter]
    if isinstance(statement, ast.AnnAssign):
        return [] if statement.value is None else [statement.value]
    return list(ast.iter_child_nodes(statement))


def _taken(statement: ast.stmt) -> list[list[ast.stmt]]:
    """The blocks of a statement that an interpreted kernel may enter."""
    if not isinstance(statement, ast.If | ast.For):
        return []
    if isinstance(statement, ast.If) and _is_interpreting(statement.test):
        return [statement.body]
    if isinstance(statement, ast.If) and _is_compiling(statement.test):
        return [statement.orelse]
    return [statement.body, statement.orelse]


def _is_interpreting(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "INTERPRETING"


def _is_compiling(test: ast.expr) -> bool:
    parts = test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]
    return any(isinstance(part, ast.UnaryOp) and _is_interpreting(part.operand) for part in parts)


def _lines(statement: ast.stmt) -> tuple[int, int]:
    """The lines of a statement, of one with blocks those of its head."""
    body = getattr(statement, "body", None)
    last = body[0].lineno - 1 if body else statement.end_lineno or statement.lineno
    return statement.lineno, max(statement.lineno, last)


def _text(node: ast.AST) -> str:
    """The node's code in one line; of neighbours in a list, without parentheses."""
    text = ast.unparse(node)
    return text[1:-1] if isinstance(node, ast.Tuple) else text


def _changes(mutant: Mutant) -> bool:
    """Whether the new code reads otherwise than the old. A pair may hold slices, which stand in brackets alone."""
    form = "{}" if isinstance(mutant.edit.node, ast.stmt) else "_[{}]"
    new, old = (ast.parse(form.format(text)) for text in (mutant.edit.text, mutant.old))
    return ast.dump(new) != ast.dump(old)

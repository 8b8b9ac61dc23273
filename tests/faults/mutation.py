"""One planted fault: an expression or a statement of a kernel, changed."""

import ast
import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.syntax import Code, Occurrence, edited, occurrences, parse, replacement, wildcards

FOLDER = "kernels"


class MutationError(ValueError):
    """A mutation does not match the kernels exactly once; the message says where it was looked for and found."""


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """`old` -> `new` in a function (or `Class.method`, or constant of a module) anywhere in `kernels/`.

    `old`, `new` and `within`, code around `old`, are patterns of syntax. `file` tells functions of one name apart: it
    is a hint, and nothing where the file defines no such function.
    """

    name: str
    function: str
    kind: str
    old: str
    new: str
    within: str = ""
    file: str = ""

    @property
    def searched(self) -> str:
        """`old`, and what it is looked for in."""
        return f"{self.old} within {self.within}" if self.within else self.old

    def find(self, root: Path) -> "Place":
        """Where it is planted in the tree at `root`. Raises MutationError unless `old` occurs exactly once."""
        old, _, within = self._patterns()
        defined = list(_definitions(root, self.function, self.file)) or list(_definitions(root, self.function))
        found = [Place(path, one) for path, _, tree in defined for one in occurrences(old, tree, within)]
        if len(found) == 1:
            return found[0]
        raise MutationError(f"mutation {self.name}: {self._missed(root, [path for path, *_ in defined], found)}")

    def apply(self, root: Path) -> str:
        """Plant it in the tree at `root`; returns the file's path. Raises MutationError as `find` does, and where the
        file would no longer parse.
        """
        place = self.find(root)
        path = root / place.path
        text = replacement(place.occurrence, self._patterns()[1])
        try:
            source = edited(path.read_text(encoding="utf-8"), place.occurrence.node, text)
        except SyntaxError as error:
            raise MutationError(f"mutation {self.name}: {place} does not parse with {text} ({error.msg})") from error
        path.write_text(source, encoding="utf-8")
        return place.path

    def _patterns(self) -> tuple[Code, Code, Code | None]:
        try:
            old, new, within = parse(self.old), parse(self.new), parse(self.within, block=True) if self.within else None
        except SyntaxError as error:
            raise MutationError(f"mutation {self.name}: {error.msg}") from error
        if isinstance(old, ast.expr) != isinstance(new, ast.expr) or ast.dump(old) == ast.dump(new):
            raise MutationError(
                f"mutation {self.name}: old and new have to be two expressions or two statements, and not the same"
            )
        if wildcards(new) and wildcards(old) != 1:
            raise MutationError(f"mutation {self.name}: `_` in new is what the only `_` in old stood for")
        return old, new, within

    def _missed(self, root: Path, files: Sequence[str], found: Sequence["Place"]) -> str:
        """Why there is not one place, and where else it might be."""
        if files:
            where = ", ".join(map(str, found or files))
            what = f"`{self.searched}` occurs {len(found)} times in {self.function} ({where}), expected once"
        else:
            what = f"no function, method or constant {self.function} in {FOLDER}/"
        if found:
            return what
        old, _, within = self._patterns()
        everywhere = list(_definitions(root))
        holding = [f"{name} ({path})" for path, name, tree in everywhere if occurrences(old, tree, within)]
        if holding:
            return f"{what}; it occurs in {', '.join(holding)}"
        close = difflib.get_close_matches(self.function, {name for _, name, _ in everywhere})
        return what if files or not close else f"{what}; names like it: {', '.join(close)}"


@dataclass(frozen=True)
class Place:
    """Where a mutation is planted: the file from the repository's root, and the code in it."""

    path: str
    occurrence: Occurrence

    def __str__(self) -> str:
        return f"{self.path}:{self.occurrence.node.lineno}"


def planted(
    prefix: str, file: str, faults: Mapping[str, Sequence[tuple[str, str, str, str] | tuple[str, str, str, str, str]]]
) -> tuple[Mutation, ...]:
    """The mutations of one file by function: (name without the prefix, kind, old, new, within where it is needed)."""
    return tuple(
        Mutation(
            name=f"{prefix}_{name}",
            function=function,
            kind=kind,
            old=old,
            new=new,
            within="".join(within),
            file=f"{FOLDER}/{file}",
        )
        for function, rows in faults.items()
        for name, kind, old, new, *within in rows
    )


def _definitions(root: Path, name: str = "", file: str = "") -> Iterator[tuple[str, str, ast.stmt]]:
    """(path, qualified name, code) of the functions, methods and constants of that name in `file`; of all for none."""
    for path in root.glob(file) if file else sorted((root / FOLDER).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if name.rpartition(".")[2] in source:
            for qualified, tree in _defined(source):
                if name in ("", qualified):
                    yield str(path.relative_to(root)), qualified, tree


@functools.lru_cache(maxsize=256)
def _defined(source: str) -> list[tuple[str, ast.stmt]]:
    return list(_named(ast.parse(source).body, ""))


def _named(body: Sequence[ast.stmt], scope: str) -> Iterator[tuple[str, ast.stmt]]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef):
            yield scope + statement.name, statement
        elif isinstance(statement, ast.ClassDef):
            yield from _named(statement.body, f"{scope}{statement.name}.")
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    yield scope + target.id, statement

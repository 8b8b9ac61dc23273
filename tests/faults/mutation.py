"""One planted fault: a line of a kernel, changed."""

import re
from dataclasses import dataclass
from pathlib import Path


class MutationError(ValueError):
    """A mutation's text does not match its file exactly once; the message names both."""


@dataclass(frozen=True)
class Mutation:
    """`old` -> `new` in `kernels/<file>`, both within one line; `function` narrows the search to one function."""

    name: str
    file: str
    kind: str
    old: str
    new: str
    function: str = ""

    @property
    def path(self) -> str:
        """The file, from the repository's root."""
        return f"kernels/{self.file}"

    def find(self, source: str) -> int:
        """Where `old` begins in the file's text. Raises MutationError unless it occurs exactly once."""
        if "\n" in self.old or "\n" in self.new or self.old == self.new:
            raise MutationError(f"mutation {self.name}: old and new have to be two different parts of one line")
        start, end = 0, len(source)
        if self.function:
            defined = re.search(rf"^def {self.function}\(", source, re.MULTILINE)
            if defined is None:
                raise MutationError(f"mutation {self.name}: {self.path} defines no function {self.function}")
            start = defined.start()
            following = re.search(r"^(?:def |class |@)", source[defined.end() :], re.MULTILINE)
            end = end if following is None else defined.end() + following.start()
        count = source.count(self.old, start, end)
        if count != 1:
            where = f"{self.path}, {self.function}" if self.function else self.path
            raise MutationError(f"mutation {self.name}: {self.old!r} occurs {count} times in {where}, expected once")
        return source.index(self.old, start, end)

    def apply(self, root: Path) -> None:
        """Change the line in the copy of the tree at `root`. Raises MutationError as `find` does."""
        path = root / self.path
        source = path.read_text(encoding="utf-8")
        at = self.find(source)
        path.write_text(source[:at] + self.new + source[at + len(self.old) :], encoding="utf-8")

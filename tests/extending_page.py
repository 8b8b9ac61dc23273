"""Carries out docs/extending.md in a copy of the repository: `python extending_page.py PAGE OUTCOMES`, in its root.

A block behind a line that is a path in backticks is written there, and a `diff` block changes the files that it names.
After that `python` blocks without a path and lines `python x.py …` are run, all in this process. OUTCOMES is a JSON
object of what each section raised, "" for nothing.
"""

import json
import re
import runpy
import shlex
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_BLOCK = re.compile(
    r"(?:^`(?P<path>[^`\n]+)`:\n\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A block of code: its language, and the path it is to be written to, if one stands before it."""

    language: str
    path: str | None
    text: str


def sections(page: str) -> dict[str, list[Block]]:
    """The page's blocks by the heading they stand under."""
    _, *parts = _SECTION.split(page)
    return {
        heading: [Block(found["language"], found["path"], found["text"]) for found in _BLOCK.finditer(text)]
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


def changed_files(block: Block) -> Iterator[tuple[Path, str]]:
    """The files that a block writes or changes, with their new text. A diff has `--- path` before the changes of a file
    and `@@` before each change.

    Raises:
        ValueError: the old lines of a change do not occur exactly once in the file.
    """
    if block.path is not None:
        yield Path(block.path), block.text
    elif block.language == "diff":
        for file in block.text.split("--- ")[1:]:
            name, *changes = file.split("@@\n")
            path = Path(name.strip())
            lines = path.read_text().splitlines()
            for change in changes:
                old, new = ([line[1:] for line in change.splitlines() if line[:1] in kept] for kept in (" -", " +"))
                places = [at for at in range(len(lines)) if lines[at : at + len(old)] == old]
                if len(places) != 1:
                    raise ValueError(f"{path}: expected exactly once, but found {len(places)} times: {old}")
                lines[places[0] : places[0] + len(old)] = new
            yield path, "".join(f"{line}\n" for line in lines)


def run(block: Block) -> None:
    """Runs a block that is not written anywhere: Python, or lines `python x.py …`.

    Raises:
        RuntimeError: a line that ends in another code than 0.
    """
    if block.path is None and block.language == "python":
        exec(compile(block.text, "docs/extending.md", "exec"), {"__name__": "block"})
    elif block.path is None and block.language == "":
        for line in block.text.splitlines():
            sys.argv = shlex.split(line.removeprefix("python "))
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
            except SystemExit as ended:
                if ended.code not in (0, None):
                    raise RuntimeError(f"{line}: ended in {ended.code}") from None


def write(block: Block) -> None:
    """Writes what `changed_files` says."""
    for path, text in changed_files(block):
        path.write_text(text)


def carry_out(page: str) -> dict[str, str]:
    """What each section raised, as text: every file is written and changed first, and then all is run."""
    found = sections(page)
    outcomes = dict.fromkeys(found, "")
    for action in (write, run):
        for heading, blocks in found.items():
            try:
                for block in blocks:
                    action(block)
            except Exception:
                outcomes[heading] += traceback.format_exc()
    return outcomes


if __name__ == "__main__":
    page, outcomes = map(Path, sys.argv[1:])
    outcomes.write_text(json.dumps(carry_out(page.read_text())))

"""``python -m tidepool.training.argument_check``: what train.py's parser says of lists of arguments, for a sweep.

Reads a JSON list of lists of arguments on stdin and writes a JSON list on stdout: for each null, or one line saying
which name, type or choice is not one of train.py's. Values that only a run refuses, such as batch_size=0, pass.
"""

import ast
import difflib
import inspect
import json
import re
import sys
from collections.abc import Sequence

from tidepool.data import DataError
from tidepool.training.command_line import read_flags
from tidepool.training.config import Config, ConfigError

_UNKNOWN = re.compile(r"Unrecognized (?:options|arguments): (?:--)?([\w.-]+)")
_HELP_WORDS = 2
_CLOSE = 0.6


def complaint(arguments: Sequence[str]) -> str | None:
    """One line on what in `arguments` is no name, type or choice of train.py's, or None."""
    try:
        read_flags(arguments, prog="train.py")
    except (ConfigError, DataError) as error:
        return _with_a_guess(str(error))
    return None


def _with_a_guess(line: str) -> str:
    unknown = _UNKNOWN.match(line)
    if unknown is None:
        return line
    options = line[unknown.end() :].partition("; ")[2].partition(" (")[0]
    guess = closest_flag(unknown.group(1), re.findall(r"\w+", options))
    return f"train.py has no {unknown.group(1)}; {f'did you mean {guess}?' if guess else options}"


def closest_flag(name: str, options: Sequence[str] = ()) -> str | None:
    """What `name` is likely to mean: a field of `Config` or one of `options` that is spelled like it, or a field whose
    help begins like it."""
    wanted = _squashed(name)
    spellings = {_squashed(flag): flag for flag in (*flags(), *options)}
    for flag, help_text in flags().items():
        words = re.findall(r"\w+", help_text)[:_HELP_WORDS]
        spellings.setdefault(_squashed("".join(words)), flag)
    found = difflib.get_close_matches(wanted, spellings, n=1, cutoff=_CLOSE)
    return spellings[found[0]] if found else None


def flags() -> dict[str, str]:
    """The fields of `Config`, each with its help."""
    body = ast.parse(inspect.getsource(Config)).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, help_text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id != "options":
            found[field.target.id] = str(ast.literal_eval(help_text.value)) if isinstance(help_text, ast.Expr) else ""
    return found


def _squashed(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


if __name__ == "__main__":
    json.dump([complaint(arguments) for arguments in json.load(sys.stdin)], sys.stdout)

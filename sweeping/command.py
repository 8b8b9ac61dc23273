"""The command line of one run: W&B's macros filled in, as a list that no shell ever sees."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.parameters import Value

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")

_ARGS_MACROS = (
    "args",
    "args_no_equals",
    "args_no_hyphens",
    "args_no_boolean_flags",
    "args_json",
    "args_json_file",
    "args_append_hydra",
    "args_override_hydra",
)
_MACROS = ("env", "interpreter", "program", *_ARGS_MACROS)
_MACRO = re.compile(r"\$\{([^}]*)\}")


def check_command(command: Sequence[str], description: str = "") -> None:
    """Refuse a command with macros that W&B does not know or that would not be filled in. What `description` says of an
    environment variable that is not set is repeated.

    Raises:
        SweepError: one line starting with the key.
    """
    uses_args = False
    for index, word in enumerate(command):
        for match in _MACRO.finditer(word):
            name = match.group(1)
            if name.startswith("envvar:"):
                variable = name.removeprefix("envvar:")
                if not os.environ.get(variable):
                    raise SweepError(
                        f"command[{index}]: {match.group(0)}: {_what_it_should_hold(variable, word, description)}"
                    )
                continue
            if name not in _MACROS:
                known = ", ".join(f"${{{macro}}}" for macro in (*_MACROS, "envvar:NAME"))
                raise SweepError(f"command[{index}]: unknown macro ${{{name}}}; expected one of {known}")
            if match.group(0) != word:
                raise SweepError(f"command[{index}]: {word!r}: ${{{name}}} has to be an entry of its own")
            uses_args = uses_args or name in _ARGS_MACROS
    if not uses_args:
        raise SweepError("command: has no ${args} (or another ${args_…}), so no parameter would reach the program")


def _what_it_should_hold(variable: str, word: str, description: str) -> str:
    shown = word.replace(f"${{envvar:{variable}}}", f"<{variable}>")
    state = "is empty" if variable in os.environ else "is not set"
    said = next((part.strip() for part in re.split(r"(?<=[.;?!])\s+", description) if variable in part), "")
    expected = f"; the description says: {said}" if said else ""
    return f"the environment variable {state}; it should hold what stands as <{variable}> in {shown}{expected}"


def build_argv(
    command: Sequence[str], *, program: Sequence[str], params: Mapping[str, Value], run_dir: Path
) -> list[str]:
    """The words that start one run, `params` written as W&B's agent writes them.

    ``${args_json_file}`` names a file beside `run_dir`, which `write_args_file` writes.
    """
    argv: list[str] = []
    for word in command:
        match = _MACRO.fullmatch(word)
        if match and not match.group(1).startswith("envvar:"):
            argv += _expand(match.group(1), program, params, run_dir)
        else:
            argv.append(_MACRO.sub(lambda found: os.environ[found.group(1).removeprefix("envvar:")], word))
    return argv


def args_file(run_dir: Path) -> Path:
    """The file of ``${args_json_file}``: beside the run folder, which holds nothing but the run's records."""
    return run_dir.with_name(f"{run_dir.name}.args.json")


def write_args_file(command: Sequence[str], params: Mapping[str, Value], run_dir: Path) -> None:
    """Write the file that ``${args_json_file}`` names, where `command` uses it."""
    if "${args_json_file}" in command:
        args_file(run_dir).write_text(json.dumps(dict(params)) + "\n", encoding="utf-8")


def _expand(macro: str, program: Sequence[str], params: Mapping[str, Value], run_dir: Path) -> list[str]:
    pairs = [f"{name}={value}" for name, value in params.items()]
    match macro:
        case "env":
            return ["/usr/bin/env"]
        case "interpreter":
            return [sys.executable]
        case "program":
            return [*program]
        case "args":
            return [f"--{pair}" for pair in pairs]
        case "args_no_equals":
            return [word for name, value in params.items() for word in (f"--{name}", str(value))]
        case "args_no_hyphens":
            return pairs
        case "args_no_boolean_flags":
            flags = []
            for name, value in params.items():
                if not isinstance(value, bool):
                    flags.append(f"--{name}={value}")
                elif value:
                    flags.append(f"--{name}")
            return flags
        case "args_json":
            return [json.dumps(dict(params))]
        case "args_json_file":
            return [str(args_file(run_dir))]
        case "args_append_hydra":
            return [f"+{pair}" for pair in pairs]
        case _:
            return [f"++{pair}" for pair in pairs]

"""The flags of a run -> `Config`, with every complaint on one line."""

import argparse
import contextlib
import io
import os
import re
from collections.abc import Sequence

import tyro

from tidepool.training.config import Config, ConfigError
from tidepool.training.flag_groups import flags_type, values_of

DESCRIPTION = """Train one network, tracked. Records go to <run_dir>: config.json, environment.json, metrics.jsonl,
summary.json, checkpoints/ and media/. Exit code: 0 finished, 1 failed for an outside reason, 2 bad arguments or input,
3 diverged; with a checkpoint saved, 143 stopped by SIGTERM or SIGUSR1, 130 by Ctrl-C. The same command with the same
--run_dir resumes.
The options of a data set and a network are flags as well: those of the --data and --model given are listed last."""

_BAD_FLAGS = 2  # tyro's exit code for them
_BOX = re.compile(r"[╭╮╰╯│─]+|^[|+]|[|+]$|-{3,}")  # the second half is how it is drawn where stdout is ASCII


def parse_arguments(arguments: Sequence[str], *, prog: str = "tidepool train") -> Config:
    """Read and check flags; `prog` is the command's name in what it says. `--help` prints and raises SystemExit(0).

    Flags take a value each (`--deterministic=True`), as W&B agents write them.

    Raises:
        ConfigError: one line that names the flag and what was expected.
    """
    config = read_flags(arguments, prog=prog)
    config.validate()
    return config


def read_flags(arguments: Sequence[str], *, prog: str) -> Config:
    """Names, types and choices alone: the flags as `Config`, whose ranges have not been checked.

    Raises:
        ConfigError: as `parse_arguments`.
    """
    chosen = _names_chosen(arguments)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            flags = tyro.cli(
                flags_type(chosen),
                prog=prog,
                description=" ".join(DESCRIPTION.split()),
                args=arguments,
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as exit_request:
        if exit_request.code != _BAD_FLAGS:  # help, or a signal
            raise
        text = _one_line(complaint.getvalue())
        if text.startswith("Unrecognized"):
            text += f"; {chosen.options_text()}"
        raise ConfigError(f"{text} ({prog} --help lists the flags)") from None
    given = {flag.removeprefix("--").partition("=")[0].replace("-", "_") for flag in arguments if flag.startswith("--")}
    values = values_of(flags)
    options = {name: values.pop(name) for name in chosen.known_options()}
    return Config(**values | {"options": {name: value for name, value in options.items() if name in given}})


def _names_chosen(arguments: Sequence[str]) -> Config:
    """Settings with the data set and the network that the arguments name, and all else by default."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("data", "model"):
        parser.add_argument(f"--{name}", nargs="?")  # a missing value is for tyro to complain about
    names = vars(parser.parse_known_args(list(arguments))[0])
    return Config(**{name: value for name, value in names.items() if value is not None})


def _one_line(boxed: str) -> str:
    """The text of one of tyro's boxed complaints, without box, title, repeated help text and footer."""
    kept: list[str] = []
    for line in boxed.split(os.linesep)[1:]:  # the first one is the title
        words = _BOX.sub(" ", line).strip()
        if words.startswith(("For full helptext", "Argument helptext")):
            break
        kept.append(words)
    text = " ".join(" ".join(kept).split())
    return text.rstrip(".")

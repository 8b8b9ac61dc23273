"""`train.py`'s arguments -> `Config`, with every complaint on one line."""

import contextlib
import io
import os
import re
from collections.abc import Sequence

import tyro

from training.config import Config, ConfigError

DESCRIPTION = """Train one network, tracked. Records go to <run_dir>: config.json, environment.json, metrics.jsonl,
summary.json, checkpoints/ and media/. Exit code: 0 finished, 2 bad arguments or input, 3 diverged,
143 stopped by SIGTERM with a checkpoint saved, 130 by Ctrl-C. The same command with the same --run_dir goes on."""

_BOX = re.compile(r"[╭╮╰╯│─]+")


def parse_arguments(arguments: Sequence[str] | None = None) -> Config:
    """Read and check flags, by default those of this process. `--help` prints and raises SystemExit(0).

    Flags take a value each (`--deterministic=True`), as W&B agents write them.

    Raises:
        ConfigError: one line that names the flag and what was expected.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            config = tyro.cli(
                Config,
                prog="train.py",
                description=" ".join(DESCRIPTION.split()),
                args=arguments,
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit as exit_request:
        if exit_request.code in (0, None):
            raise
        raise ConfigError(_one_line(complaint.getvalue())) from None
    config.validate()
    return config


def _one_line(boxed: str) -> str:
    """The text of one of tyro's boxed complaints, without box, title, repeated help text and footer."""
    kept: list[str] = []
    for line in boxed.split(os.linesep):
        if line.startswith("╭"):
            continue
        words = _BOX.sub(" ", line).strip()
        if words.startswith(("For full helptext", "Argument helptext")):
            break
        kept.append(words)
    text = " ".join(" ".join(kept).split())
    return f"{text.rstrip('.')} (train.py --help lists the flags)"

"""`tidepool <command> …`: one name for every program, each loaded only when it is called."""

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import NoReturn

import tidepool
from tidepool import installation, program

COMMANDS = {
    "train": ("tidepool.training.program", "train one network, tracked"),
    "sweep": ("tidepool.sweeping.program", "many runs from a W&B sweep file, then their comparison"),
    "bench": ("tidepool.benchmarking.program", "time layers and networks against cuDNN and torch.compile"),
    "tune": ("tidepool.kernels.tune.tuner", 'measure on this GPU what backend="auto" goes by'),
    "check": ("tidepool.kernels.compile_check.check", "compile every kernel for every target, without a GPU"),
    "coverage": ("tidepool.models.coverage.cover", "which kernel carries each layer of a network"),
    "report": ("tidepool.analysis.report", "tables, figures and one HTML page from recorded runs"),
    "claim": ("tidepool.analysis.claims.frame.program", "one experiment on what a CNN is said to do"),
    "readme": ("tidepool.analysis.readme", "the README's tables against results/"),
    "host_cost": ("tidepool.benchmarking.host_cost", "host time of a small step beside eager PyTorch's"),
}
"""Command -> the module whose `main(arguments, *, prog)` it is, and what it does."""


def console(prog: str = "tidepool") -> NoReturn:
    """The console script: run the command that the arguments name, and end the process."""
    program.run_process(main, sys.argv[1:], prog=prog)


def script(name: str) -> NoReturn:
    """The script at the root of a clone with a command's name: run that command, and end the process."""
    program.run_process(partial(_command, name), sys.argv[1:], prog=f"{name}.py")


def main(arguments: Sequence[str], *, prog: str = "tidepool") -> int:
    """Run the command that `arguments` begin with; returns its exit code, 2 for a name that is none."""
    name, *rest = arguments or ["--help"]
    if name in ("--help", "-h"):
        print(_help(prog))
        return 0
    if name == "--version":
        print(f"tidepool {tidepool.__version__} ({installation.SOURCE / 'tidepool'})")
        return 0
    if name not in COMMANDS:
        print(f"{prog}: no command {name!r}; expected one of: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return _command(name, rest, prog=f"{prog} {name}")


def _command(name: str, arguments: Sequence[str], *, prog: str) -> int:
    try:
        with program.stopped_at_once(prog):
            command: program.Main = import_module(COMMANDS[name][0]).main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "tidepool":
            raise
        print(f"{prog}: needs {error.name}, which is not installed here", file=sys.stderr)
        return 1
    return command(arguments, prog=prog)


def _help(prog: str) -> str:
    lines = [f"usage: {prog} <command> …", "", *(f"  {name:9}  {about}" for name, (_, about) in COMMANDS.items())]
    return "\n".join([*lines, "", f"{prog} <command> --help lists a command's flags; --version says which this is."])

"""The flags of `bench.py` -> what to do, with every complaint on one line."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidepool.benchmarking.cases import CaseError, LayerCase, ModelCase
from tidepool.benchmarking.comparison import Comparison
from tidepool.benchmarking.counting.run import TARGETS as COUNTED_TARGETS
from tidepool.benchmarking.model_workload import MODEL_PASSES
from tidepool.benchmarking.opponents import BACKEND_NAMES, backends
from tidepool.benchmarking.predict import PREDICTED_DEVICES, named_device
from tidepool.benchmarking.suites import SUITES, chosen, suite
from tidepool.benchmarking.workload import PASSES
from tidepool.kernels.auto.roofline import DEVICES
from tidepool.kernels.layer.dtypes import BY_NAME
from tidepool.records import OneLineParser

DEFAULT_OUT = Path("results/kernel_speed")
_DESCRIPTION = """Time the op's layers and whole networks against cuDNN and torch.compile: rows are appended to
<out>/timings.csv, nothing is overwritten, and the same command resumes where it stopped. A case is timed only after it
was checked right in the same process. Lists are separated by commas or spaces. Exit code: 0 done or out of budget
(which says what is left), 1 failed, 2 bad arguments or no GPU, 130 and 143 stopped by Ctrl-C and SIGTERM."""


class UsageError(ValueError):
    """Bad arguments. The message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


@dataclass(frozen=True)
class Options:
    """bench.py's arguments, checked. `suite_given` is whether --suite was."""

    suite: str
    cases: tuple[str, ...] | None
    backends: tuple[str, ...]
    dtypes: tuple[str, ...]
    passes: tuple[str, ...]
    out: Path
    out_given: bool
    budget_s: float | None
    processes: int
    rounds: int
    cuda_graph: bool
    seed: int
    predict: bool
    predict_on: tuple[str, ...]
    counters: bool
    targets: tuple[str, ...]
    visit: bool
    resume: str
    run_dir: Path | None
    group: str | None
    name: str | None
    project: str | None
    progress: bool

    def comparison(self, dtype: str, *, since: str = "") -> Comparison:
        """What to compare in one dtype."""
        return Comparison(
            out=self.out,
            suite=self.suite,
            cases=chosen(suite(self.suite), self.cases),
            backends=backends(self.backends),
            dtype=dtype,
            passes=self.passes,
            rounds=self.rounds,
            cuda_graph=self.cuda_graph,
            seed=self.seed,
            since=since,
        )

    def layers(self) -> tuple[LayerCase, ...]:
        """The chosen cases that are layers."""
        return tuple(case for case in chosen(suite(self.suite), self.cases) if isinstance(case, LayerCase))

    def networks(self) -> tuple[ModelCase, ...]:
        """The chosen cases that are networks."""
        return tuple(case for case in chosen(suite(self.suite), self.cases) if isinstance(case, ModelCase))

    def as_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        record = dataclasses.asdict(self)
        return {name: str(value) if isinstance(value, Path) else value for name, value in record.items()}


def parse_options(arguments: Sequence[str], *, prog: str = "tidepool bench") -> Options:
    """Read and check flags; `prog` is the command's name in what it says. `--help` prints and raises SystemExit(0).

    Raises UsageError.
    """
    parser = OneLineParser(prog=prog, description=" ".join(_DESCRIPTION.split()), refusal=UsageError)
    for flag, settings in _FLAGS.items():
        parser.add_argument(f"--{flag}", **settings)
    given = vars(parser.parse_args(arguments))
    out_given = given["out"] is not None
    for name in ("cases", "backends", "dtype", "passes", "predict_on", "targets"):
        if given[name] is not None:
            given[name] = _listed(name, given[name])
    options = Options(
        cases=given["cases"],
        backends=given["backends"] or BACKEND_NAMES,
        dtypes=given["dtype"] or ("bf16",),
        passes=given["passes"] or (MODEL_PASSES if given["suite"] == "models" else PASSES),
        out=given["out"] or given["run_dir"] or DEFAULT_OUT,
        out_given=out_given or given["run_dir"] is not None,
        predict_on=given["predict_on"] or PREDICTED_DEVICES,
        targets=given["targets"] or COUNTED_TARGETS,
        **{name: given[name] for name in _TAKEN_AS_GIVEN},
    )
    _check(options)
    return options


def _check(options: Options) -> None:
    """Raises UsageError for values and combinations that cannot be used."""
    known = {
        "dtype": (options.dtypes, tuple(BY_NAME)),
        "passes": (options.passes, PASSES),
        "targets": (options.targets, COUNTED_TARGETS),
    }
    for flag, (values, allowed) in known.items():
        for value in values:
            if value not in allowed:
                raise UsageError(f"--{flag}: {value!r}; expected some of: {', '.join(allowed)}")
    try:
        backends(options.backends)
        chosen(suite(options.suite), options.cases)
        for device in options.predict_on:
            named_device(device)
    except (CaseError, ValueError) as error:
        raise UsageError(str(error)) from None
    if options.predict + options.visit + options.counters > 1:
        raise UsageError("--predict, --counters and --visit: give one of them")
    if options.counters and options.run_dir:
        raise UsageError("--counters writes no record of a run: leave out --run_dir")
    if options.visit and (options.suite != "blocks" or options.run_dir):
        raise UsageError("--visit goes through blocks and models by itself: leave out --suite and --run_dir")
    if options.suite == "models" and not set(options.passes) & set(MODEL_PASSES):
        raise UsageError(f"--passes: networks are timed in whole steps, expected {', '.join(MODEL_PASSES)}")
    if options.run_dir is not None and options.out != options.run_dir:
        raise UsageError("--out and --run_dir: a run keeps its measurements in its own folder; give one of the two")
    for flag in ("out", "run_dir"):
        path = getattr(options, flag)
        if path is not None and path.exists() and not path.is_dir():
            raise UsageError(f"--{flag}: {path} is a file, expected a folder")


def _listed(name: str, values: list[str]) -> tuple[str, ...]:
    words = [word.strip() for value in values for word in value.split(",")]
    if not all(words) or not words:
        raise UsageError(f"--{name}: an empty entry in {' '.join(values)!r}")
    return tuple(dict.fromkeys(words))


def _truth(text: str) -> bool:
    if text not in ("True", "False", "true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r}; expected True or False")
    return text in ("True", "true")


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) < 2**31:
            raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number from {least} to 2**31 - 1")
        return int(text)

    return read


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number of seconds above 0")
    return value


def _words(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("expected some text")
    return text


_ON = {"nargs": "?", "const": True, "default": False, "type": _truth, "metavar": "True|False"}
_LIST = {"nargs": "+", "metavar": "NAME"}
_FLAGS: dict[str, dict[str, Any]] = {
    "suite": {"choices": SUITES, "default": "blocks", "help": "what to compare (default: blocks)"},
    "cases": {**_LIST, "help": "only these of the suite (in a visit: of blocks)"},
    "backends": {**_LIST, "help": f"default all: {', '.join(BACKEND_NAMES)}"},
    "dtype": {**_LIST, "help": f"some of {', '.join(BY_NAME)} (default: bf16)"},
    "passes": {**_LIST, "help": f"some of {', '.join(PASSES)} (default: all a suite has)"},
    "out": {"type": Path, "help": f"folder of the records (default: {DEFAULT_OUT})"},
    "budget_s": {"type": _seconds, "metavar": "SECONDS", "help": "stop cleanly and say what is left"},
    "processes": {"type": _whole(1), "default": 3, "metavar": "N", "help": "fresh processes, each a replicate (3)"},
    "rounds": {"type": _whole(1), "default": 1, "metavar": "N", "help": "turns A B B A in a process (1)"},
    "cuda_graph": {**_ON, "help": "capture calls in CUDA graphs, on every side"},
    "seed": {"type": _whole(0), "default": 0, "metavar": "N", "help": "of the random inputs and weights"},
    "predict": {**_ON, "help": "operations, bytes and bounds of time; needs no GPU; written only with --out"},
    "predict_on": {**_LIST, "help": f"cards, of {', '.join(device.name for device in DEVICES)}"},
    "counters": {**_ON, "help": "bytes, sectors, bank conflicts, products of layers, counted on the simulator"},
    "targets": {**_LIST, "help": f"of --counters: {', '.join(COUNTED_TARGETS)} (default: all)"},
    "visit": {**_ON, "help": "checks, ceilings, tuning, blocks, models: all that one visit to a GPU should do"},
    "resume": {"choices": ("auto", "never"), "default": "auto", "help": "never: measure again what was measured"},
    "run_dir": {"type": Path, "help": "as sweep.py gives it: --out and a record of the run in one folder"},
    "group": {"type": _words, "help": "recorded with the run"},
    "name": {"type": _words, "help": "recorded with the run"},
    "project": {"type": _words, "help": "recorded with the run"},
    "progress": {**_ON, "default": True, "help": "a line for each pass that was timed"},
}
_TAKEN_AS_GIVEN = (
    "suite", "budget_s", "processes", "rounds", "cuda_graph", "seed", "predict", "counters", "visit", "resume",
    "run_dir", "group", "name", "project", "progress",
)  # fmt: skip

"""The record of one bench.py run in a folder of its own, as sweep.py starts it: config, environment, summary.

`kind` is "bench" in config.json and summary.json: these are not training runs, and reports read them apart. The
summary's figures are named as a sweep's metric names them: `speedup/train/auto/cudnn` is `speedup_train_auto_cudnn`.
"""

import fcntl
import json
import math
from collections import defaultdict
from pathlib import Path
from types import TracebackType

import torch

from tidepool.benchmarking import machine
from tidepool.benchmarking.command_line import Options, UsageError
from tidepool.benchmarking.comparison import TIMED
from tidepool.benchmarking.opponents import OURS
from tidepool.benchmarking.predict import predictions_table
from tidepool.benchmarking.records import timings
from tidepool.kernels.runtime.timing import median
from tidepool.records import BENCH_KIND, Table, read_json, write_json

# What may differ from the run that is resumed: where it is kept, how long it may take, what it prints.
_FREE = frozenset({"budget_s", "resume", "run_dir", "out", "out_given", "progress", "group", "name", "project"})


class FolderLock:
    """Keeps a second bench.py out of a folder while the block lasts. Raises UsageError where there is one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> "FolderLock":
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = (self.folder / ".lock").open("a")
        except OSError as error:
            raise UsageError(f"{self.folder}: cannot be written ({error.strerror or error})") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UsageError(f"{self.folder}: another bench.py is writing there") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def begin(options: Options, folder: Path, device: torch.device) -> bool:
    """Write what a run starts with; whether it had finished before. Raises UsageError in another run's folder."""
    config = json.loads(json.dumps(options.as_record()))
    earlier = read_json(folder / "config.json")
    if earlier is not None:
        if earlier.get("kind") != BENCH_KIND:
            raise UsageError(f"--run_dir: {folder} holds another program's run; give a new folder")
        differing = [name for name in config if name not in _FREE and earlier.get(name) != config[name]]
        if differing:
            raise UsageError(f"--run_dir: {folder} was started with other {', '.join(differing)}; give a new folder")
    summary = read_json(folder / "summary.json") or {}
    if options.resume == "auto" and summary.get("status") == "finished":
        return True
    write_json(folder / "config.json", {"kind": BENCH_KIND, **config})
    write_json(
        folder / "environment.json", {**machine.machine_record(device, ("kernels", "models")), "date": machine.now()}
    )
    return False


def end(folder: Path, options: Options, left: list[str]) -> None:
    """Write summary.json: how the run ended, and its figures."""
    summary = {
        "kind": BENCH_KIND,
        "status": "interrupted" if left else "finished",
        "exit_reason": "; ".join(left) or None,
        "suite": options.suite,
        "dtype": ",".join(options.dtypes),
        **speedups(timings(folder)),
        **_predicted(folder),
    }
    write_json(folder / "summary.json", summary)


def speedups(table: Table) -> dict[str, float]:
    """`speedup_<pass>_<ours>_<opponent>`: geometric mean over the cases both were timed on of the ratio of medians.

    Interpreted kernels are in no ratio.
    """
    times: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in table.read()[0]:
        if row["status"] == TIMED and row["kernel_mode"] == "compiled":
            times[row["pass"], row["backend"], row["case"], row["dtype"]].append(float(row["time_ms_p50"]))
    ratios: dict[str, list[float]] = defaultdict(list)
    for (pass_, backend, case, dtype), theirs in times.items():
        for ours in OURS:
            mine = times.get((pass_, ours, case, dtype))
            if mine and backend not in OURS:
                ratios[f"speedup_{pass_}_{ours}_{backend}"].append(median(theirs) / median(mine))
    return {name: _geometric_mean(values) for name, values in sorted(ratios.items())}


def _predicted(folder: Path) -> dict[str, float]:
    rows, _ = predictions_table(folder).read()
    ratios: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        ratios[f"predicted_bytes_ratio_{row['pass']}"].append(float(row["bytes_ratio"]))
        ratios[f"predicted_bound_ratio_{row['pass']}_{row['device']}"].append(float(row["bound_ratio"]))
    return {name: _geometric_mean(values) for name, values in sorted(ratios.items())}


def _geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))

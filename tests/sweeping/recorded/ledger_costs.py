"""What a sweep of 100,000 points costs: to plan, to take a point, to look, and to follow the runs' metrics."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.distributions import IntDistribution, distribution_to_json
from optuna.trial import TrialState

from tests.sweeping.recorded.interruptions import PROGRAM, ROOT
from tidepool.sweeping import trials
from tidepool.sweeping.follower import MetricFollower
from tidepool.sweeping.ledger import Ledger
from tidepool.sweeping.records import metric_history
from tidepool.sweeping.spec import Sweep, read_sweep
from tidepool.sweeping.storage import default_url

POINTS = 100_000
_CLAIMS = 300
COLUMNS = ("schema_version", "what", "points", "points_done", "median_ms", "p99_ms", "largest_ms", "n")


def costs(folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each cost, measured in an empty `folder`."""
    folder.mkdir(parents=True)
    (folder / "fake_train.py").write_bytes(PROGRAM.read_bytes())
    parameters = {"seed": {"min": 0, "max": 99}, "a": {"min": 0, "max": 99}, "b": {"min": 0, "max": 9}}
    content = {"program": "fake_train.py", "name": "large", "method": "grid", "parameters": parameters}
    (folder / "large.yaml").write_text(json.dumps(content))
    yield _first_run(folder)
    sweep = read_sweep(folder / "large.yaml", home=folder)
    directory = folder / "runs" / "ledger"
    directory.mkdir(parents=True)
    for done in (0, POINTS - 2 * _CLAIMS):
        yield from _ledger(sweep, directory, done)
    yield from _metrics(folder)


def _first_run(folder: Path) -> dict[str, Any]:
    """From the command to the first run's first line."""
    began = time.monotonic()
    sweep = subprocess.Popen([sys.executable, str(ROOT / "sweep.py"), "large.yaml", "--workers", "1"], cwd=folder,
                             stdout=subprocess.DEVNULL)  # fmt: skip
    while not (folder / "runs" / "large" / "starts.txt").exists():
        time.sleep(0.01)
    seconds = time.monotonic() - began
    sweep.terminate()
    sweep.wait()
    return _row("from the command to the first run", 0, [seconds])


def _ledger(sweep: Sweep, directory: Path, done: int) -> Iterator[dict[str, Any]]:
    points = sweep.points()
    ledger = Ledger(default_url(directory), sweep, directory)
    _fill(ledger, [point.key for point in points[:done]])
    began = time.monotonic()
    ledger.plan(points)
    yield _row("read what is done", done, [time.monotonic() - began])
    claims = []
    for _ in range(_CLAIMS):
        began = time.monotonic()
        claim = ledger.claim()
        claims.append(time.monotonic() - began)
        assert claim is not None
        ledger.finish(claim, "finished")
    yield _row("take a point", done, claims)
    yield _row("look, CPU", done, [_cpu(lambda: (ledger.recover(), ledger.news())) for _ in range(50)])
    ledger.close()


def _fill(ledger: Ledger, keys: list[str]) -> None:
    """Write finished trials as the ledger does, many at once."""
    models = trials.models
    owner = ["elsewhere", 1, 1]
    with ledger._database.engine.begin() as connection:
        first = connection.execute(sqlalchemy.select(sqlalchemy.func.max(models.TrialModel.trial_id))).scalar() or 0
        rows = [{"trial_id": first + n, "number": first + n - 1, "study_id": ledger._study_id,
                 "state": TrialState.PRUNED, "datetime_start": datetime.now()}
                for n in range(1, len(keys) + 1)]  # fmt: skip
        attributes, params = [], []
        for row, key in zip(rows, keys, strict=True):
            point = {"key": key, "params": json.loads(key), "folder": "x", "attempt": 1, "run_dir": "x"}
            held = {"point": {**point, "owner": owner}, "beat": 0.0, "child": owner, "end": {"outcome": "finished"}}
            of_trial = {"trial_id": row["trial_id"]}
            attributes += [{**of_trial, "key": name, "value_json": json.dumps(each)} for name, each in held.items()]
            params += [{**of_trial, "param_name": name, "param_value": value, "distribution_json": _distribution(name)}
                       for name, value in json.loads(key).items()]  # fmt: skip
        if rows:
            connection.execute(models.TrialParamModel.__table__.insert(), params)
            connection.execute(models.TrialModel.__table__.insert(), rows)
            connection.execute(models.TrialUserAttributeModel.__table__.insert(), attributes)


def _distribution(name: str) -> str:
    return distribution_to_json(IntDistribution(0, 9 if name == "b" else 99))


def _metrics(folder: Path) -> Iterator[dict[str, Any]]:
    """A look at a run's metrics: the whole file, as before, and what was added."""
    file = folder / "metrics.jsonl"
    line = json.dumps({"schema_version": 1, "step": 1, "epoch": 0.1, "time_s": 1.0, "val/accuracy": 0.5}) + "\n"
    file.write_text(line * 10_000)
    follower = MetricFollower(file, "val/accuracy", (1, 10, 100))
    yield _row("read 10,000 rows of a metric, CPU", 0, [_cpu(lambda: metric_history(folder, "val/accuracy"))])
    yield _row("follow 10,000 rows of a metric, CPU", 0, [_cpu(follower.read)])
    looks = []
    for _ in range(50):
        with file.open("a") as end:
            end.write(line)
        looks.append(_cpu(follower.read))
    yield _row("follow one row more, CPU", 0, looks)


def _cpu(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _row(what: str, done: int, seconds: list[float]) -> dict[str, Any]:
    ordered = sorted(1e3 * each for each in seconds)
    values = (1, what, POINTS, done, statistics.median(ordered), ordered[int(0.99 * (len(ordered) - 1))], ordered[-1],
              len(ordered))  # fmt: skip
    return {name: round(value, 2) if isinstance(value, float) else value
            for name, value in zip(COLUMNS, values, strict=True)}  # fmt: skip

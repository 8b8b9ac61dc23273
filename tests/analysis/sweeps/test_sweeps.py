"""The result of a sweep from its points: best run, leaderboard, importance, front; and what a report says of it."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tidepool.analysis.report import comparison_text, write_report
from tidepool.analysis.runs import read_records
from tidepool.analysis.sweeps import of_content, read_sweeps, sweep_text
from tidepool.analysis.sweeps.importance import importance_table
from tidepool.analysis.sweeps.leaderboard import best_point, leaderboard
from tidepool.analysis.sweeps.pareto import hypervolume, on_the_front

LOSS = {"name": "val/loss", "goal": "minimize"}
ACCURACY = {"name": "val/accuracy", "goal": "maximize"}


def sweep(rows, metric=ACCURACY):
    """A sweep of (params, values or outcome) rows."""
    names = [each["name"] for each in (metric if isinstance(metric, list) else [metric])]
    points = []
    for index, (params, reached) in enumerate(rows):
        finished = not isinstance(reached, str)
        values = dict(zip(names, np.atleast_1d(reached).tolist(), strict=True)) if finished else {}
        outcome = "finished" if finished else reached
        points.append({"run": f"runs/s/{index}", "outcome": outcome, "params": params, "values": values,
                       "command": f"python train.py --n={index}"})  # fmt: skip
    return of_content({"name": "s", "method": "grid", "metric": metric, "parameters": {}}, points)


def grid(lrs, seeds, value):
    return [({"lr": lr, "seed": seed}, value(lr, seed)) for lr in lrs for seed in seeds]


def test_the_leaderboard_folds_seeds_into_mean_and_spread_and_puts_the_best_first():
    board = leaderboard(sweep(grid([0.1, 0.2, 0.3], [0, 1, 2], lambda lr, seed: lr + 0.01 * seed)))
    assert list(board["param/lr"]) == [0.3, 0.2, 0.1]
    assert list(board["rank"]) == [1, 2, 3]
    assert board["val/accuracy_mean"].tolist() == pytest.approx([0.31, 0.21, 0.11])
    assert board["val/accuracy_std"].tolist() == pytest.approx([0.01] * 3)
    assert list(board["n_finished"]) == [3, 3, 3]
    assert list(board["run"]) == ["runs/s/8", "runs/s/5", "runs/s/2"]  # of each its best run
    assert "param/seed" not in board


def test_less_is_better_where_the_goal_is_to_minimize():
    rows = grid([0.1, 0.2], [0, 1], lambda lr, seed: lr + 0.01 * seed)
    assert leaderboard(sweep(rows, LOSS))["param/lr"].tolist() == [0.1, 0.2]
    assert best_point(sweep(rows, LOSS))["run"] == "runs/s/0"
    assert best_point(sweep(rows))["run"] == "runs/s/3"


def test_runs_that_did_not_finish_or_have_no_number_are_counted_and_never_best():
    rows = [({"lr": 1, "seed": 0}, 0.5), ({"lr": 1, "seed": 1}, "diverged"), ({"lr": 2, "seed": 0}, math.inf),
            ({"lr": 3, "seed": 0}, "refused")]  # fmt: skip
    board = leaderboard(sweep(rows))
    assert board[["param/lr", "n_finished", "n_other"]].to_numpy().tolist() == [[1, 1, 1]]
    assert math.isnan(board["val/accuracy_std"][0])
    assert best_point(sweep(rows[1:])) is None
    assert "No best run: no run finished with a number for it." in sweep_text(sweep(rows[1:]))


def test_values_that_python_takes_for_equal_are_different_configurations():
    rows = [({"x": value}, 0.1) for value in (1, True, "1", [1], {"a": 1})]
    assert len(leaderboard(sweep(rows))) == 4  # the word 1 and the number look alike, to a command line too


def test_the_text_names_best_run_command_and_caution():
    text = sweep_text(sweep(grid([0.1, 0.2], [0, 1], lambda lr, seed: lr + 0.01 * seed)))
    assert "Best run, highest val/accuracy: runs/s/3, val/accuracy 21.00 % (lr=0.2, seed=1)." in text
    assert "It is repeated by: python train.py --n=3" in text
    assert "The best of 2 configurations is flattered" in text
    assert "test split" not in text
    backends = [({"backend": name, "seed": 0}, 0.5) for name in ("triton", "cudnn")]
    assert "flattered" not in sweep_text(sweep(backends))
    assert "chosen by the test split" in sweep_text(sweep(grid([1, 2], [0], lambda lr, _: lr), {"name": "test/loss"}))


def test_importance_finds_the_parameter_that_matters():
    values = itertools.product([0.001, 0.01, 0.1, 1.0], ["a", "b"], [1, 2, 3])
    rows = [({"lr": lr, "net": net, "idle": idle}, abs(math.log10(lr) + 1)) for lr, net, idle in values]
    table = importance_table(sweep(rows, LOSS)).set_index("parameter")["importance"]
    assert table["lr"] > 0.9
    assert table.sum() == pytest.approx(1)
    assert importance_table(sweep(rows[:4], LOSS)).empty
    assert importance_table(sweep([(params, 1.0) for params, _ in rows], LOSS)).empty


def test_the_front_is_what_no_other_betters():
    costs = pd.DataFrame({"a": [1, 2, 3, 2, 3], "b": [3, 2, 1, 3, 3]})
    assert on_the_front(costs) == [True, True, True, False, False]
    assert on_the_front(pd.DataFrame({"a": [1, 1], "b": [2, 2]})) == [True, True]


def test_the_hypervolume_is_that_of_a_count_of_unit_cells():
    generator = np.random.default_rng(0)
    for dimensions in (1, 2, 3, 4):
        points = generator.integers(0, 6, (8, dimensions)).tolist()
        cells = itertools.product(range(6), repeat=dimensions)
        counted = sum(any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in cells)
        assert hypervolume(points, [6] * dimensions) == counted
    assert hypervolume([[6, 0]], [6, 6]) == 0


def test_several_objectives_give_a_front_and_its_hypervolume():
    rows = [({"w": 3}, (0.9, 300)), ({"w": 1}, (0.9, 100)), ({"w": 2}, (0.95, 200)), ({"w": 4}, (0.95, 250))]
    found = sweep(rows, [ACCURACY, {"name": "parameters"}])
    assert best_point(found)["param/w"] == 2  # of equal accuracies the one with fewer parameters
    assert leaderboard(found)["param/w"].tolist() == [2, 4, 1, 3]
    assert leaderboard(found).set_index("param/w")["on_front"].to_dict() == {2: True, 4: False, 1: True, 3: False}
    text = sweep_text(found)
    assert "Pareto front: 2 of 4 configurations." in text
    assert "the front dominates 50.0 % of the box" in text
    assert "(reference point: val/accuracy 90.00 %, parameters 300)" in text


def write_runs(folder: Path, backends=("cudnn",), lrs=(0.1, 0.2)) -> None:
    """A sweep's folder as sweep.py leaves it, without points.json."""
    folder.mkdir(parents=True)
    parameters = {"lr": {"values": list(lrs)}, "seed": {"values": [0, 1]}, "backend": {"values": list(backends)}}
    content = {"name": folder.name, "method": "grid", "program": "train.py", "metric": ACCURACY, "margin_points": 1.0}
    (folder / "sweep.json").write_text(json.dumps({"schema_version": 1, **content, "parameters": parameters}))
    for index, (lr, seed, backend) in enumerate(itertools.product(lrs, [0, 1], backends)):
        run = folder / f"run-{index}"
        run.mkdir()
        config = {"data": "digits", "model": "lenet5", "backend": backend, "dtype": "fp32", "seed": seed, "lr": lr}
        reached = lr + 0.01 * seed
        (run / "config.json").write_text(json.dumps({"schema_version": 1, **config}))
        summary = {"status": "finished", "test_accuracy": reached, "val_accuracy": reached, "kernel_mode": "compiled"}
        (run / "summary.json").write_text(json.dumps({"schema_version": 1, **config, **summary}))
        rows = [{"schema_version": 1, "step": s, "epoch": s, "val/accuracy": reached * s / 2} for s in (1, 2)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_report_of_a_search_has_its_result_and_no_comparison_for_every_combination(tmp_path):
    write_runs(tmp_path / "runs" / "search", lrs=[0.1 + 0.01 * n for n in range(8)])
    page = write_report([tmp_path / "runs"], tmp_path / "report").read_text()
    assert "Result of the sweep search" in page
    top = page[page.index('class="badges"') : page.index("</dl>")]
    assert "<dt>Best of search, highest val/accuracy</dt>" in top
    assert "lr 0.17" in top
    assert "<dd>16 of 16 finished<small>none failed, none diverged</small></dd>" in top
    assert "<pre>python train.py --lr=0.17 --seed=1 --backend=cudnn</pre>" in page
    assert "No cudnn runs to compare" not in page
    assert 'id="accuracy"' not in page
    names = sorted(path.name for path in (tmp_path / "report" / "figures").iterdir())
    stems = ("curves-search", "importance-search-val-accuracy", "slice-search-val-accuracy-lr")
    assert names == [f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")]
    tables = {path.name for path in (tmp_path / "report" / "tables").iterdir()}
    assert {"leaderboard.csv", "leaderboard.md", "importance.csv", "points.csv", "runs.csv"} <= tables
    assert not {"accuracy.csv", "agreement.csv"} & tables


def test_the_report_of_a_sweep_over_backends_compares_them_too(tmp_path):
    write_runs(tmp_path / "runs" / "parity", backends=("triton", "cudnn"))
    page = write_report([tmp_path / "runs"], tmp_path / "report").read_text()
    assert "Result of the sweep parity" in page
    assert 'id="accuracy"' in page
    assert (tmp_path / "report" / "tables" / "accuracy.csv").exists()
    assert "triton beside cudnn" in comparison_text([tmp_path / "runs"])


def test_points_json_knows_runs_that_are_not_on_this_disk(tmp_path):
    folder = tmp_path / "runs" / "search"
    write_runs(folder)
    here = read_sweeps(read_records([folder]))[0]
    assert here.finished["metric/val/accuracy"].tolist() == pytest.approx([0.1, 0.11, 0.2, 0.21])
    away = {"outcome": "finished", "params": {"lr": 0.5, "seed": 0}, "values": {"val/accuracy": 0.9}}
    rows = [{"run": "elsewhere/x", **away}, {"run": "elsewhere/y", **away, "outcome": "running"}]
    (folder / "points.json").write_text(json.dumps({"schema_version": 1, "points": rows}))
    everywhere = read_sweeps(read_records([folder]))[0]
    assert best_point(everywhere)["run"] == "elsewhere/x"
    assert len(everywhere.points) == 1

from __future__ import annotations

import math

from tidepool.sweeping.hyperband import judged
from tidepool.sweeping.hyperband import runs_to_stop as stop
from tidepool.sweeping.spec import Hyperband


def runs_to_stop(histories, running, rule, *, maximize):
    runs = {name: judged(history, rule, maximize=maximize) for name, history in histories.items()}
    return stop(runs, running, rule, maximize=maximize)


LOSSES = {"a": [10, 9], "b": [10, 10], "c": [10, 8, 8], "d": [10, 7, 7], "e": [10, 6, 6]}


def test_runs_behind_the_best_share_at_a_band_are_stopped():
    rule = Hyperband(bands=(1, 2), eta=2, strict=True)
    assert runs_to_stop(LOSSES, ["b", "c", "d"], rule, maximize=False) == ["b"]


def test_accuracy_is_judged_the_other_way_round():
    rule = Hyperband(bands=(2,), eta=2, strict=True)
    accuracies = {name: [-value for value in values] for name, values in LOSSES.items()}
    assert runs_to_stop(accuracies, ["b", "d"], rule, maximize=True) == ["b"]


def test_a_run_that_has_not_reached_a_band_is_left_alone():
    rule = Hyperband(bands=(3,), eta=3, strict=True)
    assert runs_to_stop({"a": [1, 1, 1], "b": [9, 9]}, ["b"], rule, maximize=False) == []


def test_only_the_loose_rule_lets_a_later_better_value_count():
    histories = {"a": [1, 1, 1], "b": [2, 9, 0.5], "c": [1, 2, 2]}
    for strict, stopped in ((True, ["b"]), (False, [])):
        assert runs_to_stop(histories, ["b"], Hyperband((2,), 3, strict), maximize=False) == stopped


def test_nan_is_the_worst_value():
    assert runs_to_stop({"a": [math.nan], "b": [5.0]}, ["a", "b"], Hyperband((1,), 3, True), maximize=False) == ["a"]

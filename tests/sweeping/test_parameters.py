from __future__ import annotations

import math
import statistics

import optuna
import pytest

from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.parameter_keys import read_parameter


def draws(settings: dict[str, object], count: int = 400) -> list:
    parameter = read_parameter(("x",), settings, method="random")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [parameter.suggest(study.ask()) for _ in range(count)]


def grid(settings: dict[str, object]) -> tuple:
    return read_parameter(("x",), settings, method="grid").grid_values()


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({"value": None}, (None,)),
        ({"values": ["b", "a", 3, True]}, ("b", "a", 3, True)),
        ({"min": 2, "max": 5}, (2, 3, 4, 5)),
        ({"distribution": "q_uniform", "min": 0, "max": 10, "q": 5}, (0, 5)),
        ({"distribution": "q_uniform", "min": 0.1, "max": 0.5, "q": 0.1}, (0.1, 0.2, 0.3, 0.4)),
    ],
)
def test_grid_values(settings, values):
    assert grid(settings) == values
    assert [type(value) for value in grid(settings)] == [type(value) for value in values]


@pytest.mark.parametrize(
    "settings",
    [
        {"min": 0.0, "max": 1},
        {"distribution": "log_uniform_values", "min": 0.1, "max": 1},
        {"distribution": "normal"},
        {"values": [1, 2], "probabilities": [0.5, 0.5]},
    ],
)
def test_a_grid_over_a_distribution_is_refused(settings):
    with pytest.raises(SweepError, match=r"^parameters.x: a grid cannot go over \w+; list its values"):
        read_parameter(("x",), settings, method="grid")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "parameters.x: is empty; expected value, values, or min and max"),
        ({"min": 1}, "parameters.x: expected value, values, or min and max; found only min"),
        ({"value": 1, "values": [1]}, "parameters.x.values: does not go with constant, which takes value"),
        ({"values": [1], "min": 0}, "parameters.x.min: does not go with categorical, which takes values"),
        ({"values": [1, 2, 1]}, "parameters.x.values: 1 stands there twice"),
        ({"min": 3, "max": 3}, "parameters.x: min 3 is not below max 3"),
        ({"distribution": "uniform", "min": 1}, "parameters.x: uniform needs min and max; max is missing"),
        (
            {"distribution": "int_uniform", "min": 1, "max": 2.5},
            "parameters.x: int_uniform needs whole numbers; min is 1, max is 2.5",
        ),
        (
            {"distribution": "log_uniform_values", "min": 0, "max": 1},
            "parameters.x.min: is 0; log_uniform_values needs more than 0",
        ),
        ({"values": [1, 2], "probabilities": [1]}, "parameters.x.probabilities: 1 for 2 values; expected one for each"),
        ({"values": [1, 2], "probabilities": [0.5, 0.4]}, "parameters.x.probabilities: add up to 0.9; expected 1"),
    ],
)  # fmt: skip
def test_keys_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(SweepError) as caught:
        read_parameter(("x",), settings, method="random")
    assert str(caught.value) == message


def test_an_unknown_distribution_is_refused():
    with pytest.raises(SweepError, match=r"parameters.x.distribution: is 'gaussian'; expected one of constant"):
        read_parameter(("x",), {"distribution": "gaussian"}, method="random")


def test_logarithms_given_as_values_are_pointed_out():
    with pytest.raises(SweepError, match=r"for plain values use log_uniform_values"):
        read_parameter(("x",), {"distribution": "log_uniform", "min": 1, "max": 1000}, method="random")


@pytest.mark.parametrize(
    ("settings", "low", "high", "median"),
    [
        ({"min": 0.0, "max": 4}, 0, 4, 2),
        ({"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}, 1e-4, 1e-2, 1e-3),
        ({"distribution": "log_uniform", "min": -4, "max": 0}, math.exp(-4), 1, math.exp(-2)),
        ({"distribution": "inv_log_uniform", "min": 0, "max": 4}, math.exp(-4), 1, math.exp(-2)),
        ({"distribution": "inv_log_uniform_values", "min": 0.01, "max": 1}, 0.01, 1, 0.1),
        ({"distribution": "normal", "mu": 3, "sigma": 0.5}, 0, 6, 3),
        ({"distribution": "log_normal", "mu": 0, "sigma": 0.5}, 0, 20, 1),
        ({"distribution": "beta", "a": 2, "b": 2}, 0, 1, 0.5),
    ],
)
def test_continuous_draws_have_the_range_and_median_of_their_distribution(settings, low, high, median):
    values = draws(settings)
    assert all(low <= value <= high for value in values)
    share_below = sum(value < median for value in values) / len(values)
    assert 0.4 < share_below < 0.6


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"min": 1, "max": 3}, {1, 2, 3}),
        ({"values": ["a", None, 2]}, {"a", None, 2}),
        ({"distribution": "q_uniform", "min": 0, "max": 4, "q": 2}, {0, 2, 4}),
        ({"distribution": "q_log_uniform_values", "min": 1, "max": 4, "q": 1}, {1, 2, 3, 4}),
        ({"distribution": "q_beta", "q": 0.5}, {0.0, 0.5, 1.0}),
    ],
)
def test_discrete_draws_reach_every_value_and_no_other(settings, allowed):
    assert set(draws(settings)) == allowed


def test_probabilities_are_honoured():
    values = draws({"values": ["a", "b", "c"], "probabilities": [0.7, 0.0, 0.3]}, count=1000)
    assert "b" not in values
    assert values.count("a") / 1000 == pytest.approx(0.7, abs=0.06)


def test_a_normal_draw_has_its_spread_and_one_without_spread_is_its_mean():
    assert statistics.stdev(draws({"distribution": "normal", "sigma": 2}, count=1000)) == pytest.approx(2, rel=0.1)
    assert set(draws({"distribution": "normal", "mu": 5, "sigma": 0}, count=3)) == {5}


def test_a_step_too_small_to_count_is_refused_on_a_grid_and_rounds_nothing_in_a_search():
    tiny = {"distribution": "q_uniform", "min": 0, "max": 1, "q": 1.0e-320}
    with pytest.raises(SweepError, match=r"^parameters.x: the grid would have countless values; list the ones you"):
        read_parameter(("x",), tiny, method="grid")
    assert all(0 <= value <= 1 for value in draws(tiny, count=20))
    with pytest.raises(SweepError, match=r"^parameters.x: from min -1.5e\+308 to max 1.5e\+308 is too wide"):
        read_parameter(("x",), {"distribution": "q_uniform", "min": -1.5e308, "max": 1.5e308}, method="grid")


def test_a_number_and_a_truth_value_are_two_values_on_a_grid():
    both = {"values": [1, True, 0, False]}
    values = read_parameter(("x",), both, method="grid").grid_values()
    assert [(type(value), value) for value in values] == [(int, 1), (bool, True), (int, 0), (bool, False)]
    with pytest.raises(SweepError, match=r"^parameters.x.values: True stands there twice$"):
        read_parameter(("x",), {"values": [True, 1, True]}, method="grid")
    assert {(type(value), value) for value in draws(both)} == {(int, 1), (bool, True), (int, 0), (bool, False)}

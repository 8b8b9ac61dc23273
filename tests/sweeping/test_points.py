from __future__ import annotations

import math
import statistics

import pytest

from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.parameter_keys import nested, read_parameters
from tidepool.sweeping.points import bayes_points, grid_points, parameters_key, random_points
from tidepool.sweeping.sequence import sweep_seed


def parameters(method="grid", **settings):
    return read_parameters(settings, method=method)


def test_a_grid_is_the_whole_product_in_file_order():
    axes = parameters(backend={"values": ["triton", "cudnn"]}, epochs={"value": 3}, seed={"values": [1, 0]})
    points = grid_points(axes, None)
    assert [tuple(point.params.values()) for point in points] == [
        ("triton", 3, 1), ("triton", 3, 0), ("cudnn", 3, 1), ("cudnn", 3, 0)
    ]  # fmt: skip
    assert len({point.key for point in points}) == len({point.folder for point in points}) == 4


def test_run_cap_takes_the_first_points_of_a_grid():
    axes = parameters(seed={"values": [0, 1, 2]})
    assert grid_points(axes, 2) == grid_points(axes, None)[:2]


def test_a_grid_too_large_to_run_is_refused_unless_capped():
    axes = parameters(a={"min": 1, "max": 1000}, b={"min": 1, "max": 1000})
    with pytest.raises(SweepError, match="1,000,000 points"):
        grid_points(axes, None)
    assert len(grid_points(axes, 5)) == 5


def test_a_point_keeps_its_key_when_the_grid_gains_values():
    before = grid_points(parameters(seed={"value": 0}, lr={"values": [0.1]}), None)
    after = grid_points(parameters(seed={"values": [0, 1]}, lr={"values": [0.01, 0.1]}), None)
    assert before[0].key in {point.key for point in after}


def test_folders_are_readable_and_differ_where_values_only_look_alike():
    axes = parameters(data={"values": ["../pictures/my data", "../pictures/my-data"]}, seed={"values": [1, "1"]})
    folders = [point.folder for point in grid_points(axes, None)]
    assert all("/" not in folder and " " not in folder and not folder.startswith(".") for folder in folders)
    assert folders[0].startswith("data-.-pictures-my-data_seed-1_") or folders[0].startswith(
        "data-..-pictures-my-data_seed-1_"
    )
    assert len(set(folders)) == 4


def test_random_points_depend_on_the_seed_and_their_number_alone():
    axes = parameters("random", lr={"min": 0.0, "max": 1.0}, width={"values": [8, 16]})
    first, longer = random_points(axes, 3, 7), random_points(axes, 5, 7)
    assert longer[:3] == first
    assert len({point.params["lr"] for point in longer}) == 5
    assert {point.params["lr"] for point in random_points(axes, 5, 8)}.isdisjoint(p.params["lr"] for p in longer)


def test_random_draws_spread_over_their_range_whatever_the_sweeps_name():
    axes = parameters("random", lr={"distribution": "log_uniform_values", "min": 1e-6, "max": 0.1})
    spreads, seen = [], set()
    for name in range(200):
        decades = [math.log10(p.params["lr"]) for p in random_points(axes, 4, sweep_seed(f"sweep {name}", None))]
        spreads.append(max(decades) - min(decades))
        seen.update(decades)
    assert statistics.median(spreads) >= 3.5
    assert min(spreads) >= 2.4
    assert len(seen) == 800


def test_a_search_seed_draws_something_else():
    assert len({sweep_seed("a", None), sweep_seed("a", 0), sweep_seed("a", 1), sweep_seed("b", None)}) == 4


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"a": {"values": ["x", "y", [1], {"k": 1}]}, "b": {"min": 1, "max": 5}}, 20),
        ({"q": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}, "c": {"value": 3}}, 5),
        ({"w": {"values": [1, True, "1"], "probabilities": [0.9999, 0.0, 0.0001]}}, 2),
        ({"c": {"value": 3}}, 1),
    ],
)
def test_a_finite_space_is_drawn_without_replacement_and_to_its_end(settings, size):
    axes = parameters("random", **settings)
    points = random_points(axes, 1000, 3)
    assert len({point.key for point in points}) == len(points) == size
    assert len({parameters_key(point.params) for point in points}) == size
    assert random_points(axes, 2, 3) == points[:2]


def test_a_bayes_search_draws_a_quarter_beforehand_and_leaves_the_rest_open():
    axes = parameters("bayes", lr={"min": 0.0, "max": 1.0})
    for run_cap, drawn in ((1, 1), (2, 1), (4, 2), (10, 3), (100, 10)):
        points = bayes_points(axes, run_cap, 1)
        assert [point.params is not None for point in points] == [True] * drawn + [False] * (run_cap - drawn)
    assert [point.key for point in points[:2]] == ["run-0000", "run-0001"]


def test_nested_parameters_have_dotted_names_and_reach_the_program_nested():
    block = {"opt": {"parameters": {"lr": {"values": [0.1, 0.2]}, "b": {"parameters": {"c": {"value": 1}}}}}}
    axes = parameters(**block, seed={"value": 0})
    assert [parameter.name for parameter in axes] == ["opt.lr", "opt.b.c", "seed"]
    params = grid_points(axes, None)[1].params
    assert nested(axes, params) == {"opt": {"lr": 0.2, "b": {"c": 1}}, "seed": 0}
    with pytest.raises(SweepError, match=r"^parameters.opt.lr: stands there nested and with a dot in its name"):
        parameters(**block, **{"opt.lr": {"value": 1}})
    with pytest.raises(SweepError, match=r"^parameters.opt.value: does not go with parameters, which nest others"):
        parameters(opt={"value": 1, "parameters": {"lr": {"value": 1}}})

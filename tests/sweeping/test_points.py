from __future__ import annotations

import pytest

from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.parameters import read_parameter
from tidepool.sweeping.points import grid_points, random_points, search_points


def parameters(method="grid", **settings):
    return [read_parameter(name, value, method=method) for name, value in settings.items()]


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


def test_random_points_depend_on_nothing_but_their_number():
    axes = parameters("random", lr={"min": 0.0, "max": 1.0}, width={"values": [8, 16]})
    first, longer = random_points(axes, 3), random_points(axes, 5)
    assert longer[:3] == first
    assert len({point.params["lr"] for point in longer}) == 5


def test_places_of_a_search_are_numbered_and_open():
    assert [(point.key, point.params) for point in search_points(2)] == [("run-0000", None), ("run-0001", None)]

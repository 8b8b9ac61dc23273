from __future__ import annotations

import pytest

from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.same_sweep import check_same_sweep

GRID = {"backend": {"value": "cudnn"}, "seed": {"values": [0, 1]}}
BEGUN = {"parameters": GRID, "description": "margin=1 points"}
RUN = [{"backend": "cudnn", "seed": 0}]
SEARCH = {"method": "random", "run_cap": 3, "parameters": {"lr": {"min": 0.1, "max": 1.0}}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parameters": {"backend": {"value": "cudnn"}, "seed": {"values": [2, 1, 0]}}},
        {"parameters": {"backend": {"values": ["triton", "cudnn"]}, "seed": {"min": 0, "max": 1}}},
        {"parameters": {"backend": {"value": "cudnn"}, "seed": {"values": [0]}}},  # 1 has not been run
        {"run_cap": 1, "project": "other", "description": "margin=1 points; in other words"},
    ],
)
def test_a_grid_that_contains_what_was_run_goes_on(read, changes):
    check_same_sweep(read(**{**BEGUN, **changes}), read(**BEGUN).content, RUN, "X")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (
            {"parameters": {"backend": {"value": "cudnn"}, "seed": {"values": [1]}}},
            "parameters.seed: has no place for",
        ),
        ({"parameters": {"backend": {"value": "triton"}, "seed": {"values": [0, 1]}}}, "parameters.backend: has no pl"),
        ({"parameters": {**GRID, "lr": {"value": 1}}}, "parameters.lr: is not in X"),
        ({"parameters": {"seed": {"values": [0, 1]}}}, "parameters.backend: is in X and missing here"),
        ({"parameters": {"backend": {"value": "cudnn"}, "seed": {"values": [0.0, 1.0]}}}, "parameters.seed"),
        ({"method": "random", "run_cap": 2}, "method"),
        ({"command": ["${program}", "${args}"]}, "command"),
        ({"metric": {"name": "test/loss"}}, "metric"),
        ({"description": "margin=2 points"}, "description: the margin"),
    ],
)
def test_another_sweep_under_the_same_name_is_refused(read, changes, key):
    earlier = read(**BEGUN).content
    with pytest.raises(SweepError) as caught:
        check_same_sweep(read(**{**BEGUN, **changes}), earlier, RUN, "X")
    assert f"try.yaml: {key}" in str(caught.value)
    assert "another name, or begin it anew with --reset, which sets its runs aside" in str(caught.value)
    check_same_sweep(read(**{**BEGUN, **changes}), earlier, [], "X")


def test_a_search_may_move_its_bounds_around_what_was_run(read):
    earlier = read(**SEARCH).content
    for low, high, goes_on in ((0.01, 2.0, True), (0.3, 0.6, True), (0.6, 1.0, False)):
        sweep = read(**{**SEARCH, "parameters": {"lr": {"min": low, "max": high}}})
        if goes_on:
            check_same_sweep(sweep, earlier, [{"lr": 0.5}], "X")
            continue
        with pytest.raises(SweepError, match=r"parameters.lr: has no place for lr=0.5, which has been run \(1 run"):
            check_same_sweep(sweep, earlier, [{"lr": 0.5}], "X")
    with pytest.raises(SweepError, match="the search_seed differs from X"):
        check_same_sweep(read(**SEARCH, description="search_seed=3"), earlier, [{"lr": 0.5}], "X")

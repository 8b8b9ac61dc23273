"""Deciding: from a table, from a stale one, from nothing; and plans as text."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kernels.shapes import CASES, NAMED
from tidepool.kernels import AvgPool
from tidepool.kernels.auto import plan as plans
from tidepool.kernels.auto import table as plan_table
from tidepool.kernels.auto.plan import (
    EAGER,
    Choice,
    LayerPlan,
    assumed_plan,
    can_mix,
    candidates,
    decide,
    kernels_run_on,
    plan_from_json,
    plan_from_text,
    problem_of,
    use,
)
from tidepool.kernels.auto.roofline import DEVICES
from tidepool.kernels.auto.table import Machine, make_entry, table_name, write_table
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.operators.call import LayerCall, layer_call
from tidepool.kernels.runtime.mode import Mode
from tidepool.kernels.runtime.targets import SM_80, SM_90
from tidepool.kernels.tiles.dense import ForwardTile

H200 = next(device for device in DEVICES if device.name == "H200")
MACHINE = Machine("NVIDIA H200", 132, "2.13.0", "3.7.1", "0123456789ab")


def call(
    channels: int, filters: int, size: int, dtype: torch.dtype = torch.bfloat16, batch: int = 64, **settings: Any
) -> LayerCall:
    """A padded 3 x 3 layer on channels_last pictures, said to be on a GPU."""
    layer = parse_layer((3, 3), **{"padding": 1, **settings})
    x = torch.empty((batch, channels, size, size), dtype=dtype, device="meta", memory_format=torch.channels_last)
    weight = torch.empty((filters, channels // settings.get("groups", 1), 3, 3), dtype=dtype, device="meta")
    found = layer_call(x, weight, layer)
    return dataclasses.replace(found, y=dataclasses.replace(found.y, device=torch.device("cuda", 0)))


@pytest.fixture
def on_h200(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A machine with an H200; called with a plan, a machine and a problem, it has that entry in the user's table."""
    monkeypatch.setenv(plan_table.ENVIRONMENT_VARIABLE, str(tmp_path))
    monkeypatch.setattr(plans, "machine_of", lambda _: MACHINE)
    monkeypatch.setattr(plans, "programs_in_flight", lambda _: 4 * 132)
    monkeypatch.setattr(plans, "mode_of", lambda _: Mode(SM_90, interpreted=False))
    monkeypatch.setattr(plans, "kernels_run_on", lambda device: device.type == "cuda")
    plan_table.forget()
    plan_table.warn_once.cache_clear()

    def tuned(plan: Any, machine: Machine, layer: LayerCall) -> None:
        problem = problem_of(layer, True, torch.bfloat16, "half")
        content = plan if isinstance(plan, dict) else plan.to_json()
        write_table(tmp_path / table_name(machine.gpu), [make_entry(machine, problem, content, [])])
        plan_table.forget()

    yield tuned
    plan_table.forget()


def test_plans_come_back_from_their_text_and_nonsense_is_refused() -> None:
    tile = ForwardTile(64, 32, 32, 4, False)
    plan = LayerPlan(forward=Choice("fused", tile), wgrad=Choice("dense"), train_without_dx="eager")
    assert plan_from_text(plan.text()) == plan
    assert "\n" not in plan.text()
    entry = plan.to_json()
    for change, message in (
        ({"dgrad": {"way": "epilogue", "tile": None}}, "dgrad"),
        ({"inference": {"way": "fused", "tile": {"kind": "forward"}}}, "tile"),
        ({"train": "sometimes"}, "planned or eager"),
        ({"more": 1}, "expected the fields"),
    ):
        with pytest.raises(ValueError, match=message) as refusal:
            plan_from_json({**entry, **change})
        assert "\n" not in str(refusal.value)


def test_a_measured_entry_is_followed_and_a_stale_one_says_so(on_h200: Callable[..., None]) -> None:
    layer, wanted = call(64, 64, 56), LayerPlan(forward=Choice("epilogue"), dgrad=Choice("cudnn"))
    on_h200(wanted, MACHINE, layer)
    assert decide(layer, True, torch.bfloat16) == plans.Decision(wanted, "measured")
    assert decide(layer, False, torch.bfloat16).source == "assumed"  # without bias: another problem
    assert decide(layer, True, torch.float16).source == "assumed"
    on_h200(wanted, dataclasses.replace(MACHINE, torch="2.11.0"), layer)
    assert decide(layer, True, torch.bfloat16) == plans.Decision(wanted, "stale")


def test_a_stale_tile_that_is_not_shipped_gives_way_to_the_rules(on_h200: Callable[..., None]) -> None:
    layer = call(64, 64, 56)
    shipped = candidates("forward", layer.geometry, layer.shapes, SM_90, "half", 528)[0]
    gone = Choice("fused", ForwardTile(4096, 2, 2, 1, True))
    on_h200(LayerPlan(forward=gone, inference=shipped), MACHINE, layer)
    assert decide(layer, True, torch.bfloat16).plan == LayerPlan(inference=shipped)


def test_an_entry_with_a_damaged_plan_is_ignored_with_a_warning(on_h200: Callable[..., None]) -> None:
    layer = call(64, 64, 56)
    on_h200({**LayerPlan().to_json(), "forward": "fast"}, MACHINE, layer)
    with pytest.warns(RuntimeWarning, match=r"NVIDIA H200: plan: forward is 'fast'.*entry is ignored"):
        assert decide(layer, True, torch.bfloat16).source == "assumed"


def test_nothing_is_planned_for_a_cpu_an_empty_batch_or_float64(on_h200: Callable[..., None]) -> None:
    layer = call(8, 8, 8)
    for eager in (
        dataclasses.replace(layer, y=dataclasses.replace(layer.y, device=torch.device("cpu"))),
        call(8, 8, 8, batch=0),
    ):
        assert decide(eager, True, torch.bfloat16).plan == EAGER
    assert decide(layer, True, torch.float64).plan == EAGER


def test_a_gpu_that_the_kernels_are_not_made_for_runs_eagerly(
    on_h200: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "kernels_run_on", lambda _: False)
    assert decide(call(8, 8, 8), True, torch.bfloat16).plan == EAGER
    assert not kernels_run_on(torch.device("cpu"))


def test_decisions_are_looked_up_once(on_h200: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    layer, looked_up = call(64, 64, 56), []
    found = plan_table.find
    monkeypatch.setattr(plan_table, "find", lambda *key: looked_up.append(key) or found(*key))
    first = decide(layer, True, torch.bfloat16)
    assert all(decide(layer, True, torch.bfloat16) is first for _ in range(3))
    assert len(looked_up) == 1


def test_a_given_plan_holds_within_its_block_only_and_fits_layers_that_cannot_mix() -> None:
    layer = call(8, 8, 8)
    given = LayerPlan(forward=Choice("epilogue"), wgrad=Choice("dense"))
    with use(given):
        assert decide(layer, True, torch.bfloat16) == plans.Decision(given, "given")
        with use(EAGER):
            assert decide(layer, True, torch.bfloat16).plan == EAGER
        assert plans.is_given()
        odd = layer_call(
            torch.empty(1, 2, 8, 8), torch.empty(2, 2, 2, 2), parse_layer((2, 2), 1, "same", 1, 1, None, None)
        )
        assert not can_mix(odd.geometry, odd.shapes)
        assert decide(odd, True, torch.float32).plan == LayerPlan(wgrad=Choice("dense"))
    assert not plans.is_given()


def test_layers_with_equal_sides_can_be_mixed() -> None:
    for case in CASES:
        layer = parse_layer(case.weight[2:], **case.options)
        found = layer_call(torch.empty(case.x), torch.empty(case.weight), layer)
        uneven = case.options.get("padding") == "same" and any(k % 2 == 0 for k in case.weight[2:])
        assert can_mix(found.geometry, found.shapes) is not uneven, case.name
    assert NAMED["even_kernel_same"].options["padding"] == "same"


def assumed(layer: LayerCall, dtype: torch.dtype = torch.bfloat16) -> LayerPlan:
    return assumed_plan(layer.geometry, layer.shapes, dtype, H200)


def test_without_a_measurement_memory_bound_layers_run_fused() -> None:
    rgb = assumed(call(3, 64, 224))
    assert (rgb.inference.way, rgb.forward.way, rgb.wgrad_alone.way, rgb.train) == ("fused",) * 3 + ("planned",)
    assert assumed(call(64, 64, 56, groups=64)) == LayerPlan()
    deep = assumed(call(512, 512, 28))
    assert deep.train == "planned"
    assert {deep.forward.way, deep.dgrad.way, deep.wgrad.way} <= {"fused", "epilogue", "cudnn"}


def test_without_a_measurement_a_bare_convolution_is_left_to_cudnn() -> None:
    plan = assumed(call(256, 256, 28, activation=None, pool=None))
    assert (plan.inference.way, plan.train, plan.train_without_dx) == ("eager", "eager", "eager")


def test_candidates_cover_every_way_once_and_start_with_the_rules_tile() -> None:
    def ways(pass_: str, layer: tuple[Geometry, Shapes]) -> list[str]:
        return list(dict.fromkeys(c.way for c in candidates(pass_, *layer, SM_90, "half", 528)))

    layer = call(64, 64, 56)
    pooled = (layer.geometry, layer.shapes)
    assert ways("inference", pooled) == ["fused", "epilogue", "eager"]
    assert ways("forward", pooled) == ["fused", "epilogue"]
    assert ways("dgrad", pooled) == ways("wgrad", pooled) == ["fused", "dense", "cudnn"]
    bare = call(64, 64, 56, activation=None, pool=None)
    assert ways("dgrad", (bare.geometry, bare.shapes)) == ["fused", "cudnn"]  # there is nothing to unpool
    average = call(64, 64, 56, pool=AvgPool(2))
    for pass_ in ("forward", "dgrad", "wgrad"):
        listed = candidates(pass_, average.geometry, average.shapes, SM_80, "half", 432)
        assert len(set(listed)) == len(listed)
        assert json.dumps([str(choice) for choice in listed])

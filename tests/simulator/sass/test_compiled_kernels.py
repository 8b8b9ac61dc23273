"""The kernels of a convolution as Triton compiles them: what can be counted by hand, and that more takes no less."""

import re
from dataclasses import replace

import pytest

from tests.simulator.sass.compiled import Kernels
from tidepool.simulator.sass import Instruction, Launch, Machine, machine_named, model
from tidepool.simulator.sass.assumed import TABLE

TARGETS = ("sm_80", "sm_90")
FORWARD = {"sm_80": "conv_act_pool_forward_kernel", "sm_90": "conv_act_pool_hopper_kernel"}
LATENCIES = [name for name, *_ in TABLE if name.startswith(("latency: ", "read: ", "pipe: "))]
WALKED_WHOLE = 3
"""Trips of a loop that is walked whole, so that nothing is scaled."""


def forward(kernels: Kernels, target: str) -> tuple[list[Instruction], Launch, Machine]:
    code, launch = kernels.on(target)[FORWARD[target]]
    return code, launch, machine_named(target)


@pytest.mark.full
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_is_modelled(target: str, kernels: Kernels) -> None:
    assert len(kernels.on(target)) >= 4
    for code, launch in kernels.on(target).values():
        found = model(code, launch, machine_named(target))
        assert found.cycles >= found.instructions / 4
        assert all(0 <= share <= 1 for share in found.busy.values()), found.busy
        assert found.binds


def products_in_the_loop(code: list[Instruction]) -> float:
    """Cycles of one partition's tensor core that a warp's products take in one trip of the loop that holds them."""
    cycles = 0.0
    for instruction in code:
        wide = re.match(r"HGMMA\.64x(\d+)x16\.", instruction.opcode)
        cycles += int(wide[1]) / 2 if wide else 8 * instruction.opcode.startswith("HMMA.16816.")
    return cycles


@pytest.mark.parametrize("target", TARGETS)
def test_tensor_cores_work_for_the_products_of_every_trip(target: str, kernels: Kernels) -> None:
    code, launch, machine = forward(kernels, target)
    found = model(code, replace(launch, trips=36), machine)
    expected = 36 * products_in_the_loop(code) * launch.warps / 4
    assert expected > 0
    assert found.tensor_share * found.cycles == pytest.approx(expected)


@pytest.mark.parametrize("target", TARGETS)
def test_a_longer_loop_takes_longer_in_proportion(target: str, kernels: Kernels) -> None:
    code, launch, machine = forward(kernels, target)
    short, middle, long = (model(code, replace(launch, trips=trips), machine).cycles for trips in (20, 40, 60))
    assert short < middle < long
    assert long - middle == pytest.approx(middle - short, rel=0.01)


@pytest.mark.parametrize("number", LATENCIES)
@pytest.mark.parametrize("target", TARGETS)
def test_more_latency_takes_no_fewer_cycles(target: str, number: str, kernels: Kernels) -> None:
    code, launch, machine = forward(kernels, target)
    # One warp a partition: its order of issue is the code's, whatever the numbers.
    alone = replace(launch, threads=128, trips=WALKED_WHOLE)
    once, twice = (
        model(code, alone, machine.with_numbers({number: times * machine[number]})).cycles for times in (1, 2)
    )
    assert twice >= once


@pytest.mark.parametrize("target", TARGETS)
def test_copies_that_take_longer_than_the_loop_hides_are_waited_for(target: str, kernels: Kernels) -> None:
    code, launch, machine = forward(kernels, target)
    name = {"sm_80": "latency: copy", "sm_90": "latency: tensor copy"}[target]
    before = model(code, launch, machine)
    found = model(code, launch, machine.with_numbers({name: 20_000}))
    assert found.cycles > 2 * before.cycles
    assert found.binds == {"sm_80": "wait: copies", "sm_90": "wait: tensor copies"}[target]


@pytest.mark.parametrize("target", TARGETS)
def test_less_bandwidth_takes_no_fewer_cycles(target: str, kernels: Kernels) -> None:
    code, launch, machine = forward(kernels, target)
    cycles = [
        model(code, launch, machine.with_numbers({"bytes: l2": machine["bytes: l2"] / slower})).cycles
        for slower in (1, 2, 4, 8)
    ]
    assert cycles == sorted(cycles)
    assert cycles[-1] > 2 * cycles[0]

"""Launches as a driver sees them: within its limits, and the same by the kept kernel as by Triton's look-up.

The first launch of a kernel goes through Triton's look-up, later ones call what was kept (`launch.launch_compiled`).
"""

import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kernels.runtime.launches_recorded import TARGET, Recorded, differences, recorder
from tidepool.kernels import conv_relu_pool
from tidepool.kernels.compile_check.conv_cases import CASES
from tidepool.kernels.compile_check.conv_launches import launch_case
from tidepool.kernels.compile_check.norm_cases import NORM_CASES, launch_norm_case
from tidepool.kernels.layer.dtypes import BY_NAME
from tidepool.kernels.runtime import launch

LAYERS = ("3x3_pool2", "no_pool_s2", "norm_3x3")
needs_a_compiler = pytest.mark.skipif(
    shutil.which("cc") is None or not Path(sysconfig.get_path("include"), "Python.h").exists(),
    reason="Triton's launcher is compiled C: needs cc and Python's headers",
)


def launches_of(layer: str) -> Callable[[], None]:
    """Runs every launch of a layer of the compile check, in its first dtype."""
    for case in CASES:
        if case.name == layer:
            return partial(launch_case, case, case.dtypes[0])
    (norm,) = [norm for norm in NORM_CASES if norm.name == layer]
    return partial(launch_norm_case, norm, BY_NAME[norm.dtypes[0]])


@needs_a_compiler
@pytest.mark.timeout(900)
def test_launches_keep_the_drivers_limits_and_repeat() -> None:
    kernels: set[str] = set()
    by_tensor_copies = 0
    with recorder() as driver:
        for layer in LAYERS:
            first = driver.of(launches_of(layer))
            assert driver.complaint == ""
            second = driver.of(launches_of(layer))
            assert driver.complaint == ""
            assert differences(first, second) == []
            assert min(len(one.values) for one in first) > 2
            kernels |= {one.kernel for one in first}
            hopper = [one for one in (*first, *second) if one.kernel == "conv_act_pool_hopper_kernel"]
            assert all(one.maps > 0 for one in hopper)
            by_tensor_copies += bool(hopper)
    assert len(kernels) >= 12
    assert by_tensor_copies == 2


@needs_a_compiler
@pytest.mark.timeout(900)
def test_a_kept_kernel_called_with_other_arguments_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = launch.launch_compiled

    def swapped(kernel: Any, prepared: launch.Prepared, device: int, tensors: tuple[Any, ...], operands: Any) -> None:
        if prepared.compiled:
            prepared = replace(prepared, scalars=prepared.scalars[::-1])
        real(kernel, prepared, device, tensors, operands)

    monkeypatch.setattr(launch, "launch_compiled", swapped)
    work = launches_of(LAYERS[0])
    with recorder() as driver:
        found = differences(driver.of(work), driver.of(work))
    assert any("conv_act_pool_hopper_kernel, parameter" in difference for difference in found)


@needs_a_compiler
@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"three_grid": (1, 65536, 1)}, "grid y: 65536"),
        ({"three_grid": (1, 1, 65536)}, "grid z: 65536"),
    ],
)
def test_what_a_driver_refuses_is_refused(
    changed: dict[str, Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight = torch.empty(1, 2, 4, 4), torch.empty(3, 2, 3, 3)
    with recorder() as driver:
        driver.of(lambda: conv_relu_pool(x, weight, backend="triton"))
        assert (driver.complaint, len(driver.launches)) == ("", 1)
        for name, value in changed.items():
            monkeypatch.setattr(launch.Prepared, name, value)
        driver.of(lambda: conv_relu_pool(x, weight, backend="triton"))
        assert complaint in driver.complaint
        assert driver.launches == []


def test_shared_memory_over_the_targets_is_refused() -> None:
    with recorder() as driver, pytest.raises(RuntimeError, match="shared memory: 232449"):
        driver.take(None, (1, 1, 1), 32, TARGET.shared_block + 1, b"")  # type: ignore[arg-type]


def test_addresses_may_differ_and_nothing_else() -> None:
    heap, other, number = ((2**46 + i).to_bytes(8, "little") for i in (0, 16, 0))
    first = Recorded("kernel", (1, 1, 1), 128, 0, (heap, number))
    assert differences([first], [replace(first, values=(other, number))]) == []
    small = (7).to_bytes(8, "little")
    assert differences([first], [replace(first, values=(heap, small))]) != []
    assert differences([first], [replace(first, grid=(2, 1, 1))]) != []
    assert differences([first], []) == ["1 launches, then 0"]

"""Launches as a driver sees them: within its limits, and the same by the kept kernel as by Triton's look-up."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.launches_recorded import differences, parameter_bytes

LAYERS = ("3x3_pool2", "no_pool_s2", "norm_3x3")
needs_a_compiler = pytest.mark.skipif(
    shutil.which("cc") is None or not Path(sysconfig.get_path("include"), "Python.h").exists(),
    reason="Triton's launcher is compiled C: needs cc and Python's headers",
)


def recorded(folder: Path, program: tuple[str, ...]) -> list[dict[str, Any]]:
    """The reports of a process that runs `program` with the recording driver in `folder`."""
    places = {"LD_LIBRARY_PATH": str(folder), "TRITON_LIBCUDA_PATH": str(folder)}
    environment = {**os.environ, **places, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, *program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_a_compiler
@pytest.mark.timeout(900)
def test_launches_keep_the_drivers_limits_and_repeat(tmp_path: Path) -> None:
    reports = recorded(tmp_path, ("-m", "tests.kernels.launches_recorded", str(tmp_path), *LAYERS))
    assert [report["layer"] for report in reports] == list(LAYERS)
    for report in reports:
        assert report["complaint"] == ""
        assert report["differences"] == []
        assert min(report["parameters"]) > 2
    kernels = {kernel for report in reports for kernel in report["kernels"]}
    assert len(kernels) >= 12
    by_tensor_copies = [report for report in reports if "conv_relu_pool_hopper_kernel" in report["kernels"]]
    assert [report["descriptors"] > 0 for report in by_tensor_copies] == [True, True]


_SCALARS_SWAPPED = """
import sys
from kernels import launch
from tests.kernels import launches_recorded
def swapped(kernel, prepared, device, tensors, real=launch.launch_compiled):
    if prepared.compiled:
        object.__setattr__(prepared, "scalars", prepared.scalars[::-1])
    real(kernel, prepared, device, tensors)
launch.launch_compiled = swapped
launches_recorded.main(sys.argv[1:])
"""


@needs_a_compiler
@pytest.mark.timeout(900)
def test_a_kept_kernel_called_with_other_arguments_is_seen(tmp_path: Path) -> None:
    (report,) = recorded(tmp_path, ("-c", _SCALARS_SWAPPED, str(tmp_path), LAYERS[0]))
    assert any("conv_relu_pool_hopper_kernel, parameter" in difference for difference in report["differences"])


def test_sizes_of_parameters_are_read_off_the_code() -> None:
    ptx = """.visible .entry kernel(
	.param .u64 .ptr .global .align 1 kernel_param_0,
	.param .align 64 .b8 kernel_param_1[128],
	.param .u32 kernel_param_2
)
.reqntid 128
{"""
    assert parameter_bytes(ptx) == [8, 128, 4]


def test_addresses_may_differ_and_nothing_else() -> None:
    heap, other, number = ((2**46 + i).to_bytes(8, "little") for i in (0, 16, 0))
    first = [("kernel", (1, 1, 1), 128, 0, [heap, number])]
    assert differences(first, [("kernel", (1, 1, 1), 128, 0, [other, number])]) == []
    small = (7).to_bytes(8, "little")
    assert differences(first, [("kernel", (1, 1, 1), 128, 0, [heap, small])]) != []
    assert differences(first, [("kernel", (2, 1, 1), 128, 0, [heap, number])]) != []
    assert differences(first, []) == ["1 launches, then 0"]

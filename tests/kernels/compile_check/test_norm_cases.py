"""The norm's part of the compile check: it is run, covers every kernel around a norm, and finds them clean."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tidepool import kernels
from tidepool.kernels.compile_check.norm_cases import NORM_CASES
from tidepool.kernels.compile_check.work import case_names

PASSES = {
    "conv_norm_act_merge_kernel",
    "conv_norm_act_coefficients_kernel",
    "conv_norm_act_normalise_kernel",
    "conv_norm_act_reduce_kernel",
    "conv_norm_act_reduce_splits_kernel",
    "conv_norm_act_dnorm_kernel",
}


@pytest.mark.full
def test_one_layer_compiles_every_kernel_around_a_norm_for_sm_90_without_a_spill() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tidepool.kernels.compile_check", "--targets", "sm_90", "--cases", "norm_depthwise"],
        env={**os.environ, "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("sm_90")]
    assert {row[3] for row in rows} == PASSES | {"conv_act_pool_depthwise_forward_kernel"}
    assert all(row[1] == "norm_depthwise" and int(row[7]) == 0 for row in rows)


def test_names_are_unique_and_no_kernel_of_these_files_is_left_out() -> None:
    names = case_names()
    assert len(set(names)) == len(names)
    assert {case.name for case in NORM_CASES} <= set(names)
    assert {"silu", "gelu"} <= {case.settings.get("activation", "relu") for case in NORM_CASES}
    assert {len(case.weight) for case in NORM_CASES} >= {4, 5}
    folder = Path(kernels.__file__).parent
    defined = {
        name
        for file in folder.joinpath("norm").glob("*.py")
        for name in re.findall(r"^@kernel\ndef (\w+)", file.read_text(), re.MULTILINE)
    }
    assert defined == PASSES

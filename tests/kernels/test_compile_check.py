"""The compile check: kernels cross-compile clean, and what is wrong with one is seen."""

import os
import subprocess
import sys

import pytest

from kernels import compile_check
from kernels.compile_check import Row, main

# Between them: tensor-core and plain products, flat and blocked reductions, overlapping windows, boxes of pixels.
CASES = ("3x3_pool2", "lenet2", "overlap_3_2")
KERNELS = {
    "conv_relu_pool_forward_kernel",
    "conv_relu_pool_dgrad_kernel",
    "conv_relu_pool_wgrad_kernel",
    "conv_relu_pool_wgrad_reduce_kernel",
    "conv_relu_pool_epilogue_kernel",
    "conv_relu_pool_unpool_kernel",
}
HOPPER = "conv_relu_pool_hopper_kernel"


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_every_kernel_compiles_for_sm_90_and_sm_80_without_a_spill_and_with_tensor_cores() -> None:
    done = run_python("-m", "kernels.compile_check", "--targets", "cuda:90", "cuda:80", "--cases", *CASES)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("cuda:")]
    for target in ("cuda:90", "cuda:80"):
        compiled = {row[3] for row in rows if row[0] == target}
        assert compiled >= KERNELS
        assert (HOPPER in compiled) is (target == "cuda:90")
    for _, _, dtype, kernel, _, _, _, spills, _, tensor_cores, shuffles, *_ in rows:
        assert int(spills) == 0
        if kernel == HOPPER:
            assert int(tensor_cores) > 0
            assert int(shuffles) == 0
        if dtype != "fp32" and kernel in ("conv_relu_pool_forward_kernel", "conv_relu_pool_dgrad_kernel"):
            assert int(tensor_cores) > 0


_SPILL = """
from kernels import tiles, cross_compile
tiles.FORWARD, tiles.FORWARD_IN_STEPS = (tiles.Shipped(128, 256, 64, ("half", "tf32", "ieee")),), ()
rows = list(cross_compile.compile_cases("cuda:90", ("3x3_ceil",)))
print([row.problem for row in rows if "forward" in row.kernel])
"""


def test_a_tile_too_large_for_the_registers_is_reported_as_spilling() -> None:
    done = run_python("-c", _SPILL)
    assert "spills" in done.stdout, done.stdout + done.stderr


_NARROW = """
from kernels import cross_compile, hopper_tiles
hopper_tiles.HOPPER = (hopper_tiles.ShippedHopper(32, ((1, 8, 16),), False, 4, 3),)
rows = list(cross_compile.compile_cases("cuda:90", ("3x3_c24_k32",)))
print([row.problem for row in rows if "hopper" in row.kernel])
"""


def test_windows_that_meet_through_shared_memory_are_reported() -> None:
    done = run_python("-c", _NARROW)
    assert "shared memory in the pool" in done.stdout, done.stdout + done.stderr


_SHARED = """
from dataclasses import replace
from kernels import cross_compile
cross_compile.LIMITS["cuda:90"] = replace(cross_compile.LIMITS["cuda:90"], shared_block=1024)
rows = list(cross_compile.compile_cases("cuda:90", ("lenet1",)))
print([row.problem for row in rows if "forward" in row.kernel])
"""


def test_shared_memory_over_the_targets_limit_is_reported() -> None:
    done = run_python("-c", _SHARED)
    assert "shared memory over 1024" in done.stdout, done.stdout + done.stderr


_NO_TENSOR_CORES = """
from kernels import cross_compile
real = cross_compile._read_cubin
cross_compile._read_cubin = lambda compiled: (*real(compiled)[:2], 0, 0)
rows = list(cross_compile.compile_cases("cuda:90", ("lenet1",)))
print([row.problem for row in rows if "forward" in row.kernel and row.dtype == "bf16"])
print([row.problem for row in rows if "forward" in row.kernel and row.dtype == "fp32"])
"""


def test_missing_tensor_core_instructions_are_reported_where_they_are_expected() -> None:
    done = run_python("-c", _NO_TENSOR_CORES)
    lines = done.stdout.splitlines()
    assert lines == ["['no tensor-core instruction']", "['']"], done.stdout + done.stderr


_TF32_FOR_IEEE = """
from kernels import cross_compile
real = cross_compile._read_cubin
cross_compile._read_cubin = lambda compiled: (*real(compiled)[:2], 7, 0)
rows = list(cross_compile.compile_cases("cuda:90", ("lenet1",)))
print([row.problem for row in rows if "forward" in row.kernel and row.dtype == "fp32"])
"""


def test_tensor_cores_under_exact_float32_are_reported() -> None:
    done = run_python("-c", _TF32_FOR_IEEE)
    assert done.stdout.splitlines() == ["['tensor-core instructions in exact float32']"], done.stdout + done.stderr


@pytest.mark.parametrize(("problems", "status"), [(["spills"], 1), (["", "spills"], 1), ([], 1), (["", ""], 0)])
def test_exit_status(problems: list[str], status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    rows = [Row("cuda:90", "case", "bf16", "kernel", "tile", 1, 0, 0, 0, 0, 0, problem) for problem in problems]
    monkeypatch.setattr(compile_check, "compile_rows", lambda *_: iter(rows))
    assert main([]) == status


def test_unknown_target_is_refused_with_the_known_ones_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--targets", "cuda:42"])
    assert refused.value.code == 2
    assert "cuda:90" in capsys.readouterr().err


def test_unknown_case_is_refused_with_the_known_ones_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--cases", "nope"])
    assert refused.value.code == 2
    assert "3x3_pool2" in capsys.readouterr().err

"""The compile check: kernels cross-compile clean, and what is wrong with one is seen."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import triton

from tidepool.kernels.compile_check import check
from tidepool.kernels.compile_check.check import main
from tidepool.kernels.compile_check.record import COLUMNS
from tidepool.kernels.compile_check.rows import Row, heading
from tidepool.kernels.runtime.targets import TARGETS

# Between them: tensor-core and plain products, flat and blocked reductions, overlapping windows, boxes of pixels.
CASES = ("3x3_pool2", "lenet2", "overlap_3_2")
KERNELS = {
    "conv_act_pool_forward_kernel",
    "conv_act_pool_dgrad_kernel",
    "conv_act_pool_wgrad_kernel",
    "conv_act_pool_wgrad_reduce_kernel",
    "conv_act_pool_epilogue_kernel",
    "conv_act_pool_unpool_kernel",
}
HOPPER = "conv_act_pool_hopper_kernel"


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.full  # CI runs the whole compile check besides
def test_every_kernel_compiles_for_sm_90_and_sm_80_without_a_spill_and_with_tensor_cores() -> None:
    done = run_python("-m", "tidepool.kernels.compile_check", "--targets", "sm_90", "cuda:80", "--cases", *CASES)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("sm_")]
    modelled = [line[heading().index("cycles") :].split(maxsplit=3) for line in lines]
    assert all(int(cycles) > 0 and float(us) > 0 and "unknown" not in binds for cycles, us, _, binds in modelled)
    own_loops = {line.split()[3] for line, (_, _, loops, _) in zip(lines, modelled, strict=True) if loops == "layer"}
    assert own_loops >= {HOPPER, "conv_act_pool_forward_kernel", "conv_act_pool_wgrad_kernel"}
    rows = [line.split() for line in lines]
    for target in ("sm_90", "sm_80"):
        compiled = {row[3] for row in rows if row[0] == target}
        assert compiled >= KERNELS
        assert (HOPPER in compiled) is (target == "sm_90")
    for _, _, dtype, kernel, _, _, _, spills, _, tensor_cores, shuffles, *_ in rows:
        assert int(spills) == 0
        if kernel == HOPPER:
            assert int(tensor_cores) > 0
            assert int(shuffles) == 0
        if dtype != "fp32" and kernel in ("conv_act_pool_forward_kernel", "conv_act_pool_dgrad_kernel"):
            assert int(tensor_cores) > 0


_START = """
from dataclasses import replace
from tidepool.kernels.compile_check import compile as cross_compile
from tidepool.kernels.compile_check.work import Selection, rows_on
from tidepool.kernels.runtime.targets import SM_90
from tidepool.kernels.tiles import dense, hopper
def problems(case, kernel, dtype="bf16", target=SM_90):
    rows = list(rows_on(target, Selection(names=(case,)), lambda done, of: None))
    print([row.problem for row in rows if kernel in row.kernel and row.dtype == dtype])
"""


def problems_found(change: str, *asked: str) -> str:
    """What is printed for each of `asked`, calls of `problems`, after a change to the compile check's process."""
    done = run_python("-c", "\n".join([_START, change, *(f"problems({call})" for call in asked)]))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_tile_too_large_for_the_registers_is_reported_as_spilling() -> None:
    change = "dense.FORWARD, dense.FORWARD_IN_STEPS = (dense.Shipped(128, 256, 64, ('half', 'tf32', 'ieee')),), ()"
    assert "spills" in problems_found(change, "'3x3_ceil', 'forward'")


@pytest.mark.full
def test_windows_that_meet_through_shared_memory_are_reported() -> None:
    change = "hopper.HOPPER = (hopper.ShippedHopper(32, ((1, 8, 16),), False, 4, 3),)"
    assert "shared memory in the pool" in problems_found(change, "'3x3_c24_k32', 'hopper', 'fp16'")


@pytest.mark.full
def test_shared_memory_over_the_targets_limit_is_reported() -> None:
    change = "object.__setattr__(SM_90, 'shared_block', 1024)"
    assert "shared memory over 1024" in problems_found(change, "'lenet1', 'forward'")


@pytest.mark.full
def test_missing_tensor_core_instructions_are_reported_where_they_are_expected() -> None:
    change = """
real = cross_compile.read_machine_code
cross_compile.read_machine_code = lambda *given: replace(real(*given), tensor=0)
"""
    asked = ("'lenet1', 'forward'", "'lenet1', 'forward', 'fp32'")
    assert problems_found(change, *asked).splitlines() == ["['no tensor-core instruction']", "['']"]


@pytest.mark.full
def test_tensor_cores_under_exact_float32_are_reported() -> None:
    change = """
real = cross_compile.read_machine_code
cross_compile.read_machine_code = lambda *given: replace(real(*given), tensor=7)
"""
    found = problems_found(change, "'lenet1', 'forward', 'fp32'")
    assert found.splitlines() == ["['tensor-core instructions in exact float32']"]


def test_a_kernel_that_does_not_compile_is_a_row_and_the_others_follow() -> None:
    change = """
from triton.runtime.jit import JITFunction
warmup = JITFunction.warmup
def broken(self, *given, **keywords):
    if "reduce" in self.__name__:
        raise RuntimeError("PassManager::run\\nfailed")
    return warmup(self, *given, **keywords)
JITFunction.warmup = broken
"""
    found = problems_found(change, "'lenet1', ''")
    assert "'does not compile: RuntimeError: PassManager::run failed'" in found
    assert "''" in found


@pytest.mark.parametrize(("problems", "status"), [(["spills"], 1), (["", "spills"], 1), ([], 1), (["", ""], 0)])
def test_exit_status(problems: list[str], status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(check.Check, "rows", lambda _: iter([row(problem) for problem in problems]))
    assert main([]) == status


def row(problem: str, target: str = "sm_90", spills: int = 0) -> Row:
    figures = dict.fromkeys(("shared_bytes", "tensor", "shuffles", "occupancy_percent"), 0)
    words = {"case": "case", "dtype": "bf16", "kernel": "kernel", "tile": "tile"}
    return Row(target=target, registers=40, spills=spills, problem=problem, **words, **figures)


def test_a_record_has_a_line_a_target_and_is_appended_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    rows = [row("spills", spills=8), row(""), row("", "sm_80")]
    monkeypatch.setattr(check.Check, "rows", lambda _: iter(rows))
    file = tmp_path / "new" / "record.csv"
    for _ in range(2):
        main(["--targets", "sm_90", "sm_80", "--record", str(file)])
    with file.open(newline="") as table:
        lines = list(csv.DictReader(table))
    assert tuple(lines[0]) == COLUMNS
    columns = ("target", "selection", "kernels", "problems", "spilling", "max_registers", "triton")
    assert [tuple(line[name] for name in columns) for line in lines] == 2 * [
        ("sm_90", "ci", "2", "1", "1", "40", triton.__version__),
        ("sm_80", "ci", "1", "0", "0", "40", triton.__version__),
    ]


@pytest.mark.parametrize("name", ["cuda:42", "sm_42", "H100"])
def test_unknown_target_is_refused_with_the_known_ones_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--targets", name])
    assert refused.value.code == 2
    message = capsys.readouterr().err
    assert all(target.name in message for target in TARGETS)
    assert message.count("\n") == 1


def test_unknown_case_is_refused_with_the_known_ones_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--cases", "nope"])
    assert refused.value.code == 2
    assert "3x3_pool2" in capsys.readouterr().err

"""The compile check's eye for vector divisions that LLVM's NVPTX backend miscompiles."""

import json
import os
import re
import subprocess
import sys

import pytest
import triton

from tidepool.kernels.compile_check.vector_divisions import vector_divisions

MENDED = (3, 9)
"""The first Triton of which LLVM keeps the lane."""
VERSION = tuple(int(number) for number in triton.__version__.split(".")[:2])


def module(*lines: str) -> str:
    """LLVM IR of one kernel of two numbers a and b, with those lines."""
    body = "\n".join(f"  {line}" for line in lines)
    return f"define ptx_kernel void @f(ptr addrspace(1) %out, i32 %a, i32 %b) {{\n{body}\n  ret void\n}}\n"


def divided(operation: str, lanes: str, divisors: str) -> str:
    """A kernel in which (a, what `lanes` says) is divided by `divisors`."""
    return module(
        "%v = insertelement <2 x i32> poison, i32 %a, i64 0",
        f"%n = {lanes}",
        f"%q = {operation} <2 x i32> %n, {divisors}, !dbg !7",
    )


ZERO = "insertelement <2 x i32> %v, i32 0, i64 1"
FOUND = {
    "sdiv": divided("sdiv", ZERO, "<i32 2, i32 1>"),
    "srem": divided("srem", ZERO, "<i32 2, i32 1>"),
    "exact": divided("sdiv exact", ZERO, "<i32 8, i32 1>"),
    "minus_one": divided("sdiv", ZERO, "<i32 2, i32 -1>"),
    "another_constant": divided("sdiv", "insertelement <2 x i32> %v, i32 5, i64 1", "<i32 2, i32 1>"),
    "shuffled": divided("sdiv", "shufflevector <2 x i32> %v, <2 x i32> zeroinitializer, <2 x i32> <i32 0, i32 3>",
                        "<i32 2, i32 1>"),
    "masked": divided("sdiv", "and <2 x i32> %v, <i32 7, i32 0>", "<i32 2, i32 1>"),
    "shifted": divided("sdiv", "shl nuw nsw <2 x i32> <i32 5, i32 5>, splat (i32 1)", "<i32 2, i32 1>"),
}  # fmt: skip
RIGHT = {
    "run_time_lane": divided("sdiv", "insertelement <2 x i32> %v, i32 %b, i64 1", "<i32 2, i32 1>"),
    "masked_run_time_lane": divided("sdiv", "and <2 x i32> %v, <i32 7, i32 3>", "<i32 2, i32 1>"),
    "no_division_by_one": divided("sdiv", ZERO, "<i32 2, i32 4>"),
    "equal_divisors": divided("sdiv", ZERO, "splat (i32 2)"),
    "nothing_but_ones": divided("sdiv", ZERO, "splat (i32 1)"),
    "no_power_of_two": divided("sdiv", ZERO, "<i32 3, i32 1>"),
    "run_time_divisors": divided("sdiv", ZERO, "%w"),
    "unsigned": divided("udiv", ZERO, "<i32 2, i32 1>"),
    "scalar": module("%q = sdiv i32 %a, 2"),
    "zero_over_two": divided("sdiv", "shufflevector <2 x i32> <i32 0, i32 0>, <2 x i32> %v, <2 x i32> <i32 0, i32 2>",
                             "<i32 2, i32 1>"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_a_constant_over_one_beside_powers_of_two_is_found(name: str) -> None:
    (found,) = vector_divisions(FOUND[name])
    assert found.lanes == (1,)


@pytest.mark.parametrize("name", RIGHT)
def test_divisions_that_llvm_gets_right_are_not_reported(name: str) -> None:
    assert vector_divisions(RIGHT[name]) == []


def test_values_of_one_name_in_two_functions_are_told_apart() -> None:
    right, wrong = RIGHT["run_time_lane"], FOUND["sdiv"]
    assert len(vector_divisions(right + wrong)) == len(vector_divisions(wrong + right)) == 1
    assert str(vector_divisions(wrong)[0]) == "sdiv <2 x i32> by <2, 1> may leave lane 1 undefined"


MINIMAL = """\
target triple = "nvptx64-nvidia-cuda"
define ptx_kernel void @f(ptr addrspace(1) %out, i32 %a, i32 %b) {
  %v = insertelement <2 x i32> poison, i32 %a, i64 0
  %n = insertelement <2 x i32> %v, i32 0, i64 1
  %q = srem <2 x i32> %n, <i32 2, i32 1>
  %x = insertelement <2 x i32> %v, i32 %b, i64 1
  %r = sub <2 x i32> %x, %q
  store <2 x i32> %r, ptr addrspace(1) %out
  ret void
}
"""
"""out = (a - a % 2, b - 0 % 1), the smallest that is known to go wrong."""

TO_PTX = """
import sys, triton
from triton._C.libtriton import llvm
llvm.init_targets()
given = [sys.stdin.read(), "nvptx64-nvidia-cuda", "sm_80", "+ptx80", [], False, False]
newer = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 8)
print(llvm.translate_to_asm(*given, *[True] * newer))
"""


def test_the_reported_division_is_one_that_this_llvm_miscompiles_before_3_9() -> None:
    assert len(vector_divisions(MINIMAL)) == 1
    done = subprocess.run([sys.executable, "-c", TO_PTX], input=MINIMAL, capture_output=True, text=True, check=True)
    body = done.stdout.partition("{\n")[2]
    stored = re.findall(r"%r\d+", re.search(r"st\.global\.v2\.\w+\s.*", body)[0].split("{")[1])
    unwritten = [name for name in stored if not re.search(rf"^\s*[a-z][\w.]+\s+{name},", body, re.MULTILINE)]
    assert bool(unwritten) == (VERSION < MENDED), done.stdout


LAYER = """
import json, sys
from tidepool.kernels import MaxPool
from tidepool.kernels.compile_check import compile as cross_compile
from tidepool.kernels.compile_check.conv_cases import Case
from tidepool.kernels.compile_check.conv_launches import launch_case
from tidepool.kernels.device import windows
from tidepool.kernels.runtime.targets import target_named
from tests.kernels.compile_check.divisions import plain_covering
if "plain" in sys.argv:
    windows._covering = plain_covering
target = target_named("sm_90")
cross_compile.compile_for(cross_compile.gpu_of(target), target)
settings = {"padding": 1, "pool": MaxPool(2)}
smallest = Case("smallest", (2, 3, 10, 10), (4, 3, 3, 2), ("fp32",), settings, channels_last=False)
with cross_compile.collecting("fp32") as asked:
    launch_case(smallest, "fp32")
rows = [cross_compile.compiled_row(target, "smallest", "fp32", one, False).row for one in asked]
print(json.dumps({row.kernel: row.problem for row in rows}))
"""


def problems(*how: str) -> dict[str, str]:
    """What the check says of the kernels of the smallest layer that was miscompiled."""
    command = [sys.executable, "-c", LAYER, *how]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.default
def test_the_smallest_miscompiled_layer_has_no_such_division() -> None:
    found = problems()
    assert "conv_act_pool_dgrad_kernel" in found
    assert not any(found.values())


@pytest.mark.full
@pytest.mark.skipif(VERSION not in ((3, 7), (3, 9)), reason="seen with Triton 3.7 and 3.9; 3.8 joins other divisions")
def test_with_plain_divisions_the_layer_is_reported() -> None:
    assert "by <2, 2, 2, 1> may leave lane 3 undefined" in problems("plain")["conv_act_pool_dgrad_kernel"]


EVERY_DIVISION = """
import torch
from tidepool.kernels.compile_check import compile as cross_compile
from tidepool.kernels.runtime.targets import target_named
from tests.kernels.compile_check.divisions import every_division_kernel
target = target_named("sm_90")
cross_compile.compile_for(cross_compile.gpu_of(target), target)
for dtype in (torch.int32, torch.int64):
    value, result = torch.zeros(256, dtype=dtype), torch.zeros(1024, dtype=dtype)
    for divisor in (1, 2, 64):
        compiled = every_division_kernel.warmup(value, result, grid=(1,), DIVISOR=divisor, BLOCK=256)
        print(compiled.asm["llir"], compiled.asm["ttir"])
"""


@pytest.mark.full
def test_no_division_by_a_power_of_two_is_left_signed() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-c", EVERY_DIVISION]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("define ptx_kernel") == 6
    assert re.findall(r"arith\.(?:div|rem)si|= s(?:div|rem) ", done.stdout) == []

"""Interpreting is confined to this package's launches: nothing else in the process is interpreted, patched or set."""

import os
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter
from triton.runtime.jit import JITFunction

from tests.kernels.exact import INTERPRETED
from tidepool.kernels import conv_relu_pool
from tidepool.kernels.runtime.interpreting import INTERPRETING, device_function, kernel, launch_interpreted

_PROGRAM = """
import os
environment = dict(os.environ)
{imports}
import triton, triton.language as tl
from triton.runtime.interpreter import interpreter_builder
assert dict(os.environ) == environment, "the environment was changed"
assert interpreter_builder.options.sanitize_overflow
import torch
from tidepool.kernels import conv_relu_pool
x, weight = torch.arange(32.0).reshape(1, 2, 4, 4), torch.ones(1, 2, 1, 1, requires_grad=True)
y = conv_relu_pool(x, weight, backend="triton")
y.sum().backward()
assert y.flatten().tolist() == [26.0, 30.0, 42.0, 46.0], y
assert weight.grad.flatten().tolist() == [40.0, 104.0], weight.grad
assert dict(os.environ) == environment, "the environment was changed"
print(type(tl.sum).__name__)
"""


def run(program: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A Python program in a process without a GPU; TRITON_INTERPRET is unset unless given."""
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    everything = {**inherited, "CUDA_VISIBLE_DEVICES": "", **environment}
    return subprocess.run([sys.executable, "-c", program], env=everything, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("imports", "environment", "triton_is"),
    [
        ("import tidepool", {}, "JITFunction"),
        pytest.param("import triton, tidepool.kernels", {}, "JITFunction", marks=pytest.mark.full),
        pytest.param("import tidepool.kernels.conv.forward, triton", {}, "JITFunction", marks=pytest.mark.full),
        pytest.param("import tidepool.kernels.runtime.launch", {}, "JITFunction", marks=pytest.mark.full),
        ("import triton.language, tidepool.models", {"TRITON_INTERPRET": "1"}, "InterpretedFunction"),
        pytest.param(
            "import tidepool.training, triton", {"TRITON_INTERPRET": "1"}, "InterpretedFunction", marks=pytest.mark.full
        ),
    ],
)
def test_any_order_of_imports_runs_and_sets_nothing(imports: str, environment: dict[str, str], triton_is: str) -> None:
    done = run(_PROGRAM.format(imports=imports), **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == triton_is


def test_interpreting_switched_off_is_one_line_at_the_first_call_and_none_at_import() -> None:
    done = run(_PROGRAM.format(imports="import tidepool.kernels"), TRITON_INTERPRET="0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "ArgumentError: backend='triton' takes CUDA tensors where TRITON_INTERPRET is off, but x is on cpu: move it to "
        "a GPU, or unset TRITON_INTERPRET to run the kernels in Triton's interpreter"
    )


_COMPILED_BESIDE = """
import torch
import tidepool.kernels
from tidepool.kernels import conv_relu_pool

@torch.compile
def foreign(x):
    return (x.sin() + 1).sum()

x, weight = torch.randn(1, 2, 6, 6), torch.randn(3, 2, 3, 3)
expected = (x.sin() + 1).sum()
torch.testing.assert_close(foreign(x), expected)
conv_relu_pool(x, weight, backend="triton")
torch._dynamo.reset()
torch.testing.assert_close(foreign(x), expected)
"""


@pytest.mark.full  # Inductor compiles C++
def test_torch_compile_works_before_and_after() -> None:
    done = run(_COMPILED_BESIDE)
    assert done.returncode == 0, done.stderr


pytestmark = pytest.mark.skipif(not INTERPRETED, reason="about kernels that are interpreted")


@triton.jit
def foreign_kernel(y_ptr):
    tl.store(y_ptr, tl.sum(tl.arange(0, 4), 0))


@device_function
def doubled(value):
    return value * 2


@kernel
def patched_kernel(y_ptr, FAILS: tl.constexpr):
    """Uses Triton's own functions, as functions and as methods, and one that is not a mask."""
    value = doubled(tl.arange(0, 4))
    total = tl.sum(value, 0) + value.max(0) + tl.cdiv(7, 2)
    if INTERPRETING:
        total += 100
    tl.static_assert(not FAILS, "as asked")
    tl.store(y_ptr, total)


def state() -> dict[tuple[str, str], Any]:
    """Everything that Triton's interpreter, or this package, patches."""
    owners = (tl, tl.core, tl.math, tl.standard, tl.tensor, tl.dtype, tl.core.tensor_descriptor_base)
    owners += (JITFunction, interpreter.InterpretedFunction, interpreter.interpreter_builder, interpreter)  # type: ignore[assignment]
    ours = ("grid_dim", "grid_idx")  # the interpreter's own notes of the last launch
    return {(str(owner), name): value for owner in owners for name, value in vars(owner).items() if name not in ours}


@kernel
def masked_kernel(y_ptr, limit):
    offs = tl.arange(0, 4)
    tl.store(y_ptr + offs, offs, mask=(offs < 3) & (tl.program_id(0) < limit))


def test_a_comparison_of_numbers_is_a_mask_of_int1() -> None:
    """Spread over a block it came back as integers, byte for byte what a mask is not."""
    y = torch.full((4,), -1, dtype=torch.int32)
    launch_interpreted(masked_kernel, (1,), y, 1)
    assert y.tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_everything_patched_is_put_back(fails: bool) -> None:
    launch_interpreted(patched_kernel, (1,), torch.zeros(1), False)
    before = state()
    y = torch.zeros(1, dtype=torch.int32)
    if fails:
        with pytest.raises(interpreter.InterpreterError, match="as asked"):
            launch_interpreted(patched_kernel, (1,), y, True)
    else:
        launch_interpreted(patched_kernel, (1,), y, False)
        assert y.item() == 12 + 6 + 4 + 100
    after = state()
    assert after.keys() == before.keys()
    assert [name for name, value in before.items() if after[name] is not value] == []
    assert not INTERPRETING


@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="has everything interpreted")
def test_a_foreign_kernel_stays_compiled() -> None:
    launch_interpreted(patched_kernel, (1,), torch.zeros(1), False)
    assert type(foreign_kernel) is JITFunction
    assert type(tl.sum) is JITFunction
    with pytest.raises(RuntimeError, match="outside of the scope of a kernel"):
        foreign_kernel(torch.zeros(1))


def test_threads_take_turns_forward_and_backward() -> None:
    """Users' threads, and autograd's under them: 12 threads of 4 steps each."""
    layers = [
        {"activation": "relu"}, {"activation": "silu"}, {"stride": 2, "padding": 1}, {"groups": 2},
    ]  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    weights = [torch.randn(6, 4 // s.get("groups", 1), 3, 3, generator=generator) for s in layers]

    def step(number: int) -> tuple[Tensor, Tensor]:
        weight = weights[number].clone().requires_grad_()
        y = conv_relu_pool(x, weight, backend="triton", **layers[number])  # type: ignore[arg-type]
        y.square().sum().backward()
        assert weight.grad is not None
        return y.detach(), weight.grad

    expected = [step(number) for number in range(len(layers))]
    wrong: list[str] = []

    def work(thread: int) -> None:
        for turn in range(len(layers)):
            number = (thread + turn) % len(layers)
            try:
                same = [torch.equal(a, b) for a, b in zip(step(number), expected[number], strict=True)]
            except Exception as error:
                wrong.append(f"{type(error).__name__}: {error}")
            else:
                wrong.extend([f"layer {number}: other numbers"] * (not all(same)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []

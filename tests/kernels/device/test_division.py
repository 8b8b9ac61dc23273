"""Kernels divide by constants through `quotient`, `remainder` and `quotient_up`, which give what Python's `//` does."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest
import torch
import triton.language as tl

from tests.kernels.exact import DEVICE
from tidepool.kernels.device.arithmetic import exact_quotient, quotient, quotient_up, remainder
from tidepool.kernels.runtime.interpreting import kernel
from tidepool.kernels.runtime.launch import launch

KERNELS = Path(__file__).parents[3] / "kernels"
DIVIDING = ("quotient", "remainder")
"""The functions of device/arithmetic.py that may divide a tensor by a constant."""


def divisions_by_constants(source: str) -> list[str]:
    """`function:line: code` of each division of a tensor by a constexpr in the kernels of a file and what they call."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef) and any(_compiled(d) for d in function.decorator_list):
            constants = _constants_of(function)
            found += [
                f"{function.name}:{node.lineno}: {ast.unparse(node)}"
                for node in ast.walk(function)
                for value, divisor in _divided(node)
                if _constant(divisor, constants) and not _constant(value, constants)
            ]
    return found


def _compiled(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id in ("kernel", "device_function")


def _divided(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """(value, divisor) of `value // divisor`, `value % divisor`, their assignments, and `tl.cdiv(value, divisor)`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.FloorDiv | ast.Mod):
        yield node.left, node.right
    elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.FloorDiv | ast.Mod):
        yield node.target, node.value
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "tl.cdiv":
        yield node.args[0], node.args[1]


def _constants_of(function: ast.FunctionDef) -> set[str]:
    """Names in a function that stand for constants: parameters and variables that say so, and what is made of them."""
    constants = {argument.arg for argument in function.args.args if _says_constexpr(argument.annotation)}
    for node in ast.walk(function):
        if (isinstance(node, ast.AnnAssign) and _says_constexpr(node.annotation)) or _is_unrolled(node):
            constants.add(ast.unparse(node.target))
        elif isinstance(node, ast.Assign) and _constant(node.value, constants):
            constants.update(ast.unparse(target) for target in node.targets)
    names = [node for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    often = {name for name, count in Counter(node.id for node in names).items() if count > 1}
    return constants - often


def _is_unrolled(node: ast.AST) -> TypeGuard[ast.For]:
    return isinstance(node, ast.For) and ast.unparse(node.iter).startswith("tl.static_range(")


def _says_constexpr(annotation: ast.expr | None) -> bool:
    return annotation is not None and ast.unparse(annotation) == "tl.constexpr"


def _constant(node: ast.expr, constants: set[str]) -> bool:
    if isinstance(node, ast.BinOp):
        return _constant(node.left, constants) and _constant(node.right, constants)
    if isinstance(node, ast.UnaryOp):
        return _constant(node.operand, constants)
    if isinstance(node, ast.Attribute):
        return _constant(node.value, constants)
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id in constants)


def test_no_kernel_divides_a_tensor_by_a_constant_directly() -> None:
    files = [path for path in sorted(KERNELS.rglob("*.py")) if "triton.language" in path.read_text(encoding="utf-8")]
    assert len(files) > 20
    found = [
        f"{path.relative_to(KERNELS)}:{division}"
        for path in files
        for division in divisions_by_constants(path.read_text(encoding="utf-8"))
    ]
    allowed = tuple(f"device/arithmetic.py:{name}:" for name in DIVIDING)
    assert [division for division in found if not division.startswith(allowed)] == []
    assert len(found) == 4  # in each of the two functions an unsigned division and a plain one


@pytest.mark.parametrize(
    "line",
    [
        "p // G.stride_w",
        "(p + 1) % BLOCK",
        "p // 8",
        "p % (BLOCK * TWICE)",
        "p % (back + 1)",
        "tl.cdiv(p, BLOCK)",
        "tl.program_id(0) // TWICE",
    ],
)
def test_a_division_by_a_constant_is_found(line: str) -> None:
    assert divisions_by_constants(KERNEL.format(line=line)) == [f"some_kernel:6: {line}"]


@pytest.mark.parametrize(
    "line", ["p // size", "p % (size * BLOCK)", "BLOCK // 2", "G.window % BLOCK", "back % 2", "p / 2"]
)
def test_other_divisions_are_not(line: str) -> None:
    assert divisions_by_constants(KERNEL.format(line=line)) == []


KERNEL = """\
@kernel
def some_kernel(p, size, G: tl.constexpr, BLOCK: tl.constexpr):
    TWICE: tl.constexpr = 2 * BLOCK
    for back in tl.static_range(3):
        size += BLOCK
        x = {line}
"""


@kernel
def divide_kernel(value_ptr, result_ptr, DIVISOR: tl.constexpr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    value = tl.load(value_ptr + offs)
    tl.store(result_ptr + offs, quotient(value, DIVISOR))
    tl.store(result_ptr + BLOCK + offs, remainder(value, DIVISOR))
    tl.store(result_ptr + 2 * BLOCK + offs, quotient_up(value, DIVISOR))


@kernel
def divide_exactly_kernel(value_ptr, result_ptr, DIVISOR: tl.constexpr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    value = tl.load(value_ptr + offs)
    tl.store(result_ptr + offs, exact_quotient(value, DIVISOR))
    tl.store(result_ptr + BLOCK + offs, (remainder(value + 1, DIVISOR) == 0).to(result_ptr.dtype.element_ty))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("divisor", [1, 2, 3, 6, 8, 64])
def test_quotients_and_remainders_of_numbers_from_zero_to_the_largest(divisor: int, dtype: torch.dtype) -> None:
    largest = torch.iinfo(dtype).max - divisor
    value = torch.tensor([0, 1, 2, 5, 63, 64, 65, largest], dtype=dtype, device=DEVICE)
    result = torch.empty(3, 8, dtype=dtype, device=DEVICE)
    launch(divide_kernel, (1,), value, result, DIVISOR=divisor, BLOCK=8)
    expected = [[v // divisor, v % divisor, -(-v // divisor)] for v in value.tolist()]
    assert result.T.tolist() == expected


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("divisor", [1, 2, 3, 8])
def test_multiples_are_divided_and_told_apart_below_zero_too(divisor: int, dtype: torch.dtype) -> None:
    factors = torch.tensor([-9, -4, -2, -1, 0, 1, 3, 7], dtype=dtype, device=DEVICE)
    result = torch.empty(2, 8, dtype=dtype, device=DEVICE)
    launch(divide_exactly_kernel, (1,), factors * divisor, result, DIVISOR=divisor, BLOCK=8)
    assert result[0].tolist() == factors.tolist()
    assert result[1].tolist() == [int(divisor == 1)] * 8  # of multiples plus one

"""Runs what `tidepool check` compiles: every shipped tile and small layers of every kind, on a simulated GPU.

On small integers, whose sums are exact in every dtype and order, results have to equal float64 PyTorch's to the bit;
of activations that are not exact there, and of norms, they have to meet the error rule. A tile of eight warps has to
give, on numbers of unit scale, the bits of the same tile with four.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tidepool import simulator
from tidepool.kernels.compile_check.compile import dtypes_on, float32_as
from tidepool.kernels.compile_check.conv_cases import CASES, Case
from tidepool.kernels.compile_check.conv_launches import ShippedTile, Tensors, shipped_tiles, tensors_of
from tidepool.kernels.compile_check.norm_runs import NAMES as NORM_NAMES
from tidepool.kernels.compile_check.norm_runs import norm_runs
from tidepool.kernels.compile_check.rows import Ran
from tidepool.kernels.compile_check.work import Selection
from tidepool.kernels.layer.dtypes import BY_NAME
from tidepool.kernels.layer.settings import ArgumentError
from tidepool.kernels.ops.conv import conv_act_pool
from tidepool.kernels.oracle.error_rule import (
    RuleBrokenError,
    activation_of,
    draw,
    error_rule,
    in_pytorch,
    results,
    truth,
)
from tidepool.kernels.oracle.reference import conv_act_pool_reference
from tidepool.kernels.runtime.targets import Target

BATCH, SIDE = 2, {1: 64, 2: 12, 3: 6}
"""Images of a small layer, and pixels along each of 1, 2 or 3 dimensions; more where its window asks for them."""
MANY_PRODUCTS = 2**24
"""Products of a convolution from which on it gets one image, and two thirds of the pixels along each dimension."""
WARPS, FEWER = 8, 4


@dataclass(frozen=True)
class Run:
    """Something to run: `check` launches kernels and raises AssertionError where a result is wrong."""

    case: str
    dtype: str
    tile: str
    check: Callable[[], None]


def small(case: Case) -> Case:
    """The same kind of layer on few pixels: as few as its windows can do with."""
    rank = len(case.x) - 2
    batch, side, step = BATCH, SIDE[rank], SIDE[rank]
    if batch * side**rank * case.weight[0] * case.fan_in > MANY_PRODUCTS:
        batch, side = 1, 2 * side // 3
    while True:
        x = (min(case.x[0], batch), case.x[1], *(min(size, side) for size in case.x[2:]))
        made = replace(case, x=x)
        try:
            tensors_of(made, case.dtypes[0])
        except ArgumentError:
            if side > max(case.x[2:]):
                raise
            side += step
        else:
            return made


def run_names() -> tuple[str, ...]:
    """Every layer that can be named, in the order they run."""
    return (*(case.name for case in CASES), *NORM_NAMES)


def runs_on(target: Target, names: Iterable[str] = ()) -> Iterator[Run]:
    """What is run on a target: the named layers, or all and every shipped tile."""
    named, cases = tuple(names), [small(case) for case in CASES]
    everything = [
        *(
            Run(case.name, dtype, "", partial(_check_layer, case, dtype))
            for case in cases
            for dtype in case.dtypes
            if case.exact or dtype != "tf32"  # no PyTorch of a CPU rounds to TF32, and the rule needs one that does
        ),
        *(Run(case, dtype, "", check) for case, dtype, check in norm_runs()),
    ]
    allowed = dtypes_on(target, tuple(BY_NAME))
    yield from (run for run in everything if run.dtype in allowed and (not named or run.case in named))
    if not named:
        for tile in shipped_tiles(target, cases):
            yield Run(f"{tile.case.name} {tile.launcher}", tile.dtype, str(tile.tile), partial(_check_tile, tile))


def ran_on(target: Target, selection: Selection, work_done: Callable[[int, int], None]) -> Iterator[Ran]:
    """A row for each run of the selection's share on the simulated target. `work_done` is told how many are done, and
    of how many."""
    mine = [*runs_on(target, selection.names)][selection.share :: selection.shares]
    for number, row in enumerate(carried_out(target, selection.schedule, mine), start=1):
        yield row
        work_done(number, len(mine))


def carried_out(target: Target, schedule: str, runs: Iterable[Run]) -> Iterator[Ran]:
    """Each run on the simulated target, a wrong result, a fault and a failed compilation alike as its problem."""
    for run in runs:
        problem = ""
        with simulator.device(target.name, schedule) as device, float32_as(run.dtype):
            device.reports.clear()
            try:
                run.check()
            except Exception as error:  # of any kind: the row tells it, and the check goes on
                problem = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            yield Ran(
                target=target.name,
                schedule=schedule,
                case=run.case,
                dtype=run.dtype,
                tile=run.tile,
                programs=sum(report.programs for report in device.reports),
                warp_instructions=sum(report.warp_instructions for report in device.reports),
                problem=problem,
            )


# --- Layers by the rules ---


def _check_layer(case: Case, dtype: str) -> None:
    """Forward and backward through the op itself."""
    kind = BY_NAME[dtype]
    if not case.exact:
        inputs, _ = draw(case, kind, 0)
        twin, right = results(partial(in_pytorch, case), inputs), truth(case, inputs)
        ours = results(partial(_op, case), inputs)
        for name, found in ours.items():
            error_rule(name, found, twin[name], right[name])
    else:
        t = _integers(tensors_of(case, dtype))
        expected = _expected(case, t)
        leaves = [tensor.detach().clone().requires_grad_() for tensor in (t.x, t.weight, t.bias)]
        y = _op(case, *leaves)
        _assert_equal({"y": y}, expected)
        grads = torch.autograd.grad(y, leaves, expected["grad"].to(kind))
        _assert_equal(dict(zip(("dx", "dweight", "dbias"), grads, strict=True)), expected)


def _op(case: Case, x: Tensor, weight: Tensor, bias: Tensor | None, slope: Tensor | None = None) -> Tensor:
    options = {**case.options, "activation": activation_of(case, slope)}
    return conv_act_pool(x, weight, bias, **options, backend="triton")


def _integers(t: Tensors) -> Tensors:
    """The tensors filled with -1, 0 and 1: sums of some thousand products are exact in 16 bits, and ties abound."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (t.x, t.weight, t.bias):
        tensor.copy_(_signs(tensor.shape, generator))
    return t


def _signs(size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(-1, 2, size, generator=generator)


def _expected(case: Case, t: Tensors) -> Mapping[str, Tensor]:
    """What float64 PyTorch gives for y, dx, dweight and dbias, and the incoming gradient it was given."""
    leaves = [tensor.detach().double().requires_grad_() for tensor in (t.x, t.weight, t.bias)]
    y = conv_act_pool_reference(*leaves, **case.options)
    grad = _signs(y.shape, torch.Generator().manual_seed(1)).double()
    gradients = torch.autograd.grad(y, leaves, grad)
    return {"y": y.detach(), "grad": grad, **dict(zip(("dx", "dweight", "dbias"), gradients, strict=True))}


def _assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name, tensor in found.items():
        wanted = expected[name].to(tensor.dtype)
        wrong = int((tensor.detach() != wanted).sum())  # NaN, which unwritten memory is made of, counts
        if wrong:
            raise RuleBrokenError(f"{name}: {wrong} of {wanted.numel()} elements differ from float64 PyTorch's")


# --- One shipped tile ---


def _check_tile(tile: ShippedTile) -> None:
    """To the bit on integers; with eight warps as with four on numbers of unit scale."""
    t = _integers(tensors_of(tile.case, tile.dtype))
    expected = _expected(tile.case, t)
    _assert_equal(_launched(t, tile.launcher, tile.tile, expected["grad"]), expected)
    if getattr(tile.tile, "warps", 0) == WARPS:
        inputs, _ = draw(tile.case, BY_NAME[tile.dtype], 0)
        for into, values in ((t.x, inputs.x), (t.weight, inputs.weight), (t.bias, inputs.bias)):
            assert values is not None
            into.copy_(values)
        fewer = dataclasses.replace(tile.tile, warps=FEWER)
        found, twin = (_launched(t, tile.launcher, made, inputs.grad) for made in (tile.tile, fewer))
        for name, tensor in found.items():
            if not torch.equal(tensor, twin[name]):
                raise RuleBrokenError(f"{name}: {WARPS} warps give other bits than {FEWER}")


def _launched(t: Tensors, launcher: str, tile: Any, grad: Tensor) -> dict[str, Tensor]:
    """What a forward or a gradient at a tile writes, into memory full of NaN; gradients behind the rule's forward."""
    for output in (t.y, t.winner):
        if output is not None:
            output.fill_(torch.nan)
    if t.code is not None:
        t.code.fill_(255)
    t.forward(tile if launcher == "forward" else None)
    if launcher == "forward":
        return {"y": t.y.clone()}
    behind = replace(t, y=torch.empty_like(t.y).copy_(grad))
    if launcher == "dgrad":
        return {"dx": behind.dgrad(tile)}
    return dict(zip(("dweight", "dbias"), behind.wgrad(tile), strict=True))

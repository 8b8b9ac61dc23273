"""Compiles a layer's candidates in processes beside the one that times them, which then finds them in Triton's cache.

Triton compiles one kernel at a time, in a second or two, and holds Python's lock meanwhile; a layer has dozens of
candidates. A child needs no GPU: as in the compile check it is told the target, and every launch becomes a compilation.
A candidate that does not compile is left for the timing process to find out.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, wait
from types import TracebackType
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from tidepool.kernels.auto.layer import planned_layer
from tidepool.kernels.auto.plan import Choice, LayerPlan
from tidepool.kernels.conv.epilogue import conv_act_pool_epilogue
from tidepool.kernels.operators.call import LayerCall
from tidepool.kernels.operators.conv_implementations import input_gradient, weight_gradient
from tidepool.kernels.oracle.error_rule import RuleCase
from tidepool.kernels.runtime import launch
from tidepool.kernels.runtime.mode import is_interpreted, mode_of
from tidepool.kernels.runtime.targets import Target, target_named
from tidepool.kernels.tune.layer import PartOfBatch, call_of

Candidate = tuple[str, Choice]
"""A pass ("inference", "forward", "dgrad", "wgrad", "unpool") and a way to run it."""


class CompileAhead:
    """A pool of compiling processes for one GPU, as Triton names it, by the tiles of a target.

    Leaving the `with` block ends them.
    """

    def __init__(self, gpu: GPUTarget, target: Target, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(gpu, target.name))

    def __enter__(self) -> "CompileAhead":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def compile(
        self, layer: RuleCase, dtype: torch.dtype, operands: str, choices: Sequence[Candidate], timeout_s: float | None
    ) -> int:
        """Compile the candidates, for `timeout_s` seconds at most; how many kernels that were.

        `operands` as `launch.operand_kind` has it where the timing runs: "half", "tf32" or "ieee".
        """
        plain = PartOfBatch(
            layer.name, tuple(layer.x), tuple(layer.weight), dict(layer.options), layer.bias, layer.channels_last
        )
        try:
            jobs = [self._pool.submit(_compile, plain, dtype, operands, pass_, choice) for pass_, choice in choices]
        except BrokenExecutor:  # a child was killed: the timing process compiles for itself
            return 0
        done, late = wait(jobs, timeout_s)
        for job in late:
            job.cancel()
        return sum(_count(job) for job in done)


@contextlib.contextmanager
def compiling_for(device: torch.device, workers: int | None = None) -> Iterator[CompileAhead | None]:
    """A CompileAhead for a GPU, with `workers` processes or one for each core but one; None where kernels are
    interpreted, which takes no compiling."""
    if device.type != "cuda" or is_interpreted(device):
        yield None
        return
    gpu = triton.runtime.driver.active.get_current_target()
    with CompileAhead(gpu, mode_of(device).target, workers or max((os.cpu_count() or 2) - 1, 1)) as compiler:
        yield compiler


def _count(job: "Future[int]") -> int:
    return 0 if job.cancelled() or job.exception() is not None else job.result()


_compiled = 0


def _start(gpu: GPUTarget, target: str) -> None:
    """Make a fresh process one that compiles for `gpu` what it is asked to launch."""
    from tidepool.kernels.compile_check.compile import compile_for

    compile_for(gpu, target_named(target))
    launch.replace_launcher(_compile_instead)


def _compile_instead(kernel: Any, grid: tuple[int, ...], *args: Any, **keywords: Any) -> None:
    global _compiled
    kernel.warmup(*args, grid=grid, **keywords)
    _compiled += 1


def _compile(layer: PartOfBatch, dtype: torch.dtype, operands: str, pass_: str, choice: Choice) -> int:
    """In a child: launch one candidate on unwritten CPU tensors; how many kernels that compiled."""
    precision = "tf32" if operands == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
    before = _compiled
    _launch(call_of(layer, dtype, torch.device("cpu")), layer, pass_, choice)
    return _compiled - before


def _launch(call: LayerCall, layer: PartOfBatch, pass_: str, choice: Choice) -> None:
    x, y = call.dx.allocate(), call.y.allocate()
    weight = torch.empty(layer.weight, dtype=call.y.dtype)
    bias = torch.empty(layer.weight[0], dtype=call.y.dtype) if layer.bias else None
    code = None if call.code is None else call.code.allocate()
    winner = None if call.winner is None else call.winner.allocate()
    planned = planned_layer(call, LayerPlan(inference=choice, forward=choice))
    saved = planned.conv.allocate() if call.smooth_average else winner
    if choice.way == "epilogue" and not planned.is_linear:
        kept = (code, winner) if pass_ == "forward" else (None, None)
        conv_act_pool_epilogue(planned.conv.allocate(), bias, y, *kept, call.geometry, call.shapes)
    elif choice.way in ("cudnn", "eager", "epilogue"):
        return  # nothing of this project's
    elif pass_ == "inference":
        planned.infer(x, weight, bias)
    elif pass_ == "forward":
        planned.forward(x, weight, bias)
    elif pass_ == "unpool":
        planned.unpooled(y, code, saved)
    else:
        source = (y, code, saved) if choice.way == "fused" else (planned.conv.allocate(), None, None)
        seen = call if choice.way == "fused" else planned.linear
        if pass_ == "dgrad":
            input_gradient(*source, weight, seen, choice.tile)
        else:
            weight_gradient(*source, x, weight, True, layer.bias, seen, choice.tile)
            if layer.bias and choice.way == "fused":
                weight_gradient(*source, x, weight, False, True, seen)

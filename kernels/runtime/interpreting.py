"""Triton's interpreter, confined to this package's launches.

Triton decides when `triton.jit` decorates a function whether it is compiled or interpreted, for everything in the
process alike, and patches `triton.language` anew at every call of an interpreted function. Here a kernel and what it
calls are one object each, compiled or interpreted launch by launch, and the patches are collected once, put in place
for the launch and taken back after it, also when the kernel raises. Interpreted launches take turns: Triton's
interpreter keeps the grid and its patches in globals.

Private parts of Triton, of 3.6 to 3.9, used because there is no public way to interpret one launch:

- `interpreter._patch_lang` and `_LangPatchScope`: what has to be patched in `triton.language`
- `interpreter.interpreter_builder.options`: without the check of every int32 result for overflow; its `binary_op`: a
  comparison's result says that it is int1
- `JITFunction.__call__` and `__get__`: device functions, Triton's own (`tl.sum`, `x.sum`) among them, called as Python
- `JITFunction.device_caches`: the compiled kernels, to be forgotten
- `InterpretedFunction` with its `__call__`: the kernel's loop over the grid, and Triton's own functions where
  TRITON_INTERPRET was set when it was imported
- `constexpr.value`, overridden: the constant that tells kernels how they run
- what `interpreter_memory` names
"""

import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import triton.language as tl
from threadpoolctl import ThreadpoolController
from triton.runtime import interpreter
from triton.runtime.jit import JITFunction

from tidepool.kernels.runtime.interpreter_memory import Patch, remembering


class Kernel(JITFunction[Any]):
    """A kernel: `kernel[grid](...)` compiles it as `triton.jit`'s does, and `launch_interpreted` interprets it."""

    @functools.cached_property
    def interpreted(self) -> interpreter.InterpretedFunction[Any]:
        """The same source for the interpreter."""
        return interpreter.InterpretedFunction(self.fn)

    def forget(self) -> None:
        """Compile, or take from Triton's cache on disk, and make ready for the interpreter at the next launch."""
        self.__dict__.pop("interpreted", None)
        self.device_caches.clear()


def kernel(function: Callable[..., Any]) -> Kernel:
    """Mark a kernel, in place of `triton.jit`."""
    return Kernel(function)


def device_function(function: Callable[..., Any]) -> JITFunction[Any]:
    """Mark a function that kernels call, in place of `triton.jit`. Interpreted it is plain Python, of which the values
    are tensors where its arguments are."""
    return JITFunction(function)


_thread = 0
"""The thread in whose launch kernels are interpreted; 0 when none is."""


class _Interpreting(tl.constexpr):
    """True to the thread that interprets a kernel, and False to every compiler."""

    def __init__(self) -> None:
        self.type = tl.core.constexpr_type(False)

    @property
    def value(self) -> bool:
        return _thread == threading.get_ident()


INTERPRETING = _Interpreting()
"""In a kernel or device function: whether it is being interpreted."""

_turn = threading.RLock()
# A fork in the middle of a launch would leave the child patched and the lock taken.
os.register_at_fork(before=_turn.acquire, after_in_parent=_turn.release, after_in_child=_turn.release)


def launch_interpreted(kernel: Kernel, grid: tuple[int, ...], *args: Any, **kwargs: Any) -> None:
    """Interpret `kernel` over `grid`.

    NumPy's products are small here: a second BLAS thread costs more than it brings (2.7 times the time of LeNet-5's
    training step on two busy cores).
    """
    with _turn, _blas().limit(limits=1, user_api="blas"), _patched():
        kernel.interpreted[grid](*args, **kwargs)


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def _patched() -> Iterator[None]:
    global _thread
    before, _thread = _thread, threading.get_ident()
    undo: list[Patch] = []
    try:
        for owner, name, value in _patches():
            undo.append((owner, name, vars(owner).get(name, _MISSING)))
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(undo):
            if value is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
        _thread = before


_MISSING = object()


@functools.cache
def _patches() -> list[Patch]:
    """What Triton patches for a function that sees `triton.language` and its core, and what is patched besides."""
    found: dict[tuple[int, str], Patch] = {}

    class Collecting(interpreter._LangPatchScope):
        def set_attr(self, obj: object, name: str, value: object) -> None:
            found[id(obj), name] = (obj, name, value)

    scope, interpreter._LangPatchScope = interpreter._LangPatchScope, Collecting
    try:
        interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
    finally:
        interpreter._LangPatchScope = scope
    builder = interpreter.interpreter_builder
    # The interpreter does every int32 sum and product a second time in int64 to report overflow, at half of a small
    # kernel's time; `offset_type` has ruled overflow out.
    options = dataclasses.replace(builder.options, sanitize_overflow=False)
    return [
        *remembering(found.values()),
        (interpreter, "_patch_lang", lambda _: _NOTHING_TO_RESTORE),
        (builder, "options", options),
        (builder, "binary_op", functools.partial(_typed_result, builder.binary_op)),
        (JITFunction, "__call__", _call_as_python),
        (JITFunction, "__get__", _bind_to_tensor),
        (interpreter.InterpretedFunction, "__call__", _call_as_python),
    ]


_NOTHING_TO_RESTORE = SimpleNamespace(restore=lambda: None)


def _typed_result(binary_op: Callable[..., Any], *operands: Any) -> Any:
    """A comparison comes back with the type of what it compared: a number's, spread over a block, would then be a mask
    of integers, which loads take for bytes of a mask (Triton 3.9 refuses it)."""
    handle = binary_op(*operands)
    if handle.data.dtype == np.bool_:
        handle.dtype = tl.int1
    return handle


def _call_as_python(function: Any, *args: Any, **kwargs: Any) -> Any:
    return function.fn(*args, **kwargs)


def _bind_to_tensor(function: Any, tensor: Any, owner: type) -> Any:
    return function if tensor is None else functools.partial(function, tensor)

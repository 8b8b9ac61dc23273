"""`fuse`: the fused ops in networks that were not written with them, by way of torch.compile.

The network stays the object it is, of its own class, with its own parameters, buffers, hooks and methods: what changes
is that a call of it goes through graphs that PyTorch captures, guards and captures anew when anything they depend on
has changed. Where that cannot be, a call runs as the network is, and the report says so.
"""

import inspect
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from tidepool.models.fusion.backend import TidepoolBackend
from tidepool.models.fusion.report import FuseReport, Names
from tidepool.models.fusion.verify import verify

RECOMPILE_LIMIT = 64
"""Graphs that one network may have for each piece of its code: modes, dtypes, sizes and devices make one each."""


def fuse(
    module: nn.Module, backend: str = "auto", *, rest: str = "eager", example: Any = None
) -> tuple[nn.Module, FuseReport]:
    """Have calls of `module` run with fused ops where that changes no result; returns it and a report.

    conv -> activation -> pool, conv -> norm (-> addition) -> activation -> pool and their parts become one op each, in
    every order in which they commute, as modules or functions, in place or not; with `backend="triton"` lone
    convolutions, means over all pixels and squeeze-and-excitation too. `backend` is the ops', `rest` what becomes of
    everything else: "eager" runs it as it is, "inductor" (or "aot_eager") hands the graph on to that backend.

    The first call in each mode, dtype and size captures a graph, which takes about a second; the report fills in then.
    `example` is an input, or a tuple of inputs: fused and unfused copies of the network are run on it in training and
    in evaluation, and compared.

    What the network does to its own attributes, its branches, its contexts and its randomness happen as ever; layers
    may be replaced, patched and hooked afterwards. Copies and pickles of the network are not fused, `torch.export`
    exports it as it is, and calls under modes and transforms that PyTorch cannot capture run as it is.

    Raises:
        ArgumentError: an unknown backend or rest.
        FusedResultError: the fused network's results on `example` are not the network's.
    """
    made = TidepoolBackend(backend, rest)
    if example is not None:
        verify(module, lambda copied: install(copied, TidepoolBackend(backend, rest)), example)
    install(module, made)
    return module, made.report


def install(module: nn.Module, backend: TidepoolBackend) -> None:
    """Have calls of a module run through graphs that `backend` was given."""
    backend.names = lambda: _names(module)
    compiled = _compiled(module, backend)
    report = backend.report

    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return module._call_impl(*args, **kwargs)  # part of another graph, which is somebody else's
        reason = _reason_to_run_plain()
        if reason:
            report.ran_plain(reason)
            return module._call_impl(*args, **kwargs)
        before = report.runs
        try:
            revert = _configure()
            try:
                result = compiled(*args, **kwargs)
            finally:
                revert()
        except torch._dynamo.exc.TorchDynamoException as error:
            if report.runs != before:
                raise
            # Nothing has run yet. A call that is wrong is told so by the network itself.
            report.ran_plain(f"PyTorch could not capture it: {_first_line(error)}")
            return module._call_impl(*args, **kwargs)
        if report.runs == before:
            report.ran_plain("PyTorch captured no graph of it")
        else:
            report.fused_calls += 1
        return result

    module._compiled_call_impl = call


def _compiled(module: nn.Module, backend: TidepoolBackend) -> Callable[..., Any]:
    """A call of the module, compiled.

    Through a frame of its own: Dynamo skips those of PyTorch's own classes, so that a Sequential would never be
    captured; and it keeps graphs by code object, so that all networks of one class would share the limit of them.
    """

    def tidepool_network(*args: Any, **kwargs: Any) -> Any:
        return module._call_impl(*args, **kwargs)

    own = types.FunctionType(
        tidepool_network.__code__.replace(), globals(), "tidepool_network", None, tidepool_network.__closure__
    )
    # PyTorch 2.11 has no limit of a network's own: the process's is shared there by code object, which is its own.
    known = inspect.signature(torch.compile).parameters
    limits: dict[str, Any] = {"isolate_recompiles": True, "recompile_limit": RECOMPILE_LIMIT}
    return torch.compile(own, backend=backend, **{name: limits[name] for name in limits if name in known})


def _configure() -> Callable[[], None]:
    """Set Dynamo as the network's calls need it; what is returned sets it back.

    By default it does not look whether hooks were added since a graph was captured, and takes a number that differs
    from one network of a class to the next, a norm's eps, for an input of the graph. Every call pays for this:
    PyTorch's own shortcut, private, takes a fifth of the time of setting by name.
    """
    change = getattr(torch._dynamo.config, "_make_closure_patcher", None)
    if change is None:
        return _configure_by_name()
    global _change
    if _change is None:
        _change = change(**_WANTED)
    revert: Callable[[], None] = _change()
    return revert


_WANTED = {"skip_nnmodule_hook_guards": False, "specialize_float": True}
_change: Callable[[], Callable[[], None]] | None = None


def _configure_by_name() -> Callable[[], None]:
    patch = torch._dynamo.config.patch(_WANTED)
    patch.__enter__()
    return lambda: patch.__exit__(None, None, None)


def _reason_to_run_plain() -> str:
    """Why PyTorch could not capture a call made here and now; a first call that it cannot capture would be its last."""
    if torch._C._len_torch_dispatch_stack() > 0:
        return "a TorchDispatchMode is on"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "it is inside torch.func's transforms"
    if any(not isinstance(one, DeviceContext) for one in _get_current_function_mode_stack()):
        return "a TorchFunctionMode is on"
    return "it is being traced by torch.jit" if torch.jit.is_tracing() else ""


def _names(module: nn.Module) -> Names:
    return {id(parameter): name for name, parameter in module.named_parameters(remove_duplicate=False)}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

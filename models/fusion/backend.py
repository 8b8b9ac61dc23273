"""Tidepool as a backend of torch.compile.

    torch.compile(network, backend="tidepool", options={"backend": "triton", "rest": "inductor"})

TorchDynamo captures graphs from the program's bytecode, guards what they depend on, and captures again when that has
changed; here the graphs' chains of layers become fused ops (`rewrite`), and what is left runs eagerly or goes on to
another backend.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from tidepool.kernels.layer.arguments import ArgumentError, check_backend
from tidepool.models.fusion.report import CapturedGraph, FuseReport, Names

RESTS = ("eager", "aot_eager", "inductor")
"""What may become of the nodes that are not fused: run as they are, or go on to these backends of PyTorch's."""
_OPTIONS = ("backend", "rest", "report")


class TidepoolBackend:
    """A function of a captured graph and its inputs that returns what runs in its place.

    `backend` is the fused ops', `rest` one of RESTS; `report` is filled in; `names` are the network's parameters'.
    """

    def __init__(self, backend: str = "auto", rest: str = "eager", report: FuseReport | None = None) -> None:
        check_backend(backend)
        if rest not in RESTS:
            raise ArgumentError(f"expected rest to be one of {', '.join(RESTS)}, but got {rest!r}")
        self.backend, self.rest = backend, rest
        self.report = FuseReport() if report is None else report
        self.names: Callable[[], Names] = dict

    def __call__(self, module: fx.GraphModule, inputs: list[Any], **_: Any) -> Callable[..., Any]:
        # Here, where PyTorch's tracing is loaded already: it takes SymPy, 0.7 s of a program that fuses nothing.
        from tidepool.models.fusion.checkpointing import run_eagerly
        from tidepool.models.fusion.rewrite import rewrite

        graph = CapturedGraph()
        rewrite(module, self.backend, self.names(), graph)
        if self.rest == "eager":
            run_eagerly(module)
            run: Callable[..., Any] = module.forward
        else:
            run = torch._dynamo.lookup_backend(self.rest)(module, inputs)
        self.report.graphs.append(graph)

        def counted(*args: Any) -> Any:
            graph.runs += 1
            return run(*args)

        return counted

    def __deepcopy__(self, memo: Any) -> "TidepoolBackend":
        return self


def tidepool(
    module: fx.GraphModule, inputs: list[Any], *, options: Mapping[str, Any] | None = None, **_: Any
) -> Callable[..., Any]:
    """The entry point: `options` may hold "backend", "rest" and "report" (a `FuseReport` to be filled in).

    Raises ArgumentError for an option or a value that there is not.
    """
    given = dict(options or {})
    unknown = sorted(set(given) - set(_OPTIONS))
    if unknown:
        raise ArgumentError(f"expected options among {', '.join(_OPTIONS)}, but got {unknown[0]!r}")
    return TidepoolBackend(**given)(module, inputs)

"""`fuse`: the fused ops in networks that were not written with them, by torch.fx."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from kernels.arguments import check_backend
from kernels.geometry import conv_output_size
from kernels.reference import activate, pool_reference
from models.fused import NormHolder, conv_norm_act, conv_relu_pool
from models.fusion_chains import Chain, find_chains
from models.fusion_report import FusedLayer, FuseReport, SkippedLayer
from models.fusion_steps import CONVOLUTIONS, NORMS, Step, described, first_input
from models.fusion_tracing import FUSED_ALREADY, compiled_forward, has_hooks, traced

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def fuse(module: nn.Module, backend: str = "auto") -> tuple[nn.Module, FuseReport]:
    """A network that computes what `module` does with fused ops, and a report of what was fused and what was not.

    conv -> activation -> pool, conv -> norm (-> addition) -> activation -> pool and their parts, in every order in
    which they commute, as modules or functions, in place or not; `backend` is the ops'. The result shares parameters,
    buffers and submodules with `module`: the same objects under the same names in the same order, so that optimizers
    and state dicts of one serve the other. `train()` and `eval()` act as ever, and so does a norm that is frozen alone;
    what else a forward makes of `self.training` is followed for the network as a whole. Later on, layers may be
    replaced by others of their kind; hooks put on a fused layer then are not called. Where torch.fx cannot trace a
    module (control flow that depends on values or chance), its submodules are fused one by one. What a forward does to
    Python objects, such as counting its calls, it does at `fuse` and not again: torch.fx does not see it.

    Raises:
        ArgumentError: an unknown backend.
    """
    check_backend(backend)
    fusion = _Fusion(backend)
    result = fusion.of(module, "")
    return result, FuseReport(tuple(fusion.fused), tuple(fusion.skipped))


class FusedModule(nn.Module):
    """A network rewritten by `fuse`: its submodules, parameters, buffers and hooks are the original's, its forward is
    new."""

    is_fused = True

    def __init__(
        self,
        original: nn.Module,
        calls: dict[str, "FusedCall"],
        tensors: dict[str, Tensor],
        forwards: dict[bool, Callable[..., Any]],
        backend: str,
    ) -> None:
        super().__init__()
        for name in list(self.__dict__):
            self.__dict__[name] = original.__dict__[name]
        self.__dict__["_modules"] = {**original._modules, **calls}
        self.__dict__.update(tensors)
        self._forwards = forwards
        # In a tuple, so that it is not registered: its parts are registered here.
        self._source = (original, backend)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the original's forward takes and gives."""
        return self._forwards[self.training](self, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """What the original has besides layers: its settings and methods."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_source"][0], name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made of the original, with the layers as they are now, and fused again: the new
        forward cannot be pickled."""
        original, backend = self._source
        children = {name: child for name, child in self._modules.items() if not isinstance(child, FusedCall)}
        return _fused_again, (_with_children(original, children), backend, self.training)

    def extra_repr(self) -> str:
        return f"from {type(self._source[0]).__name__}"


def _with_children(module: nn.Module, children: dict[str, nn.Module | None]) -> nn.Module:
    """The module with other submodules; everything else is shared."""
    result = copy.copy(module)
    result.__dict__["_modules"] = children
    return result


def _fused_again(original: nn.Module, backend: str, training: bool) -> nn.Module:
    result, _ = fuse(original, backend)
    result.training = training
    return result


class FusedCall(nn.Module):
    """One fused op in place of several layers, which it is given at every call: their parameters, modes and devices are
    what they are then."""

    is_fused = True

    def __init__(self, chain: Chain, backend: str) -> None:
        super().__init__()
        self.names = chain.conv.name, None if chain.norm is None else chain.norm.name
        self.kinds = _kind(chain.conv.module), None if chain.norm is None else _kind(chain.norm.module)
        self.activation, self.pool, self.pool_first = chain.activation, chain.pool, chain.pool_first
        self.backend = backend

    def forward(
        self, x: Tensor, conv: Convolution, norm: NormHolder | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """x (N, C, *spatial) -> (N, K, *output); `residual` is what is added to the norm's result.

        Raises:
            RuntimeError: a layer has been replaced by one of another kind since `fuse`.
        """
        for name, kind, layer in zip(self.names, self.kinds, (conv, norm), strict=True):
            if kind is not None and not isinstance(layer, kind):
                found = type(layer).__name__
                raise RuntimeError(f"{name} was a {kind.__name__} when it was fused and is a {found} now: fuse again")
        if norm is None:
            return conv_relu_pool(x, conv, activation=self.activation, pool=self.pool, backend=self.backend)
        if residual is not None:
            size = _result_size(x, conv)
            if torch.broadcast_shapes(residual.shape, size) != size:
                # The sum is larger than either term, or than the norm's result: no op of this project's makes it.
                y = conv_norm_act(x, conv, norm, activation=None, backend=self.backend)
                return pool_reference(activate(y + residual, self.activation), self.pool, x.dim() - 2)
            residual = residual.expand(size)
        return conv_norm_act(
            x,
            conv,
            norm,
            residual=residual,
            activation=self.activation,
            pool=self.pool,
            pool_first=self.pool_first,
            backend=self.backend,
        )

    def equals(self, other: "FusedCall") -> bool:
        """Whether both are the same op on the same layers."""
        names = ("names", "kinds", "activation", "pool", "pool_first")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def extra_repr(self) -> str:
        norm = "" if self.names[1] is None else "norm, "
        return f"{norm}activation={self.activation}, pool={self.pool}, backend={self.backend}"


def _kind(module: nn.Module | None) -> type[nn.Module]:
    """PyTorch's class that the layer is or is made of."""
    return next(kind for kind in (*CONVOLUTIONS, *NORMS) if isinstance(module, kind))


def _result_size(x: Tensor, conv: Convolution) -> torch.Size:
    """The size of the convolution's result."""
    spatial = x.shape[2:]
    if isinstance(conv.padding, str):
        reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        padding = tuple(reach) if conv.padding == "same" else (0,) * len(reach)
    else:
        padding = tuple(2 * p for p in conv.padding)
    sides = (
        conv_output_size(spatial[i], conv.kernel_size[i], conv.stride[i], padding[i], 0, conv.dilation[i])
        for i in range(len(spatial))
    )
    return torch.Size((x.shape[0], conv.out_channels, *sides))


class _Fusion:
    """One call of `fuse`: what it has done so far."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.fused: list[FusedLayer] = []
        self.skipped: list[SkippedLayer] = []
        self._done: dict[nn.Module, nn.Module] = {}

    def of(self, module: nn.Module, prefix: str) -> nn.Module:
        """The module with what can be fused fused; `prefix` is its name and a dot, or nothing for the network."""
        if module not in self._done:
            self._done[module] = self._fused(module, prefix)
        return self._done[module]

    def _fused(self, module: nn.Module, prefix: str) -> nn.Module:
        if isinstance(module, (*FUSED_ALREADY, FusedModule)):
            return module
        if not module._modules:
            self._report_alone(module, prefix)
            return module
        if type(module).forward is nn.Module.forward:  # a list of modules
            return self._by_children(module, prefix)
        try:
            graphs = {training: traced(module, training) for training in (True, False)}
        except Exception as error:  # whatever a forward raises when it meets a symbol
            reason = str(error).strip().splitlines() or [type(error).__name__]
            self.skipped.append(SkippedLayer(prefix[:-1] or type(module).__name__, f"torch.fx: {reason[0]}"))
            return self._by_children(module, prefix)
        return self._rewritten(module, graphs, prefix)

    def _report_alone(self, module: nn.Module, prefix: str) -> None:
        if isinstance(module, nn.modules.conv._ConvNd):
            name = prefix[:-1] or type(module).__name__
            self.skipped.append(SkippedLayer(name, "what follows it is not known: it was not reached by tracing"))

    def _by_children(self, module: nn.Module, prefix: str) -> nn.Module:
        children = {
            name: None if child is None else self.of(child, f"{prefix}{name}.")
            for name, child in module._modules.items()
        }
        if all(child is module._modules[name] for name, child in children.items()):
            return module
        return _with_children(module, children)

    def _rewritten(
        self, module: nn.Module, graphs: dict[bool, tuple[fx.Graph, dict[str, Tensor]]], prefix: str
    ) -> nn.Module:
        modules = dict(module.named_modules(remove_duplicate=False))
        calls: dict[str, FusedCall] = {}
        forwards, sources, tensors, reports = {}, {}, {}, []
        for training, (graph, loose) in graphs.items():
            chains, steps = find_chains(graph, modules)
            reports.append(_reported(chains, steps, prefix))
            for chain in chains:
                if chain.fuses:
                    self._replace(graph, chain, calls, modules)
            sources[training] = graph.python_code("self").src
            tensors.update(loose)
        self._report(*reports)
        self._report_watched(graphs[True][0], modules, prefix)
        if not calls:
            return module
        forwards[True] = compiled_forward(graphs[True][0], type(module).__name__)
        same = sources[True] == sources[False]
        forwards[False] = forwards[True] if same else compiled_forward(graphs[False][0], type(module).__name__)
        return FusedModule(module, calls, tensors, forwards, self.backend)

    def _replace(
        self, graph: fx.Graph, chain: Chain, calls: dict[str, FusedCall], modules: dict[str, nn.Module]
    ) -> None:
        """Put one call in the place of the chain's nodes."""
        call = FusedCall(chain, self.backend)
        name = _call_name(chain, call, calls, modules)
        calls[name] = call
        place, last = chain.conv.node, chain.last
        x, residual = first_input(place), None
        if chain.addition is not None and chain.residual is not None:
            place = chain.addition.node
            residual = place.args[chain.residual]
        with graph.inserting_before(place):
            layers = [graph.create_node("get_attr", step.name) for step in (chain.conv, chain.norm) if step is not None]
            node = graph.call_module(name, (x, *layers), {} if residual is None else {"residual": residual})
        last.replace_all_uses_with(node)
        for step in reversed(chain.taken):
            graph.erase_node(step.node)

    def _report(self, training: FuseReport, evaluation: FuseReport) -> None:
        """What becomes of a layer is told for training, and for evaluation where it does not run in training."""
        self.fused += training.fused
        self.skipped += training.skipped
        told = [*(layer.name for layer in training.fused), *(layer.name for layer in training.skipped)]
        there = [*(layer.name for layer in evaluation.fused), *(layer.name for layer in evaluation.skipped)]
        new = Counter(there) - Counter(told)
        self.fused += [layer for layer in evaluation.fused if layer.name in new]
        self.skipped += [layer for layer in evaluation.skipped if layer.name in new]

    def _report_watched(self, graph: fx.Graph, modules: dict[str, nn.Module], prefix: str) -> None:
        for node in graph.nodes:
            module = modules.get(str(node.target)) if node.op == "call_module" else None
            if module is not None and module._modules and has_hooks(module):
                reason = "it has hooks: what is inside it was left alone"
                self.skipped.append(SkippedLayer(f"{prefix}{node.target}", reason))


def _reported(chains: list[Chain], steps: list[Step], prefix: str) -> FuseReport:
    """One mode's layers, fused or not. Activations that follow no convolution are not worth a line."""
    by_last = {chain.last: chain for chain in chains}
    by_conv = {chain.conv.node: chain for chain in chains}
    by_next = {chain.ended_by.node: chain for chain in chains if chain.ended_by is not None}
    taken = {step.node for chain in chains if chain.fuses for step in chain.taken}
    skipped = []
    for step in steps:
        if step.node in taken or step.kind in ("add", "nothing"):
            continue
        if step.node in by_conv:
            chain = by_conv[step.node]
            reason = step.refusal or f"nothing to fuse it with: {_next_layer(chain)}{chain.ended}"
        elif step.node in by_next:
            reason = by_next[step.node].ended
        elif step.kind == "activation":
            continue
        elif step.source in by_last:
            chain = by_last[step.source]
            reason = step.refusal or f"{chain.taken[-1].name}: {chain.ended}"
        else:
            source = "something else" if step.source is None else described(step.source)
            reason = step.refusal or f"its input is the result of {source}, not of a convolution"
        skipped.append(SkippedLayer(prefix + step.name, reason))
    fused = [_renamed(chain.described(), prefix) for chain in chains if chain.fuses]
    return FuseReport(tuple(fused), tuple(skipped))


def _next_layer(chain: Chain) -> str:
    return "" if chain.ended_by is None else f"{chain.ended_by.name}: "


def _renamed(layer: FusedLayer, prefix: str) -> FusedLayer:
    return FusedLayer(prefix + layer.name, layer.steps, tuple(prefix + name for name in layer.layers))


def _call_name(chain: Chain, call: FusedCall, calls: dict[str, FusedCall], modules: dict[str, nn.Module]) -> str:
    """A free name for the call, or that of an equal one: a layer that is used twice, or in both modes alike."""
    stem = "fused_" + chain.conv.name.replace(".", "_")
    name, number = stem, 2
    while name in modules or (name in calls and not calls[name].equals(call)):
        name, number = f"{stem}_{number}", number + 1
    return name

"""Which activation of the fused ops a call in a captured graph is, by the spellings in the activations' own files."""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from tidepool.kernels.activations import FORMULAS, Activation, Formula

_PRELU = (F.prelu, torch.prelu)
_HARDTANH = (F.hardtanh, F.hardtanh_)


def activation_of(node: fx.Node) -> tuple[Activation | None, fx.Node | None, str]:
    """The activation that a call is, its learned slope if it has one, and why it cannot be fused, or empty."""
    if node.op == "call_function" and node.target in _PRELU:
        slope = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
        return None, slope if isinstance(slope, fx.Node) else None, "" if slope is not None else "it has no slope"
    if node.op == "call_function" and node.target in _HARDTANH:
        given = dict(zip(("input", "min_val", "max_val"), node.args, strict=False)) | dict(node.kwargs)
        limits = given.get("min_val", -1.0), given.get("max_val", 1.0)
        return (Activation("relu6"), None, "") if limits == (0, 6) else (None, None, f"hardtanh of limits {limits}")
    for formula in FORMULAS.values():
        spelling = formula.spelling
        known = spelling.methods if node.op == "call_method" else spelling.functions
        if node.target not in known or not _fits(spelling.settings, _settings(formula, node)):
            continue
        parameter: Any = None
        if formula.parameter is not None:
            name = formula.parameter.name
            parameter = node.args[1] if len(node.args) > 1 else node.kwargs.get(name)
            if not isinstance(parameter, int | float | None):
                return None, None, f"its {name} depends on the input"
            parameter = None if parameter is None else float(parameter)
        return Activation(formula.name, parameter), None, ""
    return None, None, ""


def _fits(settings: dict[str, Any], given: dict[str, Any]) -> bool:
    return all(given.get(name) == value for name, value in settings.items())


def _settings(formula: Formula, node: fx.Node) -> dict[str, Any]:
    """What a call says of the formula's settings, PyTorch's defaults (the module's) filled in."""
    defaults = {
        name: inspect.signature(known).parameters[name].default
        for known in formula.spelling.modules
        for name in formula.spelling.settings
    }
    return defaults | dict(node.kwargs)

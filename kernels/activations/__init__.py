"""The activations of the fused ops, a file each; every module of this folder that holds a `FORMULA` is one."""

import pkgutil
from importlib import import_module

from tidepool.kernels.activations.record import (
    FORMULAS,
    Activation,
    Formula,
    NamedActivation,
    activation_from_text,
    as_activation,
)

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    _formula = getattr(import_module(_module.name), "FORMULA", None)
    if _formula is not None:
        FORMULAS[_formula.name] = _formula

NO_ACTIVATION = Activation("none")

__all__ = [
    "FORMULAS",
    "NO_ACTIVATION",
    "Activation",
    "Formula",
    "NamedActivation",
    "activation_from_text",
    "as_activation",
]

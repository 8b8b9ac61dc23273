"""Networks built on the fused op. They take the op through `models.layers` and never ask which backend runs it."""

from models import convnet, lenet5, mlp  # noqa: F401  importing a family registers it
from models.registry import available_models, build_model, register

__all__ = ["available_models", "build_model", "register"]

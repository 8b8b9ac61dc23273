"""Networks built on the fused ops. They take the ops through `models.layers` and never ask which backend runs them."""

from models import audio, c3d, convnet, lenet5, mlp, vggish  # noqa: F401  importing a family registers it
from models.registry import available_models, build_model, input_kind, model_options, register

__all__ = ["available_models", "build_model", "input_kind", "model_options", "register"]

"""Networks built on the fused ops, which they take through `models.layers` and never ask which backend runs them."""

from tidepool.models import families  # noqa: F401  registers the networks
from tidepool.models.checkpoint import CheckpointError, fit_checkpoint, load_checkpoint, read_weights
from tidepool.models.fusion.fuse import fuse
from tidepool.models.fusion.report import FusedLayer, FuseReport, SkippedLayer
from tidepool.models.fusion.verify import FusedResultError
from tidepool.models.registry import (
    ModelInputs,
    available_models,
    build_model,
    input_kind,
    model_builder,
    model_options,
    register,
    usual_input,
)
from tidepool.models.synchronised import synchronise_norms

__all__ = [
    "CheckpointError",
    "FuseReport",
    "FusedLayer",
    "FusedResultError",
    "ModelInputs",
    "SkippedLayer",
    "available_models",
    "build_model",
    "fit_checkpoint",
    "fuse",
    "input_kind",
    "load_checkpoint",
    "model_builder",
    "model_options",
    "read_weights",
    "register",
    "synchronise_norms",
    "usual_input",
]

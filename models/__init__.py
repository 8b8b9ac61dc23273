"""Networks built on the fused ops. They take the ops through `models.layers` and never ask which backend runs them."""

from models import (  # noqa: F401  importing a family registers it
    alexnet,
    audio,
    c3d,
    cifar_resnet,
    convnet,
    efficientnet,
    lenet5,
    mlp,
    resnet,
    searchable,
    speednet,
    vgg,
    vggish,
)
from models.checkpoint import CheckpointError, load_checkpoint
from models.fuse import fuse
from models.fusion_report import FusedLayer, FuseReport, SkippedLayer
from models.registry import available_models, build_model, input_kind, model_options, register

__all__ = [
    "CheckpointError",
    "FuseReport",
    "FusedLayer",
    "SkippedLayer",
    "available_models",
    "build_model",
    "fuse",
    "input_kind",
    "load_checkpoint",
    "model_options",
    "register",
]

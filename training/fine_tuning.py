"""Starting from the weights of a checkpoint: train.py's own, torchvision's, or safetensors."""

from pathlib import Path

from torch import nn

from tidepool.models import CheckpointError, fit_checkpoint, read_weights
from tidepool.training.config import Config, ConfigError


def start_from(model: nn.Module, path: Path, config: Config) -> str:
    """Fill `model` in place from the file; returns a line that says so, and what starts afresh: the classifier, where
    the file's has another number of classes.

    Raises:
        ConfigError: the file cannot be read, or does not fit otherwise.
    """
    try:
        state, own = read_weights(path), model.state_dict()
        head = classifier(model)
        afresh = [name for name in own if name in state and name in head and state[name].shape[0] != own[name].shape[0]]
        state = {name: own[name] if name in afresh else value for name, value in state.items()}
        fit_checkpoint(model, state, path)
    except CheckpointError as error:
        raise ConfigError(f"init_from: {error}") from error
    if not afresh:
        return f"{config.model} starts from the weights in {path}"
    return f"{config.model} starts from the weights in {path}, but for its classifier ({', '.join(afresh)}), drawn anew"


def classifier(model: nn.Module) -> list[str]:
    """The names of the last layer's weight and bias."""
    weights = [name for name, parameter in model.named_parameters() if parameter.dim() >= 2]
    if not weights:
        return []
    prefix = weights[-1].rpartition(".")[0]
    return [name for name, _ in model.named_parameters() if name.rpartition(".")[0] == prefix]

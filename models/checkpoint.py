"""Parameters from a file: torchvision's checkpoints, safetensors, and state dicts saved by `torch.save`.

Nothing in a file is ever executed: safetensors holds tensors alone, and other files are read with `weights_only=True`.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

WRAPPERS = ("state_dict", "model")
"""Names under which training programs save a state dict along with other things."""
LISTED = 3
"""Names of parameters that a message lists before it says how many more there are."""


class CheckpointError(ValueError):
    """One line: the file, what is wrong with it, and what was expected."""


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Fill every parameter and buffer of `model` in place from a file; all of it fits, or nothing is changed.

    `path` is a `.safetensors` file, or one that `torch.save` wrote: a state dict, or a dict that has one under
    "state_dict" or "model". Values are cast to the model's dtypes and copied to its devices. Norms' counts of batches
    may be missing altogether, as in checkpoints from before PyTorch had them.

    Raises:
        CheckpointError: no such file, not one of these formats, or names and shapes other than the model's.
    """
    path = Path(path)
    fit_checkpoint(model, read_weights(path), path)


def fit_checkpoint(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """As `load_checkpoint`, of a state dict that was read from `path`."""
    expected = model.state_dict()
    counts = {name for name in expected if name.endswith(".num_batches_tracked")}
    missing = [name for name in expected if name not in state and name not in counts]
    if counts & state.keys():
        missing += [name for name in counts if name not in state]
    unexpected = [name for name in state if name not in expected]
    reshaped = [
        f"{name} {tuple(state[name].shape)} where {tuple(tensor.shape)} was expected"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    complaints = [
        f"{what}: {_listed(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    ]
    if complaints:
        raise CheckpointError(f"{path} does not fit the {type(model).__name__}: {'; '.join(complaints)}")
    model.load_state_dict({name: expected[name] for name in counts} | state)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of `load_checkpoint`'s formats. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a checkpoint (.safetensors, or saved by torch.save)")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path}: not a whole safetensors file: {_one_line(error)}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path}: not a checkpoint that torch.load(weights_only=True) reads: {_one_line(error)}"
        ) from error
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise CheckpointError(f"{path}: holds no state dict; expected a dict of tensors by parameter name")
    return dict(content)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _one_line(error: Exception) -> str:
    first = str(error).strip().splitlines()
    return first[0] if first else type(error).__name__

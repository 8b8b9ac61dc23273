"""Checkpoints: both formats fill every tensor; what does not fit is refused in one line, and changes nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tidepool.models import CheckpointError, build_model, load_checkpoint


def _network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = build_model("resnet18", num_classes=4, width=2, backend="cudnn")
    network.get_submodule("bn1").num_batches_tracked.fill_(seed)
    return network


def _save(state: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.pth"])
def test_both_formats_fill_every_tensor(file: str, tmp_path: Path) -> None:
    saved, loaded = _network(seed=5), _network()
    load_checkpoint(loaded, _save(saved.state_dict(), tmp_path / file))
    for (name, theirs), ours in zip(saved.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_state_dict_is_found_beside_other_things(wrapper: str, tmp_path: Path) -> None:
    saved, loaded = _network(seed=5), _network()
    load_checkpoint(loaded, _save({"epoch": 3, wrapper: saved.state_dict()}, tmp_path / "last.pt"))
    assert torch.equal(loaded.get_parameter("fc.weight"), saved.get_parameter("fc.weight"))


def test_counts_of_batches_may_be_missing_altogether(tmp_path: Path) -> None:
    saved, loaded = _network(seed=5), _network(seed=7)
    state = {name: tensor for name, tensor in saved.state_dict().items() if "num_batches_tracked" not in name}
    load_checkpoint(loaded, _save(state, tmp_path / "old.pth"))
    assert torch.equal(loaded.get_parameter("fc.weight"), saved.get_parameter("fc.weight"))
    assert loaded.get_buffer("bn1.num_batches_tracked") == 7


def test_values_are_cast_to_the_models_dtype(tmp_path: Path) -> None:
    saved, loaded = _network(seed=5), _network()
    halves = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in saved.state_dict().items()
    }
    load_checkpoint(loaded, _save(halves, tmp_path / "half.safetensors"))
    weight = loaded.get_parameter("fc.weight")
    assert weight.dtype == torch.float32
    assert torch.equal(weight, saved.get_parameter("fc.weight").half().float())


def _without_a_weight(state: dict[str, torch.Tensor]) -> None:
    del state["fc.bias"]


def _with_another(state: dict[str, torch.Tensor]) -> None:
    for number in range(5):
        state[f"aux.{number}"] = torch.zeros(1)


def _of_another_shape(state: dict[str, torch.Tensor]) -> None:
    state["fc.weight"] = torch.zeros(1000, 16)


def _without_a_count(state: dict[str, torch.Tensor]) -> None:
    del state["bn1.num_batches_tracked"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_without_a_weight, "missing: fc.bias"),
        (_with_another, "unexpected: aux.0, aux.1, aux.2 and 2 more"),
        (_of_another_shape, "of another shape: fc.weight (1000, 16) where (4, 16) was expected"),
        (_without_a_count, "missing: bn1.num_batches_tracked"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(change: Any, complaint: str, tmp_path: Path) -> None:
    network = _network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = dict(_network(seed=5).state_dict())
    change(state)
    path = _save(state, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(network, path)
    assert str(caught.value) == f"{path} does not fit the ResNet: {complaint}"
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class _Shell:
    """Something that only arbitrary code could bring back."""


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("cut.safetensors", b"\x10\x00", "not a whole safetensors file"),
        ("empty.pth", b"", "not a checkpoint that torch.load(weights_only=True) reads"),
        ("noise.pth", b"no pickle", "not a checkpoint that torch.load(weights_only=True) reads"),
        ("absent.pth", None, "no such file"),
        ("list.pth", [1, 2], "holds no state dict"),
        ("code.pth", {"fc.weight": _Shell()}, "not a checkpoint that torch.load(weights_only=True) reads"),
    ],
)
def test_other_files_are_refused_in_one_line(file: str, content: Any, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / file
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"^[^\n]+$") as caught:
        load_checkpoint(_network(), path)
    assert str(caught.value).startswith(f"{path}: {complaint}")

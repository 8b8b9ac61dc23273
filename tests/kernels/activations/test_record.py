"""The record: what callers may write, its text, and that Triton's cache keys change with a device function's source."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch

import tidepool
from tests.kernels.activations.listed import ACTIVATIONS, every_activation
from tests.kernels.shapes import NAMED, built
from tidepool.kernels import AvgPool, MaxPool, conv_act_pool, conv_relu_pool
from tidepool.kernels.activations import FORMULAS, Activation, activation_from_text, as_activation
from tidepool.kernels.activations.record import source_key
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.settings import layer_from_text
from tidepool.kernels.operators.call import layer_call
from tidepool.kernels.runtime.errors import ArgumentError

NAMES = {
    "relu", "silu", "gelu", "gelu_tanh", "leaky_relu", "relu6", "hardswish", "hardsigmoid", "elu", "sigmoid", "tanh",
    "mish", "prelu",
}  # fmt: skip


def test_every_file_of_the_folder_is_found() -> None:
    assert set(FORMULAS) == {*NAMES, "none"}


@every_activation
def test_text_is_one_word_and_reads_back(activation: Activation) -> None:
    assert len(activation.text.split()) == 1
    assert activation_from_text(activation.text) == activation
    layer = parse_layer((3, 3), 1, 1, 1, 1, activation, MaxPool(2))
    assert layer_from_text(layer.text()) == layer
    assert layer.activation == activation


def test_what_callers_write() -> None:
    assert as_activation(None) == Activation("none")
    assert as_activation("leaky_relu") == Activation("leaky_relu", 0.01)
    assert Activation("elu", 1) == Activation("elu") == Activation("elu", 1.0)
    assert Activation("leaky_relu", 0.1) != Activation("leaky_relu", 0.2)
    assert tidepool.Activation is Activation
    with pytest.raises(dataclasses.FrozenInstanceError):
        Activation("relu").name = "silu"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("softplus",), "expected activation to be one of elu, gelu, .* or None, but got 'softplus'"),
        ((3,), "expected activation to be one of .*, but got 3"),
        (("relu", 0.1), "expected activation relu without a parameter, but got 0.1"),
        (("leaky_relu", "steep"), "expected negative_slope of activation leaky_relu to be a finite number, but got 's"),
        (("elu", float("nan")), "expected alpha of activation elu to be a finite number, but got nan"),
        (("elu", True), "expected alpha of activation elu to be a finite number, but got True"),
    ],
)
def test_refusals_name_what_was_expected(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Activation(*arguments)  # type: ignore[arg-type]


def test_conv_act_pool_wants_an_activation_and_conv_relu_pool_has_one() -> None:
    x, weight = torch.randn(1, 2, 6, 6), torch.randn(3, 2, 3, 3)
    with pytest.raises(TypeError, match="activation"):
        conv_act_pool(x, weight)  # type: ignore[call-arg]
    for backend in ("triton", "cudnn", "auto"):
        assert torch.equal(
            conv_relu_pool(x, weight, backend=backend), conv_act_pool(x, weight, activation="relu", backend=backend)
        )


@every_activation
def test_what_is_saved(activation: Activation) -> None:
    """Two slopes: a byte an output, or under an average a bit; else the winner's z, and under an average nothing."""
    x, weight = torch.empty(2, 3, 9, 9), torch.empty(8, 3, 2, 2)

    def saved(pool: MaxPool | AvgPool | None) -> tuple[torch.dtype | None, torch.dtype | None]:
        call = layer_call(x, weight, parse_layer((2, 2), 1, 0, 1, 1, activation, pool))
        return call.code and call.code.dtype, call.winner and call.winner.dtype

    winner = torch.float32 if activation.needs_value else None
    assert saved(None) == (torch.uint8 if activation.needs_side else None, winner)
    assert saved(MaxPool(2)) == (torch.uint8, winner)
    assert saved(AvgPool(2)) == (torch.uint8 if activation.needs_side else None, None)


def test_records_of_other_source_have_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton hashes what a kernel calls by name; a function reached through the geometry counts through its repr."""
    geometry, _ = built(NAMED["no_pool"])
    before = repr(geometry)

    def relu(z, A):  # type: ignore[no-untyped-def]
        return z * (z > 0)

    monkeypatch.setitem(FORMULAS, "relu", dataclasses.replace(FORMULAS["relu"], forward=relu))
    assert repr(geometry) != before
    monkeypatch.undo()
    assert repr(geometry) == before
    assert not {"'", '"', " "} & set(before)


_MODULE = """
import triton.language as tl

from tidepool.kernels.runtime.interpreting import device_function


@device_function
def helper(z):
    return z * {factor}


@device_function
def forward(z, A: tl.constexpr):
    return helper(z)
"""


def test_the_key_covers_what_a_device_function_calls(tmp_path: Path) -> None:
    keys = []
    for factor in (2, 3, 2):
        file = tmp_path / f"copy{len(keys)}" / "made_up.py"
        file.parent.mkdir()
        file.write_text(_MODULE.format(factor=factor))
        spec = importlib.util.spec_from_file_location("made_up", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        keys.append(source_key(module.forward))
    assert keys[0] == keys[2] != keys[1]


def test_every_record_has_a_key_of_its_own() -> None:
    assert len({activation.key for activation in ACTIVATIONS}) == len(ACTIVATIONS)

"""Names, options and sizes: what is accepted, and one line for what is not."""

import re
from typing import Any

import pytest
import torch

from tidepool.models import available_models, build_model, input_kind, model_options, register


def _refusal(name: str = "convnet", **arguments: Any) -> str:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        build_model(name, **{"num_classes": 10, "image_size": 32, **arguments})
    return str(caught.value)


def test_the_families_are_listed_in_order() -> None:
    assert {"mlp", "lenet5", "convnet"} <= set(available_models())
    assert list(available_models()) == sorted(available_models())


def test_an_unknown_name_lists_what_exists() -> None:
    assert _refusal("lenet6") == f"unknown model 'lenet6'; expected one of: {', '.join(available_models())}"


def test_an_unknown_backend_lists_what_exists() -> None:
    for name in available_models():
        assert _refusal(name, backend="cuda") == "unknown backend 'cuda'; expected one of: auto, triton, cudnn, compile"


def test_an_unknown_option_lists_what_the_model_has() -> None:
    assert _refusal("convnet", widht=3) == "model 'convnet' has no option 'widht'; it has: width, depth"
    assert _refusal("lenet5", width=3) == "model 'lenet5' has no option 'width'; it has: none"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes=0; expected a whole number of at least 1"),
        ({"num_classes": 2.0}, "num_classes=2.0; expected a whole number of at least 1"),
        ({"num_classes": True}, "num_classes=True; expected a whole number of at least 1"),
        ({"in_channels": 0}, "in_channels=0; expected a whole number of at least 1"),
        ({"image_size": 0}, "image_size height=0; expected a whole number of at least 1"),
        ({"image_size": (8, -1)}, "image_size width=-1; expected a whole number of at least 1"),
        ({"image_size": (8, 8, 8)}, "image_size=(8, 8, 8); expected one number or (height, width)"),
        ({"image_size": "8"}, "image_size='8'; expected one number or (height, width)"),
        ({"width": 0}, "width=0; expected a whole number of at least 1"),
        ({"depth": 1.5}, "depth=1.5; expected a whole number of at least 1"),
    ],
)
def test_values_out_of_range(arguments: dict[str, Any], message: str) -> None:
    assert _refusal(**arguments) == message


@pytest.mark.parametrize(
    ("name", "kind"), [("lenet5", "image"), ("vggish", "image"), ("conv1d_audio", "waveform"), ("c3d", "video")]
)
def test_what_a_network_takes(name: str, kind: str) -> None:
    assert input_kind(name) == kind


def test_kind_and_options_of_an_unknown_name_are_refused() -> None:
    for function in (input_kind, model_options):
        with pytest.raises(ValueError, match=r"^unknown model 'lenet6'; expected one of: alexnet, "):
            function("lenet6")


def test_options_are_listed_with_their_defaults() -> None:
    assert model_options("searchable") == {"depth": 2, "width": 32, "kernel_size": 3, "skips": True}
    assert model_options("lenet5") == {}


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("c3d", (8, 8), "image_size=(8, 8); expected one number or (frames, height, width)"),
        ("c3d", (0, 8, 8), "image_size frames=0; expected a whole number of at least 1"),
        ("conv1d_audio", (8, 8), "image_size=(8, 8); expected one number or (samples,)"),
        ("conv1d_audio", 0, "image_size samples=0; expected a whole number of at least 1"),
    ],
)
def test_sizes_have_a_number_for_each_dimension(name: str, size: Any, message: str) -> None:
    assert _refusal(name, image_size=size) == message


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("searchable", {"kernel_size": 4}, "kernel_size=4; expected an odd number, so that sizes stay the same"),
        ("searchable", {"skips": 1}, "skips=1; expected True or False"),
        ("vgg11", {"dropout": 1.0}, "dropout=1.0; expected a number from 0 to below 1"),
        ("efficientnet_b0", {"width": 0}, "width=0; expected a finite number above 0"),
        ("efficientnet_b0", {"stochastic_depth": True}, "stochastic_depth=True; expected a number from 0 to below 1"),
        ("resnet18", {"depth": 0}, "depth=0; expected a whole number of at least 1"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, Any], message: str) -> None:
    assert _refusal(name, **options) == message


@pytest.mark.parametrize("hidden", [64, "64", None])
def test_hidden_must_be_a_sequence(hidden: Any) -> None:
    assert _refusal("mlp", hidden=hidden).startswith(f"hidden={hidden!r}; expected a sequence of layer sizes")


@pytest.mark.parametrize("name", ["mlp", "lenet5", "vggish", "c3d"])
def test_networks_whose_weights_depend_on_the_size_say_so(name: str) -> None:
    assert _refusal(name, image_size=None).startswith(f"model '{name}' needs image_size")


SMALLEST: dict[str, tuple[int, dict[str, Any]]] = {
    "lenet5": (4, {}),
    "convnet": (8, {}),
    "searchable": (8, {}),
    "speednet": (9, {}),
    "vgg16": (32, {"width": 2, "hidden": 4}),
    "vgg11_bn": (32, {"width": 2, "hidden": 4}),
    "alexnet": (63, {"width": 2, "hidden": 4}),
}


@pytest.mark.parametrize("name", SMALLEST)
def test_too_small_images_are_told_the_smallest_size(name: str) -> None:
    smallest, options = SMALLEST[name]
    message = _refusal(name, image_size=(smallest - 1, 80))
    expected = (
        f"model '{name}' cannot take {smallest - 1}x80 images; the smallest size it takes is {smallest}x{smallest}"
    )
    assert message == expected
    model = build_model(name, num_classes=3, image_size=smallest, backend="cudnn", **options).eval()
    assert model(torch.zeros(1, 3, smallest, smallest)).shape == (1, 3)


def test_too_short_waveforms_are_told_the_shortest() -> None:
    message = _refusal("conv1d_audio", image_size=1019)
    assert message == "model 'conv1d_audio' cannot take 1019 waveforms; the smallest size it takes is 1020"


def test_one_number_is_a_square() -> None:
    by_number = build_model("lenet5", num_classes=10, image_size=20)
    by_pair = build_model("lenet5", num_classes=10, image_size=(20, 20))
    assert [p.shape for p in by_number.parameters()] == [p.shape for p in by_pair.parameters()]


def test_a_name_cannot_be_registered_twice() -> None:
    with pytest.raises(ValueError, match=re.escape("model 'mlp' is registered twice")):
        register("mlp")(torch.nn.Identity)

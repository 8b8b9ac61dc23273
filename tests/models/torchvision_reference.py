"""What torchvision's networks are called, shaped and worth at made-up parameters, recorded where it is installed.

`python -m tests.models.torchvision_reference` writes `torchvision_reference.json` beside this file:

    names      parameters and buffers of the smaller networks, with their shapes, in order
    digests    SHA-256 of the same text for all of them
    values     results in float64 at parameters and a picture that `fill` and `picture` make from whole numbers alone
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

REFERENCE = Path(__file__).with_suffix(".json")
NETWORKS = (
    "alexnet",
    *(f"vgg{layers}{norm}" for layers in (11, 13, 16, 19) for norm in ("", "_bn")),
    *(f"resnet{layers}" for layers in (18, 34, 50, 101)),
    *(f"efficientnet_b{number}" for number in range(8)),
)
LISTED = ("alexnet", "vgg11_bn", "resnet18", "resnet50", "efficientnet_b0")
VALUED = {
    "alexnet": 70,
    "vgg11": 40,
    "vgg11_bn": 40,
    "resnet18": 40,
    "resnet50": 33,
    "efficientnet_b0": 40,
    "efficientnet_b5": 9,
}
"""Height of the picture each network's result is recorded for; it is 10 pixels wider."""
KEPT = 16
"""Numbers of a result that are recorded, evenly spread."""


def names_and_shapes(network: nn.Module) -> list[str]:
    """One line, name and shape, for each entry of the state dict."""
    return [f"{name} {'x'.join(map(str, tensor.shape))}" for name, tensor in network.state_dict().items()]


def digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def made_up(number: int, size: torch.Size) -> Tensor:
    """Values between -1 and 1 that look drawn at random and come from whole-number arithmetic, in float64."""
    position = torch.arange(size.numel(), dtype=torch.int64)
    mixed = (position * 2_654_435_761 + number * 40_503) % 4_294_967_296
    mixed = ((mixed >> 15) ^ mixed) * 2_246_822_519 % 4_294_967_296
    return (((mixed >> 13) ^ mixed) % 20_011).double().reshape(size) / 10_005 - 1


def fill(module: nn.Module) -> None:
    """Parameters and statistics of the size they have in a trained network, in place."""
    with torch.no_grad():
        for number, (name, tensor) in enumerate(module.state_dict().items()):
            if not tensor.is_floating_point():
                continue
            values = made_up(number, tensor.shape)
            if tensor.dim() > 1:
                values *= (6 / tensor[0].numel()) ** 0.5  # uniform, of variance 2 / fan-in
            elif name.endswith(("running_var", "weight")):
                values = 1 + values / 2
            else:
                values /= 10
            tensor.copy_(values)


def picture(height: int) -> Tensor:
    return made_up(1, torch.Size((2, 3, height, height + 10)))


def result(network: nn.Module, name: str) -> Tensor:
    """`KEPT` of the numbers that come of the filled network in evaluation mode and float64.

    AlexNet's and VGG's come from before the classifier, whose 50 to 120 million weights are left unmade: `network` is
    on the meta device.
    """
    network = network.eval()
    x = picture(VALUED[name])
    with torch.no_grad():
        if name.startswith(("alexnet", "vgg")):
            features = network.get_submodule("features").to_empty(device="cpu").double()
            fill(features)
            y = network.get_submodule("avgpool")(features(x))
        else:
            network = network.to_empty(device="cpu").double()
            fill(network)
            y = network(x)
    y = y.flatten()
    return y[torch.arange(KEPT) * len(y) // KEPT]


def record() -> None:
    """Write REFERENCE from the torchvision that is installed."""
    import torchvision

    names, digests, values = {}, {}, {}
    for name in NETWORKS:
        with torch.device("meta"):
            network = getattr(torchvision.models, name)()
        lines = names_and_shapes(network)
        digests[name] = digest(lines)
        if name in LISTED:
            names[name] = lines
        if name in VALUED:
            with torch.device("meta"):
                network = getattr(torchvision.models, name)(num_classes=10)
            values[name] = result(network, name).tolist()
    content = {"torchvision": torchvision.__version__, "digests": digests, "values": values, "names": names}
    REFERENCE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()

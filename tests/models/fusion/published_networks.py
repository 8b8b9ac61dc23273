"""timm's and torchvision's networks, fused: how many chains each has, how many are fused, and whether results stay.

    python -m tests.models.fusion.published_networks --out results/fused_networks    # needs timm and torchvision

Each network is trained for two steps and evaluated, plain and with `fuse(backend="cudnn")`, whose parts are PyTorch's
own: outputs, gradients, parameters and buffers have to be equal to the bit. What `fuse(backend="triton")` would carry
is counted with launches left out, in a training step. Rows reach the disk as they come, and a network that has one is
not tried again.
"""

import copy
import gc
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from tidepool.kernels.runtime.launch import replace_launcher
from tidepool.models import FuseReport, fuse
from tidepool.program import run_process
from tidepool.records import OneLineParser, Table

TIMM = (
    "resnet18", "resnet50", "resnet50d", "seresnet18", "resnext26ts", "gcresnet50t", "resnetv2_50", "wide_resnet50_2",
    "res2net50_26w_4s", "resnest14d", "skresnet18", "ecaresnet26t", "botnet26t_256", "halonet26t", "lambda_resnet26t",
    "densenet121", "dla34", "dpn48b", "vgg11", "vgg11_bn", "inception_v3", "xception41", "selecsls42",
    "hrnet_w18_small", "darknet53", "cspresnet50", "cspdarknet53", "vovnet39a", "ese_vovnet19b_dw", "hardcorenas_a",
    "rexnet_100", "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv4_conv_small", "mnasnet_100", "fbnetc_100",
    "efficientnet_b0", "efficientnetv2_rw_t", "efficientnet_lite0", "mixnet_s", "tinynet_a", "ghostnet_100",
    "lcnet_050", "regnetx_002", "regnety_002", "nf_resnet26", "dm_nfnet_f0", "repvgg_a0", "mobileone_s0",
    "convnext_atto", "convmixer_768_32", "edgenext_xx_small", "fastvit_t8", "starnet_s1", "repghostnet_100",
    "focalnet_tiny_srf", "poolformer_s12", "levit_128s",
)  # fmt: skip
TORCHVISION = (
    "alexnet", "vgg11", "vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121",
    "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5", "efficientnet_b0",
    "efficientnet_v2_s", "regnet_y_400mf", "convnext_tiny", "googlenet", "inception_v3", "swin_t",
)  # fmt: skip
SIZES = (64, 96, 128, 224, 299)
"""Image sizes that are tried, in this order: a network's smallest is taken."""
BATCH = 2
FOLLOWED_BY = re.compile(
    r"batch_norm|relu|silu|gelu|hardswish|hardsigmoid|hardtanh|leaky_relu|elu|sigmoid|tanh|mish|prelu|max_pool|avg_pool"
)
"""What a convolution and it alone can be one op with."""


@dataclass(frozen=True)
class Found:
    """One network's row. Convolutions are those of a training step; `chains`: followed by a norm, activation or pool,
    which nothing else reads; `fused` and `fused_steps`: chains that became one op, and the layers they hold; `carried`:
    convolutions that this project's kernels carry under "triton"."""

    library: str
    version: str
    network: str
    image_size: int
    convolutions: int
    chains: int
    fused: int
    fused_steps: int
    carried: int
    left: str
    graphs: int
    plain_calls: int
    equal: str
    capture_s: float
    torch: str
    date: str


COLUMNS = ("schema_version", *(field.name for field in fields(Found)))


def import_torchvision() -> Any:
    """torchvision, whose wheel needs a PyTorch built for CUDA: without one its operators have names and nothing else,
    which its networks do not call. Raises ImportError where it is not installed."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # type: ignore[import-not-found]

    return torchvision, library


def build(library: str, name: str) -> nn.Module:
    """A network with random weights and without dropout or stochastic depth."""
    torch.manual_seed(0)
    torchvision, _ = import_torchvision()
    if library == "timm":
        import timm  # type: ignore[import-not-found]

        return timm.create_model(name, pretrained=False, num_classes=10)
    return torchvision.models.get_model(name, weights=None, num_classes=10)


def outcome(network: nn.Module, size: int) -> dict[str, Tensor]:
    """What two training steps and an evaluation leave behind."""
    found: dict[str, Tensor] = {}
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for step in range(3):
        network.train(step < 2)
        torch.manual_seed(step)
        x = torch.randn(BATCH, 3, size, size)
        y = network(x)
        outputs = [y] if isinstance(y, Tensor) else [one for one in y if one is not None]
        found |= {f"output {place} of step {step}": one.detach() for place, one in enumerate(outputs)}
        if step < 2:
            optimizer.zero_grad()
            torch.stack([one.square().mean() for one in outputs]).sum().backward()
            optimizer.step()
            found |= {
                f"gradient of {n} {step}": p.grad.clone() for n, p in network.named_parameters() if p.grad is not None
            }
    return found | {name: tensor.clone() for name, tensor in network.state_dict().items()}


def smallest_size(network: nn.Module) -> int:
    """The smallest of SIZES that the network takes. Raises RuntimeError."""
    for size in SIZES:
        try:
            outcome(copy.deepcopy(network), size)
        except (RuntimeError, AssertionError, ValueError):
            continue
        return size
    raise RuntimeError(f"takes images of none of {SIZES}")


def chains_of(network: nn.Module, size: int) -> tuple[int, int]:
    """Convolutions of a training step, and those that have a chain, counted in PyTorch's own graph."""
    convolutions = chains = 0

    def count(module: fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        nonlocal convolutions, chains
        for node in module.graph.nodes:
            if node.target in (torch.conv1d, torch.conv2d, torch.conv3d):
                convolutions += 1
                (reader, *others) = node.users
                name = getattr(reader.target, "__name__", str(reader.target))
                chains += not others and bool(FOLLOWED_BY.search(name))
        return module.forward

    torch._dynamo.reset()
    torch.compile(copy.deepcopy(network).train(), backend=count)(torch.randn(BATCH, 3, size, size))
    return convolutions, chains


def carried_by_kernels(network: nn.Module, size: int) -> FuseReport:
    """The report of a training step's forward under "triton", nothing of ours launched."""
    torch._dynamo.reset()
    fused, report = fuse(copy.deepcopy(network).train(), "triton")
    replace_launcher(lambda *_, **__: None)
    try:
        with torch.no_grad():
            fused(torch.randn(BATCH, 3, size, size))
    finally:
        replace_launcher(None)
    return report


def try_network(library: str, name: str) -> Found:
    """Everything of one network. Raises what it raises, plain."""
    network = build(library, name)
    size = smallest_size(network)
    expected = outcome(copy.deepcopy(network), size)
    convolutions, chains = chains_of(network, size)
    torch._dynamo.reset()
    once, first = fuse(copy.deepcopy(network).train(), "cudnn")
    x = torch.randn(BATCH, 3, size, size)
    begun = time.perf_counter()
    with torch.no_grad():
        once(x)
    capture_s = time.perf_counter() - begun
    torch._dynamo.reset()
    fused, report = fuse(copy.deepcopy(network), "cudnn")
    found = outcome(fused, size)
    wrong = [key for key, tensor in expected.items() if key not in found or not torch.equal(found[key], tensor)]
    together = [layer for graph in first.graphs for layer in graph.fused]
    left = Counter(skipped.reason for graph in first.graphs for skipped in graph.skipped)
    carried = sum(len(graph.fused) for graph in carried_by_kernels(network, size).graphs)
    return Found(
        library=library,
        version=version(library),
        network=name,
        image_size=size,
        convolutions=convolutions,
        chains=chains,
        fused=len(together),
        fused_steps=sum(len(layer.steps) for layer in together),
        carried=carried,
        left="; ".join(f"{count} {reason}" for reason, count in left.most_common(3)),
        graphs=len(report.graphs),
        plain_calls=sum(report.plain_calls.values()),
        equal="to the bit" if not wrong else f"{len(wrong)} of {len(expected)} differ: {wrong[0]}",
        capture_s=round(capture_s, 2),
        torch=torch.__version__,
        date=datetime.now(UTC).date().isoformat(),
    )


def main(arguments: Sequence[str], *, prog: str = "python -m tests.models.fusion.published_networks") -> int:
    """Run the command; returns its exit status: 1 where a fused network differs."""
    parser = OneLineParser(prog=prog, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", default=[], metavar="NETWORK")
    options = parser.parse_args(arguments)
    table = Table(options.out / "networks.csv", COLUMNS)
    known = {(row["library"], row["network"]) for row in table.read()[0]}
    wanted = [("timm", name) for name in TIMM] + [("torchvision", name) for name in TORCHVISION]
    status = 0
    for library, name in wanted:
        if (library, name) in known or (options.only and name not in options.only):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = try_network(library, name)
            except Exception as error:  # of any kind: the network's, and the next one is tried
                print(f"{library} {name}: {type(error).__name__}: {str(error).splitlines()[0][:200]}", flush=True)
                status = 1
                continue
        table.append([asdict(found)])
        status = status or int(found.equal != "to the bit")
        print(f"{library} {name}: {found.fused} of {found.chains} chains, {found.equal}; {found.left}", flush=True)
        gc.collect()
    return status


if __name__ == "__main__":
    run_process(main, sys.argv[1:], prog="python -m tests.models.fusion.published_networks")

"""`fuse` on whole networks of others: the same object, the same results and state, and a report of it."""

import copy
import io
import pickle
import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from tests.kernels.exact import DEVICE
from tests.models.foreign_networks import NETWORKS
from tests.models.fused_pairs import Net, assert_alike, pair, small_conv
from tests.models.fusion.programs import Block, Embedding
from tidepool.kernels.runtime.errors import ArgumentError
from tidepool.models import FusedResultError, FuseReport, build_model, fuse

NOTHING = "nothing captured yet: call the network, or give fuse an example"


@pytest.mark.parametrize("name", NETWORKS)
def test_the_fused_network_is_the_network(name: str) -> None:
    build, size, count = NETWORKS[name]
    plain, fused, report = pair(build)
    assert str(report) == NOTHING
    assert_alike(plain, fused, *size)
    assert len(report.fused) == count, str(report)
    assert not report.plain_calls


@pytest.mark.parametrize("name", ["lenet", "resnet", "efficientnet"])
def test_on_this_projects_kernels_the_fused_network_is_the_network(name: str) -> None:
    build, size, _ = NETWORKS[name]
    plain, fused, _ = pair(build, backend="triton")
    assert_alike(plain.to(DEVICE), fused.to(DEVICE), *size, steps=1, exact=False)


def test_the_same_object_comes_back_with_its_class_state_and_methods() -> None:
    network = Embedding()
    before, names = set(vars(network)), list(network.state_dict())
    fused, _ = fuse(network, "cudnn")
    assert fused is network
    assert type(fused) is Embedding
    assert set(vars(network)) - before == {"_compiled_call_impl"}
    x = torch.randn(2, 3, 8, 8)
    fused(x)
    assert list(fused.state_dict()) == names
    Embedding().load_state_dict(fused.state_dict(), strict=True)
    assert torch.equal(fused.eval().embed(x), fused.body(x).mean((2, 3)))


ROOTS: dict[str, Any] = {
    "sequential": lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2)),
    "conv": lambda: nn.Conv2d(3, 6, 3, padding=1),
    "subclass of Sequential": lambda: type("Mine", (nn.Sequential,), {})(nn.Conv2d(3, 6, 3), nn.ReLU()),
    "subclass of Conv2d": lambda: type("Mine", (nn.Conv2d,), {})(3, 6, 3),
    "residual": NETWORKS["resnet"][0],
}


PYTORCHS = ("conv", "pool", "batch_norm", "mkldnn")


@pytest.mark.parametrize("name", ROOTS)
def test_on_triton_no_convolution_pool_or_norm_of_pytorchs_is_called(name: str) -> None:
    fused, report = fuse(ROOTS[name]().to(DEVICE), "triton")
    x = torch.randn(2, 3, 8, 8, device=DEVICE)
    fused(x).square().sum().backward()
    with torch.profiler.profile() as profile:
        fused(x).square().sum().backward()
    called = {event.key for event in profile.key_averages() if event.key.startswith(("aten::", "autograd::"))}
    assert called
    assert not [key for key in called if any(word in key for word in PYTORCHS)]
    assert report.fused
    assert not report.skipped, str(report)


def test_copies_and_pickles_are_the_plain_network() -> None:
    plain, fused, report = pair(NETWORKS["resnet"][0])
    x = torch.randn(2, 3, 8, 8)
    y = fused.eval()(x)
    calls = report.fused_calls
    twins = [copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))]
    file = io.BytesIO()
    torch.save(fused, file)
    file.seek(0)
    twins.append(torch.load(file, weights_only=False))
    for twin in twins:
        assert twin._compiled_call_impl is None
        assert type(twin) is type(plain)
        assert torch.equal(twin(x), y)
    for parameter in fused.parameters():
        nn.init.zeros_(parameter)
    assert twins[0](x).abs().max() > 0
    assert report.fused_calls == calls


def test_averaged_copies_are_updated_as_ever() -> None:
    found = []
    for fusing in (False, True):
        torch.manual_seed(0)
        network = Block()
        if fusing:
            fuse(network, "cudnn")
        average = torch.optim.swa_utils.AveragedModel(network)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        data = [torch.randn(3, 3, 8, 8) for _ in range(3)]
        for x in data:
            network(x).square().mean().backward()
            optimizer.step()
            average.update_parameters(network)
        torch.optim.swa_utils.update_bn(data, average)
        found.append([*average.module.state_dict().values(), average.eval()(data[0])])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(small_conv(), nn.BatchNorm2d(3), nn.ReLU()) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x


def test_checkpointing_saves_as_little_as_plain() -> None:
    plain, fused, _ = pair(Deep)
    saved = []
    for network in (plain, fused):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            network(torch.randn(2, 3, 6, 7, requires_grad=True)).sum()
        saved.append(sum(sizes))
    assert saved[1] <= saved[0]


def test_checkpointed_blocks_are_fused_and_right() -> None:
    plain, fused, report = pair(Deep)
    assert_alike(plain, fused, 2, 3, 6, 7)
    assert len(report.fused) == 3


def test_a_call_under_a_mode_runs_plain_and_the_next_is_fused_again() -> None:
    fused, report = fuse(Block(), "cudnn")
    x = torch.randn(2, 3, 8, 8)
    for _ in range(2):
        report.plain_calls.clear()
        with FlopCounterMode(display=False) as counter, pytest.warns(UserWarning, match="TorchDispatchMode"):
            fused(x)
        assert counter.get_total_flops() == 2 * 2 * 64 * 9 * (3 * 6 + 6 * 6) + 2 * 2 * 6 * 4
        before = report.fused_calls
        fused(x)
        assert report.fused_calls == before + 1


def test_transforms_run_plain_and_are_right() -> None:
    plain, fused, report = pair(lambda: nn.Sequential(small_conv(), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 42, 1)))
    x = torch.randn(4, 3, 6, 7)

    def loss(network: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(network, parameters, x[None]).sum()

    found = []
    for network in (plain, fused):
        parameters = dict(network.named_parameters())
        grads = torch.func.vmap(torch.func.grad(lambda p, x, n=network: loss(n, p, x)), in_dims=(None, 0))
        found.append(grads(parameters, x))
    for name, gradient in found[0].items():
        assert torch.equal(found[1][name], gradient)
    assert report.plain_calls
    assert_alike(plain, fused, 2, 3, 6, 7)
    assert report.fused


def test_export_is_of_the_plain_network() -> None:
    fused, _ = fuse(Block().eval(), "triton")
    x = torch.randn(2, 3, 8, 8)
    program = torch.export.export(fused, (x,))
    assert "tidepool" not in str(program.graph)
    torch.testing.assert_close(program.module()(x), fused(x), rtol=1e-4, atol=1e-5)


@pytest.mark.full
def test_twenty_networks_of_one_class_are_all_fused() -> None:
    x = torch.randn(2, 3, 8, 8)
    for number in range(20):
        network = Block()
        network.bn.eps = 1e-5 * (1 + number)
        report = fuse(network, "cudnn")[1]
        network(x)
        assert len(report.fused) == 2, f"{number}: {report}"


@pytest.mark.full
def test_many_kinds_of_calls_are_all_fused() -> None:
    fused, report = fuse(Block(), "cudnn")
    for batch in (2, 3, 1, 5):
        for mode in (True, False):
            fused.train(mode)
            for grad in (True, False):
                with torch.set_grad_enabled(grad):
                    fused(torch.randn(batch, 3, 8, 8))
                    fused(torch.randn(batch, 3, 8, 8).to(memory_format=torch.channels_last))
    assert not report.plain_calls, str(report)


def test_a_wrong_call_is_told_so_by_pytorch() -> None:
    plain, fused, _ = pair(Block)
    said = []
    for network in (plain, fused):
        with pytest.raises(RuntimeError) as error:
            network(torch.randn(2, 4, 8, 8))
        said.append(str(error.value))
    assert said[0] == said[1]
    with pytest.raises(TypeError, match="positional"):
        fused(1, 2, 3)


def test_the_order_of_steps_is_reported_by_the_layers_names() -> None:
    _, fused, report = pair(NETWORKS["resnet"][0])
    fused(torch.randn(2, 3, 8, 8))
    steps = {layer.name: " ".join(layer.steps) for layer in report.fused}
    assert steps["stem.0"] == "conv norm relu max-pool"
    assert steps["layers.0.conv2"] == "conv norm add relu"
    assert steps["layers.1.shortcut.0"] == "conv norm"
    assert not report.skipped
    lines = str(report).splitlines()
    assert lines[0] == f"{len(steps)} fused"
    assert lines[-1] == "1 calls ran fused, 0 plain"


def test_a_layer_is_listed_once_whatever_the_number_of_graphs() -> None:
    _, fused, report = pair(Block)
    x = torch.randn(2, 3, 8, 8)
    for mode in (True, False):
        fused.train(mode)(x)
    assert len(report.graphs) == 2
    assert [layer.name for layer in report.fused] == ["conv", "conv2"]


def test_a_network_of_this_projects_own_is_captured_whole() -> None:
    network = build_model("lenet5", num_classes=10, image_size=8).eval()
    x = torch.randn(2, 3, 8, 8)
    y = network(x)
    fused, report = fuse(network, "cudnn")
    torch.testing.assert_close(fused(x), y)
    assert len(report.graphs) == 1


def test_a_network_without_convolutions_has_nothing_to_fuse() -> None:
    fused, report = fuse(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    fused(torch.randn(2, 3))
    assert str(report).splitlines()[0] == "0 fused"


@pytest.mark.parametrize("rest", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.full)])
def test_what_is_left_may_go_on_to_another_backend(rest: str) -> None:
    torch.manual_seed(0)
    plain = NETWORKS["resnet"][0]()
    fused, report = fuse(copy.deepcopy(plain), "triton", rest=rest)
    assert_alike(plain, fused, 2, 3, 8, 8, steps=1, exact=False)
    assert len(report.fused) == 6


def test_torch_compile_knows_the_backend_by_name() -> None:
    assert "tidepool" in torch._dynamo.list_backends()
    network, report = Block(), FuseReport()
    x = torch.randn(2, 3, 8, 8)
    y = copy.deepcopy(network)(x)
    options = {"backend": "triton", "rest": "eager", "report": report}
    compiled = torch.compile(network, backend="tidepool", options=options, fullgraph=True)
    torch.testing.assert_close(compiled(x), y, rtol=1e-4, atol=1e-5)
    assert len(report.fused) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "cuda"}, "expected backend to be one of"),
        ({"rest": "nvfuser"}, "expected rest to be one of eager, aot_eager, inductor"),
        ({"mode": "fast"}, "expected options among backend, rest, report, but got 'mode'"),
    ],
)
def test_options_that_there_are_not_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        torch.compile(Block(), backend="tidepool", options=options)(torch.randn(2, 3, 8, 8))


def test_an_unknown_backend_or_rest_is_refused() -> None:
    with pytest.raises(ArgumentError, match="expected backend to be one of"):
        fuse(nn.Sequential(small_conv(), nn.ReLU()), backend="cuda")
    with pytest.raises(ArgumentError, match="expected rest to be one of"):
        fuse(nn.Sequential(small_conv(), nn.ReLU()), rest="ts")


def test_an_example_leaves_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    network = Block()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    fuse(network, "triton", example=torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training


def test_a_wrong_result_on_the_example_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import tidepool.models.fusion.rewrite as rewriting

    right = rewriting._call

    def wrong(chain: Any, backend: str) -> Any:
        call = right(chain, backend)
        return lambda *tensors: call(*tensors) * (1.01 if "relu" in chain.steps else 1.0)

    monkeypatch.setattr(rewriting, "_call", wrong)
    with pytest.raises(FusedResultError, match=r"^output 0 in evaluation: fused and plain differ by"):
        fuse(Block(), "triton", example=torch.randn(3, 3, 8, 8))


def test_calls_from_several_threads() -> None:
    plain, fused, _ = pair(Block)
    plain.eval()
    fused.eval()
    x = [torch.randn(2, 3, 8, 8) for _ in range(4)]
    found: dict[int, Tensor] = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: fused(x[n])})) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[n], plain(x[n])) for n in range(4))


def test_hooks_of_the_network_are_called() -> None:
    plain, fused, report = pair(lambda: nn.Sequential(small_conv(), nn.ReLU()))
    for network in (plain, fused):
        network.register_forward_hook(lambda module, inputs, output: output + 1)
    assert_alike(plain, fused, 2, 3, 6, 7)
    assert len(report.fused) == 1


def test_keyword_arguments_and_several_results() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = small_conv()

        def forward(self, x: Tensor, scale: float = 2.0, *, shift: float = 0.0) -> dict[str, Any]:
            y = F.relu(self.conv(x))
            return {"y": y, "all": (y * scale, y + shift)}

    plain, fused, report = pair(Several)
    x = torch.randn(2, 3, 6, 7)
    for keywords in ({"scale": 3.0, "shift": 1.0}, {}):
        ours, theirs = (network(x, **keywords) for network in (fused, plain))
        assert torch.equal(ours["all"][0], theirs["all"][0])
        assert torch.equal(ours["all"][1], theirs["all"][1])
    assert len(report.fused) == 1


def test_fusing_draws_no_random_numbers() -> None:
    network = nn.Sequential(small_conv(), nn.Dropout(0.5), nn.ReLU())
    before = torch.get_rng_state()
    fuse(network, "cudnn")
    assert torch.equal(torch.get_rng_state(), before)


def test_tensors_of_the_networks_own_are_found() -> None:
    class Constants(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = small_conv()
            self.scale = nn.Parameter(torch.tensor(2.0))
            self.register_buffer("shift", torch.tensor(0.5), persistent=False)
            self.plain = torch.tensor(0.25)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).relu() * self.scale + self.shift + self.plain + torch.tensor(1.0)

    plain, fused, report = pair(Constants)
    assert_alike(plain, fused, 2, 3, 6, 7)
    assert len(report.fused) == 1
    for network in (plain, fused):
        network.double()
        network.get_submodule("conv").float()
    assert_alike(plain, fused, 2, 3, 6, 7)


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "squeezenet1_1", "mobilenet_v2", "efficientnet_b0"])
def test_torchvisions_networks_are_what_they_were(name: str, torchvision: Any) -> None:
    settings = {"init_weights": False} if name == "googlenet" else {}
    plain, fused, report = pair(lambda: getattr(torchvision, name)(num_classes=10, **settings))
    counts = {"resnet18": 20, "googlenet": 59, "squeezenet1_1": 26, "mobilenet_v2": 52, "efficientnet_b0": 65}
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(fused.eval()(x), plain.eval()(x))
    assert len(report.fused) == counts[name]


def test_a_network_written_with_functions_only() -> None:
    plain, fused, report = pair(lambda: Net(lambda net, x: F.max_pool2d(net.conv(x).relu(), 2), conv=small_conv()))
    assert_alike(plain, fused, 2, 3, 6, 7)
    assert [layer.name for layer in report.fused] == ["conv"]

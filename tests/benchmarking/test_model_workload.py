"""Networks: right on every backend that is, wrong where one gradient is, and nothing learnt from step to step."""

import pytest
import torch
from torch import nn

from tests.benchmarking.fake_device import CPU
from tidepool.benchmarking.cases import ModelCase
from tidepool.benchmarking.model_workload import ModelWorkload
from tidepool.benchmarking.opponents import UnsupportedError, backends

NETWORK = ModelCase("tiny_network", "tiny", "a test", "convnet", 4, 1, (8, 8), 10, {"width": 4, "depth": 1})
EAGER, LAST = backends(["cudnn", "cudnn_channels_last"])


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def workload(request: pytest.FixtureRequest) -> ModelWorkload:
    made = ModelWorkload(NETWORK, request.param, CPU, seed=0)
    for backend in (EAGER, LAST):
        made.build(backend)
    return made


def test_eager_pytorch_is_right_in_both_layouts_and_after_steps(workload: ModelWorkload) -> None:
    for backend in (EAGER, LAST):
        assert workload.wrong(backend) is None
        timed = workload.timed(backend, "train", graph=False)
        for _ in range(3):
            timed.function(*timed.rotate[0])
        assert workload.wrong(backend) is None


def test_memory_held_is_counted(workload: ModelWorkload) -> None:
    """4 images of 8x8; 3x3 convolutions 1-4, 4-8, 8-16 without bias, norms, a head of 16-10: weights three times."""
    parameters = 9 * 4 + 9 * 32 + 9 * 128 + 2 * (4 + 8 + 16) + 16 * 10 + 10
    assert workload.inputs_bytes() == 4 * 4 * 64 + 3 * 4 * parameters


def test_one_wrong_gradient_is_named(workload: ModelWorkload) -> None:
    model = workload._models["cudnn"]
    name, parameter = next(iter(model.named_parameters()))
    parameter.register_hook(lambda grad: 1.5 * grad)
    assert f"tiny_network, {name}: error" in str(workload.wrong(EAGER))


def test_logits_off_by_a_percent_are_found(workload: ModelWorkload) -> None:
    model = workload._models["cudnn_channels_last"]
    model.register_forward_hook(
        lambda module, inputs, logits: logits * (1.05 if logits.dtype == torch.float32 else 1.2)
    )
    assert "tiny_network, logits: error" in str(workload.wrong(LAST))


def test_dropout_is_off_and_what_does_not_exist_is_unsupported() -> None:
    with_dropout = ModelCase("vgg", "tiny", "a test", "alexnet", 2, 3, (64, 64), 10)
    made = ModelWorkload(with_dropout, torch.float32, CPU, seed=0)
    made.build(EAGER)
    assert {module.p for module in made._models["cudnn"].modules() if isinstance(module, nn.Dropout)} == {0.0}
    with pytest.raises(UnsupportedError, match="no network is called nonesuch"):
        ModelWorkload(ModelCase("a", "b", "c", "nonesuch", 1, 1, (8, 8), 2), torch.float32, CPU, seed=0).build(EAGER)
    with pytest.raises(UnsupportedError, match="timed in training steps"):
        made.timed(EAGER, "forward", graph=False)

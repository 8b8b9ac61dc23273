"""Numeric types, TF32 switches and determinism."""

import pytest
import torch

from tidepool.training.config import Config, ConfigError
from tidepool.training.precision import autocast, choose_device, make_scaler, precision_record, set_numerics

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens on a machine without a GPU")


@without_gpu
@pytest.mark.parametrize(
    ("fields", "named"), [({"device": "cuda"}, "device='cuda'"), ({"dtype": "tf32"}, "dtype='tf32'")]
)
def test_what_needs_a_gpu_is_refused_without_one(fields, named):
    with pytest.raises(ConfigError, match=named):
        choose_device(Config(**fields))


@without_gpu
def test_auto_is_the_cpu_without_a_gpu():
    assert choose_device(Config()) == torch.device("cpu")


def test_fp32_is_ieee_and_tf32_is_not_in_convolutions_and_matrix_products():
    for dtype, expected in (("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee"), ("fp32", "ieee")):
        set_numerics(Config(dtype=dtype))
        record = precision_record(Config(dtype=dtype))
        assert (record["conv_fp32_precision"], record["matmul_fp32_precision"]) == (expected, expected)
        assert torch.backends.cudnn.allow_tf32 is (dtype == "tf32")  # the older spelling still answers
        assert torch.backends.cuda.matmul.allow_tf32 is (dtype == "tf32")


def test_deterministic_is_switched_on_recorded_and_switched_off_again(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    set_numerics(Config(deterministic=True))
    record = precision_record(Config(deterministic=True))
    assert record["deterministic_algorithms"]
    assert record["cudnn_deterministic"]
    assert not record["cudnn_benchmark"]
    assert record["cublas_workspace_config"] == ":4096:8"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    set_numerics(Config())
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("dtype", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_decides_the_type_of_products(dtype, expected):
    weight = torch.ones(2, 2)
    with autocast(Config(dtype=dtype), torch.device("cpu")):
        assert (weight @ weight).dtype == expected


def test_losses_are_scaled_only_for_fp16_on_a_gpu():
    assert not make_scaler(Config(dtype="fp16"), torch.device("cpu")).is_enabled()
    assert not make_scaler(Config(), torch.device("cpu")).is_enabled()

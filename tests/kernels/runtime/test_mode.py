"""What a run is recorded to have convolved with."""

import pytest
import torch

from tidepool.kernels import conv_library


@pytest.mark.parametrize(
    ("backend", "device", "expected"),
    [
        ("triton", "cuda", "triton"),
        ("cudnn", "cuda", "cudnn 9.10.2"),
        ("compile", "cuda", "cudnn 9.10.2"),
        ("auto", "cuda", "triton + cudnn 9.10.2"),
        ("auto", "cpu", "onednn"),
    ],
)
def test_library_of_a_backend(backend: str, device: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert conv_library(backend, device) == expected

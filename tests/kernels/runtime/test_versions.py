"""Untested pairs of torch and triton are warned of in one line, once, where kernels are first asked for."""

import importlib.metadata
import warnings

import pytest
import torch
import triton

from tidepool.kernels.runtime import mode, versions
from tidepool.kernels.runtime.versions import TESTED, untested_pair, warn_if_untested


@pytest.mark.parametrize(("torch_version", "triton_version"), TESTED)
def test_tested_pairs_are_not_warned_of(torch_version: str, triton_version: str) -> None:
    assert untested_pair(f"{torch_version}.1+cu130", f"{triton_version}.0") == ""


@pytest.mark.parametrize(
    ("torch_version", "triton_version"), [("2.10.0", "3.7.1"), ("2.13.0", "3.5.1"), ("3.0", "4.0")]
)
def test_other_pairs_are_named_in_one_line(torch_version: str, triton_version: str) -> None:
    message = untested_pair(torch_version, triton_version)
    assert torch_version in message
    assert triton_version in message
    assert "\n" not in message


def test_the_pair_here_is_tested() -> None:
    assert untested_pair(importlib.metadata.version("torch"), triton.__version__) == ""


def test_the_first_call_warns_and_the_second_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "TESTED", (("1.0", "1.0"),))
    monkeypatch.setattr(mode, "_known", {})
    monkeypatch.setattr(mode, "forced", None)
    monkeypatch.setattr(mode, "interpreting_asked", lambda: None)
    warn_if_untested.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="untested under torch"):
            mode.mode_of(torch.device("cpu"))
        mode._known.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mode.mode_of(torch.device("cpu"))
    finally:
        warn_if_untested.cache_clear()

"""Candidates compiled in another process are found in Triton's cache, without a GPU."""

from pathlib import Path

import pytest
import torch
from triton.backends.compiler import GPUTarget

from tidepool.kernels.auto.plan import Choice
from tidepool.kernels.runtime.targets import SM_90
from tidepool.kernels.tiles.dense import ForwardTile
from tidepool.kernels.tune.ahead import CompileAhead
from tidepool.kernels.tune.suites import TuneLayer

LAYER = TuneLayer("small", (2, 16, 8, 8), (16, 16, 1, 1), {"activation": None})


@pytest.mark.full
def test_candidates_are_compiled_once_and_what_does_not_compile_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tile = ForwardTile(16, 16, 16, 4, False)
    choices = [
        ("inference", Choice("fused", tile)),
        ("inference", Choice("fused", ForwardTile(16, 3, 16, 4, False))),  # Triton takes powers of two only
        ("inference", Choice("epilogue")),
        ("inference", Choice("eager")),
    ]
    with CompileAhead(GPUTarget("cuda", 90, 32), SM_90, workers=1) as compiler:
        assert compiler.compile(LAYER, torch.bfloat16, "half", choices, None) == 2
        compiled = sorted(path.name for path in tmp_path.rglob("*.cubin"))
        assert compiled == ["conv_act_pool_epilogue_kernel.cubin", "conv_act_pool_forward_kernel.cubin"]
        assert compiler.compile(LAYER, torch.bfloat16, "half", choices, 0.0) == 0  # no time: nothing is waited for

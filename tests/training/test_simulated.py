"""Training on compiled kernels, on a simulated GPU."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tidepool.kernels import kernel_mode
from tidepool.records import read_json, read_rows
from tidepool.training.config import Config, ConfigError
from tidepool.training.run import Outcome


@pytest.mark.full
def test_lenet5_learns_on_compiled_code_what_it_learns_interpreted(
    small: Callable[..., Config], quietly: Callable[[Config], Outcome], tmp_path: Path
) -> None:
    """A simulated Hopper's losses and the interpreter's are those of one float32 computation summed in two orders."""
    losses = {}
    for device in ("cpu", "sm_90"):
        folder = tmp_path / device
        quietly(
            small(model="lenet5", backend="triton", device=device, max_steps=4, batch_size=8, lr=0.01, run_dir=folder)
        )
        losses[device] = [row["train/loss"] for row in read_rows(folder / "metrics.jsonl") if "train/loss" in row]
        summary = read_json(folder / "summary.json")
        assert summary is not None
        assert summary["kernel_mode"] == {"cpu": "interpreted", "sm_90": "simulated"}[device]
    assert len(losses["cpu"]) == 4
    assert losses["sm_90"] == pytest.approx(losses["cpu"], rel=1e-5)
    assert kernel_mode("triton") == "interpreted"  # the run is over, and so is its device


def test_only_the_kernels_can_be_simulated(small: Callable[..., Config], quietly: Callable[[Config], Outcome]) -> None:
    with pytest.raises(ConfigError, match="device='sm_90' simulates backend='triton'; expected that, not 'cudnn'"):
        quietly(small(device="sm_90", backend="cudnn"))

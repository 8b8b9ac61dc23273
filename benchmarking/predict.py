"""What each case costs and how fast it could be on a named card, without one.

Rates are the vendors' published ones: assumptions, not measurements. A time here is a lower bound (`auto.roofline`),
and `bound_ratio` is the quotient of two such bounds, the most that fusing can win where nothing else limits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tidepool.benchmarking import machine
from tidepool.benchmarking.cases import LayerCase
from tidepool.benchmarking.precision import set_precision
from tidepool.kernels.auto.roofline import DEVICES, Device, layer_cost, roofline_seconds, saved_bytes
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.dtypes import BY_NAME
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.records import Table

PREDICTION_COLUMNS = (
    "schema_version", "suite", "case", "family", "pass", "dtype", "device", "device_source", "matrix_tflops",
    "copy_bytes_per_s", "flops", "fused_bytes", "eager_bytes", "bytes_ratio", "workspace_bytes", "fused_saved_bytes",
    "eager_saved_bytes", "fused_roofline_ms", "eager_roofline_ms", "bound_ratio", "commit", "dirty", "source",
)  # fmt: skip
PREDICTED_DEVICES = ("H200", "H100", "A100")


@dataclass(frozen=True)
class Prediction:
    """One case and pass on one card. `bytes_ratio` is fused over eager, `bound_ratio` eager over fused time."""

    case: str
    family: str
    device: str
    device_source: str
    matrix_tflops: float
    copy_bytes_per_s: float
    flops: int
    fused_bytes: int
    eager_bytes: int
    bytes_ratio: float
    workspace_bytes: int | None
    fused_saved_bytes: int | None
    eager_saved_bytes: int | None
    fused_roofline_ms: float
    eager_roofline_ms: float
    bound_ratio: float


def named_device(name: str) -> Device:
    """The card of that name. Raises ValueError, in one line."""
    for device in DEVICES:
        if device.name == name:
            return device
    raise ValueError(f"unknown device {name!r}; expected some of: {', '.join(device.name for device in DEVICES)}")


def predict(case: LayerCase, dtype: str, pass_: str, device: Device) -> Prediction:
    """Costs and bounds of one pass of a case in `dtype` ("bf16", "fp16", "fp32", "tf32")."""
    set_precision(dtype)
    settings = {**case.options, "activation": case.activation, "pool": case.pool}
    layer = parse_layer(case.weight[2:], **settings)
    geometry, shapes = build_geometry(case.x, case.weight, layer)
    given: dict[str, Any] = {"bias": case.bias, "input_gradient": case.input_gradient, "device": device}
    fused, eager = (
        layer_cost(geometry, shapes, BY_NAME[dtype], pass_, variant, **given) for variant in ("fused", "eager")
    )
    fused_s, eager_s = roofline_seconds(fused, device), roofline_seconds(eager, device)
    kept = {variant: saved_bytes(geometry, shapes, BY_NAME[dtype], variant) for variant in ("fused", "eager")}
    return Prediction(
        case=case.name,
        family=case.family,
        device=device.name,
        device_source=device.source,
        matrix_tflops=device.matrix_tflops[fused.kernels[0].operands],
        copy_bytes_per_s=device.copy_bytes_per_s,
        flops=fused.flops,
        fused_bytes=fused.bytes_moved,
        eager_bytes=eager.bytes_moved,
        bytes_ratio=fused.bytes_moved / eager.bytes_moved,
        workspace_bytes=fused.workspace_bytes,
        fused_saved_bytes=kept["fused"],
        eager_saved_bytes=kept["eager"],
        fused_roofline_ms=fused_s * 1e3,
        eager_roofline_ms=eager_s * 1e3,
        bound_ratio=eager_s / fused_s,
    )


def predictions(
    cases: Iterable[LayerCase], dtype: str, passes: Sequence[str], devices: Sequence[Device]
) -> list[tuple[str, Prediction]]:
    """(pass, prediction) of every case, pass and card."""
    return [(pass_, predict(case, dtype, pass_, device)) for device in devices for case in cases for pass_ in passes]


def table_text(found: Sequence[tuple[str, Prediction]], dtype: str) -> str:
    """The predictions as a table for a terminal, with what they assume."""
    lines = []
    for device in dict.fromkeys(prediction.device for _, prediction in found):
        mine = [(pass_, prediction) for pass_, prediction in found if prediction.device == device]
        first = mine[0][1]
        lines.append(
            f"{device}, {dtype}, assumed {first.matrix_tflops:g} TFLOP/s and {first.copy_bytes_per_s / 1e12:g} TB/s "
            f"({first.device_source}): bounds, not measurements"
        )
        lines.append(
            f"{'case':30}{'pass':18}{'GFLOP':>10}{'fused MB':>11}{'eager MB':>11}{'ratio':>8}"
            f"{'fused ms':>10}{'eager ms':>10}{'bound':>8}"
        )
        lines += [
            f"{p.case:30}{pass_:18}{p.flops / 1e9:10.2f}{p.fused_bytes / 1e6:11.1f}{p.eager_bytes / 1e6:11.1f}"
            f"{p.bytes_ratio:8.3f}{p.fused_roofline_ms:10.4f}{p.eager_roofline_ms:10.4f}{p.bound_ratio:7.2f}x"
            for pass_, p in mine
        ]
        lines.append("")
    return "\n".join(lines).rstrip()


def predictions_table(folder: Path) -> Table:
    """`predictions.csv`: one row a case, pass, dtype and card."""
    return Table(folder / "predictions.csv", PREDICTION_COLUMNS)


def write_predictions(folder: Path, suite: str, dtype: str, found: Sequence[tuple[str, Prediction]]) -> int:
    """Append what `predictions.csv` in `folder` does not hold yet of this code's predictions; returns how many rows."""
    table = predictions_table(folder)
    source = machine.source_digest(("kernels",))
    rows, _ = table.read()
    there = {(row["suite"], row["case"], row["pass"], row["dtype"], row["device"], row["source"]) for row in rows}
    commit, dirty = machine.commit_and_dirty()
    fresh = [
        {
            "suite": suite,
            "pass": pass_,
            "dtype": dtype,
            **asdict(prediction),
            "commit": commit,
            "dirty": dirty,
            "source": source,
        }
        for pass_, prediction in found
        if (suite, prediction.case, pass_, dtype, prediction.device, source) not in there
    ]
    if fresh:
        table.append(fresh)
    return len(fresh)

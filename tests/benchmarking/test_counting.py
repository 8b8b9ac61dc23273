"""Counts of compiled kernels on the simulator: the rule that leads from small sizes to a layer, and its record."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tidepool import simulator
from tidepool.benchmarking import suites
from tidepool.benchmarking.cases import LayerCase
from tidepool.benchmarking.command_line import UsageError, parse_options
from tidepool.benchmarking.counting import record, sizes
from tidepool.benchmarking.counting.compare import APART_PERCENT, compare
from tidepool.benchmarking.counting.count import CHECKED, COUNTED, count
from tidepool.benchmarking.counting.launches import Size, Sized, at_size, runs_code_of, tile_of
from tidepool.benchmarking.counting.rule import TERMS_OF, Terms, determined, extrapolated, inside_pairs
from tidepool.benchmarking.counting.sizes import smaller
from tidepool.benchmarking.program import run
from tidepool.kernels.auto.roofline import layer_cost
from tidepool.kernels.compile_check.layer_work import layer_work
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.pooling import MaxPool
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.kernels.runtime.targets import SM_90
from tidepool.records.table import read_table

RECORD = Path(__file__).resolve().parents[2] / "results" / "counters"
TINY = LayerCase("tiny", "tiny", "a test", (3, 16, 20, 20), (16, 16, 3, 3), {"padding": 1})
STRIDED = LayerCase("strided", "tiny", "a test", (2, 16, 12, 12), (16, 16, 1, 1), {"stride": 2, "pool": None})


def full_size(layer: LayerCase) -> Sized:
    return at_size(layer, Size(batch=layer.batch, spatial=layer.x[2:]), "bf16")


@pytest.fixture(scope="module")
def device() -> Iterator[simulator.Device]:
    with simulator.device("sm_90", COUNTED) as one:
        yield one


def terms(*values: int) -> Terms:
    return Terms(**dict(zip(("programs", "trips", "products", "elements"), values, strict=True)))


def test_the_rule_is_exact_for_sums_of_its_terms() -> None:
    seen = [terms(2, 2, 90, 16), terms(2, 4, 310, 40), terms(4, 4, 400, 72), terms(5, 10, 900, 100)]
    to = terms(1000, 70_000, 8_000_000, 900_000)

    def counts(at: Terms) -> dict[str, int]:
        return {name: sum(3 * n for n in at.vector(words)) for name, words in TERMS_OF.items()}

    assert extrapolated(seen, [counts(at) for at in seen], to) == pytest.approx(counts(to), rel=1e-9)


def test_sizes_that_do_not_tell_terms_apart_determine_nothing_else() -> None:
    seen = [terms(4, 4, 90, 9), terms(4, 4, 180, 18)]
    assert determined(seen, terms(400, 400, 9000, 900))
    assert not determined(seen, terms(4, 400, 9000, 900))


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (3, {"padding": 1, "pool": MaxPool(2)}),
        (3, {"padding": 2, "stride": 2, "pool": MaxPool(3, 2, 1)}),
        (2, {"dilation": 2, "pool": None}),
    ],
)
def test_inside_pairs_are_counted_as_a_convolution_of_ones_does(kernel: int, options: dict[str, object]) -> None:
    settings = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "activation": "relu"} | options
    geometry, shapes = build_geometry((2, 1, 9, 11), (1, 1, kernel, kernel), parse_layer((kernel, kernel), **settings))
    convolution = {name: settings[name] for name in ("stride", "padding", "dilation")}
    ones = torch.ones(2, 1, 9, 11)
    at_pixel = torch.nn.functional.conv2d(ones, torch.ones(1, 1, kernel, kernel), **convolution)
    pool = settings["pool"]
    if isinstance(pool, MaxPool):
        at_pixel = torch.nn.functional.pad(at_pixel, [pool.padding] * 4) if isinstance(pool.padding, int) else at_pixel
        at_pixel = torch.nn.functional.avg_pool2d(at_pixel, pool.kernel, pool.stride, divisor_override=1)
    assert inside_pairs(geometry, shapes) == int(at_pixel.sum())


@pytest.mark.parametrize("kernel", ["forward", "dgrad", "wgrad"])
def test_the_rule_holds_on_a_tiny_layer(kernel: str, device: simulator.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    full = full_size(TINY)
    whole = count(full, kernel, [], device)
    assert whole is not None
    assert whole.whole
    assert whole.check is None
    monkeypatch.setattr(sizes, "_WHOLE", 0)
    found = count(full, kernel, smaller(TINY, full, "bf16"), device)
    assert found is not None
    assert not found.whole
    assert found.touched == whole.touched
    for name in CHECKED:
        exact = name in ("tensor_products", "store_bytes", "shared_wavefronts")
        assert found.counts[name] == pytest.approx(whole.counts[name], rel=1e-6 if exact else 0.02), name
        assert abs(found.errors_percent[name]) < 3, name


def test_counting_without_values_counts_the_same(device: simulator.Device) -> None:
    full = full_size(LayerCase("small", "tiny", "a test", (1, 16, 8, 8), (16, 16, 3, 3), {"padding": 1}))
    for kernel in full.launches:
        fast = count(full, kernel, [], device)
        assert fast is not None
        schedule = simulator.Schedule(count=True)
        with simulator.device("sm_90", schedule) as slow:
            found = count(full, kernel, [], slow)
        assert found is not None
        assert found.counts == fast.counts
        assert found.touched == fast.touched


def test_a_tile_is_read_off_its_launch(device: simulator.Device) -> None:
    full = full_size(TINY)
    again = at_size(TINY, Size(batch=1, spatial=(12, 12)), "bf16", full)
    for name in ("forward", "dgrad", "wgrad"):
        assert tile_of(again.launches[name]) == tile_of(full.launches[name])
        assert runs_code_of(again.launches[name], full.launches[name])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 16])
def test_every_layer_has_its_launches(groups: int, bias: bool, device: simulator.Device) -> None:
    options = {"groups": groups, "padding": 1}
    layer = LayerCase("layer", "tiny", "a test", (2, 16, 12, 12), (16, 16 // groups, 3, 3), options, bias)
    full = full_size(layer)
    assert list(full.launches) == ["forward", "dgrad", "wgrad", "wgrad reduce"]
    again = at_size(layer, Size(batch=1, spatial=(8, 8)), "bf16", full)
    names = list(full.launches)[: 3 if groups > 1 else 4]
    assert [again.launches[name].name for name in names] == [full.launches[name].name for name in names]
    assert full.launches["wgrad"].named["NEEDS_BIAS"] is bias


def test_what_a_stride_steps_over_is_a_reason(device: simulator.Device) -> None:
    full = full_size(STRIDED)
    counted = count(full, "forward", [], device)
    assert counted is not None
    (cost,) = layer_cost(full.geometry, full.shapes, torch.bfloat16, "forward_training", "fused").kernels
    compared = compare(counted, full, cost)
    x = 2 * 16 * 12 * 12 * 2
    assert compared.roofline_read - compared.read == x * 3 // 4
    assert f"-{x * 3 // 4:,} bytes: x is touched in part, the stride steps over the rest" in compared.reason
    assert "not explained" not in compared.reason


def test_the_command_appends_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suites, "SMOKE", (STRIDED,))
    options = parse_options(["--counters", "--suite=smoke", "--targets=sm_80", f"--out={tmp_path}"])
    said: list[str] = []
    assert run(options, said.append) == []
    rows, damaged = record.counts_table(tmp_path).read()
    assert not damaged
    assert [row["kernel"] for row in rows] == ["forward", "dgrad", "wgrad", "wgrad reduce"]
    assert len(said) == 4
    assert run(options, said.append) == []
    assert len(said) == 4
    assert record.counts_table(tmp_path).read()[0] == rows


def test_bad_targets_are_refused() -> None:
    with pytest.raises(UsageError, match="--targets: 'sm_100'; expected some of: sm_80, sm_90"):
        parse_options(["--counters", "--targets=sm_100"])
    with pytest.raises(UsageError, match="give one of them"):
        parse_options(["--counters", "--predict"])


MULTIPLYING = (
    TINY,
    LayerCase("few", "tiny", "a test", (2, 3, 16, 32), (16, 3, 3, 3), {"padding": 1}),
    LayerCase("overlap", "tiny", "a test", (1, 16, 16, 16), (16, 16, 3, 3), {"padding": 1, "pool": MaxPool(3, 2, 1)}),
    LayerCase("flat", "tiny", "a test", (2, 6, 14, 14), (16, 6, 5, 5)),
    LayerCase("plain", "tiny", "a test", (1, 16, 8, 8), (16, 16, 1, 1), {"activation": None}, bias=False),
)


@pytest.mark.parametrize("layer", MULTIPLYING, ids=lambda layer: layer.name)
def test_the_cycle_model_is_told_the_products_that_are_counted(layer: LayerCase, device: simulator.Device) -> None:
    full = full_size(layer)
    for kernel, launch in full.launches.items():
        work = layer_work(launch.name, launch.grid, launch.named, SM_90)
        counted = count(full, kernel, [], device)
        assert counted is not None
        assert (work.products or 0) * work.programs == round(counted.counts["tensor_products"]), kernel


def recorded(name: str) -> list[dict[str, str]]:
    _, rows, damaged = read_table(RECORD / name)
    assert not damaged
    assert rows
    return rows


def test_the_record_follows_from_its_sizes_by_the_rule() -> None:
    by_kernel: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in recorded("sizes.csv"):
        by_kernel.setdefault(tuple(row[name] for name in (*record.KEY, "source")), []).append(row)
    for row in recorded("counts.csv"):
        fits = [one for one in by_kernel[tuple(row[n] for n in (*record.KEY, "source"))] if one["role"] != "check"]
        at = [terms(*(int(one[name]) for name in record.TERM_COLUMNS)) for one in fits]
        counts = [{name: int(one[name]) for name in TERMS_OF} for one in fits]
        found = extrapolated(at, counts, terms(*(int(row[name]) for name in record.TERM_COLUMNS)))
        stated = {name: int(row[name]) for name in TERMS_OF}
        assert stated == pytest.approx(found, abs=1, rel=1e-6), row["case"]


def test_the_record_says_why_where_it_differs_from_the_roofline() -> None:
    for row in recorded("counts.csv"):
        counted = int(row["footprint_read_bytes"]) + int(row["footprint_written_bytes"])
        roofline = int(row["roofline_read_bytes"]) + int(row["roofline_written_bytes"])
        difference = 100 * (counted - roofline) / roofline
        assert float(row["difference_percent"]) == pytest.approx(difference, abs=0.01)
        assert bool(row["reason"]) == (abs(difference) > APART_PERCENT), row["case"]
        assert "not explained" not in row["reason"], row["case"]


def test_the_record_has_its_environment() -> None:
    with (RECORD / "counts.csv").open(newline="", encoding="utf-8") as file:
        commits = {row["commit"] for row in csv.DictReader(file)}
    text = (RECORD / "environment.json").read_text(encoding="utf-8")
    assert all(commit and commit in text for commit in commits)

"""Candidates are tiles a layer can run with, the rule's first; tiles survive JSON, and nonsense is refused."""

import json
from typing import Any

import pytest
import torch

import tidepool.kernels.tiles.dense
from tests.kernels.exact import INTERPRETED
from tidepool.kernels.conv.choose import conv_act_pool_forward
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.pooling import MaxPool
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.kernels.runtime.mode import mode_of
from tidepool.kernels.runtime.targets import SM_80, SM_90, TARGETS, Target
from tidepool.kernels.tiles.candidates import (
    Tile,
    dgrad_candidates,
    forward_candidates,
    tile_from_json,
    tile_to_json,
    wgrad_candidates,
)
from tidepool.kernels.tiles.dense import DepthwiseTile, DgradTile, ForwardTile, WgradTile
from tidepool.kernels.tiles.few_channels import (
    FEW_CHANNELS_TARGETS,
    FewChannelsTile,
    few_channels_candidates,
    fits_few_channels,
)
from tidepool.kernels.tiles.hopper import HOPPER_TARGET, HopperTile, fits_hopper, hopper_tile

LAYERS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "vgg": ((64, 64, 56, 56), (128, 64, 3, 3), {"padding": 1}),
    "rgb": ((8, 3, 32, 32), (32, 3, 3, 3), {"padding": 1}),
    "stem": ((4, 3, 64, 64), (64, 3, 7, 7), {"stride": 2, "padding": 3, "pool": MaxPool(3, 2, 1)}),
    "strided": ((4, 64, 28, 28), (128, 64, 3, 3), {"stride": 2, "padding": 1, "pool": None}),
    "depthwise": ((2, 8, 14, 14), (8, 1, 3, 3), {"groups": 8}),
}


def layer(name: str) -> tuple[Geometry, Shapes]:
    x, weight, settings = LAYERS[name]
    return build_geometry(x, weight, parse_layer(weight[2:], **settings))


def compiled_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules as they are where kernels are compiled."""
    for rule in (
        tidepool.kernels.tiles.dense.forward_tile,
        tidepool.kernels.tiles.dense.dgrad_tile,
        tidepool.kernels.tiles.dense.wgrad_tile,
    ):
        monkeypatch.setattr(tidepool.kernels.tiles.dense, rule.__name__, rule.__wrapped__)
    monkeypatch.setattr(
        tidepool.kernels.tiles.dense, "depthwise_tile", tidepool.kernels.tiles.dense.depthwise_tile.__wrapped__
    )


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_candidates_are_distinct_and_begin_with_the_rules_tile(
    name: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled_rules(monkeypatch)
    geometry, shapes = layer(name)
    for operands in ("half", "tf32", "ieee"):
        forward = forward_candidates(geometry, shapes, target, operands)
        dgrad = dgrad_candidates(geometry, shapes, target, operands)
        wgrad = wgrad_candidates(geometry, shapes, target, operands, 528)
        if not geometry.depthwise:
            portable = tidepool.kernels.tiles.dense.forward_tile(geometry, shapes.num_outputs, target, operands)
            expected: Tile = portable
            if target is HOPPER_TARGET and fits_hopper(geometry, shapes, operands):
                expected = hopper_tile(geometry, shapes)
            elif target in FEW_CHANNELS_TARGETS and fits_few_channels(geometry, operands):
                expected = few_channels_candidates(geometry)[0]
            assert forward[0] == expected
            assert portable in forward
            pixels = shapes.phase_pixels(geometry)
            assert dgrad[0] == tidepool.kernels.tiles.dense.dgrad_tile(geometry, pixels, target, operands)
            assert wgrad[0] == tidepool.kernels.tiles.dense.wgrad_tile(
                geometry, shapes.conv_pixels, target, operands, 528
            )
        for candidates in (forward, dgrad, wgrad):
            assert len(set(candidates)) == len(candidates)


def test_a_convolution_on_tensor_cores_has_several_forward_tiles_to_choose_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled_rules(monkeypatch)
    for target in (SM_80, SM_90):
        assert 4 <= len(forward_candidates(*layer("vgg"), target, "half")) <= 12


def test_every_forward_candidate_where_the_tests_run_gives_the_same_result() -> None:
    geometry, shapes = layer("rgb")
    device = "cpu" if INTERPRETED else "cuda"
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(-2, 3, (2, 3, 32, 32), generator=generator).float().to(device)
    weight = torch.randint(-1, 2, (32, 3, 3, 3), generator=generator).float().to(device)
    shapes = Shapes(2, shapes.input, shapes.conv, shapes.output)
    candidates = forward_candidates(geometry, shapes, mode_of(x.device).target, "ieee")
    results = []
    for tile in candidates:
        y = x.new_full((2, 32, 16, 16), torch.nan)
        conv_act_pool_forward(x, weight, None, y, None, None, geometry, shapes, tile)
        results.append(y)
    assert len(results) >= 2
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize(
    "tile",
    [
        ForwardTile(64, 32, 32, joint=4, flat=False),
        HopperTile(128, 1, 16, 16, 64, persistent=True, warps=8),
        FewChannelsTile(16, 8, 32),
        DgradTile(64, 16, 32, flat=True, warps=8),
        WgradTile(64, 32, 32, splits=7, stages=2),
        DepthwiseTile(16, 32),
    ],
    ids=lambda tile: type(tile).__name__,
)
def test_tile_survives_json(tile: Tile) -> None:
    assert tile_from_json(json.loads(json.dumps(tile_to_json(tile)))) == tile


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "backward"}, "backward"),
        ({"kind": None}, "None"),
        ({"block_k": 48}, "block_k is 48, expected a power of two"),
        ({"block_k": -64}, "block_k is -64"),
        ({"block_k": True}, "block_k is True"),
        ({"block_p": "32"}, "block_p is '32'"),
        ({"joint": 3}, "joint is 3, expected 1, 2 or 4"),
        ({"flat": 1}, "flat is 1, expected true or false"),
        ({"warps": 0}, "warps is 0"),
        ({"stages": 99}, "stages is 99"),
        ({"extra": 1}, "extra"),
    ],
)
def test_nonsense_in_a_tables_tile_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    entry = tile_to_json(ForwardTile(64, 32, 32, joint=4, flat=False))
    with pytest.raises(ValueError, match=named.replace("[", r"\[")):
        tile_from_json({**entry, **change})


def test_a_tile_that_is_no_object_or_lacks_a_field_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an object"):
        tile_from_json([1, 2])
    with pytest.raises(ValueError, match="splits"):
        tile_from_json({"kind": "wgrad", "block_k": 16, "block_n": 16, "block_p": 16, "warps": 4, "stages": 3})

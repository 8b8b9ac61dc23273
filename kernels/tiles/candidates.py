"""Which tiles a layer could run with on a target, for the tuner to time, and tiles as JSON, for its tables.

Every candidate is a shipped tile that its kernel's list declares for the target, so `compile_check` has compiled it;
the one the rule picks comes first.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.runtime.targets import INTERPRETER, Target
from tidepool.kernels.tiles import dense as tiles
from tidepool.kernels.tiles.dense import DepthwiseTile, DgradTile, ForwardTile, Shipped, WgradTile
from tidepool.kernels.tiles.few_channels import (
    FEW_CHANNELS_TARGETS,
    FewChannelsTile,
    few_channels_candidates,
    fits_few_channels,
)
from tidepool.kernels.tiles.hopper import (
    HOPPER_TARGET,
    HopperTile,
    fits_hopper,
    hopper_candidates,
    hopper_tile,
    wastes_boxes,
)
from tidepool.kernels.tiles.windowed import (
    WindowedDgradTile,
    WindowedWgradTile,
    windowed_dgrad_tiles,
    windowed_wgrad_tiles,
)

Tile = (
    ForwardTile
    | HopperTile
    | FewChannelsTile
    | DgradTile
    | WindowedDgradTile
    | WgradTile
    | WindowedWgradTile
    | DepthwiseTile
)

_KINDS: dict[str, type[Tile]] = {
    "forward": ForwardTile,
    "hopper": HopperTile,
    "few_channels": FewChannelsTile,
    "dgrad": DgradTile,
    "windowed_dgrad": WindowedDgradTile,
    "wgrad": WgradTile,
    "windowed_wgrad": WindowedWgradTile,
    "depthwise": DepthwiseTile,
}
_MOST_SPLITS = 2**16
_MOST_BLOCK = 2**20


def forward_candidates(geometry: Geometry, shapes: Shapes, target: Target, operands: str) -> list[Tile]:
    """Tiles the forward kernels may run a layer with; the rule's choice first.

    `operands` is "half", "tf32" or "ieee" (`launch.operand_kind`).
    """
    if geometry.depthwise:
        return [tiles.depthwise_tile(geometry, geometry.rows, shapes.num_outputs, target)]
    hopper: list[Tile] = []
    if target is HOPPER_TARGET and fits_hopper(geometry, shapes, operands):
        hopper = [hopper_tile(geometry, shapes), *hopper_candidates(geometry, shapes)]
    first = tiles.forward_tile(geometry, shapes.num_outputs, target, operands)
    if target is INTERPRETER:  # any tile runs, two are offered
        return _distinct([first, dataclasses.replace(first, block_p=max(first.block_p // 2, 1))])
    few: list[Tile] = []
    if target in FEW_CHANNELS_TARGETS and fits_few_channels(geometry, operands):
        few = [*few_channels_candidates(geometry)]
    if hopper:
        return _distinct([first, *hopper] if wastes_boxes(geometry, shapes) else [*hopper, first])
    columns = shapes.num_outputs * tiles.joint_elements(geometry)
    shipped = tiles.shipped_forward(geometry)
    fitting = _fitting(shipped, target, operands, tiles.heavy_forward(geometry), geometry.filters, columns)
    if len(fitting) > 4:  # a quarter of the filters at a time would read the pixels four times over
        fitting = [s for s in fitting if 4 * s.rows > min(geometry.filters, 128)]
    return _distinct([*few, first, *(tiles.forward_tile_of(s, geometry) for s in fitting)])


def dgrad_candidates(geometry: Geometry, shapes: Shapes, target: Target, operands: str) -> list[Tile]:
    """Tiles the input gradient may run with; the rule's choice first. Arguments as `forward_candidates`'."""
    pixels = shapes.phase_pixels(geometry)
    if geometry.depthwise:
        return [tiles.depthwise_tile(geometry, geometry.groups, pixels, target)]
    first = tiles.dgrad_tile(geometry, pixels, target, operands)
    if target is INTERPRETER:  # any tile runs, two are offered
        return _distinct([first, dataclasses.replace(first, block_p=max(first.block_p // 2, 1))])
    fitting = _fitting(tiles.DGRAD, target, operands, tiles.heavy_gradient(geometry), pixels, geometry.channels)
    windowed = windowed_dgrad_tiles(geometry, pixels, target, operands)
    return _distinct([first, *windowed, *(tiles.dgrad_tile_of(s, geometry) for s in fitting)])


def wgrad_candidates(
    geometry: Geometry, shapes: Shapes, target: Target, operands: str, programs_wanted: int
) -> list[Tile]:
    """Tiles the weight gradient may run with; the rule's choice first.

    `programs_wanted` as for `tiles.wgrad_tile`: from it follow the splits. Other arguments as `forward_candidates`'.
    """
    pixels = shapes.conv_pixels
    if geometry.depthwise:
        return [tiles.depthwise_tile(geometry, geometry.rows, pixels, target, programs_wanted)]
    first = tiles.wgrad_tile(geometry, pixels, target, operands, programs_wanted)
    if target is INTERPRETER:  # any tile runs, two are offered
        return _distinct([first, dataclasses.replace(first, splits=1)])
    columns = geometry.taps * geometry.channels
    fitting = _fitting(tiles.WGRAD, target, operands, tiles.heavy_gradient(geometry), geometry.filters, columns)
    windowed = windowed_wgrad_tiles(geometry, pixels, target, operands, programs_wanted)
    others = (tiles.wgrad_tile_of(s, geometry, pixels, programs_wanted) for s in fitting)
    return _distinct([first, *windowed, *others])


def _fitting(
    shipped: Iterable[Shipped], target: Target, operands: str, heavy: bool, rows: int, columns: int
) -> list[Shipped]:
    """The shipped tiles that may run there, without those twice as large as what they would cover."""
    allowed = [s for s in shipped if operands in s.operands and s.heavy == heavy and target in s.targets]
    least_rows, least_columns = min(s.rows for s in allowed), min(s.columns for s in allowed)
    return [
        s for s in allowed if s.rows < max(2 * rows, least_rows + 1) and s.columns < max(2 * columns, least_columns + 1)
    ]


def _distinct(candidates: Iterable[Tile]) -> list[Tile]:
    return list(dict.fromkeys(candidates))


def tile_to_json(tile: Tile) -> dict[str, Any]:
    """A tile as a JSON object: `{"kind": "forward", "block_k": 64, ...}`."""
    kind = next(name for name, made in _KINDS.items() if made is type(tile))
    return {"kind": kind, **dataclasses.asdict(tile)}


def tile_from_json(entry: Any) -> Tile:
    """The tile of a `tile_to_json` object. Raises ValueError that names the kind, field, type or value at fault."""
    if not isinstance(entry, dict):
        raise ValueError(f"tile: expected an object, got {entry!r}")
    made = _KINDS.get(entry.get("kind", "")) if isinstance(entry.get("kind"), str) else None
    if made is None:
        raise ValueError(f"tile: kind {entry.get('kind')!r} is none of {', '.join(_KINDS)}")
    values = {name: value for name, value in entry.items() if name != "kind"}
    fields = {field.name: field.type for field in dataclasses.fields(made)}
    if values.keys() != fields.keys():
        wrong = sorted(values.keys() ^ fields.keys())
        raise ValueError(f"tile: {entry['kind']} has the fields {', '.join(fields)}, the entry differs in {wrong}")
    for name, value in values.items():
        expected = "true or false" if fields[name] is bool else _expected(name)
        if type(value) is not fields[name] or not (fields[name] is bool or _sensible(name, value)):
            raise ValueError(f"tile: {name} is {value!r}, expected {expected}")
    return made(**values)


_CHECKS: dict[str, tuple[str, Callable[[int], bool]]] = {
    "joint": ("1, 2 or 4", lambda value: value in (1, 2, 4)),
    "warps": ("1, 2, 4, 8 or 16", lambda value: value in (1, 2, 4, 8, 16)),
    "stages": ("1 to 8", lambda value: 1 <= value <= 8),
    "taps": ("1 to 8", lambda value: 1 <= value <= 8),
    "splits": (f"1 to {_MOST_SPLITS}", lambda value: 1 <= value <= _MOST_SPLITS),
}


def _expected(name: str) -> str:
    return _CHECKS[name][0] if name in _CHECKS else f"a power of two up to {_MOST_BLOCK}"


def _sensible(name: str, value: int) -> bool:
    if name in _CHECKS:
        return _CHECKS[name][1](value)
    return 0 < value <= _MOST_BLOCK and value & (value - 1) == 0

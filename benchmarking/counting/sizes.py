"""Which smaller sizes stand for a layer: the cheapest that tell the rule's terms apart, and one to check it by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from tidepool.benchmarking.cases import LayerCase
from tidepool.benchmarking.counting.launches import Size, Sized, at_size, runs_code_of
from tidepool.benchmarking.counting.rule import determined, rank, terms_of

_BATCHES = (1, 2, 3, 4, 6, 8, 16, 32, 64, 128, 256, 512)
_WIDTHS = (6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 256, 512, 1024)
_LEAST_LANES = 1 << 12
"""Fewer lanes at a time take as long."""
_WHOLE = 1 << 16
"""Lanes times trips up to which a layer is run as it is."""
_MOST, _MOST_AT_ALL = 5 << 16, 14 << 16
"""And up to which a smaller size is; and where nothing less will do."""
_AS_FULL = 1.02
_WIDE, _LONG = 12, 256
"""Images narrower than this, and waveforms shorter, are mostly border, and are tried last."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Sizes of one kernel. `fits` alone, of the layer's own size, where it is run whole."""

    fits: tuple[Sized, ...]
    check: Sized | None


def is_whole(full: Sized, kernel: str) -> bool:
    """Whether a kernel is run at the layer's own size; the reduction always is, whose size is the weight's."""
    return kernel == "wgrad reduce" or _cost(full, kernel) <= _WHOLE


def smaller(layer: LayerCase, full: Sized, dtype: str) -> list[Sized]:
    """The layer at every size that may be simulated for it."""
    return [at_size(layer, size, dtype, full) for size in _smaller(full)]


def choose(full: Sized, kernel: str, candidates: Sequence[Sized]) -> Chosen | None:
    """The sizes to simulate for one of a layer's kernels; None where no small ones run its code and tell enough."""
    if is_whole(full, kernel):
        return Chosen(fits=(full,), check=None)
    launch = full.launches[kernel]
    found: dict[tuple[int, ...], Sized] = {}
    for sized in candidates:
        if kernel in sized.launches and runs_code_of(sized.launches[kernel], launch):
            found.setdefault(terms_of(sized, kernel).vector(), sized)
    kept = sorted(found.values(), key=lambda s: _order(s, full, kernel))
    kept = [s for s in kept if _cost(s, kernel) <= _MOST_AT_ALL]
    among, whole = [terms_of(s, kernel) for s in kept], terms_of(full, kernel)
    fits: list[Sized] = []
    told = 0
    for sized in kept:
        mine = [terms_of(s, kernel) for s in fits]
        now = rank([*mine, terms_of(sized, kernel)], among)
        if now > told and (_cost(sized, kernel) <= _MOST or not determined(mine, whole)):
            fits, told = [*fits, sized], now
    if not determined([terms_of(s, kernel) for s in fits], whole):
        return None
    most = max(terms_of(s, kernel).trips for s in fits)
    left = [s for s in kept if s not in fits]
    larger = [s for s in left if terms_of(s, kernel).trips > most] or left
    return Chosen(fits=tuple(fits), check=larger[0] if larger else None)


def _smaller(full: Sized) -> Iterator[Size]:
    """Fewer images of fewer pixels, whose borders fall as the layer's do: as many pixels left over by strides."""
    g, spatial = full.geometry, full.size.spatial
    steps = tuple(getattr(g, f"stride_{d}") * getattr(g, f"pool_stride_{d}") for d in "dhw"[3 - len(spatial) :])
    maps = {spatial}
    for width in _WIDTHS:
        one = tuple(min(size, width + (size - width) % step) for size, step in zip(spatial, steps, strict=True))
        if all(n > _reach(g, d) for n, d in zip(one, "dhw"[3 - len(spatial) :], strict=True)):
            maps.add(one)
    for batch, one in product([n for n in _BATCHES if n <= full.size.batch], sorted(maps)):
        size = Size(batch=batch, spatial=one)
        if size != full.size:
            yield size


def _reach(geometry: object, axis: str) -> int:
    """Input pixels that one pooled output sees, without padding."""
    g = {
        word: getattr(geometry, f"{word}_{axis}")
        for word in ("kernel", "dilation", "window", "pool_dilation", "stride")
    }
    return int((g["kernel"] - 1) * g["dilation"] + (g["window"] - 1) * g["pool_dilation"] * g["stride"])


def _cost(sized: Sized, kernel: str) -> int:
    launch, terms = sized.launches[kernel], terms_of(sized, kernel)
    lanes = max(terms.programs * 32 * launch.warps, _LEAST_LANES)
    return lanes * terms.trips // terms.programs


def _order(sized: Sized, full: Sized, kernel: str) -> tuple[bool, bool, int, int]:
    """Cheap sizes first, of those that are wide, and whose tiles are as full as the layer's where that costs little."""
    least = _WIDE if len(sized.size.spatial) > 1 else _LONG
    wide = all(n >= min(whole, least) for n, whole in zip(sized.size.spatial, full.size.spatial, strict=True))
    cost, mine, layers = _cost(sized, kernel), terms_of(sized, kernel), terms_of(full, kernel)
    as_full = mine.trips * layers.elements / (layers.trips * mine.elements)
    return not wide, not (cost <= _WHOLE // 2 and as_full <= _AS_FULL), cost, sized.size.batch

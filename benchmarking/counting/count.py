"""One kernel of a layer, counted: its sizes simulated, the rule applied, what memory has to move."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidepool.benchmarking.counting.launches import Sized, tensor_bytes, tensor_names, tensors, tile_of
from tidepool.benchmarking.counting.rule import Terms, error_percent, extrapolated, terms_of
from tidepool.benchmarking.counting.sizes import choose
from tidepool.kernels.compile_check.compile import Launch
from tidepool.simulator import Device, Report, Schedule

COUNTED = Schedule(checks=False, count=True, values=False)
"""How sizes are simulated: branches and addresses of these kernels do not depend on values."""
COUNTS: dict[str, tuple[str, ...]] = {
    "load_bytes": ("global load bytes", "tensor copy global bytes"),
    "load_sectors": ("global load sectors", "tensor copy sectors"),
    "store_bytes": ("global store bytes",),
    "store_sectors": ("global store sectors",),
    "cp_async_bytes": ("async copy bytes",),
    "tma_bytes": ("tensor copy bytes",),
    "shared_wavefronts": ("shared load wavefronts", "shared store wavefronts"),
    "shared_least_wavefronts": ("shared load least wavefronts", "shared store least wavefronts"),
    "tensor_products": ("wgmma products", "mma.sync products"),
}
"""The record's counts, each a sum of the simulator's. `load_bytes` are those asked for, cp.async's and TMA's included;
`tma_bytes` what arrives in shared memory, zeros outside the image included."""
CHECKED = ("load_bytes", "load_sectors", "store_bytes", "store_sectors", "shared_wavefronts", "tensor_products")


@dataclass(frozen=True, kw_only=True)
class Touched:
    """What a launch touches of a tensor, each byte once."""

    size: int
    read: int
    written: int


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """One size as it was simulated."""

    sized: Sized
    terms: Terms
    counts: Mapping[str, int]
    touched: Mapping[str, Touched]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Counted:
    """One kernel of a layer. Where its own size was simulated, `fits` is that alone, and there is no `check`."""

    kernel: str
    launch: Launch
    terms: Terms
    counts: Mapping[str, float]
    touched: Mapping[str, Touched]
    fits: tuple[Simulated, ...]
    check: Simulated | None
    predicted: Mapping[str, float]
    refitted: Mapping[str, float]

    @property
    def whole(self) -> bool:
        return self.fits[0].terms == self.terms and len(self.fits) == 1

    @property
    def errors_percent(self) -> dict[str, float]:
        """Of the rule at the size that checks it, by count."""
        if self.check is None:
            return {}
        return {name: error_percent(self.predicted[name], self.check.counts[name]) for name in CHECKED}

    @property
    def changes_percent(self) -> dict[str, float]:
        """Of the layer's counts when the size that checks the rule is solved with, by count."""
        return {name: error_percent(self.refitted[name], self.counts[name]) for name in CHECKED}


def count(full: Sized, kernel: str, candidates: Sequence[Sized], device: Device) -> Counted | None:
    """Simulate a kernel of a layer; None where no size can be. `device` is entered, and its schedule COUNTED."""
    chosen = choose(full, kernel, candidates)
    if chosen is None:
        return None
    launch, terms = full.launches[kernel], terms_of(full, kernel)
    compiled = launch.kernel.warmup(*launch.arguments, grid=(1,), **launch.keywords)
    fits = tuple(_simulate(compiled, sized, kernel, device) for sized in chosen.fits)
    check = None if chosen.check is None else _simulate(compiled, chosen.check, kernel, device)
    return Counted(
        kernel=kernel,
        launch=launch,
        terms=terms,
        counts=_extrapolated(fits, terms),
        touched=touched_at(tensor_bytes(launch), [*fits, *([] if check is None else [check])]),
        fits=fits,
        check=check,
        predicted={} if check is None else _extrapolated(fits, check.terms),
        refitted=_extrapolated(fits if check is None else (*fits, check), terms),
    )


def _extrapolated(fits: Sequence[Simulated], to: Terms) -> dict[str, float]:
    return extrapolated([one.terms for one in fits], [one.counts for one in fits], to)


def _simulate(compiled: Any, sized: Sized, kernel: str, device: Device) -> Simulated:
    launch, began = sized.launches[kernel], time.perf_counter()
    for tensor in tensors(launch):
        tensor.zero_()  # what was not a number would be summed to other bits in another order, and seem a race
    compiled[(*launch.grid, 1, 1)[:3]](*launch.named.values())
    report = device.reports[-1]
    return Simulated(
        sized=sized,
        terms=terms_of(sized, kernel),
        counts=_counts(report),
        touched=_touched(report, launch),
        seconds=time.perf_counter() - began,
    )


def _counts(report: Report) -> dict[str, int]:
    total = report.counters.total
    found = {name: sum(total[part] for part in parts) for name, parts in COUNTS.items()}
    return found | {"warp_instructions": report.warp_instructions}


def _touched(report: Report, launch: Launch) -> dict[str, Touched]:
    names, sizes = tensor_names(launch), tensor_bytes(launch)
    return {
        names[one.number]: Touched(size=sizes[names[one.number]], read=one.read, written=one.written)
        for one in report.footprints
    }


def touched_at(sizes: Mapping[str, int], simulated: Sequence[Simulated]) -> dict[str, Touched]:
    """What is touched of each tensor at the layer's own size: the same share as at the simulated sizes. Where those
    differ, by the pixels at an image's end that no whole window has, that of the largest image."""
    found = {}
    for name in simulated[0].touched:
        seen = [one.touched[name] for one in simulated if name in one.touched]
        found[name] = Touched(
            size=sizes[name],
            read=_share_of(sizes[name], [(one.size, one.read) for one in seen]),
            written=_share_of(sizes[name], [(one.size, one.written) for one in seen]),
        )
    return found


def _share_of(size: int, seen: Sequence[tuple[int, int]]) -> int:
    """Of a tensor of `size` bytes; where shares differ the largest seen, from the largest tensor."""
    return round(size * max((share / whole, whole) for whole, share in seen if whole)[0]) if size else 0


def tile_words(launch: Launch) -> str:
    """The launch's tile in short."""
    tile = tile_of(launch)
    return launch.tile if tile is None else f"{launch.tile} x{tile.splits}" if hasattr(tile, "splits") else launch.tile

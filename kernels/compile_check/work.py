"""What the compile check compiles on a target: which launches of which layers, and which of them CI leaves out."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tidepool.kernels.compile_check.compile import (
    Launch,
    collecting,
    compile_for,
    compiled_row,
    dtypes_on,
    gpu_of,
)
from tidepool.kernels.compile_check.conv_cases import CASES
from tidepool.kernels.compile_check.conv_launches import launch_case, launch_gradients, shipped_tiles
from tidepool.kernels.compile_check.launched import launched_layers
from tidepool.kernels.compile_check.modelled import Compiled, with_cycles
from tidepool.kernels.compile_check.norm_cases import (
    NORM_CASES,
    SQUEEZE_EXCITE,
    NormCase,
    launch_norm_case,
    launch_squeeze_excite,
)
from tidepool.kernels.compile_check.rows import Row
from tidepool.kernels.layer.dtypes import BY_NAME
from tidepool.kernels.layer.geometry import Geometry
from tidepool.kernels.layer.norm_epilogue import NormEpilogue
from tidepool.kernels.runtime.targets import GFX942, SM_80, SM_90, SM_100, Target

WHOLE = (SM_80, SM_90, SM_100, GFX942)
"""The targets of which CI compiles every tile; of the others one tile of each kernel."""
LISTED = (SM_90,)
"""Those of which CI compiles the listed layers one by one, in every dtype. Of the other whole targets it compiles one
layer of each kind."""
DRAWN: tuple[Target, ...] = ()
"""Targets for which CI compiles layers of suites and networks as well, as `--everything` does for all: on four they
are half of its time, which is limited."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is compiled, or run on the simulated GPU under `schedule`: the layers of these names (none: all), everything
    or CI's part of it, and of that one share out of `shares`."""

    names: tuple[str, ...] = ()
    everything: bool = False
    share: int = 0
    shares: int = 1
    schedule: str = ""


@dataclass(frozen=True)
class Work:
    """Something that launches kernels when `launch` is called. `shipped`: one tile; `drawn`: a layer of a suite or
    network; neither: a listed layer."""

    case: str
    dtype: str
    launch: Callable[[], None]
    ordered: bool = True
    shipped: bool = False
    drawn: bool = False


def case_names() -> tuple[str, ...]:
    """Every layer that can be named, in the order they are compiled."""
    listed = [*(case.name for case in CASES), *(case.name for case in NORM_CASES)]
    return (*listed, SQUEEZE_EXCITE, *(case.name for case in launched_layers()))


def work_on(target: Target, selection: Selection) -> list[Work]:
    """What is launched on a target: the listed layers, every shipped tile, and the layers of suites and networks."""
    found = [
        Work(case.name, dtype, partial(launch_case, case, dtype), ordered=case.channels_last)
        for case in CASES
        for dtype in dtypes_on(target, case.dtypes)
    ]
    found += [
        Work(case.name, dtype, partial(launch_norm_case, case, BY_NAME[dtype]))
        for case in NORM_CASES
        for dtype in dtypes_on(target, case.dtypes)
    ]
    found.append(Work(SQUEEZE_EXCITE, "bf16", partial(launch_squeeze_excite, BY_NAME["bf16"])))
    whole = selection.everything or target in WHOLE
    if whole and not selection.names:
        tiles = shipped_tiles(target)
        found += [Work(f"tile of {one.case.name}", one.dtype, one.launch, shipped=True) for one in tiles]
    if selection.everything or selection.names or target in DRAWN:
        found += [Work(name, "bf16", launch, drawn=True) for name, launch in _drawn()]
    return [work for work in found if not selection.names or work.case in selection.names]


def _drawn() -> Iterator[tuple[str, Callable[[], None]]]:
    """(layer, launch) of suites and networks; of a layer with a norm its convolution's own gradients as well."""
    for layer in launched_layers():
        if isinstance(layer, NormCase):
            yield layer.name, partial(launch_norm_case, layer, BY_NAME["bf16"])
            yield layer.name, partial(launch_gradients, layer.convolution(), "bf16")
        else:
            yield layer.name, partial(launch_case, layer, "bf16")


def rows_on(target: Target, selection: Selection, work_done: Callable[[int, int], None]) -> Iterator[Row]:
    """Compile the selection for `target`, which this process compiles for from now on; a row a distinct kernel.

    `work_done` is told how many layers are done, and of how many.
    """
    compile_for(gpu_of(target), target)
    yield from with_cycles(target, _compiled_on(target, selection, work_done))


def _compiled_on(target: Target, selection: Selection, work_done: Callable[[int, int], None]) -> Iterator[Compiled]:
    seen: set[str] = set()
    work = work_on(target, selection)
    for number, one in enumerate(work, start=1):
        with collecting(one.dtype) as asked:
            one.launch()
        for launch in asked:
            keys = _keys(launch, one, target, selection)
            mine = zlib.crc32(keys[0].encode()) % selection.shares == selection.share
            if keys[0] not in seen and mine:
                yield compiled_row(target, one.case, one.dtype, launch, one.ordered)
            seen.update(keys)
        work_done(number, len(work))


def _keys(launch: Launch, work: Work, target: Target, selection: Selection) -> tuple[str, ...]:
    """What stands for a launch: it is compiled if the first of these is new. Kernels that are the same are compiled
    once; in CI's selection also layers of one kind, and of a kernel one tile, where that will do."""
    if selection.everything or selection.names:
        return (launch.key,)
    if target not in WHOLE:
        return (launch.name,)
    each = work.shipped or (target in LISTED and not work.drawn)
    kind = _kind(launch, work.dtype)
    return (launch.key, kind) if each else (kind, launch.key)


_NOT_OF_A_KIND = ("ROWS", "STRIDE_XW", "BLOCK_C", "HAS_BIAS", "SLOPES", "norm")


def _kind(launch: Launch, dtype: str) -> str:
    """What a tile's registers depend on most: the kernel, its dtype (bf16 and fp16 are alike) and blocks, the kinds of
    activation and pool, and how many sizes are 1, which the compiler knows. How often loops run and how large a filter
    is are left out."""
    words = [(name, _word(value)) for name, value in sorted(launch.keywords.items()) if name not in _NOT_OF_A_KIND]
    ones = sum(1 for number in launch.arguments if isinstance(number, int) and number == 1)
    return repr((launch.name, "16 bits" if dtype in ("bf16", "fp16") else dtype, words, ones))


def _word(value: object) -> object:
    if isinstance(value, Geometry):
        overlap = value.windows_per_pixel > 1
        return value.rank == 3, value.depthwise, value.smooth, value.pool, min(value.window, 5), overlap
    return value.kind if isinstance(value, NormEpilogue) else str(value)

"""Which kernel carries a layer, forward and each gradient: the launchers, and launches made ready to be repeated.

`conv_act_pool_forward`, `_dgrad` and `_wgrad` launch once; the `bind_*` behind them decide by layer, layouts, dtype and
target, and return a function that launches and decides nothing. A tile given by hand overrides the rule's choice.
"""

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from tidepool.kernels.conv.depthwise import (
    conv_act_pool_depthwise_dgrad,
    conv_act_pool_depthwise_forward,
    conv_act_pool_depthwise_forward_kernel,
    conv_act_pool_depthwise_wgrad,
    depthwise_wgrad_tile,
    prepare_depthwise,
)
from tidepool.kernels.conv.dgrad import bind_portable_dgrad
from tidepool.kernels.conv.few_channels import bind_few_channels
from tidepool.kernels.conv.forward import (
    AnyForwardTile,
    bind_portable_forward,
    conv_act_pool_forward_kernel,
    pointers,
    prepare_portable,
)
from tidepool.kernels.conv.hopper import bind_hopper, readable_by_tma
from tidepool.kernels.conv.wgrad import (
    bind_portable_wgrad,
    conv_act_pool_wgrad_reduce_kernel,
    empty_workspace,
    prepare_reduce,
)
from tidepool.kernels.conv.windowed_dgrad import conv_act_pool_windowed_dgrad_kernel, prepare_windowed_dgrad
from tidepool.kernels.conv.windowed_wgrad import conv_act_pool_windowed_wgrad_kernel, prepare_windowed_wgrad
from tidepool.kernels.layer.formats import layout_of
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.norm_epilogue import NormOperand
from tidepool.kernels.runtime.launch import (
    Prepared,
    channels_are_neighbours,
    channels_innermost,
    launch_nothing,
    launch_prepared,
    operand_kind,
    programs_in_flight,
)
from tidepool.kernels.runtime.mode import mode_of
from tidepool.kernels.tiles.dense import DepthwiseTile, DgradTile, WgradTile, dgrad_tile, wgrad_tile
from tidepool.kernels.tiles.few_channels import (
    FEW_CHANNELS_TARGETS,
    FewChannelsTile,
    few_channels_candidates,
    fits_few_channels,
)
from tidepool.kernels.tiles.hopper import HOPPER_TARGET, HopperTile, fits_hopper, hopper_tile, wastes_boxes
from tidepool.kernels.tiles.windowed import WindowedDgradTile, WindowedWgradTile


def conv_act_pool_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    code: Tensor | None,
    winner: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: AnyForwardTile | None = None,
    norm: NormOperand | None = None,
    slope: Tensor | None = None,
) -> None:
    """Launch the forward kernel into `y` (N, K, *output), `code` and `winner` (None: not saved).

    x (N, C, *spatial) and weight (K, C/groups, *kernel) in any strides. `code` is what `Geometry` says backward needs:
    winner codes shaped as y, or packed bits (N, groups * ceil(K/groups / 8), *conv). `tile` overrides the rule's;
    a gradient's raises ValueError, and one whose kernel layer or tensors do not fit gives way to the rule's.
    `norm`: what a norm behind the convolution wants (`layer.norm_epilogue`); `slope`: the activation's learned one, of
    1 or K elements.
    """
    if norm is None:
        launch_forward = bind_forward(x, weight, bias, y, code, winner, geometry, shapes, tile, slope)
        launch_forward(x, weight, bias, y, code, winner, slope)
    else:
        launch_with_norm = bind_forward_with_norm(x, weight, bias, y, code, geometry, shapes, tile, norm)
        launch_with_norm(x, weight, bias, y, code, norm.operands)


def bind_forward_with_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    code: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: AnyForwardTile | None,
    norm: NormOperand,
) -> Callable[..., None]:
    """`conv_act_pool_forward` with a norm behind the convolution, made ready for tensors of these layouts and dtypes: a
    function of (x, weight, bias, y, code, operands) that launches and decides nothing."""
    if shapes.num_outputs == 0:
        return launch_nothing
    kernel: Any
    packed = channels_innermost(weight)
    if geometry.depthwise:
        depthwise = tile if isinstance(tile, DepthwiseTile) else None
        prepared = prepare_depthwise(x, packed, bias, y, code, geometry, shapes, depthwise, norm.residual)
        kernel = conv_act_pool_depthwise_forward_kernel
    else:
        prepared = prepare_portable(x, packed, bias, y, code, geometry, shapes, tile, norm.residual)
        kernel = conv_act_pool_forward_kernel
    prepared = Prepared(prepared.grid, prepared.scalars, {**prepared.keywords, "NORM": norm.epilogue})

    def launch_with_norm(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        y: Tensor,
        code: Tensor | None,
        operands: tuple[Any, ...],
    ) -> None:
        given = pointers(x, channels_innermost(weight), bias, y, code, None)
        launch_prepared(kernel, prepared, *given, operands=operands)

    return launch_with_norm


def bind_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    code: Tensor | None,
    winner: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: AnyForwardTile | None = None,
    slope: Tensor | None = None,
) -> Callable[..., None]:
    """`conv_act_pool_forward` made ready for tensors of these layouts, dtypes and alignment of x to 16 bytes: a
    function of (x, weight, bias, y, code, winner, slope) that launches and decides nothing."""
    target = mode_of(x.device).target
    if shapes.num_outputs == 0:
        return launch_nothing
    if geometry.depthwise:
        depthwise = tile if isinstance(tile, DepthwiseTile) else None
        return functools.partial(
            conv_act_pool_depthwise_forward, geometry=geometry, shapes=shapes, tile=depthwise
        )
    if isinstance(tile, HopperTile) or (tile is None and target is HOPPER_TARGET):
        fits = fits_hopper(geometry, shapes, operand_kind(x.dtype, x.device)) and readable_by_tma(x, geometry)
        if fits and (isinstance(tile, HopperTile) or not wastes_boxes(geometry, shapes)):
            chosen = tile if isinstance(tile, HopperTile) else hopper_tile(geometry, shapes)
            return bind_hopper(x, weight, bias, y, code, winner, geometry, shapes, chosen, slope)
        tile = None
    if isinstance(tile, FewChannelsTile) or (tile is None and target in FEW_CHANNELS_TARGETS):
        if fits_few_channels(geometry, operand_kind(x.dtype, x.device)):
            few = tile if isinstance(tile, FewChannelsTile) else few_channels_candidates(geometry)[0]
            return bind_few_channels(x, weight, bias, y, code, winner, geometry, shapes, few, slope)
        tile = None
    return bind_portable_forward(x, weight, bias, y, code, winner, geometry, shapes, tile, slope)


def conv_act_pool_dgrad(
    grad: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    weight: Tensor,
    dx: Tensor,
    geometry: Geometry,
    shapes: Shapes,
    tile: DgradTile | WindowedDgradTile | None = None,
) -> None:
    """Launch the input gradient into `dx` (N, C, *spatial).

    grad (N, K, *output) in any strides, 0 included; `code` as forward saved it; `saved` pre-activations, the winners'
    or (smooth activation, average pool) the whole convolution output. Tensors not needed are None.
    """
    bind_dgrad(grad, code, saved, weight, dx, geometry, shapes, tile)(grad, code, saved, weight, dx)


def bind_dgrad(
    grad: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    weight: Tensor,
    dx: Tensor,
    geometry: Geometry,
    shapes: Shapes,
    tile: DgradTile | WindowedDgradTile | None = None,
) -> Callable[..., None]:
    """`conv_act_pool_dgrad` made ready for tensors of these layouts and dtypes: a function of (grad, code, saved,
    weight, dx) that launches and decides nothing."""
    if dx.numel() == 0:
        return launch_nothing
    if geometry.depthwise:
        return functools.partial(conv_act_pool_depthwise_dgrad, geometry=geometry, shapes=shapes)
    packed = channels_innermost(weight)
    kind = operand_kind(grad.dtype, grad.device)
    channels_last = channels_are_neighbours(grad, code, dx)
    tile = tile or dgrad_tile(geometry, shapes.phase_pixels(geometry), mode_of(grad.device).target, kind, channels_last)
    if isinstance(tile, WindowedDgradTile):
        windowed = prepare_windowed_dgrad(grad, code, packed, dx, geometry, shapes, tile)

        def launch_windowed(
            grad: Tensor, code: Tensor | None, saved: Tensor | None, weight: Tensor, dx: Tensor
        ) -> None:
            pointers = (grad, grad if code is None else code, channels_innermost(weight), dx)
            launch_prepared(conv_act_pool_windowed_dgrad_kernel, windowed, *pointers)

        return launch_windowed
    return bind_portable_dgrad(grad, code, saved, packed, dx, geometry, shapes, tile)


def conv_act_pool_wgrad(
    grad: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    x: Tensor,
    dweight: Tensor | None,
    dbias: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: WgradTile | WindowedWgradTile | None = None,
) -> None:
    """Launch the weight gradient into `dweight` (K, C/groups, *kernel) and the bias gradient into `dbias` (K,).

    Either may be None: not wanted, not computed. grad, code and saved as for `conv_act_pool_dgrad`;
    x (N, C, *spatial).
    """
    launch = bind_wgrad(grad, code, saved, x, dweight, dbias, geometry, shapes, tile)
    launch(grad, code, saved, x, dweight, dbias)


def bind_wgrad(
    grad: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    x: Tensor,
    dweight: Tensor | None,
    dbias: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: WgradTile | WindowedWgradTile | None = None,
) -> Callable[..., None]:
    """`conv_act_pool_wgrad` made ready for tensors of these layouts and dtypes: a function of (grad, code, saved, x,
    dweight, dbias) that launches the split sums and what adds them up, and decides nothing."""
    if shapes.conv_pixels == 0:
        return _no_gradient
    needs = (dweight is not None, dbias is not None)
    launch_splits, splits = _bind_splits(grad, code, saved, x, needs, geometry, shapes, tile)
    columns = geometry.taps * geometry.channels if needs[0] else 0
    elements = geometry.filters * geometry.groups * (columns + int(needs[1]))
    reduce = prepare_reduce(
        geometry, elements, splits, needs, None if dweight is None else layout_of(dweight),
        mode_of(grad.device).interpreted,
    )  # fmt: skip

    def launch(
        grad: Tensor,
        code: Tensor | None,
        saved: Tensor | None,
        x: Tensor,
        dweight: Tensor | None,
        dbias: Tensor | None,
    ) -> None:
        workspace = empty_workspace(grad, splits * elements)
        launch_splits(grad, code, saved, x, workspace)
        launch_prepared(
            conv_act_pool_wgrad_reduce_kernel, reduce,
            workspace, workspace if dweight is None else dweight, workspace if dbias is None else dbias,
        )  # fmt: skip

    return launch


def _no_gradient(*tensors: Tensor | None) -> None:
    """The gradients, last in the arguments of a wgrad launch, of a layer without pixels: zeros."""
    for gradient in tensors[-2:]:
        if gradient is not None:
            gradient.zero_()


def _bind_splits(
    grad: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    x: Tensor,
    needs: tuple[bool, bool],
    geometry: Geometry,
    shapes: Shapes,
    tile: WgradTile | WindowedWgradTile | None,
) -> tuple[Callable[..., None], int]:
    """What launches the split sums of (grad, code, saved, x) into a workspace, and the number of splits."""
    if geometry.depthwise:
        depthwise = depthwise_wgrad_tile(geometry, shapes.conv_pixels, grad)
        launch_depthwise = functools.partial(
            conv_act_pool_depthwise_wgrad, needs=needs, geometry=geometry, shapes=shapes, tile=depthwise
        )
        return launch_depthwise, depthwise.splits
    kind = operand_kind(grad.dtype, grad.device)
    wanted, channels_last = programs_in_flight(grad.device), channels_are_neighbours(grad, code, x)
    tile = tile or wgrad_tile(geometry, shapes.conv_pixels, mode_of(grad.device).target, kind, wanted, channels_last)
    if isinstance(tile, WindowedWgradTile):
        windowed = prepare_windowed_wgrad(grad, code, x, needs, geometry, shapes, tile)

        def launch_windowed(
            grad: Tensor, code: Tensor | None, saved: Tensor | None, x: Tensor, workspace: Tensor
        ) -> None:
            pointers = (grad, grad if code is None else code, x, workspace)
            launch_prepared(conv_act_pool_windowed_wgrad_kernel, windowed, *pointers)

        return launch_windowed, tile.splits
    return bind_portable_wgrad(grad, code, saved, x, needs, geometry, shapes, tile), tile.splits

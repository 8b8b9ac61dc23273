"""What forward saves is wide enough for the window it tells the winner of."""

import torch

from tests.kernels.exact import DEVICE
from tidepool.kernels import MaxPool
from tidepool.kernels.conv.choose import conv_act_pool_dgrad
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.saved import empty_saved
from tidepool.kernels.layer.sizes import build_geometry


def test_codes_are_as_wide_as_the_window_needs() -> None:
    for window, expected in ((15, torch.uint8), (16, torch.int16), (181, torch.int16), (182, torch.int32)):
        layer = parse_layer((1, 1), 1, 0, 1, 1, "relu", MaxPool(window))
        geometry, shapes = build_geometry((1, 1, window, window), (1, 1, 1, 1), layer)
        code, _ = empty_saved(torch.empty(1, 1, 1, 1), geometry, shapes)
        assert code is not None
        assert code.dtype == expected
        assert geometry.window - 1 <= torch.iinfo(expected).max
        assert geometry.code_off not in range(geometry.window)


def test_an_element_beyond_16_bits_gets_its_gradient() -> None:
    layer = parse_layer((1, 1), 1, 0, 1, 1, "relu", MaxPool(182))
    geometry, shapes = build_geometry((1, 1, 182, 182), (1, 1, 1, 1), layer)
    grad, weight = torch.full((1, 1, 1, 1), 3.0, device=DEVICE), torch.ones(1, 1, 1, 1, device=DEVICE)
    code = torch.full((1, 1, 1, 1), 182 * 182 - 1, dtype=torch.int32, device=DEVICE)
    dx = torch.full((1, 1, 182, 182), float("nan"), device=DEVICE)
    conv_act_pool_dgrad(grad, code, None, weight, dx, geometry, shapes)
    assert dx.nonzero().tolist() == [[0, 0, 181, 181]]
    assert dx[0, 0, 181, 181] == 3

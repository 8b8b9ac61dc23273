"""The shape arithmetic of one fused layer: what a kernel is specialised on, and what comes out.

Everything has three spatial dimensions (depth, height, width) inside; a 2-D layer has depth 1 with a 1-wide
filter, a 1-D layer height 1 as well. `layer/settings.py` builds these from what a caller wrote.
"""

from dataclasses import dataclass, fields
from math import gcd

from tidepool.kernels.activations import Activation

Triple = tuple[int, int, int]

MAX_BYTE_CODES = 254
"""Most codes that fit a byte beside the reserved "off" code."""
MAX_INT16_CODES = 2**15
"""Most codes, counted from 0, that fit 16 bits beside a negative "off"; more take 32."""


@dataclass(frozen=True, eq=True)
class Geometry:
    """The static description of a layer, passed whole to the kernels as one constexpr.

    `channels` and `filters` are per group (C/groups and K/groups). `pool` is max, avg
    or none; `partial_windows` says whether a window may reach over the convolution's edge. Convolution padding
    is the low side's: the high side only shows in the output size.
    """

    rank: int
    groups: int
    channels: int
    filters: int
    kernel_d: int
    kernel_h: int
    kernel_w: int
    stride_d: int
    stride_h: int
    stride_w: int
    padding_d: int
    padding_h: int
    padding_w: int
    dilation_d: int
    dilation_h: int
    dilation_w: int
    activation: Activation
    pool: str
    window_d: int
    window_h: int
    window_w: int
    pool_stride_d: int
    pool_stride_h: int
    pool_stride_w: int
    pool_padding_d: int
    pool_padding_h: int
    pool_padding_w: int
    pool_dilation_d: int
    pool_dilation_h: int
    pool_dilation_w: int
    partial_windows: bool
    count_include_pad: bool

    @property
    def taps(self) -> int:
        """Filter elements per channel."""
        return self.kernel_d * self.kernel_h * self.kernel_w

    @property
    def window(self) -> int:
        """Convolution outputs per pooling window (1 without a pool)."""
        return self.window_d * self.window_h * self.window_w

    @property
    def depthwise(self) -> bool:
        """One input channel a group, several groups: no sum over channels, and kernels of its own."""
        return self.groups > 1 and self.channels == 1

    @property
    def rows(self) -> int:
        """Filters that one kernel's row index runs over: a group's, or all of them in a depthwise layer."""
        return self.groups * self.filters if self.depthwise else self.filters

    @property
    def row_groups(self) -> int:
        """How many times those rows make up the layer's filters."""
        return 1 if self.depthwise else self.groups

    @property
    def windows_per_pixel(self) -> int:
        """Most pooling windows that any convolution output lies in."""
        reach_d = (self.window_d - 1) * self.pool_dilation_d // self.pool_stride_d + 1
        reach_h = (self.window_h - 1) * self.pool_dilation_h // self.pool_stride_h + 1
        reach_w = (self.window_w - 1) * self.pool_dilation_w // self.pool_stride_w + 1
        return reach_d * reach_h * reach_w

    @property
    def pools_boxes(self) -> bool:
        """Whether a two-dimensional layer's windows are 2x2 side by side: boxes of even sides hold them whole."""
        sides = (self.window_h, self.window_w, self.pool_stride_h, self.pool_stride_w)
        plain = (self.pool_padding_h, self.pool_padding_w, self.pool_dilation_h, self.pool_dilation_w)
        return self.pool != "none" and sides == (2, 2, 2, 2) and plain == (0, 0, 1, 1)

    @property
    def tap_step_d(self) -> int:
        """Distance between the taps that one stride phase of the input meets."""
        return self.stride_d // gcd(self.stride_d, self.dilation_d)

    @property
    def tap_step_h(self) -> int:
        return self.stride_h // gcd(self.stride_h, self.dilation_h)

    @property
    def tap_step_w(self) -> int:
        return self.stride_w // gcd(self.stride_w, self.dilation_w)

    @property
    def phase_taps_d(self) -> int:
        """Most taps that any stride phase of the input meets."""
        return -(-self.kernel_d // self.tap_step_d)

    @property
    def phase_taps_h(self) -> int:
        return -(-self.kernel_h // self.tap_step_h)

    @property
    def phase_taps_w(self) -> int:
        return -(-self.kernel_w // self.tap_step_w)

    @property
    def code_channels(self) -> int:
        """Channels per row group of what forward saves for backward: one code a filter, or a byte per eight filters."""
        return (self.rows + 7) // 8 if self.saves_bits else self.rows

    @property
    def code_off(self) -> int:
        """The code that says "off, and its slope is 0": no gradient flows to any element of the window."""
        return 255 if self.codes <= MAX_BYTE_CODES else -1

    @property
    def saves_code(self) -> bool:
        """Whether backward needs one small integer per output: which element won, and on which side of two slopes."""
        return self.pool == "max" or (self.pool == "none" and self.activation.needs_side)

    @property
    def saves_bits(self) -> bool:
        """Whether backward needs one bit per convolution output: an activation of two slopes under an average."""
        return self.pool == "avg" and self.activation.needs_side

    @property
    def codes_sides(self) -> bool:
        """Whether the winner's side is told by adding the window's size to its element. Where the activation clips,
        the second slope is 0 and `code_off` says so."""
        return self.saves_code and self.activation.needs_side and not self.activation.clips

    @property
    def codes(self) -> int:
        """How many codes there are besides `code_off`."""
        return self.window * (2 if self.codes_sides else 1)

    @property
    def smooth(self) -> bool:
        """Whether the activation's derivative needs the pre-activation value."""
        return self.activation.needs_value

    @property
    def saves_winner(self) -> bool:
        """Whether backward needs the pre-activation of each output's winner."""
        return self.smooth and self.pool != "avg"

    def __hash__(self) -> int:
        # A key of several caches on every launch: hashed once, not field by field each time.
        known = self.__dict__.get("_hash")
        if known is None:
            known = hash(tuple(getattr(self, f.name) for f in fields(self)))
            object.__setattr__(self, "_hash", known)
        return known

    def __repr__(self) -> str:
        # Short and free of quotes: Triton puts it into cache keys. It does not see the device functions that kernels
        # reach through the activation: its key carries their source.
        values = {f.name: getattr(self, f.name) for f in fields(self)} | {"activation": self.activation.key}
        return "Geometry_" + "_".join(str(value) for value in values.values())


@dataclass(frozen=True)
class Shapes:
    """The sizes that change from call to call: batch, input, convolution output and pooled output, (D, H, W) each."""

    batch: int
    input: Triple
    conv: Triple
    output: Triple

    @property
    def num_outputs(self) -> int:
        """N * pooled pixels."""
        return self.batch * self.output[0] * self.output[1] * self.output[2]

    @property
    def conv_pixels(self) -> int:
        """N * convolution output pixels."""
        return self.batch * self.conv[0] * self.conv[1] * self.conv[2]

    def phase_pixels(self, geometry: Geometry) -> int:
        """N * input pixels of the largest stride phase."""
        depth = -(-self.input[0] // geometry.stride_d)
        height = -(-self.input[1] // geometry.stride_h)
        return self.batch * depth * height * -(-self.input[2] // geometry.stride_w)


def conv_output_size(size: int, kernel: int, stride: int, padding_low: int, padding_high: int, dilation: int) -> int:
    """Convolution output length of one dimension; below 1 when the filter does not fit."""
    return (size + padding_low + padding_high - dilation * (kernel - 1) - 1) // stride + 1


def pool_output_size(size: int, window: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """Pooled length of one dimension. In ceil mode a last window that would start in the padding is dropped."""
    span = size + 2 * padding - dilation * (window - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    count = -(-span // stride) + 1
    if (count - 1) * stride >= size + padding:
        count -= 1
    return count

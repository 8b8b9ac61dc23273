"""Tensor maps: what a bulk tensor copy knows of a tensor in global memory (PTX ISA 8.7, section 5.5)."""

from dataclasses import dataclass

import numpy as np

from tidepool.simulator.faults import Fault
from tidepool.simulator.numbers import Array

SWIZZLES = (0, 32, 64, 128)
"""Bytes of a row of the pattern, by its number in the driver's interface."""


@dataclass(frozen=True, kw_only=True)
class TensorMap:
    """A tiled tensor map. Sizes, strides (bytes) and box innermost first; `swizzle` as CUtensorMapSwizzle.

    `fill_nan`: what lies outside the tensor reads as NaN, not zero.
    """

    address: int
    element: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int
    fill_nan: bool = False

    @property
    def box_bytes(self) -> int:
        """Bytes of one box in shared memory."""
        return int(np.prod(self.box)) * self.element

    def elements(self, corner: tuple[int, ...], offsets: tuple[int, ...] = ()) -> tuple[Array, Array]:
        """Global addresses of a box's elements in the order of the box, and which of them are in the tensor. `offsets`
        are for im2col maps. Raises Fault for coordinates that are not for this kind of map."""
        if offsets:
            raise Fault("copy", "im2col copy with a tiled tensor map")
        if len(corner) != len(self.box):
            raise Fault("copy", f"{len(corner)} coordinates for a tensor map of {len(self.box)} dimensions")
        addresses = np.full([1] * len(self.box), self.address, np.int64)
        inside = np.ones([1] * len(self.box), np.bool_)
        for axis, (start, size, stride, count) in enumerate(
            zip(corner, self.sizes, self.strides, self.box, strict=True)
        ):
            place = (start + np.arange(count)).reshape(
                [-1 if axis == len(self.box) - 1 - d else 1 for d in range(len(self.box))]
            )
            inside = inside & (place >= 0) & (place < size)
            addresses = addresses + place * stride
        return addresses.reshape(-1), np.broadcast_to(inside, addresses.shape).reshape(-1)

    def places(self, start: int) -> Array:
        """Shared-memory addresses of a box's elements in the order of the box, put at `start`."""
        return swizzled(start + np.arange(int(np.prod(self.box))) * self.element, SWIZZLES[self.swizzle])


@dataclass(frozen=True, kw_only=True)
class Im2colMap(TensorMap):
    """A tensor map of im2col form (section 5.5.4), for tensors NWC, NHWC or NDHWC; `box` is channels per pixel, pixels
    per column. By W, H, D: corners of the bounding box, `lower` from the first pixel and `upper` from the last, and
    `steps` from one pixel to the next."""

    lower: tuple[int, ...]
    upper: tuple[int, ...]
    steps: tuple[int, ...]

    def elements(self, corner: tuple[int, ...], offsets: tuple[int, ...] = ()) -> tuple[Array, Array]:
        """`corner` is the first channel, the filter's base in W, H, D, and the image; the base walks through the
        bounding box, W first, on to the next image, and a pixel lies `offsets` from the base. Raises Fault for a base
        outside the bounding box, offsets out of range, and the coordinates of a tiled map."""
        if len(corner) != len(self.sizes) or len(offsets) != len(self.lower):
            raise Fault("copy", f"{len(corner)} coordinates and {len(offsets)} offsets for an im2col tensor map of "
                        f"{len(self.sizes)} dimensions")  # fmt: skip
        limit = 1 << 16 // len(offsets)
        if not all(0 <= offset < limit for offset in offsets):
            raise Fault("copy", f"im2col offsets {offsets}: expected each from 0 to {limit - 1}")
        channels = corner[0] + np.arange(self.box[0])
        pixels = self._bases(corner[1:]) + np.array([*offsets, 0])
        inside = ((pixels >= 0) & (pixels < np.array(self.sizes[1:]))).all(1)[:, None]
        inside = inside & (channels >= 0) & (channels < self.sizes[0])
        addresses = self.address + (pixels @ np.array(self.strides[1:]))[:, None] + channels * self.strides[0]
        return addresses.reshape(-1), inside.reshape(-1)

    def _bases(self, start: tuple[int, ...]) -> Array:
        """[pixels, dimensions without C]: where the filter's base is for each pixel of the column, from `start` on."""
        bounds = [size - 1 + upper for size, upper in zip(self.sizes[1:], self.upper, strict=False)]
        at = list(start)
        for low, high, base in zip(self.lower, bounds, at, strict=False):
            if not low <= base <= high:
                raise Fault("copy", f"im2col filter base {base}: the bounding box goes from {low} to {high}")
        bases = np.empty((self.box[1], len(at)), np.int64)
        for pixel in bases:
            pixel[:] = at
            for axis, (low, high, step) in enumerate(zip(self.lower, bounds, self.steps, strict=True)):
                at[axis] += step
                if at[axis] <= high:
                    break
                at[axis] = low
            else:
                at[-1] += 1
        return bases


def swizzled(addresses: Array, width: int) -> Array:
    """The 16-byte pieces of each 1024 bytes in the order of the swizzle pattern of `width` bytes (section 5.5.6): bits
    4 to 6 of an address are changed by bits 7 to 9, as many as the width has pieces."""
    return addresses ^ ((addresses >> 7 & (width // 16 - 1 if width else 0)) << 4)

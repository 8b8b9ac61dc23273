"""Copies by im2col tensor maps, which the library in place of the driver makes, against im2col by padding and slices.

A column of an im2col matrix is, for one place of the filter, the pixels that it meets for each output pixel.
"""

import ctypes
import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from tests.simulator.ptx_kernels import EAGER, LATE, execute, kernel
from tidepool.simulator.faults import Fault
from tidepool.simulator.numbers import Array
from tidepool.simulator.ptx import parse
from tidepool.simulator.schedule import Schedule
from tidepool.simulator.tensor_map import TensorMap, swizzled

FLOAT16, FLOAT32 = 6, 7
"""CUtensorMapDataType's numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution of x (N, [D,] [H,] W, C): per spatial axis, outermost first, filter, padding, stride, dilation."""

    shape: tuple[int, ...]
    filter: tuple[int, ...]
    padding: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def axes(self) -> range:
        return range(len(self.filter))

    @property
    def out(self) -> tuple[int, ...]:
        return tuple(
            (self.shape[1 + i] + 2 * self.padding[i] - self.dilation[i] * (self.filter[i] - 1) - 1) // self.stride[i]
            + 1
            for i in self.axes
        )

    def column(self, x: Array, place: tuple[int, ...]) -> Array:
        """[output pixels, C]: what this place of the filter meets."""
        padded = np.pad(x, [(0, 0), *[(p, p) for p in self.padding], (0, 0)])
        slices = [
            slice(place[i] * self.dilation[i], place[i] * self.dilation[i] + self.stride[i] * (self.out[i] - 1) + 1,
                  self.stride[i])
            for i in self.axes
        ]  # fmt: skip
        return padded[:, *slices].reshape(-1, x.shape[-1])

    def base(self, pixel: int, channel: int) -> tuple[int, ...]:
        """Coordinates of an output pixel's filter base, innermost first."""
        image, *places = np.unravel_index(pixel, (self.shape[0], *self.out))
        spatial = [int(place) * self.stride[i] - self.padding[i] for i, place in enumerate(places)]
        return channel, *spatial[::-1], int(image)

    def offsets(self, place: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(place[i] * self.dilation[i] for i in self.axes)[::-1]


LAYERS = {
    "3d": Layer(shape=(3, 9, 8), filter=(3,), padding=(1,), stride=(1,), dilation=(1,)),
    "3d_strided": Layer(shape=(2, 11, 24), filter=(4,), padding=(2,), stride=(3,), dilation=(1,)),
    "4d": Layer(shape=(2, 5, 7, 8), filter=(3, 3), padding=(1, 1), stride=(1, 1), dilation=(1, 1)),
    "4d_without_padding": Layer(shape=(2, 6, 5, 16), filter=(3, 2), padding=(0, 0), stride=(1, 1), dilation=(1, 1)),
    "4d_strided": Layer(shape=(2, 7, 6, 8), filter=(3, 2), padding=(1, 0), stride=(2, 3), dilation=(1, 1)),
    "4d_dilated": Layer(shape=(2, 7, 8, 8), filter=(2, 3), padding=(2, 3), stride=(1, 2), dilation=(3, 2)),
    "5d": Layer(shape=(2, 3, 4, 3, 8), filter=(2, 3, 2), padding=(1, 1, 1), stride=(2, 1, 1), dilation=(1, 1, 1)),
}


def encoded(x: Array, kind: int, **changed: Any) -> tuple[int, bytes]:
    """What cuTensorMapEncodeIm2col returns, and the map. By W, H, D: lower, upper, steps."""
    from tidepool.simulator.triton_device.library import library_path

    arguments = {"rank": x.ndim, "channels": 8, "pixels": 16, "swizzle": 0, "fill": 0, "interleave": 0, "images": 1}
    arguments |= {"sizes": x.shape[::-1], "strides": x.strides[-2::-1], "address": x.ctypes.data} | changed
    room = ctypes.create_string_buffer(192)
    at = ctypes.addressof(room) + -ctypes.addressof(room) % 64
    spatial = len(arguments["lower"])
    status = ctypes.CDLL(str(library_path())).cuTensorMapEncodeIm2col(
        ctypes.c_void_p(at), kind, arguments["rank"], ctypes.c_void_p(arguments["address"]),
        (ctypes.c_uint64 * len(arguments["sizes"]))(*arguments["sizes"]),
        (ctypes.c_uint64 * len(arguments["strides"]))(*arguments["strides"]),
        (ctypes.c_int * spatial)(*arguments["lower"]), (ctypes.c_int * spatial)(*arguments["upper"]),
        arguments["channels"], arguments["pixels"],
        (ctypes.c_uint32 * (spatial + 2))(1, *arguments["steps"], arguments["images"]),
        arguments["interleave"], arguments["swizzle"], 0, arguments["fill"],
    )  # fmt: skip
    return status, ctypes.string_at(at, 128)


def map_of(layer: Layer, x: Array, **changed: Any) -> TensorMap:
    from tidepool.simulator.triton_device.library import tensor_maps

    reach = [layer.stride[i] * (layer.out[i] - 1) - layer.padding[i] + 1 - layer.shape[1 + i] for i in layer.axes]
    arguments = {
        "lower": [-p for p in layer.padding[::-1]],
        "upper": reach[::-1],
        "steps": layer.stride[::-1],
    } | changed
    status, raw = encoded(x, FLOAT16 if x.itemsize == 2 else FLOAT32, **arguments)
    assert status == 0
    (found,) = tensor_maps(parse(kernel("", 0, 1)), raw).values()
    assert found.address == x.ctypes.data
    return found


LOAD = """setp.eq.u32 %p1, %r0, 0; mov.b32 %r1, 16384; mov.b32 %r2, 0;
@%p1 mbarrier.init.shared::cta.b64 [%r1], 1; bar.sync 0;
@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], {size};
cvta.param.u64 %rd20, k_map_0; {values}
@%p1 cp.async.bulk.tensor.{rank}d.im2col.shared::cluster.global.mbarrier::complete_tx::bytes [%r2],
[%rd20, {{{coordinates}}}], [%r1], {{{offsets}}};
{{ .reg .pred complete; waitLoop:
mbarrier.try_wait.parity.shared::cta.b64 complete, [%r1], 0;
@!complete bra.uni waitLoop; }}
shl.b32 %r5, %r0, 2; add.s64 %rd10, %rd2, 0; mad.wide.u32 %rd10, %r0, 4, %rd10;
{copies}"""


def loaded(
    x: Array, tensor_map: TensorMap, base: tuple[int, ...], offsets: tuple[int, ...], schedule: Schedule = EAGER
) -> Array:
    """[pixels, channels]: the box as it lies in shared memory."""
    size = tensor_map.box_bytes
    coordinates = [f"%r{20 + i}" for i in range(len(base))]
    moved = [f"%rs{20 + i}" for i in range(len(offsets))]
    values = [f"mov.b32 {name}, {value};" for name, value in zip(coordinates, base, strict=True)]
    values += [f"mov.b16 {name}, {value};" for name, value in zip(moved, offsets, strict=True)]
    copies = "".join(f"ld.shared.b32 %r6, [%r5+{at}]; st.global.b32 [%rd10+{at}], %r6;" for at in range(0, size, 128))
    body = LOAD.format(
        size=size, rank=len(base), values="".join(values), coordinates=", ".join(coordinates), offsets=", ".join(moved),
        copies=copies,
    )  # fmt: skip
    out = np.zeros(size // x.itemsize, x.dtype)
    execute(body, x, out, shared=16448, maps=(with_array(tensor_map),), schedule=schedule)
    return out.reshape(tensor_map.box[::-1])


def with_array(tensor_map: TensorMap) -> TensorMap:
    """The map with its array's number, the first, in place of its address."""
    return dataclasses.replace(tensor_map, address=0)


def expected(column: Array, pixel: int, channel: int, box: tuple[int, ...]) -> Array:
    """Part of a column, with zeros beyond its last pixel and channel."""
    padded = np.pad(column, ((0, box[1]), (0, box[0])))
    return padded[pixel : pixel + box[1], channel : channel + box[0]]


@pytest.mark.parametrize("name", LAYERS)
def test_columns_are_those_of_im2col(name: str) -> None:
    layer = LAYERS[name]
    x = np.arange(1, 1 + int(np.prod(layer.shape)), dtype=np.float32).reshape(layer.shape)
    tensor_map = map_of(layer, x)
    count = layer.shape[0] * int(np.prod(layer.out))
    for place in itertools.product(*map(range, layer.filter)):
        column = layer.column(x, place)
        for pixel, channel in ((0, 0), (count // 3, layer.shape[-1] - 4), (count - 5, 0)):
            found = loaded(x, tensor_map, layer.base(pixel, channel), layer.offsets(place))
            assert (found == expected(column, pixel, channel, tensor_map.box)).all(), (place, pixel, channel)


@pytest.mark.parametrize("schedule", [LATE, Schedule(kind="seeded", seed=4)], ids=lambda one: one.kind)
@pytest.mark.parametrize("swizzle", [1, 2, 3])
def test_16_bit_pixels_swizzled(swizzle: int, schedule: Schedule) -> None:
    layer = Layer(shape=(2, 5, 4, 128), filter=(3, 3), padding=(1, 1), stride=(1, 1), dilation=(1, 1))
    width = (0, 32, 64, 128)[swizzle]
    x = np.arange(int(np.prod(layer.shape))).astype(np.float16).reshape(layer.shape)
    tensor_map = map_of(layer, x, channels=width // 2, pixels=24, swizzle=swizzle)
    found = loaded(x, tensor_map, layer.base(3, 16), layer.offsets((0, 2)), schedule)
    box = expected(layer.column(x, (0, 2)), 3, 16, tensor_map.box)
    places = swizzled(np.arange(box.size) * 2, width) // 2
    assert (found.reshape(-1)[places] == box.reshape(-1)).all()


def test_what_is_outside_is_nan_where_the_map_says_so() -> None:
    layer = LAYERS["4d"]
    x = np.ones(layer.shape, np.float32)
    found = loaded(x, map_of(layer, x, fill=1), layer.base(0, 0), (0, 0))
    outside = layer.column(x, (0, 0))[:16] == 0
    assert (np.isnan(found) == outside).all()


def test_a_column_that_starts_within_a_row_of_steps() -> None:
    """The base goes on from where it starts, and to the lower corner at the end of a row."""
    x = np.arange(2 * 3 * 7 * 8, dtype=np.float32).reshape(2, 3, 7, 8)
    layer = Layer(shape=x.shape, filter=(1, 2), padding=(0, 0), stride=(2, 2), dilation=(1, 1))
    tensor_map = map_of(layer, x, upper=(-1, 0), pixels=8)
    found = loaded(x, tensor_map, (0, 3, 0, 0), (1, 0))
    walk = [(0, 0, 3), (0, 0, 5), (0, 2, 0), (0, 2, 2), (0, 2, 4), (1, 0, 0), (1, 0, 2), (1, 0, 4)]
    assert (found == [x[image, h, w + 1] for image, h, w in walk]).all()


@pytest.mark.parametrize(
    ("base", "offsets", "message"),
    [
        ((0, -2, 0, 0), (0, 0), r"filter base -2: the bounding box goes from -1 to 5"),
        ((0, 0, 4, 0), (0, 0), r"filter base 4: the bounding box goes from -1 to 3"),
        ((0, 0, 0, 0), (0, 256), r"im2col offsets \(0, 256\): expected each from 0 to 255"),
        ((0, 0, 0), (0,), r"3 coordinates and 1 offsets for an im2col tensor map of 4 dimensions"),
    ],
)
def test_coordinates_that_are_not_for_the_map(base: tuple[int, ...], offsets: tuple[int, ...], message: str) -> None:
    layer = LAYERS["4d"]
    x = np.ones(layer.shape, np.float32)
    with pytest.raises(Fault, match=f"copy: .*{message}"):
        loaded(x, map_of(layer, x), base, offsets)


def test_the_two_kinds_of_map_are_not_for_each_others_copies() -> None:
    x = np.ones((2, 4, 8), np.float32)
    tiled = TensorMap(address=0, element=4, sizes=(8, 4, 2), strides=(4, 32, 128), box=(8, 4, 1), swizzle=0)
    with pytest.raises(Fault, match=r"copy: .*im2col copy with a tiled tensor map"):
        loaded(x, tiled, (0, 0, 0), (0,))
    layer = Layer(shape=x.shape, filter=(1,), padding=(0,), stride=(1,), dilation=(1,))
    store = """cvta.param.u64 %rd20, k_map_0; mov.b32 %r2, 0; setp.eq.u32 %p1, %r0, 0;
    @%p1 cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%rd20, {%r2, %r2, %r2}], [%r2];"""
    with pytest.raises(Fault, match=r"copy: .*3 coordinates and 0 offsets"):
        execute(store, x, shared=1024, maps=(with_array(map_of(layer, x)),))


@pytest.mark.parametrize(
    "changed",
    [
        {"rank": 2},
        {"channels": 257},
        {"channels": 2},
        {"channels": 64, "swizzle": 3},
        {"pixels": 1025},
        {"lower": (-129, 0)},
        {"upper": (128, 0)},
        {"lower": (3, 0), "upper": (-6, 0)},
        {"steps": (9, 1)},
        {"steps": (1, 0)},
        {"images": 2},
        {"interleave": 1},
        {"address": 8},
    ],
    ids=str,
)
def test_maps_that_the_driver_refuses(changed: dict[str, Any]) -> None:
    x = np.ones((2, 5, 7, 8), np.float32)
    kept = {"lower": (-1, -1), "upper": (-1, -1), "steps": (1, 1)}
    assert encoded(x, FLOAT32, **kept)[0] == 0
    assert encoded(x, FLOAT32, **kept | changed)[0] == 1  # CUDA_ERROR_INVALID_VALUE


def test_a_gluon_kernel_with_an_im2col_descriptor() -> None:
    """Triton 3.9's Gluon: a 3 x 2 convolution's pixels for the filter's place (2, 1), 32 of them by 16 channels."""
    from triton.experimental.gluon.nvidia import hopper

    if not hasattr(hopper, "TensorDescriptorIm2Col"):
        pytest.skip("im2col descriptors: Gluon has them from Triton 3.9 on")
    import torch

    from tests.simulator.im2col_kernel import load_pixels
    from tidepool import simulator

    layer = Layer(shape=(2, 6, 5, 32), filter=(3, 2), padding=(1, 0), stride=(2, 1), dilation=(1, 1))
    x = torch.arange(2 * 6 * 5 * 32, dtype=torch.float32).reshape(layer.shape).to(torch.float16)
    column = layer.column(x.numpy(), (2, 1))
    with simulator.device("sm_90", "late"):
        found = load_pixels(x, lower=[-1, 0], upper=[-2, -1], steps=[1, 2, 1, 1], base=[0, 1, 2, 16], offsets=(2, 1))
    assert (found.numpy() == expected(column, 6, 16, (16, 32))).all()

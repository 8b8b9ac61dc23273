"""Products of float64 by mma.sync: each lane's registers as the ISA's formulas place them, against NumPy's product."""

import numpy as np
import pytest

from tests.simulator.ptx_kernels import execute
from tidepool.simulator.faults import UnknownCode
from tidepool.simulator.numbers import Array

SHAPES = [(8, 4), (16, 4), (16, 8), (16, 16)]


def placed(count: int, row: object, column: object, matrix: Array) -> Array:
    """[32, count]: element (row(group, i), column(part, i)) of a matrix for register i of lane 4 group + part."""
    out = np.zeros((32, count))
    for lane in range(32):
        for i in range(count):
            out[lane, i] = matrix[row(lane // 4, lane % 4, i), column(lane // 4, lane % 4, i)]  # type: ignore[operator]
    return out


def words(count: int, first: int) -> str:
    return ", ".join(f"%rd{first + number}" for number in range(count))


def loads(count: int, first: int, pointer: int) -> str:
    body = f"mad.wide.u32 %rd10, %r0, {8 * count}, %rd{pointer};"
    return body + "".join(f"ld.global.b64 %rd{first + n}, [%rd10+{8 * n}];" for n in range(count))


@pytest.mark.parametrize(("rows", "depth"), SHAPES)
def test_a_warps_product(rows: int, depth: int) -> None:
    random = np.random.default_rng(depth)
    a, b, c = (random.integers(-9, 10, size).astype(np.float64) for size in ((rows, depth), (depth, 8), (rows, 8)))
    of_a, of_b, of_c = rows * depth // 32, depth // 4, rows // 4
    if rows == 8:
        fragment_a = placed(of_a, lambda g, t, i: g, lambda g, t, i: t, a)
    else:
        fragment_a = placed(of_a, lambda g, t, i: g + 8 * (i % 2), lambda g, t, i: 2 * i - 2 * (i % 2) + t, a)
    fragment_b = placed(of_b, lambda g, t, i: t + 4 * i, lambda g, t, i: g, b)
    rows_of_c, columns_of_c = (lambda g, t, i: g + 8 * (i // 2)), (lambda g, t, i: 2 * t + i % 2)
    fragment_c = placed(of_c, rows_of_c, columns_of_c, c)
    out = np.zeros((32, of_c))
    body = f"""{loads(of_a, 12, 1)} {loads(of_b, 24, 2)} {loads(of_c, 32, 3)}
    mma.sync.aligned.m{rows}n8k{depth}.row.col.f64.f64.f64.f64 {{{words(of_c, 36)}}}, {{{words(of_a, 12)}}},
    {{{words(of_b, 24)}}}, {{{words(of_c, 32)}}};
    mad.wide.u32 %rd10, %r0, {8 * of_c}, %rd4;"""
    body += "".join(f"st.global.b64 [%rd10+{8 * n}], %rd{36 + n};" for n in range(of_c))
    execute(body, fragment_a, fragment_b, fragment_c, out)
    np.testing.assert_array_equal(out, placed(of_c, rows_of_c, columns_of_c, a @ b + c))


def test_shapes_that_there_are_not_are_unknown() -> None:
    with pytest.raises(UnknownCode, match="product"):
        execute(
            "mma.sync.aligned.m16n8k32.row.col.f64.f64.f64.f64 {%rd1}, {%rd1}, {%rd1}, {%rd1};",
            *(np.zeros((32, 1)) for _ in range(4)),
        )

"""Structured sparsity: an operand A of which half is stored (PTX ISA 8.7, sections 9.7.14.6.1 and 9.7.15.6.1).

Of each 8 bytes of a row (a chunk: four 16-bit elements, or two 32-bit ones) half is stored. Metadata has four bits a
chunk: two indices of 2 bits, the lower bits for the first stored element. Of 32-bit elements an index counts halves, so
that 0b0100 is the first and 0b1110 the second.
"""

import numpy as np

from tidepool.simulator.faults import Fault, UnknownCode
from tidepool.simulator.numbers import Array
from tidepool.simulator.registers import LANES

CHUNK = 8
"""Bytes of a row that four bits of metadata are for."""


def metadata_lanes(element: int, depth: int, selector: int) -> slice:
    """Which of each four lanes 4g to 4g + 3 have metadata, for rows of `depth` elements of so many bytes.

    Lane 4g + selector for rows of four chunks; lanes 4g + 2 selector and the next for eight (section 9.7.14.6.1).
    Raises UnknownCode for a selector that there is not.
    """
    lanes = depth * element // CHUNK // 4
    if not 0 <= selector < 4 // lanes:
        raise UnknownCode(f"sparsity selector {selector}")
    return slice(lanes * selector, lanes * (selector + 1))


def stored_columns(words: Array, element: int, lanes: slice, ordered: bool) -> Array:
    """Metadata registers [warps, 32] -> [warps, 16, depth / 2]: the column that each stored element of A belongs to.

    Lanes 4g to 4g + 3 have the metadata of rows g (lower half of a register) and g + 8 (upper half), four chunks each
    (figures of sections 9.7.14.6.2.1 to .4 and 9.7.15.6.2.1 to .2). `element`: bytes of an element. `ordered`: indices
    have to increase (mma.sp::ordered_metadata, section 9.7.14.6.3). Raises Fault for metadata without a meaning.
    """
    of_groups = words.reshape(-1, LANES // 4, 4)[:, :, lanes]
    count = of_groups.shape[2]
    halves = np.ascontiguousarray(of_groups).view(np.uint16).reshape(-1, LANES // 4, count, 2)
    of_rows = halves.transpose(0, 3, 1, 2).reshape(-1, 16, count, 1)
    indices = (of_rows >> np.arange(0, 16, 2, dtype=np.uint16) & 3).astype(np.intp).reshape(-1, 16, 4 * count, 2)
    first, second = indices[..., 0], indices[..., 1]
    chunks = np.arange(4 * count)
    if element == 4:
        if ((first & 1 != 0) | (second != first + 1)).any():
            raise Fault("matrix", "sparse metadata of 32-bit elements other than 0b0100 and 0b1110")
        return 2 * chunks + first // 2
    if (first == second).any():
        raise Fault("matrix", "sparse metadata with the same index twice")
    if ordered and (first > second).any():
        raise Fault("matrix", "sparse metadata whose indices do not increase, as ordered_metadata says they do")
    return (4 * chunks[:, None] + indices).reshape(*indices.shape[:2], -1)


def sparse_product(a: Array, b: Array, c: Array, columns: Array) -> Array:
    """Stored elements [n, M, K / 2], which belong to `columns` [n, M, K / 2], times [n, N, K] transposed, plus
    [.., M, N]: exact, rounded once. What A does not store takes no part: an infinity of B there makes no NaN."""
    stored, other = a.astype(np.float64), b.astype(np.float64)
    exact = [
        np.matmul(its_b[:, its_columns].swapaxes(0, 1), its_a[:, :, None])[..., 0]
        for its_a, its_b, its_columns in zip(stored, other, columns, strict=True)
    ]
    return (np.stack(exact) + c).astype(np.float32)

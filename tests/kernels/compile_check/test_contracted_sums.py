"""The compile check's eye for butterflies of which one side was contracted."""

import pytest

from tidepool.kernels.compile_check.contracted_sums import contracted_sums

FUSED = "fma.rn.f32 \t%r464, %r461, %r453, %r463;"
FOUND = {
    "product": ["shfl.sync.bfly.b32 \t%r463, %r462, 8, 31, -1;", FUSED],
    "packed": ["shfl.sync.bfly.b32 \t%r463, %r462, 8, 31, -1;", "fma.rn.f32x2 \t%r464, %r461, %r453, %r463;"],
    "double": [
        "shfl.sync.bfly.b32 \t%r11, %r9, 4, 31, -1;",
        "shfl.sync.bfly.b32 \t%r12, %r10, 4, 31, -1;",
        "mov.b64 \t%rd4, {%r11, %r12};",
        "fma.rn.f64 \t%rd5, %rd1, %rd2, %rd4;",
    ],
    "copied": [
        "shfl.sync.bfly.b32 \t%r463, %r462, 8, 31, -1;",
        "mov.b32 \t%f1, %r463;",
        "fma.rn.f32 \t%f2, %f3, %f4, %f1;",
    ],
    "constant": ["shfl.sync.bfly.b32 \t%r463, %r462, 8, 31, -1;", "fma.rn.f32 \t%r464, %r461, 0f3F000000, %r463;"],
}
RIGHT = {
    "sum": ["shfl.sync.bfly.b32 \t%r463, %r462, 8, 31, -1;", "add.f32 \t%r464, %r462, %r463;"],
    "factor": ["shfl.sync.bfly.b32 \t%r463, %r462, 8, 31, -1;", "fma.rn.f32 \t%r464, %r463, %r463, %r470;"],
    "elsewhere": ["shfl.sync.idx.b32 \t%r463, %r462, 0, 31, -1;", FUSED],
}


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str) -> None:
    (found,) = contracted_sums("\n".join(f"\t{line}" for line in FOUND[name]))
    assert found.endswith(FOUND[name][-1])


@pytest.mark.parametrize("name", RIGHT)
def test_not_found_where_both_lanes_add_alike(name: str) -> None:
    assert contracted_sums("\n".join(f"\t{line}" for line in RIGHT[name])) == []

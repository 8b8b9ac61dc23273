"""What a proof of every activation runs over: each at PyTorch's parameter, those with one at another as well, and under
each kind of pool. `test_prelu.py` proves the one whose slope is learned."""

import pytest

from tidepool.kernels import AvgPool, MaxPool
from tidepool.kernels.activations import FORMULAS, Activation

ACTIVATIONS = (
    *(Activation(name) for name, formula in FORMULAS.items() if name != "none" and not formula.learned),
    Activation("leaky_relu", 0.25),
    Activation("leaky_relu", -0.5),
    Activation("elu", 1.5),
)
POOLS = {
    "max": MaxPool((3, 2), (2, 1), (1, 0), ceil_mode=True),
    "average": AvgPool((2, 3), (1, 2), (0, 1), ceil_mode=True, count_include_pad=False),
    "none": None,
}
"""Windows that overlap, are cut off by the border and lie partly beyond it."""

every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
every_pool = pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)

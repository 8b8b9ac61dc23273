"""The planted faults, kernel by kernel. Each changes a result somewhere, in the interpreter too; divisions that only
compiled code gets wrong are noticed by what is compiled.

Not listed, because no test on a CPU could tell: offsets that `keep_in_range` pulls to 0 for pipelined GPU copies, and
lines whose fault another line makes good (`tl.minimum` under a mask, the running maximum's first value).
"""

from tests.faults.mutations_of_activations import ACTIVATIONS
from tests.faults.mutations_of_addresses import SAVED, UNMET, WIDE
from tests.faults.mutations_of_box_kernels import BOX, FEW_CHANNELS, HOPPER
from tests.faults.mutations_of_kernels import CALL, DEPTHWISE, DGRAD, FORWARD, REDUCE, SAVED_CODES, WGRAD
from tests.faults.mutations_of_learned_slopes import SLOPE
from tests.faults.mutations_of_norms import NORM
from tests.faults.mutations_of_passes import EPILOGUE
from tests.faults.mutations_of_shared_functions import DEVICE, DIVISION, WINDOW
from tests.faults.mutations_of_windowed_gradients import CHANNELS, WINDOWED_DGRAD, WINDOWED_FUNCTIONS, WINDOWED_WGRAD

WINDOWED = (*WINDOWED_DGRAD, *WINDOWED_WGRAD, *CHANNELS, *WINDOWED_FUNCTIONS)
BOXES = (*HOPPER, *FEW_CHANNELS, *BOX)
MUTATIONS = (
    *CALL,
    *FORWARD,
    *SAVED_CODES,
    *BOXES,
    *DGRAD,
    *WGRAD,
    *REDUCE,
    *DEPTHWISE,
    *EPILOGUE,
    *SLOPE,
    *WINDOWED,
    *NORM,
    *WIDE,
    *SAVED,
    *UNMET,
    *WINDOW,
    *DEVICE,
    *DIVISION,
    *ACTIVATIONS,
)

SAMPLE = (
    "forward_tail_of_taps_unmasked",
    "box_columns_swapped",
    "wgrad_image_bounds_swapped",
    "depthwise_forward_multiplier_ignored",
    "windowed_dgrad_row_period_of_columns",
    "device_masked_load_of_ones",
)
"""What the full tier plants: one in kernels of five kinds, and one in the functions that they share.
Ones that show early; `results/planted_faults` records a run of all."""

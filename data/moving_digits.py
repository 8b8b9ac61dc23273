"""Videos of scikit-learn's digits moving right, left, up or down, in which the order of the frames alone says where.

A clip has ten frames of 20x20 pixels, whose opposite edges are joined: what leaves on one side comes in on the other.
In steps of 2 pixels the four movements are (3, -1), (-3, 1), (-1, -3) and (1, 3), columns before rows and rows counted
downwards: right, left, up and down, each slanted by 18 degrees and each a quarter turn from the next. Modulo the ten
steps that the edges are apart, (-1, -3) is three times (3, -1), (1, 3) is seven times it and (-3, 1) nine times it: ten
frames on, every movement has been at the same ten places. So the four clips of a picture are made of the same ten
frames in four orders, t -> k t mod 10 with the four units k = 1, 3, 7, 9, and the opposite of a direction is its time
reversal. All four begin with the same frame, at a place drawn uniformly from the 400, so that the place at any one
time is uniform whatever the direction: no single frame and no unordered set of frames says anything about it.
"""

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange

from data.augmentation import Augmentation
from data.dataset import ArraySplit, Factor, LabelledData, assemble
from data.digits import digit_splits

FRAMES = 10
CANVAS = 20  # pixels a side: FRAMES steps of STEP pixels
STEP = 2
RIGHT = (-1, 3)  # rows and columns, in steps a frame
ORDER = {"right": 1, "left": 9, "up": 3, "down": 7}
"""Direction -> k: its frame t is frame k t mod 10 of the movement to the right."""
SEED = 20  # of the places where clips begin and of the control's shuffling; no run's --seed comes into it


def load_moving_digits(*, shuffle_frames: bool = False, device: torch.device | str = "cpu") -> LabelledData:
    """Each picture of `digits` moving in each direction: 5,748 clips (1, 10, 20, 20) to train on, 1,440 to test on.

    The pictures are split as `digits` are, so that test clips show handwriting that training clips do not. A label is
    4 x digit + direction. `shuffle_frames` is the control: each clip's frames in a random order of its own, in both
    splits, after which the direction cannot be told.
    """
    splits = [
        _clips(pixels, digits, np.random.default_rng((SEED, number)), shuffle_frames)
        for number, (pixels, digits) in enumerate(digit_splits())
    ]
    directions = tuple(ORDER)
    classes = [(digit, direction) for digit in range(10) for direction in range(len(directions))]
    return assemble(
        "moving_digits",
        splits[0],
        splits[1],
        tuple(f"{digit} {directions[direction]}" for digit, direction in classes),
        device,
        # Joined edges make a shift exact. A mirror image would be a wrong digit that moves the other way.
        augmentation=Augmentation((0, CANVAS // 8, CANVAS // 8), "wrap"),
        factors=(
            Factor("digit", tuple(str(digit) for digit in range(10)), tuple(digit for digit, _ in classes)),
            Factor("direction", directions, tuple(direction for _, direction in classes)),
        ),
    )


def _clips(
    pixels: npt.NDArray[np.uint8], digits: npt.NDArray[np.int64], generator: np.random.Generator, shuffle_frames: bool
) -> ArraySplit:
    """Pictures (N, 8, 8) and digits (N,) -> clips (4 N, 1, T, H, W), the four directions of a picture together."""
    starts = generator.integers(0, CANVAS, (len(pixels), 2))  # row and column of the upper left corner
    times = np.arange(FRAMES)
    corners = starts[:, None] + STEP * times[:, None] * np.array(RIGHT)  # [N, T, 2], modulo CANVAS
    frames = np.zeros((len(pixels), FRAMES, CANVAS, CANVAS), dtype=np.uint8)
    rows = (corners[..., 0, None] + np.arange(pixels.shape[1])) % CANVAS  # [N, T, 8]
    columns = (corners[..., 1, None] + np.arange(pixels.shape[2])) % CANVAS
    picture = np.arange(len(pixels))[:, None, None, None]
    frames[picture, times[:, None, None], rows[..., :, None], columns[..., None, :]] = pixels[:, None]

    orders = np.stack([times * k % FRAMES for k in ORDER.values()])  # [directions, T]
    clips = rearrange(frames[:, orders], "n directions t h w -> (n directions) 1 t h w")
    if shuffle_frames:
        order = generator.permuted(np.broadcast_to(times, (len(clips), FRAMES)), axis=1)
        clips = np.take_along_axis(clips, order[:, None, :, None, None], axis=2)
    labels = len(ORDER) * digits[:, None] + np.arange(len(ORDER))
    return ArraySplit(np.ascontiguousarray(clips), rearrange(labels, "n directions -> (n directions)"))

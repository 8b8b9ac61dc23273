"""Videos of scikit-learn's digits moving right, left, up or down, in which the order of the frames alone says where.

A clip has five frames. The places where a digit can be form a square of ten by ten pixels with opposite edges joined: a
digit that would leave it on one side comes back, whole, on the other. In steps of 2 pixels the four movements are
(2, -1), (-2, 1), (-1, -2) and (1, 2), columns before rows and rows counted downwards: right, left, up and down, each
slanted by 27 degrees and each a quarter turn from the next. Modulo the five steps that the edges are apart, (-1, -2) is
twice (2, -1), (1, 2) three times and (-2, 1) four times: in five frames every movement comes through the same five
places. So the four clips of a path are made of the same five frames in four orders, t -> k t mod 5 with k = 1, 2,
3, 4, and the opposite of a direction is its time reversal. All four begin with the same frame, at a place drawn
uniformly from the hundred, so that the place at any one time is uniform whatever the direction: no single frame and no
unordered set of frames says anything about it.
"""

import numpy as np
import numpy.typing as npt
from einops import rearrange, repeat

from tidepool.data.augmentation import Augmentation
from tidepool.data.dataset import ArraySplit, Factor, LabelledData, assemble
from tidepool.data.registry import Request, register
from tidepool.data.sets.digits import digit_splits

FRAMES = 5
STEP = 2  # pixels
PLACES = FRAMES * STEP  # a side
ENLARGED = 2  # each pixel of the 8x8 images becomes 2x2: smaller ones vanish in a network's first pools
CANVAS = PLACES + ENLARGED * 8  # pixels a side
RIGHT = (-1, 2)  # rows and columns, in steps a frame
ORDER = {"right": 1, "left": 4, "up": 2, "down": 3}
"""Direction -> k: its frame t is frame k t mod 5 of the movement to the right."""
PATHS = (4, 1)  # of each image in train and in test
SEED = 20  # of the places where clips begin and of the control's shuffling; no run's --seed comes into it


@register("moving_digits", holds="videos")
def moving_digits(request: Request, *, shuffle_frames: bool = False) -> LabelledData:
    """The images of `digits` moving in each direction: 22,992 clips (1, 5, 26, 26) to train on, 1,440 to test on.

    The images are split as `digits` are, so that test clips show images that training clips do not; those to train
    on set out from four places each, and validation holds out all clips of an image. A label is 4 x digit + direction.

    `shuffle_frames`: put each clip's frames, in train and test, in a random order of its own that --seed does not
    change. A control: what the order of frames tells is gone, what each frame shows is left.
    """
    image_splits = digit_splits()
    splits = [
        _clips(pixels.repeat(paths, 0), digits.repeat(paths), np.random.default_rng((SEED, number)), shuffle_frames)
        for number, ((pixels, digits), paths) in enumerate(zip(image_splits, PATHS, strict=True))
    ]
    directions = tuple(ORDER)
    classes = [(digit, direction) for digit in range(10) for direction in range(len(directions))]
    return assemble(
        request.name,
        splits[0],
        splits[1],
        tuple(f"{digit} {directions[direction]}" for digit, direction in classes),
        request.device,
        # A mirror image would be a wrong digit that moves the other way.
        augmentation=Augmentation((0, CANVAS // 8, CANVAS // 8), border=0),
        factors=(
            Factor("digit", tuple(str(digit) for digit in range(10)), tuple(digit for digit, _ in classes)),
            Factor("direction", directions, tuple(direction for _, direction in classes)),
        ),
        groups=np.arange(len(image_splits[0][0])).repeat(PATHS[0] * len(directions)),
    )


def _clips(
    pixels: npt.NDArray[np.uint8], digits: npt.NDArray[np.int64], generator: np.random.Generator, shuffle_frames: bool
) -> ArraySplit:
    """Images (N, 8, 8) and digits (N,) -> clips (4 N, 1, T, H, W), the four directions of a path together."""
    images = repeat(pixels, "n h w -> n (h a) (w b)", a=ENLARGED, b=ENLARGED)
    starts = generator.integers(0, PLACES, (len(images), 2))  # row and column of the upper left corner
    times = np.arange(FRAMES)
    corners = (starts[:, None] + STEP * times[:, None] * np.array(RIGHT)) % PLACES  # [N, T, 2]
    rows = corners[..., 0, None] + np.arange(images.shape[1])  # [N, T, 16]
    columns = corners[..., 1, None] + np.arange(images.shape[2])
    clip = np.arange(len(images))[:, None, None, None]
    frames = np.zeros((len(images), FRAMES, CANVAS, CANVAS), dtype=np.uint8)
    frames[clip, times[:, None, None], rows[..., :, None], columns[..., None, :]] = images[:, None]

    orders = np.stack([times * k % FRAMES for k in ORDER.values()])  # [directions, T]
    clips = rearrange(frames[:, orders], "n directions t h w -> (n directions) 1 t h w")
    if shuffle_frames:
        order = generator.permuted(np.broadcast_to(times, (len(clips), FRAMES)), axis=1)
        clips = np.take_along_axis(clips, order[:, None, :, None, None], axis=2)
    labels = len(ORDER) * digits[:, None] + np.arange(len(ORDER))
    return ArraySplit(np.ascontiguousarray(clips), rearrange(labels, "n directions -> (n directions)"))

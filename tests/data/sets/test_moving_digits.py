"""What the clips show, and that nothing but the order of their frames says where a digit moves."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tidepool.data import LabelledData, load_data
from tidepool.data.sets.digits import digit_splits
from tidepool.data.sets.moving_digits import CANVAS, FRAMES, ORDER, PLACES, _clips

# Columns to the right and rows down, in pixels a frame.
MOVES = {"right": (4, -2), "left": (-4, 2), "up": (-2, -4), "down": (2, 4)}


@pytest.fixture(scope="module")
def moving() -> LabelledData:
    return load_data("moving_digits", kind="video")


@pytest.fixture(scope="module")
def shuffled() -> LabelledData:
    return load_data("moving_digits", kind="video", shuffle_frames=True)


def test_shapes_types_and_names(moving: LabelledData) -> None:
    assert moving.train.inputs.shape == (16 * 1437, 1, FRAMES, CANVAS, CANVAS)
    assert moving.test.inputs.shape == (4 * 360, 1, FRAMES, CANVAS, CANVAS)
    assert moving.train.inputs.dtype == torch.uint8
    assert (moving.num_classes, moving.in_channels, moving.input_size) == (40, 1, (5, 26, 26))
    assert moving.class_names[:5] == ("0 right", "0 left", "0 up", "0 down", "1 right")


def test_labels_are_digit_times_direction_and_balanced(moving: LabelledData) -> None:
    digit, direction = moving.factors
    for split, (_, digits), paths in zip((moving.train, moving.test), digit_splits(), (4, 1), strict=True):
        assert torch.tensor(digit.of_class)[split.labels].tolist() == np.repeat(digits, 4 * paths).tolist()
        assert torch.tensor(direction.of_class)[split.labels].bincount().tolist() == [len(digits) * paths] * 4
    for label, name in enumerate(moving.class_names):
        assert name == f"{digit.names[digit.of_class[label]]} {direction.names[direction.of_class[label]]}"


def _corner(frame: torch.Tensor, image: np.ndarray) -> tuple[int, int]:
    """Row and column at which the enlarged image, and nothing else, stands in the frame."""
    large = torch.from_numpy(image).repeat_interleave(2, 0).repeat_interleave(2, 1)
    fitting = [
        (row, column)
        for row in range(PLACES)
        for column in range(PLACES)
        if torch.equal(frame, F.pad(large, (column, PLACES - column, row, PLACES - row)))
    ]
    assert len(fitting) == 1
    return fitting[0]


def test_each_frame_holds_the_whole_image_and_it_moves_as_the_label_says(moving: LabelledData) -> None:
    _, (pixels, _) = digit_splits()
    for number in (0, 7, 100, 359):
        for clip in range(4 * number, 4 * number + 4):
            columns, rows = MOVES[moving.class_names[moving.test.labels[clip]].split()[1]]
            places = [_corner(frame, pixels[number]) for frame in moving.test.inputs[clip, 0]]
            for (row, column), after in pairwise(places):
                assert after == ((row + rows) % PLACES, (column + columns) % PLACES)


def test_the_four_clips_of_a_path_are_the_same_frames_in_four_orders(moving: LabelledData) -> None:
    """So no set of frames, and no frame at the beginning, says anything about direction."""
    clips = moving.train.inputs[:, 0].unflatten(0, (-1, 4))  # [images, directions, T, H, W]
    assert torch.equal(clips[:, :1, 0].expand(-1, 4, -1, -1), clips[:, :, 0])
    for direction, k in enumerate(ORDER.values()):
        assert torch.equal(clips[:, direction], clips[:, 0, [k * t % FRAMES for t in range(FRAMES)]])
        assert sorted(k * t % FRAMES for t in range(FRAMES)) == list(range(FRAMES))


def test_opposite_directions_are_time_reversals(moving: LabelledData) -> None:
    clips = moving.train.inputs[:400, 0].unflatten(0, (-1, 4))
    names = list(ORDER)
    for one, other in (("right", "left"), ("up", "down")):
        forth, back = clips[:, names.index(one)], clips[:, names.index(other)]
        assert torch.equal(forth[:, 1:], back[:, 1:].flip(1))


def test_no_single_frame_says_where_the_digit_moves(moving: LabelledData) -> None:
    """At each time the places are as evenly spread for one direction as for the others."""
    clips = 16 * 718  # of half the images
    directions = torch.tensor(moving.factors[1].of_class)[moving.train.labels[:clips]]
    for time in range(FRAMES):
        frames = moving.train.inputs[:clips, 0, time].double()
        # Where in 13 x 13 cells the brightness lies: its means for the four directions differ by chance alone.
        cells = frames.unflatten(2, (13, 2)).unflatten(1, (13, 2)).mean((2, 4)).flatten(1)
        cells = cells[:, cells.amax(0) > 0]
        means = torch.stack([cells[directions == direction].mean(0) for direction in range(4)])
        error = cells.std(0) * (8 / clips) ** 0.5  # standard error of a difference of two means
        worst = ((means[:, None] - means[None]) / error).abs().max()
        assert worst < 4.5  # of 1,014 differences at a time; 160 cells know where a digit is much better than that
        # A linear reader fitted to one half of the images guesses the direction of the other half.
        half = clips // 2
        targets = torch.nn.functional.one_hot(directions, 4).double()
        weights = torch.linalg.lstsq(torch.cat([cells, torch.ones(len(cells), 1)], 1)[:half], targets[:half]).solution
        guesses = (torch.cat([cells, torch.ones(len(cells), 1)], 1)[half:] @ weights).argmax(1)
        assert (guesses == directions[half:]).double().mean() < 0.25 + 4.5 * (0.25 * 0.75 / len(guesses)) ** 0.5


def test_starting_places_are_spread_over_the_whole_canvas() -> None:
    dot = np.zeros((4000, 8, 8), dtype=np.uint8)
    dot[:, 0, 0] = 255
    clips = _clips(dot, np.zeros(4000, dtype=np.int64), np.random.default_rng(0), False).inputs
    counts = (clips[::4, 0, 3] > 0).sum(0)[: 2 * PLACES, : 2 * PLACES]
    counts = counts[np.ix_(*[np.flatnonzero(counts.sum(axis)) for axis in (1, 0)])]  # each dot is two by two pixels
    assert (clips[::4, 0, 3] > 0).sum() == 4 * 4000
    assert (np.abs(counts[::2, ::2] - counts.mean()) < counts.mean()).all()


def test_the_clips_are_the_same_whatever_the_seed_and_in_every_version(moving: LabelledData) -> None:
    torch.manual_seed(99)
    np.random.seed(99)
    again = load_data("moving_digits", kind="video")
    assert torch.equal(moving.train.inputs, again.train.inputs)
    digest = hashlib.sha256(moving.test.inputs.numpy().tobytes() + moving.test.labels.numpy().tobytes()).hexdigest()
    assert digest[:16] == "2b211d9ed81e37af"


def test_shuffled_clips_are_the_same_frames_and_labels_in_another_order(
    moving: LabelledData, shuffled: LabelledData
) -> None:
    for ordered, mixed in ((moving.train, shuffled.train), (moving.test, shuffled.test)):
        assert torch.equal(ordered.labels, mixed.labels)
        before = [sorted(frame.numpy().tobytes() for frame in clip) for clip in ordered.inputs[:100, 0]]
        after = [sorted(frame.numpy().tobytes() for frame in clip) for clip in mixed.inputs[:100, 0]]
        assert before == after
        moved = (ordered.inputs != mixed.inputs).flatten(1).any(1)
        assert moved.double().mean() > 0.95  # one order in 120 is the one there was, or looks it


def test_every_order_of_frames_is_as_likely_for_every_direction(moving: LabelledData, shuffled: LabelledData) -> None:
    """Where the first frame of a clip ends up does not depend on the direction."""
    same = (moving.train.inputs[:, :, :1] == shuffled.train.inputs).flatten(3).all(3)[:, 0]  # [clips, T]
    assert (same.sum(1) == 1).all()
    counts = torch.zeros(4, FRAMES).index_add_(0, torch.arange(len(same)) % 4, same.float())
    assert ((counts - 1149.6).abs() < 4.5 * 1149.6**0.5).all()

"""What is held out for validation, by a rule that no seed comes into."""

from pathlib import Path

import pytest
import torch

from tests.data.audio_files import write_audio_folder
from tests.data.image_files import features, png, write_parquet_folder, write_shard
from tests.data.image_files import image as pixels
from tidepool.data import DataError, LabelledData, Split, load_data, with_validation
from tidepool.data.dataset import channel_statistics
from tidepool.data.validation import held_out, held_out_groups


def numbered(labels: list[int], **fields: object) -> LabelledData:
    """Samples that say their own place."""
    split = Split(torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1), torch.tensor(labels))
    names = tuple(str(label) for label in range(max(labels) + 1))
    return LabelledData("numbers", split, split, names, torch.zeros(1), torch.ones(1), **fields)  # type: ignore[arg-type]


def test_one_in_ten_of_each_class_is_held_out_and_never_trained_on() -> None:
    data = with_validation(numbered([sample % 3 for sample in range(90)]))
    assert data.validation is not None
    assert data.validation.labels.bincount().tolist() == [3, 3, 3]
    together = torch.cat([data.train.inputs, data.validation.inputs]).flatten()
    assert sorted(together.tolist()) == list(range(90))
    assert torch.equal(data.test.inputs.flatten(), torch.arange(90, dtype=torch.uint8))
    mean, std = channel_statistics(data.train.inputs.numpy())
    assert (data.mean, data.std) == (mean, std)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1] * 5, [9]),
        ([0, 1, 2, 2], [3]),
        ([0] * 5 + [1] * 15, [9, 19]),
        ([2, 1, 0], []),
        ([3, 2] + [0] * 10 + [1] * 10, [11, 21]),
    ],
    ids=["ten", "of fewer the last", "a small class", "one of each", "classes of one sample keep it"],
)
def test_the_rule(labels: list[int], expected: list[int]) -> None:
    assert held_out(torch.tensor(labels)).tolist() == expected


def test_groups_are_held_out_whole_and_class_by_class() -> None:
    groups = torch.arange(40).repeat_interleave(2)
    labels = (groups % 2) * 3
    chosen = held_out_groups(labels, groups)
    assert groups[chosen].tolist() == [18, 18, 19, 19, 38, 38, 39, 39]
    assert held_out_groups(torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])).tolist() == [2, 3]


@pytest.mark.parametrize(("labels", "groups"), [([0, 1, 2], None), ([0, 0, 1], torch.zeros(3, dtype=torch.int64))])
def test_nothing_to_hold_out_is_refused(labels: list[int], groups: torch.Tensor | None) -> None:
    with pytest.raises(DataError, match=r"data 'numbers': one .* to train on \(3 in all\); expected more"):
        with_validation(numbered(labels, groups=groups))


@pytest.mark.parametrize("name", ["validation-00000-of-00001.parquet", "val.parquet", "validation/0000.parquet"])
def test_a_data_set_with_a_validation_split_uses_it(tmp_path: Path, name: str) -> None:
    folder = write_parquet_folder(tmp_path)
    (folder / name).parent.mkdir(exist_ok=True)
    write_shard(folder / name, [png(pixels(place)) for place in (7, 8)], [0, 1], metadata=features())
    data = with_validation(load_data(str(folder)))
    assert data.validation is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 2, 3)
    assert torch.equal(data.validation.inputs[1], torch.from_numpy(pixels(8).transpose(2, 0, 1).copy()))


def test_class_folders_may_have_one_too(tmp_path: Path) -> None:
    for split, places in (("train", (0, 1)), ("val", (5,)), ("test", (9,))):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
            for place in places:
                (tmp_path / split / label / f"{place}.png").write_bytes(png(pixels(place)))
    data = with_validation(load_data(str(tmp_path)))
    assert data.validation is not None
    assert (len(data.train), data.validation.labels.tolist(), len(data.test)) == (4, [0, 1], 2)


def test_where_a_speaker_is_held_out_for_the_test_another_is_for_validation(tmp_path: Path) -> None:
    folder = write_audio_folder(tmp_path)
    data = with_validation(load_data("spoken_digits", data_dir=folder, kind="waveform", held_out_speaker="bob"))
    assert data.validation is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 6, 6)  # ann, cleo and bob
    of_cleo = load_data("spoken_digits", data_dir=folder, kind="waveform", held_out_speaker="cleo").test
    assert torch.equal(data.validation.inputs, of_cleo.inputs)


def test_clips_of_one_image_are_never_on_both_sides() -> None:
    data = with_validation(load_data("moving_digits", kind="video"))
    assert data.validation is not None
    assert (len(data.train), len(data.validation)) == (20704, 2288)
    assert data.groups is not None
    assert len(data.groups) == 20704
    held_out_frames = {clip[0, 0].numpy().tobytes() for clip in data.validation.inputs}
    assert not any(clip[0, 0].numpy().tobytes() in held_out_frames for clip in data.train.inputs)

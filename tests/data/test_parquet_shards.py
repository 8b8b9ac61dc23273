"""Which files are the shards of a split: every layout of the hub, and one line for a set that is not whole."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.data.image_files import features, image, png, write_parquet_folder, write_shard
from tidepool.data import DataError, load_data
from tidepool.data.parquet_shards import find_parquet_folder, shards_of


def _touch(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def _names(folder: Path, split: str) -> list[str]:
    return [str(path.relative_to(folder)) for path in shards_of(folder, split)]


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00001.parquet"],
        ["train-00000-of-00002-6f33.parquet", "train-00001-of-00002-411b.parquet"],
        ["train/0000.parquet", "train/0001.parquet"],
        ["train/train-00000-of-00001.parquet"],
        ["train.parquet"],
        ["train-original-00000-of-00001.parquet"],
        [f"train-{number}.parquet" for number in range(11)],
        ["train_part1.parquet", "train_part2.parquet"],
        ["train-00000-of-00001.PARQUET"],
    ],
    ids=lambda names: names[0],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_shards_are_taken_in_the_order_of_their_numbers(tmp_path: Path, names: list[str], split: str) -> None:
    other = {"train": "test", "test": "train"}[split]
    names = [name.replace("train", split) for name in names]
    hidden = [f"._{split}-00000-of-00001.parquet", f".cache/{split}-00000-of-00001.parquet"]
    _touch(tmp_path, [*names, *hidden, f"{other}.parquet", "validation.parquet", f"{split}ing.parquet"])
    assert find_parquet_folder(tmp_path) == tmp_path
    assert _names(tmp_path, split) == names


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (
            ["train-00000-of-00001-aaaa", "train-00000-of-00001-bbbb"],
            "{}: train-00000-of-00001-aaaa.parquet and train-00000-of-00001-bbbb.parquet are one shard of train, 2 "
            "times; expected it once",
        ),
        (["train-00000-of-00001", "train-0-of-1"], "{}: train-0-of-1.parquet and train-00000-of-00001.parquet are one"),
        (["train/0000", "train/000"], "{}: train/000.parquet and train/0000.parquet are one shard of train, 2 times"),
        (["train-00001-of-00002"], "{}: expected train-00000-of-00002.parquet; that shard is missing"),
        (
            ["train-00000-of-00003-aa", "train-00002-of-00003-bb"],
            "{}: expected train-00001-of-00003.parquet; that shard is missing",
        ),
        (["train/0001"], "{}/train: expected 0000.parquet; that shard is missing"),
        (["train/0000", "train/0002"], "{}/train: expected 0001.parquet; that shard is missing"),
        (["train-1", "train-3"], "{}: expected train-2.parquet; that shard is missing"),
        (
            ["train-00000-of-00001", "train-00001-of-00002"],
            "{}: train shards disagree on how many there are: [1, 2]; expected one count",
        ),
        (
            ["train-00000-of-00002", "train-00001-of-00002", "train-00002-of-00002"],
            "{}: train-00002-of-00002.parquet is past the count; expected shards 0..1",
        ),
        (
            ["train", "train-00000-of-00001"],
            "{}: train.parquet and train-00000-of-00001.parquet belong to different sets; expected",
        ),
        (["train", "train_backup"], "{}: train.parquet and train_backup.parquet belong to different sets"),
        (
            ["train-0", "train-00000-of-00001"],
            "{}: train-0.parquet and train-00000-of-00001.parquet belong to different",
        ),
        (["train.clean-0-of-1", "train.other-0-of-1"], "{}: train.clean-0-of-1.parquet and train.other-0-of-1.parquet"),
        (["train-00000-of-00001", "train/0000"], "{}: train-00000-of-00001.parquet and train/0000.parquet belong to"),
        (
            ["partial-train/0000"],
            "{0}/partial-train: holds the first part of train, which is all that the hub converted; expected the whole "
            "split in {0}/train, or the part there if that is meant",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_set_that_is_not_whole_is_refused_in_either_split(
    tmp_path: Path, names: list[str], reason: str, split: str
) -> None:
    folder = _touch(tmp_path / "pets", [f"{name}.parquet".replace("train", split) for name in names])
    assert find_parquet_folder(folder) == folder
    with pytest.raises(DataError) as caught:
        shards_of(folder, split)
    assert str(caught.value).startswith(reason.replace("train", split).format(folder))


def test_two_shards_of_one_number_do_not_double_the_test_split(tmp_path: Path) -> None:
    write_parquet_folder(tmp_path)
    write_shard(tmp_path / "test-00000-of-00001-copy.parquet", [png(image(0))], [0], metadata=features())
    with pytest.raises(DataError, match=r"are one shard of test, 2 times; expected it once$"):
        load_data(str(tmp_path))


@pytest.mark.parametrize("given", [".", "default"])
def test_the_hubs_converted_layout_is_read(tmp_path: Path, given: str) -> None:
    converted = tmp_path / "default"
    for split, files in {"train": 2, "test": 1, "validation": 1}.items():
        for number in range(files):
            path = converted / split / f"{number:04d}.parquet"
            write_shard(path, [png(image(2 * number + row)) for row in range(2)], [0, number], metadata=features())
    data = load_data(str(tmp_path / given))
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 0, 0, 1], [0, 0])


def test_several_configurations_are_refused_until_one_is_given(tmp_path: Path) -> None:
    _touch(tmp_path, [f"{name}/{split}/0000.parquet" for name in ("en", "fr") for split in ("train", "test")])
    with pytest.raises(DataError, match=r"several data sets in one folder \(en, fr\); give the one that is meant$"):
        find_parquet_folder(tmp_path)
    assert find_parquet_folder(tmp_path / "fr") == tmp_path / "fr"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["train/0000"], "no test split; expected test/0000.parquet, found train/0000.parquet"),
        (["0000"], "no train split; expected train-00000-of-00001.parquet, found 0000.parquet"),
    ],
)
def test_a_missing_split_lists_what_is_there(tmp_path: Path, names: list[str], reason: str) -> None:
    _touch(tmp_path, [f"{name}.parquet" for name in names])
    assert find_parquet_folder(tmp_path) == tmp_path
    with pytest.raises(DataError) as caught:
        _ = [shards_of(tmp_path, split) for split in ("train", "test")]
    assert str(caught.value) == f"{tmp_path}: {reason}"


def test_class_folders_with_a_table_beside_them_hold_no_shards(tmp_path: Path) -> None:
    _touch(tmp_path, ["train/cat/0.png", "train/metadata.parquet", "metadata.parquet"])
    assert find_parquet_folder(tmp_path) is None

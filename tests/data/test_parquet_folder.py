"""Hugging Face folders: shards, metadata, inference without it, and one line for whatever is wrong."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.data.image_files import NAMES, features, image, png, write_parquet_folder, write_shard
from tidepool.data import DataError, load_data

REAL_CIFAR10 = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cifar10"
PNG = png(image(0))


def _refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_data(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _train(folder: Path) -> Path:
    return folder / "train-00000-of-00001.parquet"


def test_images_labels_and_names_are_read(tmp_path: Path) -> None:
    pets = load_data(str(write_parquet_folder(tmp_path / "pets")))
    assert pets.name == "pets"
    assert pets.class_names == NAMES
    assert torch.equal(pets.train.inputs[4], torch.from_numpy(image(4).transpose(2, 0, 1).copy()))
    assert torch.equal(pets.test.inputs[2], torch.from_numpy(image(102).transpose(2, 0, 1).copy()))
    assert pets.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (pets.in_channels, pets.input_size) == (3, (6, 5))


@pytest.mark.parametrize("place", ["data", "plain_text"])
def test_shards_may_lie_in_a_folder_below(tmp_path: Path, place: str) -> None:
    write_parquet_folder(tmp_path / place)
    assert len(load_data(str(tmp_path)).train) == 6


def test_several_shards_are_joined_in_order(tmp_path: Path) -> None:
    write_parquet_folder(tmp_path)
    _train(tmp_path).unlink()
    for shard in range(3):
        rows = range(2 * shard, 2 * shard + 2)
        write_shard(
            tmp_path / f"train-{shard:05d}-of-00003-c0ffee.parquet",
            [png(image(row)) for row in rows],
            [row % 3 for row in rows],
            metadata=features(),
        )
    joined = load_data(str(tmp_path)).train
    assert joined.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert torch.equal(joined.inputs, torch.from_numpy(np.stack([image(row).transpose(2, 0, 1) for row in range(6)])))


def test_without_metadata_columns_and_classes_are_inferred(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_shard(tmp_path / f"{split}.parquet", [PNG, PNG], [0, 4], image="photo", label="kind")
    inferred = load_data(str(tmp_path))
    assert inferred.class_names == ("0", "1", "2", "3", "4")
    assert inferred.test.labels.tolist() == [0, 4]


def test_plain_binary_images_are_read(tmp_path: Path) -> None:
    for split in ("train", "test"):
        pq.write_table(pa.table({"image": [PNG], "label": [0]}), tmp_path / f"{split}.parquet")
    assert load_data(str(tmp_path)).input_size == (6, 5)


def test_of_several_class_labels_the_usual_name_is_taken(tmp_path: Path) -> None:
    both = {**features(("a", "b"), label="coarse_label"), **features(("x", "y", "z"), label="fine_label")}
    for split in ("train", "test"):
        path = tmp_path / f"{split}.parquet"
        write_shard(path, [PNG], [2], metadata=both, label="fine_label")
        table = pq.read_table(path)
        pq.write_table(table.append_column("coarse_label", pa.array([0])), path)
    assert load_data(str(tmp_path)).class_names == ("x", "y", "z")


def test_missing_test_split(tmp_path: Path) -> None:
    (write_parquet_folder(tmp_path) / "test-00000-of-00001.parquet").unlink()
    assert _refusal(tmp_path) == (
        f"{tmp_path}: no test split; expected test-00000-of-00001.parquet, found train-00000-of-00001.parquet"
    )


@pytest.mark.parametrize("damage", ["text", "empty", "cut off", "scrambled"])
def test_damaged_parquet(tmp_path: Path, damage: str) -> None:
    path = _train(write_parquet_folder(tmp_path))
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "text": b"no parquet at all",
            "empty": b"",
            "cut off": content[:middle],
            "scrambled": content[:4] + bytes(255 - byte for byte in content[4:middle]) + content[middle:],
        }[damage]
    )
    assert _refusal(tmp_path).startswith(f"{path}: not a readable Parquet file: ")


def test_wrong_columns_say_what_was_found(tmp_path: Path) -> None:
    write_parquet_folder(tmp_path)
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), _train(tmp_path))
    message = _refusal(tmp_path)
    assert message.startswith(f"{_train(tmp_path)}: expected one column of images")
    assert message.endswith("found text (string), label (int64)")
    write_shard(_train(tmp_path), [PNG], ["cat"])
    message = _refusal(tmp_path)
    assert message.startswith(f"{_train(tmp_path)}: expected one integer column of class labels")
    assert "label (string)" in message


def test_a_later_shard_with_other_columns_is_named(tmp_path: Path) -> None:
    write_parquet_folder(tmp_path)
    _train(tmp_path).rename(tmp_path / "train-00000-of-00002.parquet")
    write_shard(tmp_path / "train-00001-of-00002.parquet", [PNG], [0], image="photo")
    assert _refusal(tmp_path).startswith(f"{tmp_path}/train-00001-of-00002.parquet: expected columns image")


def test_a_later_shard_with_other_class_names_is_named(tmp_path: Path) -> None:
    write_parquet_folder(tmp_path)
    _train(tmp_path).rename(tmp_path / "train-00000-of-00002.parquet")
    later = tmp_path / "train-00001-of-00002.parquet"
    for names in (features(("dog", "cat", "eel")), None):
        write_shard(later, [PNG], [0], metadata=names)
        assert _refusal(tmp_path) == (
            f"{later}: names other classes than the first shard; expected the same names in one order"
        )


@pytest.mark.parametrize("twice", ["image", "label"])
@pytest.mark.parametrize("shard", ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"])
def test_two_columns_of_one_name(tmp_path: Path, twice: str, shard: str) -> None:
    write_parquet_folder(tmp_path)
    _train(tmp_path).rename(tmp_path / "train-00000-of-00002.parquet")
    write_shard(tmp_path / "train-00001-of-00002.parquet", [PNG], [0], metadata=features())
    table = pq.read_table(tmp_path / shard)
    pq.write_table(table.append_column(twice, table[twice]), tmp_path / shard)
    assert _refusal(tmp_path).startswith(f"{tmp_path / shard}: several columns are called {twice}; expected one; found")


def test_columns_that_are_not_read_may_be_there_twice_or_have_names_with_dots(tmp_path: Path) -> None:
    path = _train(write_parquet_folder(tmp_path))
    table = pq.read_table(path)
    more = pa.array(["no label"] * len(table))
    for position, name in ((0, "label.text"), (0, "image.text"), (2, "note"), (3, "note")):
        table = table.add_column(position, name, more)
    pq.write_table(table, path)
    loaded = load_data(str(tmp_path)).train
    assert loaded.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert torch.equal(loaded.inputs[4], torch.from_numpy(image(4).transpose(2, 0, 1).copy()))


def test_broken_metadata(tmp_path: Path) -> None:
    path = _train(write_parquet_folder(tmp_path))
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": "{"}), path)
    assert _refusal(tmp_path).startswith(f'{path}: schema metadata "huggingface" is not JSON')


def test_class_names_that_differ_between_splits(tmp_path: Path) -> None:
    write_parquet_folder(tmp_path)
    write_shard(_train(tmp_path), [PNG], [0], metadata=features(("dog", "cat", "eel")))
    assert "name different classes" in _refusal(tmp_path)


@pytest.mark.parametrize(
    ("label", "found"), [(3, "label is 3"), (-1, "label is -1"), (None, "label is null")], ids=["high", "low", "null"]
)
def test_bad_labels_name_the_row_and_the_range(tmp_path: Path, label: int | None, found: str) -> None:
    write_parquet_folder(tmp_path)
    write_shard(_train(tmp_path), [PNG] * 3, [0, 1, label], metadata=features())
    assert _refusal(tmp_path) == f"{_train(tmp_path)}, row 2: {found}; expected 0..2"


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"\x89PNG but not really", "image cannot be decoded"), (None, "holds no bytes")],
    ids=["damaged", "null"],
)
def test_bad_images_name_the_file_and_the_row(tmp_path: Path, content: bytes | None, found: str) -> None:
    write_parquet_folder(tmp_path)
    write_shard(_train(tmp_path), [PNG, content, PNG], [0, 1, 2], metadata=features())
    assert _refusal(tmp_path).startswith(f"{_train(tmp_path)}, row 1: {found}")


def test_a_image_of_another_size_names_the_file_and_the_row(tmp_path: Path) -> None:
    write_parquet_folder(tmp_path)
    write_shard(_train(tmp_path), [PNG, png(image(1, width=9))], [0, 1], metadata=features())
    assert _refusal(tmp_path).startswith(f"{_train(tmp_path)}, row 1: image is 6x9 (height x width); expected 6x5")


def test_a_split_without_rows(tmp_path: Path) -> None:
    write_parquet_folder(tmp_path)
    pq.write_table(pq.read_table(_train(tmp_path)).slice(0, 0), _train(tmp_path))
    assert _refusal(tmp_path) == f"{_train(tmp_path)}: holds no rows; expected at least one"


def test_several_data_sets_in_one_folder(tmp_path: Path) -> None:
    write_parquet_folder(tmp_path / "large")
    write_parquet_folder(tmp_path / "small")
    assert _refusal(tmp_path).startswith(f"{tmp_path}: several data sets in one folder (large, small)")


def test_real_cifar10_test_split_is_read(tmp_path: Path) -> None:
    shard = REAL_CIFAR10 / "test-00000-of-00001.parquet"
    if not shard.exists():
        pytest.skip(f"no CIFAR-10 at {REAL_CIFAR10}")
    for split in ("train", "test"):  # decoding the 50,000 would take longer than all other tests here together
        pq.write_table(pq.read_table(shard).slice(0, 500), tmp_path / f"{split}-00000-of-00001.parquet")
    cifar = load_data("cifar10", data_dir=tmp_path)
    assert cifar.name == "cifar10"
    assert cifar.class_names[0] == "airplane"
    assert (cifar.num_classes, cifar.in_channels, cifar.input_size) == (10, 3, (32, 32))
    assert cifar.test.labels.unique().tolist() == sorted(set(pq.read_table(shard)["label"].to_pylist()[:500]))

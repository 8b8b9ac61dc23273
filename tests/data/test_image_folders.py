"""Class folders of images."""

from pathlib import Path

import pytest
import torch

from tests.data.image_files import image, png
from tidepool.data import DataError, load_data


def _write(folder: Path) -> Path:
    for split, seed in (("train", 0), ("test", 10)):
        for label, name in enumerate(("eel", "cat")):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(2):
                (place / f"{number}.png").write_bytes(png(image(seed + 2 * label + number)))
    return folder


def _refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_data(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_classes_are_trains_folders_in_alphabetical_order(tmp_path: Path) -> None:
    pets = load_data(str(_write(tmp_path / "pets")))
    assert pets.name == "pets"
    assert pets.class_names == ("cat", "eel")
    assert pets.train.labels.tolist() == [0, 0, 1, 1]
    expected = [image(seed).transpose(2, 0, 1).copy() for seed in (2, 3, 0, 1)]
    assert torch.equal(pets.train.inputs, torch.stack([torch.from_numpy(pixels) for pixels in expected]))


def test_other_files_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "cat" / "._0.png").write_bytes(b"what macOS leaves behind")
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "cat" / "more").mkdir()
    (tmp_path / "train" / "cat" / "more" / "2.PNG").write_bytes(png(image(5)))
    pets = load_data(str(tmp_path))
    assert pets.class_names == ("cat", "eel")
    assert len(pets.train) == 5


def test_a_class_that_test_lacks_is_fine_and_one_that_train_lacks_is_not(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "test" / "cat").rename(tmp_path / "test" / "dog")
    assert _refusal(tmp_path) == f"{tmp_path}/test/dog: no such class in train; expected one of: cat, eel"
    for path in (tmp_path / "test" / "dog").iterdir():
        path.unlink()
    (tmp_path / "test" / "dog").rmdir()
    assert load_data(str(tmp_path)).test.labels.tolist() == [1, 1]


def test_missing_test_split(tmp_path: Path) -> None:
    (_write(tmp_path) / "test").rename(tmp_path / "validation")
    assert _refusal(tmp_path) == f"{tmp_path}/test: no test split; expected a folder of class folders of images"


def test_a_class_without_images(tmp_path: Path) -> None:
    (_write(tmp_path) / "train" / "dog").mkdir()
    assert _refusal(tmp_path).startswith(f"{tmp_path}/train/dog: no images; expected at least one of: .bmp")


def test_an_undecodable_image_is_named(tmp_path: Path) -> None:
    bad = _write(tmp_path) / "train" / "cat" / "1.png"
    bad.write_bytes(b"no image")
    assert _refusal(tmp_path).startswith(f"{bad}: image cannot be decoded")


def test_a_image_of_another_size_is_named(tmp_path: Path) -> None:
    bad = _write(tmp_path) / "train" / "eel" / "1.png"
    bad.write_bytes(png(image(1, height=9)))
    assert _refusal(tmp_path).startswith(f"{bad}: image is 9x5 (height x width); expected 6x5")

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


def test_hidden_folders_are_passed_over_wherever_they_are(tmp_path: Path) -> None:
    hidden = _write(tmp_path) / "train" / "cat" / ".thumbnails"
    hidden.mkdir()
    (hidden / "0.png").write_bytes(png(image(5, height=2)))
    assert len(load_data(str(tmp_path)).train) == 4


@pytest.mark.parametrize("name", ["9.PNG", "9.Png", "9.JFIF", "9.Tif"])
def test_the_case_of_extensions_does_not_matter(tmp_path: Path, name: str) -> None:
    (_write(tmp_path) / "train" / "cat" / name).write_bytes(png(image(5)))
    assert len(load_data(str(tmp_path)).train) == 5


def test_links_to_files_and_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    pets, elsewhere = _write(tmp_path / "pets"), tmp_path / "elsewhere"
    (elsewhere / "more").mkdir(parents=True)
    (elsewhere / "more" / "0.png").write_bytes(png(image(20)))
    (pets / "train" / "dog").symlink_to(elsewhere)
    (pets / "train" / "cat" / "below").symlink_to(_write(tmp_path / "others") / "train" / "cat")
    (pets / "train" / "cat" / "7.png").symlink_to(elsewhere / "more" / "0.png")
    loaded = load_data(str(pets))
    assert loaded.class_names == ("cat", "dog", "eel")
    assert loaded.train.labels.tolist() == [0] * 5 + [1] + [2] * 2


@pytest.mark.parametrize(
    ("link", "target", "found"),
    [
        ("train/loop", "..", "train/loop/train/cat: is {}/train/cat again"),
        ("train/a", "..", "train/a/train/a: is {}/train/a again"),
        ("train/a", "../train", "train/a/a: is {}/train/a again"),
        ("train/dog", "cat", "train/dog: is {}/train/cat again"),
        ("train/dog", "../test/cat", "test/cat: is {}/train/dog again"),
        ("train/cat/up", "..", "train/cat/up/cat: is {}/train/cat again"),
        ("train/cat/self", ".", "train/cat/self: is {}/train/cat again"),
        ("test/cat/more", "../../train/eel", "test/cat/more: is {}/train/eel again"),
    ],
)
def test_no_folder_is_read_twice_through_links(tmp_path: Path, link: str, target: str, found: str) -> None:
    (_write(tmp_path) / link).symlink_to(target)
    assert _refusal(tmp_path).startswith(f"{tmp_path}/{found.format(tmp_path)}, through a link; expected every folder")


def test_a_test_split_that_is_the_training_split_is_refused(tmp_path: Path) -> None:
    (_write(tmp_path) / "test").rename(tmp_path / "unused")
    (tmp_path / "test").symlink_to("train")
    assert _refusal(tmp_path).startswith(f"{tmp_path}/test/cat: is {tmp_path}/train/cat again, through a link")


@pytest.mark.parametrize("link", ["train/dog", "test/cat/7.png"])
@pytest.mark.parametrize("target", ["gone", "itself"])
def test_links_that_lead_nowhere_are_named(tmp_path: Path, link: str, target: str) -> None:
    path = _write(tmp_path) / link
    path.symlink_to(path if target == "itself" else target)
    assert _refusal(tmp_path).startswith(f"{path}: is ")
    assert "link that leads nowhere" in _refusal(tmp_path)


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


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("holds", ["nothing", "an empty folder", "a hidden image", "a text"])
def test_a_class_without_images(tmp_path: Path, split: str, holds: str) -> None:
    empty = _write(tmp_path) / split / "dog"
    (empty / "below" if holds == "an empty folder" else empty).mkdir(parents=True)
    if holds in ("a hidden image", "a text"):
        (empty / {"a hidden image": ".0.png", "a text": "0.txt"}[holds]).write_bytes(png(image(5)))
    assert _refusal(tmp_path).startswith(f"{empty}: no images; expected at least one of: .apng, .avif, .bmp")


def test_an_undecodable_image_is_named(tmp_path: Path) -> None:
    bad = _write(tmp_path) / "train" / "cat" / "1.png"
    bad.write_bytes(b"no image")
    assert _refusal(tmp_path).startswith(f"{bad}: image cannot be decoded")


def test_a_image_of_another_size_is_named(tmp_path: Path) -> None:
    bad = _write(tmp_path) / "train" / "eel" / "1.png"
    bad.write_bytes(png(image(1, height=9)))
    assert _refusal(tmp_path).startswith(f"{bad}: image is 9x5 (height x width); expected 6x5")

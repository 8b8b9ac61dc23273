"""Folders of class folders of pictures: `train/<class>/*.png` and `test/<class>/*.png`."""

from pathlib import Path

import numpy as np

from data.dataset import ArraySplit, DataError, LabelledData, assemble
from data.decoding import EncodedItem, decode_pictures
from data.reading import Reading

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def load_picture_folders(folder: Path, *, name: str, reading: Reading) -> LabelledData:
    """Read every picture below `train/<class>/` and `test/<class>/`; the classes are train's folders, by name.

    Raises:
        DataError: the model takes no pictures, a split or class folder is missing or has no pictures, test has a
            class that train has not, a picture cannot be decoded or has another size.
    """
    reading.require(name, "pictures", ("image",), ("image_size",))
    class_names = tuple(_class_folders(folder / "train"))
    train = _read_split(folder / "train", class_names, name, reading.image_size)
    test = _read_split(folder / "test", class_names, name, reading.image_size)
    return assemble(name, train, test, class_names, reading.device)


def _read_split(split: Path, class_names: tuple[str, ...], name: str, image_size: int | None) -> ArraySplit:
    folders = _class_folders(split)
    for class_name, folder in folders.items():
        if class_name not in class_names:
            raise DataError(f"{folder}: no such class in train; expected one of: {', '.join(class_names)}")
    pictures: list[EncodedItem] = []
    labels: list[int] = []
    for label, class_name in enumerate(class_names):
        if class_name not in folders:
            continue
        paths = sorted(path for path in folders[class_name].rglob("*") if _is_picture(path))
        if not paths:
            raise DataError(
                f"{folders[class_name]}: no pictures; expected at least one of: {', '.join(sorted(SUFFIXES))}"
            )
        pictures += [EncodedItem(str(path), path) for path in paths]
        labels += [label] * len(paths)
    images = decode_pictures(pictures, len(pictures), f"{name} {split.name}", image_size=image_size)
    return ArraySplit(images, np.asarray(labels, dtype=np.int64))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()


def _class_folders(split: Path) -> dict[str, Path]:
    folders = {}
    if split.is_dir():
        folders = {path.name: path for path in sorted(split.iterdir()) if path.is_dir() and path.name[0] != "."}
    if not folders:
        raise DataError(f"{split}: no {split.name} split; expected a folder of class folders of pictures")
    return folders

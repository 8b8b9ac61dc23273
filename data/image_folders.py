"""Folders of class folders of images: `train/<class>/*.png` and `test/<class>/*.png`."""

from pathlib import Path

import numpy as np

from tidepool.data.dataset import ArraySplit, DataError
from tidepool.data.decoding import EncodedItem, decode_images

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def read_class_folders(
    folder: Path, name: str, image_size: int | None
) -> tuple[ArraySplit, ArraySplit, tuple[str, ...]]:
    """Train, test and class names from every image below `train/<class>/` and `test/<class>/`.

    The classes are train's folders, by name. Progress bars are named after `name`.

    Raises:
        DataError: a split or class folder is missing or has no images, test has a class that train does not have, an
            image cannot be decoded or has another size.
    """
    class_names = tuple(_class_folders(folder / "train"))
    train = _read_split(folder / "train", class_names, name, image_size)
    test = _read_split(folder / "test", class_names, name, image_size)
    return train, test, class_names


def _read_split(split: Path, class_names: tuple[str, ...], name: str, image_size: int | None) -> ArraySplit:
    folders = _class_folders(split)
    for class_name, folder in folders.items():
        if class_name not in class_names:
            raise DataError(f"{folder}: no such class in train; expected one of: {', '.join(class_names)}")
    encoded: list[EncodedItem] = []
    labels: list[int] = []
    for label, class_name in enumerate(class_names):
        if class_name not in folders:
            continue
        paths = sorted(path for path in folders[class_name].rglob("*") if _is_image(path))
        if not paths:
            raise DataError(
                f"{folders[class_name]}: no images; expected at least one of: {', '.join(sorted(SUFFIXES))}"
            )
        encoded += [EncodedItem(str(path), path) for path in paths]
        labels += [label] * len(paths)
    images = decode_images(encoded, len(encoded), f"{name} {split.name}", image_size=image_size)
    return ArraySplit(images, np.asarray(labels, dtype=np.int64))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()


def _class_folders(split: Path) -> dict[str, Path]:
    folders = {}
    if split.is_dir():
        folders = {path.name: path for path in sorted(split.iterdir()) if path.is_dir() and path.name[0] != "."}
    if not folders:
        raise DataError(f"{split}: no {split.name} split; expected a folder of class folders of images")
    return folders

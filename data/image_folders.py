"""Folders of class folders of images: `train/<class>/*.png`, `test/<class>/*.png`, and `validation/` or `val/` where
a data set has it."""

from pathlib import Path

import numpy as np

from tidepool.data.dataset import VALIDATION_NAMES, ArraySplit, DataError
from tidepool.data.decoding import EncodedItem, decode_images
from tidepool.data.visible import visible

_JPEG = frozenset({".jfif", ".jpe", ".jpeg", ".jpg", ".j2k", ".jp2"})
_PORTABLE = frozenset({".pbm", ".pgm", ".pnm", ".ppm"})
SUFFIXES = _JPEG | _PORTABLE | {".apng", ".avif", ".bmp", ".gif", ".png", ".tga", ".tif", ".tiff", ".webp"}
"""In lower case; files may be called .PNG as well."""


def read_class_folders(
    folder: Path, name: str, image_size: int | None
) -> tuple[ArraySplit, ArraySplit, ArraySplit | None, tuple[str, ...]]:
    """Train, test, validation where there is one, and class names, from every image below `train/<class>/`,
    `test/<class>/` and so on, links followed.

    The classes are train's folders, by name. Progress bars are named after `name`.

    Raises:
        DataError: a split or class folder is missing or has no images, test has a class that train does not have, a
            link leads nowhere or to a folder that is read already, an image cannot be decoded or has another size.
    """
    read: dict[Path, Path] = {}
    found = {split: _images_of(folder / split, read) for split in ("train", "test")}
    own = [split for split in VALIDATION_NAMES if (folder / split).is_dir()]
    if own:
        found[own[0]] = _images_of(folder / own[0], read)
    class_names = tuple(found["train"])
    for split, classes in found.items():
        for class_name in classes:
            if class_name not in class_names:
                where = folder / split / class_name
                raise DataError(f"{where}: no such class in train; expected one of: {', '.join(class_names)}")
    decoded = [_decoded(paths, class_names, f"{name} {split}", image_size) for split, paths in found.items()]
    return decoded[0], decoded[1], decoded[2] if own else None, class_names


def _decoded(
    paths: dict[str, list[Path]], class_names: tuple[str, ...], description: str, image_size: int | None
) -> ArraySplit:
    labels = [label for label, class_name in enumerate(class_names) for _ in paths.get(class_name, ())]
    encoded = [EncodedItem(str(path), path) for class_name in class_names for path in paths.get(class_name, ())]
    images = decode_images(encoded, len(encoded), description, image_size=image_size)
    return ArraySplit(images, np.asarray(labels, dtype=np.int64))


def _images_of(split: Path, read: dict[Path, Path]) -> dict[str, list[Path]]:
    """Class names, in order, and the images of each; `read` gathers the folders that were gone through."""
    images = {place.name: sorted(_images_below(place, read)) for place in _class_folders(split)}
    for class_name, paths in images.items():
        if not paths:
            kinds = ", ".join(sorted(SUFFIXES))
            raise DataError(f"{split / class_name}: no images; expected at least one of: {kinds}")
    return images


def _class_folders(split: Path) -> list[Path]:
    entries = visible(split)
    for path in entries:
        if not path.exists():
            raise DataError(f"{path}: is a link that leads nowhere; expected a folder of images")
    folders = [path for path in entries if path.is_dir()]
    if not folders:
        raise DataError(f"{split}: no {split.name} split; expected a folder of class folders of images")
    return folders


def _images_below(folder: Path, read: dict[Path, Path]) -> list[Path]:
    """Images in `folder` and the folders in it. `read` maps folders, links resolved, to the name they were read by."""
    first = read.setdefault(folder.resolve(), folder)
    if first != folder:
        raise DataError(f"{folder}: is {first} again, through a link; expected every folder once")
    images = []
    for path in visible(folder):
        if path.is_dir():
            images += _images_below(path, read)
        elif path.suffix.lower() in SUFFIXES:
            images.append(path)
            if not path.is_file():
                raise DataError(f"{path}: is no file, or a link that leads nowhere; expected an image")
    return images

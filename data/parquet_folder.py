"""Folders in the Hugging Face layout: `<split>-00000-of-00001.parquet`, any number of shards, pictures inside."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data.dataset import ArraySplit, DataError, ImageData, assemble
from data.decoding import EncodedPicture, decode_pictures

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")
ROWS_AT_A_TIME = 1024
MOST_CLASSES = 100_000  # a column without class names counts them by its highest label: above this it is no label


@dataclass(frozen=True)
class Columns:
    """Which columns hold picture and label. `class_names` is None when the files do not give any."""

    image: str
    label: str
    class_names: tuple[str, ...] | None


def find_parquet_folder(folder: Path) -> Path | None:
    """Where under `folder` the shards lie: in it, in data/, or in its only folder that holds any; None without shards.

    Raises:
        DataError: several folders hold shards, so that it is not clear which one is meant.
    """
    for place in (folder, folder / "data"):
        if any(place.glob("*.parquet")):
            return place
    places = sorted({shard.parent for shard in folder.glob("*/*.parquet")})
    if len(places) > 1:
        names = ", ".join(place.name for place in places)
        raise DataError(f"{folder}: several data sets in one folder ({names}); give the one that is meant")
    return places[0] if places else None


def load_parquet_folder(folder: Path, *, name: str, device: torch.device | str = "cpu") -> ImageData:
    """Read the train and test shards in `folder`.

    Raises:
        DataError: a split or shard is missing, a file is damaged, a column is missing or of the wrong kind, a picture
            cannot be decoded or has another size, a label is null or out of range; names file and row (from 0).
    """
    shards = {split: _shards(folder, split) for split in ("train", "test")}
    columns = {split: read_columns(paths[0]) for split, paths in shards.items()}
    if columns["train"].class_names != columns["test"].class_names:
        raise DataError(f"{folder}: train and test shards name different classes; expected the same names in one order")
    labels = {split: _read_labels(paths, columns[split]) for split, paths in shards.items()}
    class_names = columns["train"].class_names
    if class_names is None:
        highest = max(int(values.max()) for values in labels.values())
        class_names = tuple(str(number) for number in range(highest + 1))
    arrays = {
        split: ArraySplit(
            decode_pictures(_pictures(paths, columns[split].image), len(labels[split]), f"{name} {split}"),
            labels[split],
        )
        for split, paths in shards.items()
    }
    return assemble(name, arrays["train"], arrays["test"], class_names, device)


def read_columns(path: Path) -> Columns:
    """The picture and label columns of a shard, from its `huggingface` metadata or, without it, from its schema.

    Raises:
        DataError: there are no such columns, or several and none has a usual name.
    """
    with _opened(path) as file:
        schema = file.schema_arrow
    features = _features(path, schema)
    found = _columns_text(schema)
    kinds = {column: feature.get("_type") for column, feature in features.items() if isinstance(feature, dict)}
    images = [column for column in schema.names if kinds.get(column) == "Image"]
    if not images:
        images = [f.name for f in schema if f.name not in kinds and _holds_encoded_pictures(f.type)]
    labels = [column for column in schema.names if kinds.get(column) == "ClassLabel"]
    if not labels:
        labels = [f.name for f in schema if pa.types.is_integer(f.type)]
    image = _pick(images, IMAGE_COLUMNS)
    if image is None or not _holds_encoded_pictures(schema.field(image).type):
        raise DataError(f"{path}: expected one column of pictures {{bytes, path}}, best named image; found {found}")
    label = _pick(labels, LABEL_COLUMNS)
    if label is None or not pa.types.is_integer(schema.field(label).type):
        raise DataError(f"{path}: expected one integer column of class labels, best named label; found {found}")
    return Columns(image, label, _class_names(path, features.get(label)))


def _shards(folder: Path, split: str) -> list[Path]:
    pattern = re.compile(rf"{split}(?:-(?P<index>\d+)-of-(?P<count>\d+))?(?:[-_.].*)?\.parquet")
    found = [(path, match) for path in sorted(folder.glob("*.parquet")) if (match := pattern.fullmatch(path.name))]
    if not found:
        present = ", ".join(path.name for path in sorted(folder.glob("*.parquet")))
        raise DataError(f"{folder}: no {split} split; expected {split}-00000-of-00001.parquet, found {present}")
    counts = {int(match["count"]) for _, match in found if match["count"]}
    if len(counts) > 1:
        raise DataError(
            f"{folder}: {split} shards disagree on how many there are: {sorted(counts)}; expected one count"
        )
    for count in counts:
        missing = set(range(count)) - {int(match["index"]) for _, match in found if match["index"]}
        if missing:
            raise DataError(
                f"{folder}: expected {split}-{min(missing):05d}-of-{count:05d}.parquet; that shard is missing"
            )
    return [path for path, _ in found]


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """The shard, open; whatever Arrow finds wrong with it while it is used is a one-line DataError."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error


def _features(path: Path, schema: pa.Schema) -> dict[str, Any]:
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        return dict(json.loads(text)["info"]["features"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{path}: schema metadata "huggingface" is not JSON of the form {{"info": {{"features": ...}}}}'
        ) from error


def _class_names(path: Path, feature: Any) -> tuple[str, ...] | None:
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    names, count = feature.get("names"), feature.get("num_classes")
    if isinstance(names, list) and names:
        return tuple(str(name) for name in names)
    if isinstance(count, int) and count > 0:
        return tuple(str(number) for number in range(count))
    raise DataError(f"{path}: the ClassLabel in its metadata has neither names nor num_classes")


def _holds_encoded_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_encoded_pictures(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _pick(columns: list[str], usual: tuple[str, ...]) -> str | None:
    if len(columns) == 1:
        return columns[0]
    return next((name for name in usual if name in columns), None)


def _read_labels(paths: list[Path], columns: Columns) -> npt.NDArray[np.int64]:
    parts = []
    for path in paths:
        with _opened(path) as file:
            _require_columns(path, file.schema_arrow, columns)
            values = file.read(columns=[columns.label]).column(0).combine_chunks()
        if values.null_count:
            row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
            raise DataError(f"{path}, row {row}: label is null; expected {_expected_labels(columns)}")
        labels = values.cast(pa.int64(), safe=False).to_numpy()  # a uint64 past int64 turns negative
        bad = np.flatnonzero((labels < 0) | (labels >= (len(columns.class_names or ()) or MOST_CLASSES)))
        if len(bad):
            raise DataError(f"{path}, row {bad[0]}: label is {labels[bad[0]]}; expected {_expected_labels(columns)}")
        parts.append(labels)
    everything = np.concatenate(parts)
    if not len(everything):
        raise DataError(f"{paths[0]}: holds no rows; expected at least one picture")
    return everything


def _require_columns(path: Path, schema: pa.Schema, columns: Columns) -> None:
    fits = (
        columns.image in schema.names
        and columns.label in schema.names
        and _holds_encoded_pictures(schema.field(columns.image).type)
        and pa.types.is_integer(schema.field(columns.label).type)
    )
    if not fits:
        raise DataError(
            f"{path}: expected columns {columns.image} (pictures) and {columns.label} (integers) as in the first "
            f"shard; found {_columns_text(schema)}"
        )


def _expected_labels(columns: Columns) -> str:
    return f"0..{(len(columns.class_names or ()) or MOST_CLASSES) - 1}"


def _columns_text(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _pictures(paths: list[Path], column: str) -> Iterator[EncodedPicture]:
    for path in paths:
        row = 0
        with _opened(path) as file:
            for batch in file.iter_batches(ROWS_AT_A_TIME, columns=[column]):
                for value in batch.column(0):
                    content = value.as_py()
                    if isinstance(content, dict):
                        content = content["bytes"]
                    if content is None:
                        raise DataError(f"{path}, row {row}: holds no picture; expected its encoded bytes")
                    yield EncodedPicture(f"{path}, row {row}", content)
                    row += 1

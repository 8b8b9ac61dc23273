"""Data sets in Parquet files of images or audio, whose metadata, as the hub writes it, may say what each column is."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tidepool.data.audio import AudioSplit, decode_audio
from tidepool.data.dataset import ArraySplit, DataError
from tidepool.data.decoding import EncodedItem, decode_images
from tidepool.data.parquet_shards import SPLITS, shards_of, validation_shards_of

IMAGE_COLUMNS = ("image", "img")
AUDIO_COLUMNS = ("audio",)
LABEL_COLUMNS = ("label", "labels", "fine_label")
ROWS_AT_A_TIME = 1024
MOST_CLASSES = 100_000  # a column without class names counts them by its highest label: above this it is no label


@dataclass(frozen=True)
class Columns:
    """Which columns hold image or audio and label. `class_names` is None when the files do not give any."""

    content: str
    holds: Literal["images", "audio"]
    label: str
    class_names: tuple[str, ...] | None


@dataclass(frozen=True)
class ParquetFolder:
    """One folder's shards, their labels read and what they hold not yet decoded; all by split, train before test, and
    "validation" where there is one."""

    folder: Path
    shards: dict[str, list[Path]]
    content: dict[str, str]
    """The column that holds the encoded images or audio."""
    holds: Literal["images", "audio"]
    labels: dict[str, npt.NDArray[np.int64]]
    class_names: tuple[str, ...]

    def images(self, name: str, image_size: int | None) -> tuple[ArraySplit, ArraySplit, ArraySplit | None]:
        """Train, test and validation, where there is one, as `decode_images` decodes; progress bars are named after
        `name`.

        Raises:
            DataError: an image cannot be decoded or has another size; names file and row.
        """

        def decoded(split: str) -> ArraySplit:
            count = len(self.labels[split])
            pixels = decode_images(self._items(split), count, f"{name} {split}", image_size=image_size)
            return ArraySplit(pixels, self.labels[split])

        return decoded("train"), decoded("test"), decoded("validation") if "validation" in self.shards else None

    def audio(self, name: str) -> tuple[AudioSplit, AudioSplit, AudioSplit | None]:
        """Train, test and validation, where there is one, as `decode_audio` decodes; progress bars are named after
        `name`.

        Raises:
            DataError: a clip cannot be decoded; names file and row.
        """

        def decoded(split: str) -> AudioSplit:
            waveforms = decode_audio(self._items(split), len(self.labels[split]), f"{name} {split}")
            return AudioSplit(waveforms, self.labels[split])

        return decoded("train"), decoded("test"), decoded("validation") if "validation" in self.shards else None

    def texts(self, split: str, column: str, purpose: str) -> npt.NDArray[np.str_]:
        """Each row's value in `column` as text. DataError where a shard lacks the column, with what it was for."""
        parts: list[str] = []
        for path in self.shards[split]:
            with _opened(path) as file:
                if column not in file.schema_arrow.names:
                    found = _columns_text(file.schema_arrow)
                    raise DataError(f"{path}: expected a column named {column} {purpose}; found {found}")
                _type_of(path, file.schema_arrow, column)
                parts += [str(value) for value in file.read(columns=[column]).column(column).to_pylist()]
        return np.array(parts)

    def _items(self, split: str) -> Iterator[EncodedItem]:
        for path in self.shards[split]:
            row = 0
            with _opened(path) as file:
                for batch in file.iter_batches(ROWS_AT_A_TIME, columns=[self.content[split]]):
                    for value in batch.column(self.content[split]):
                        content = value.as_py()
                        if isinstance(content, dict):
                            content = content["bytes"]
                        if content is None:
                            raise DataError(f"{path}, row {row}: holds no bytes; expected an encoded image or audio")
                        yield EncodedItem(f"{path}, row {row}", content)
                        row += 1


def read_parquet_folder(folder: Path) -> ParquetFolder:
    """The train and test shards in `folder`, and those of validation.

    Raises:
        DataError: a split or shard is missing, a file is damaged, a column is missing or of the wrong kind, a label is
            null or out of range; names file and row (from 0).
    """
    shards = {split: shards_of(folder, split) for split in SPLITS}
    own = validation_shards_of(folder)
    if own:
        shards["validation"] = own
    columns = {split: read_columns(paths[0]) for split, paths in shards.items()}
    train = columns["train"]
    for split, other in columns.items():
        if train.class_names != other.class_names:
            raise DataError(
                f"{folder}: train and {split} shards name different classes; expected the same names in one order"
            )
        if train.holds != other.holds:
            raise DataError(f"{folder}: train shards hold {train.holds} but {split} shards {other.holds}")
    labels = {split: _read_labels(paths, columns[split]) for split, paths in shards.items()}
    class_names = train.class_names
    if class_names is None:
        highest = max(int(values.max()) for values in labels.values())
        class_names = tuple(str(number) for number in range(highest + 1))
    return ParquetFolder(
        folder=folder,
        shards=shards,
        content={split: columns[split].content for split in shards},
        holds=train.holds,
        labels=labels,
        class_names=class_names,
    )


def read_columns(path: Path) -> Columns:
    """The columns of images or audio and of labels of a shard, from its `huggingface` metadata or, without it,
    from its schema: bytes in a column named audio are audio, other bytes images.

    Raises:
        DataError: there are no such columns, or several and none has a usual name, or two of one name.
    """
    with _opened(path) as file:
        schema = file.schema_arrow
    features = _features(path, schema)
    found = _columns_text(schema)
    kinds = {column: feature.get("_type") for column, feature in features.items() if isinstance(feature, dict)}
    unnamed = [f.name for f in schema if f.name not in kinds and _holds_bytes(f.type)]
    images = [column for column in schema.names if kinds.get(column) == "Image"]
    audios = [column for column in schema.names if kinds.get(column) == "Audio"]
    if not images and not audios:
        audios = [column for column in unnamed if column in AUDIO_COLUMNS]
        images = [column for column in unnamed if column not in AUDIO_COLUMNS]
    content = _pick(images, IMAGE_COLUMNS) if images else _pick(audios, AUDIO_COLUMNS)
    if content is None or not _holds_bytes(_type_of(path, schema, content)):
        raise DataError(
            f"{path}: expected one column of images or audio {{bytes, path}}, best named image or audio; found {found}"
        )
    labels = [column for column in schema.names if kinds.get(column) == "ClassLabel"]
    if not labels:
        labels = [f.name for f in schema if pa.types.is_integer(f.type)]
    label = _pick(labels, LABEL_COLUMNS)
    if label is None or not pa.types.is_integer(_type_of(path, schema, label)):
        raise DataError(f"{path}: expected one integer column of class labels, best named label; found {found}")
    return Columns(content, "images" if images else "audio", label, _class_names(path, features.get(label)))


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


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
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
            values = file.read(columns=[columns.label]).column(columns.label).combine_chunks()
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
        raise DataError(f"{paths[0]}: holds no rows; expected at least one")
    return everything


def _require_columns(path: Path, schema: pa.Schema, columns: Columns) -> None:
    fits = (
        columns.content in schema.names
        and columns.label in schema.names
        and _holds_bytes(_type_of(path, schema, columns.content))
        and pa.types.is_integer(_type_of(path, schema, columns.label))
    )
    if not fits:
        raise DataError(
            f"{path}: expected columns {columns.content} ({columns.holds}) and {columns.label} (integers) as in the "
            f"first shard; found {_columns_text(schema)}"
        )
    if _class_names(path, _features(path, schema).get(columns.label)) != columns.class_names:
        raise DataError(f"{path}: names other classes than the first shard; expected the same names in one order")


def _type_of(path: Path, schema: pa.Schema, column: str) -> pa.DataType:
    """The type of a column that the schema has. DataError if it has several of that name."""
    if schema.names.count(column) > 1:
        raise DataError(f"{path}: several columns are called {column}; expected one; found {_columns_text(schema)}")
    return schema.field(column).type


def _expected_labels(columns: Columns) -> str:
    return f"0..{(len(columns.class_names or ()) or MOST_CLASSES) - 1}"


def _columns_text(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)

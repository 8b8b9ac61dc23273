"""Folders in the Hugging Face layout: `<split>-00000-of-00001.parquet`, any number of shards, pictures or WAV
recordings inside.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data.dataset import ArraySplit, DataError, LabelledData, assemble
from data.decoding import EncodedItem, decode_pictures
from data.reading import Reading
from data.recordings import Recordings, assemble_recordings, decode_recordings

IMAGE_COLUMNS = ("image", "img")
AUDIO_COLUMNS = ("audio",)
SPEAKER_COLUMN = "speaker"
LABEL_COLUMNS = ("label", "labels", "fine_label")
ROWS_AT_A_TIME = 1024
MOST_CLASSES = 100_000  # a column without class names counts them by its highest label: above this it is no label


@dataclass(frozen=True)
class Columns:
    """Which columns hold picture or recording and label. `class_names` is None when the files do not give any."""

    content: str
    holds: Literal["pictures", "recordings"]
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


def load_parquet_folder(folder: Path, *, name: str, reading: Reading) -> LabelledData:
    """Read the train and test shards in `folder`.

    With a held-out speaker, of recordings, test is every recording of theirs in both splits and train every one of
    the other speakers'.

    Raises:
        DataError: the model takes something else, a split or shard is missing, a file is damaged, a column is missing
            or of the wrong kind, a picture or recording cannot be decoded, a picture has another size, a label is null
            or out of range, there is no such speaker; names file and row (from 0).
    """
    shards = {split: _shards(folder, split) for split in ("train", "test")}
    columns = {split: read_columns(paths[0]) for split, paths in shards.items()}
    if columns["train"].class_names != columns["test"].class_names:
        raise DataError(f"{folder}: train and test shards name different classes; expected the same names in one order")
    if columns["train"].holds != columns["test"].holds:
        raise DataError(f"{folder}: train shards hold {columns['train'].holds} but test shards {columns['test'].holds}")
    if columns["train"].holds == "pictures":
        reading.require(name, "pictures", ("image",), ("image_size",))
    else:
        reading.require(name, "recordings", ("image", "waveform"), ("held_out_speaker",))
    labels = {split: _read_labels(paths, columns[split]) for split, paths in shards.items()}
    class_names = columns["train"].class_names
    if class_names is None:
        highest = max(int(values.max()) for values in labels.values())
        class_names = tuple(str(number) for number in range(highest + 1))
    items = {split: _items(paths, columns[split].content) for split, paths in shards.items()}
    if columns["train"].holds == "pictures":
        pictures = {
            split: ArraySplit(
                decode_pictures(items[split], len(labels[split]), f"{name} {split}", image_size=reading.image_size),
                labels[split],
            )
            for split in shards
        }
        return assemble(name, pictures["train"], pictures["test"], class_names, reading.device)
    recordings = {
        split: Recordings(decode_recordings(items[split], len(labels[split]), f"{name} {split}"), labels[split])
        for split in shards
    }
    if reading.held_out_speaker is not None:
        speakers = {split: _speakers(paths) for split, paths in shards.items()}
        recordings = _hold_out(reading.held_out_speaker, folder, recordings, speakers)
    as_spectrograms = reading.kind == "image"
    return assemble_recordings(
        name, recordings["train"], recordings["test"], class_names, reading.device, as_spectrograms=as_spectrograms
    )


def _hold_out(
    speaker: str, folder: Path, recordings: dict[str, Recordings], speakers: dict[str, npt.NDArray[np.str_]]
) -> dict[str, Recordings]:
    """Both splits' recordings, parted anew: `speaker`'s into test, everybody else's into train."""
    everyone = np.concatenate([speakers["train"], speakers["test"]])
    waveforms = np.concatenate([recordings["train"].waveforms, recordings["test"].waveforms])
    labels = np.concatenate([recordings["train"].labels, recordings["test"].labels])
    held_out = everyone == speaker
    if not held_out.any() or held_out.all():
        found = "no such speaker" if not held_out.any() else "the only speaker"
        raise DataError(
            f"held_out_speaker={speaker}: {found} in {folder}; expected one of: {', '.join(np.unique(everyone))}"
        )
    return {
        "train": Recordings(waveforms[~held_out], labels[~held_out]),
        "test": Recordings(waveforms[held_out], labels[held_out]),
    }


def read_columns(path: Path) -> Columns:
    """The columns of pictures or recordings and of labels of a shard, from its `huggingface` metadata or, without it,
    from its schema: bytes in a column named audio are recordings, other bytes pictures.

    Raises:
        DataError: there are no such columns, or several and none has a usual name.
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
    if content is None or not _holds_bytes(schema.field(content).type):
        raise DataError(
            f"{path}: expected one column of pictures or recordings {{bytes, path}}, best named image or audio; "
            f"found {found}"
        )
    labels = [column for column in schema.names if kinds.get(column) == "ClassLabel"]
    if not labels:
        labels = [f.name for f in schema if pa.types.is_integer(f.type)]
    label = _pick(labels, LABEL_COLUMNS)
    if label is None or not pa.types.is_integer(schema.field(label).type):
        raise DataError(f"{path}: expected one integer column of class labels, best named label; found {found}")
    return Columns(content, "pictures" if images else "recordings", label, _class_names(path, features.get(label)))


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
        raise DataError(f"{paths[0]}: holds no rows; expected at least one")
    return everything


def _require_columns(path: Path, schema: pa.Schema, columns: Columns) -> None:
    fits = (
        columns.content in schema.names
        and columns.label in schema.names
        and _holds_bytes(schema.field(columns.content).type)
        and pa.types.is_integer(schema.field(columns.label).type)
    )
    if not fits:
        raise DataError(
            f"{path}: expected columns {columns.content} ({columns.holds}) and {columns.label} (integers) as in the "
            f"first shard; found {_columns_text(schema)}"
        )


def _expected_labels(columns: Columns) -> str:
    return f"0..{(len(columns.class_names or ()) or MOST_CLASSES) - 1}"


def _columns_text(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _speakers(paths: list[Path]) -> npt.NDArray[np.str_]:
    """Each row's speaker as text."""
    parts = []
    for path in paths:
        with _opened(path) as file:
            if SPEAKER_COLUMN not in file.schema_arrow.names:
                raise DataError(
                    f"{path}: expected a column named {SPEAKER_COLUMN} to hold a speaker out; "
                    f"found {_columns_text(file.schema_arrow)}"
                )
            parts += [str(value) for value in file.read(columns=[SPEAKER_COLUMN]).column(0).to_pylist()]
    return np.array(parts)


def _items(paths: list[Path], column: str) -> Iterator[EncodedItem]:
    for path in paths:
        row = 0
        with _opened(path) as file:
            for batch in file.iter_batches(ROWS_AT_A_TIME, columns=[column]):
                for value in batch.column(0):
                    content = value.as_py()
                    if isinstance(content, dict):
                        content = content["bytes"]
                    if content is None:
                        raise DataError(f"{path}, row {row}: holds no bytes; expected an encoded picture or recording")
                    yield EncodedItem(f"{path}, row {row}", content)
                    row += 1

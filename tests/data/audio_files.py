"""Small data sets of WAV audio on disk, with samples that are known beforehand."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.io import wavfile

SPEAKERS = ("ann", "bob", "cleo")
FEATURES = {"audio": {"_type": "Audio"}, "label": {"names": ["low", "high"], "_type": "ClassLabel"}}


def tone(hz: float, *, rate: int = 8000, seconds: float = 0.5, level: float = 0.5) -> npt.NDArray[np.float64]:
    """A sine wave at full scale -1..1."""
    return level * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


def wav(samples: npt.NDArray, rate: int = 8000) -> bytes:
    """Encoded in the type of `samples`, float64 as 16 bit."""
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, np.rint(samples * 32767).astype(np.int16) if samples.dtype == np.float64 else samples)
    return buffer.getvalue()


def write_audio(
    path: Path,
    clips: Sequence[bytes | None],
    labels: Sequence[int],
    *,
    speakers: Sequence[str] | None = None,
    metadata: bool = True,
) -> None:
    """A Parquet file with {bytes, path} audio in the Hugging Face layout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    struct = pa.array(
        [{"bytes": content, "path": f"{row}.wav"} for row, content in enumerate(clips)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    columns = {"audio": struct, "label": pa.array(labels, pa.int64())}
    if speakers is not None:
        columns["speaker"] = pa.array(speakers, pa.string())
    table = pa.table(columns)
    if metadata:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    pq.write_table(table, path)


def write_audio_folder(folder: Path, *, train: int = 12, test: int = 6) -> Path:
    """Tones about 300 Hz (label 0) and 1500 Hz (label 1) by three speakers in turn, each row another tone."""
    for split, rows in (("train", train), ("test", test)):
        write_audio(
            folder / f"{split}-00000-of-00001.parquet",
            [wav(tone((300, 1500)[row % 2] + 5 * row)) for row in range(rows)],
            [row % 2 for row in range(rows)],
            speakers=[SPEAKERS[row % 3] for row in range(rows)],
        )
    return folder

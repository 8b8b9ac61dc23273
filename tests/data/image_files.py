"""Small data sets on disk for the loaders' tests, with pixels that are known beforehand."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NAMES = ("cat", "dog", "eel")


def image(seed: int, height: int = 6, width: int = 5, channels: int = 3) -> npt.NDArray[np.uint8]:
    """Random pixels (H, W, channels), or (H, W) for one channel, as Pillow takes them."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Losslessly encoded."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def features(names: Sequence[str] = NAMES, image: str = "image", label: str = "label") -> dict[str, Any]:
    """The `features` part of the metadata that the datasets library writes."""
    return {image: {"_type": "Image"}, label: {"names": list(names), "_type": "ClassLabel"}}


def write_shard(
    path: Path,
    images: Sequence[bytes | None],
    labels: Sequence[int | str | None],
    *,
    metadata: dict[str, Any] | None = None,
    image: str = "image",
    label: str = "label",
) -> None:
    """A Parquet file with {bytes, path} images; `metadata` is what stands under `features`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    struct = pa.array(
        [{"bytes": content, "path": f"{row}.png"} for row, content in enumerate(images)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({image: struct, label: pa.array(labels)})
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": metadata}})})
    pq.write_table(table, path)


def write_parquet_folder(folder: Path, *, train: int = 6, test: int = 3) -> Path:
    """Shards of 6x5 RGB images: `image(row)` in train, `image(100 + row)` in test; labels row % 3."""
    for split, rows, first in (("train", train, 0), ("test", test, 100)):
        write_shard(
            folder / f"{split}-00000-of-00001.parquet",
            [png(image(first + row)) for row in range(rows)],
            [row % 3 for row in range(rows)],
            metadata=features(),
        )
    return folder

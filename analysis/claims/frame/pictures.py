"""Small images as text in a CSV: the sizes, then two hexadecimal digits a value, row by row."""

import numpy as np
import numpy.typing as npt


def encode(image: npt.ArrayLike, *, low: float | None = None, high: float | None = None) -> str:
    """(H, W) or (H, W, 3) numbers in 256 levels from `low` to `high`; by default from the least to the greatest."""
    pixels = np.asarray(image, dtype=np.float64)
    low, high = float(pixels.min()) if low is None else low, float(pixels.max()) if high is None else high
    level = np.zeros_like(pixels) if high == low else (pixels - low) / (high - low)
    levels = np.clip(np.rint(255 * level), 0, 255).astype(np.uint8)
    return f"{'x'.join(map(str, pixels.shape))}:{levels.tobytes().hex()}"


def decode(text: str) -> npt.NDArray[np.uint8]:
    """What `encode` wrote, in 0..255. Raises ValueError for other text."""
    size, _, pixels = text.partition(":")
    return np.frombuffer(bytes.fromhex(pixels), dtype=np.uint8).reshape([int(side) for side in size.split("x")])

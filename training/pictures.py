"""Grids of small images, such as filters, as PNG files to be read: titled, in colour, at least 600 pixels on a side."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tidepool.records import replacing

LEAST_SIDE, TITLE_HEIGHT, CAPTION_HEIGHT, GAP = 600, 28, 16, 4
MOST_TILES = 64

Colours = Literal["signed", "bright"]
_ANCHORS: dict[str, list[tuple[int, int, int]]] = {
    "signed": [(33, 60, 140), (120, 160, 215), (247, 247, 247), (225, 130, 110), (150, 15, 40)],
    "bright": [(20, 10, 60), (60, 70, 140), (30, 140, 140), (110, 200, 95), (250, 230, 40)],
}
"""From the least to the greatest value; of "signed" white is zero."""


def write_grid(
    path: Path, tiles: Tensor, title: str, *, colours: Colours = "bright", captions: Sequence[str] = ()
) -> None:
    """Write up to 64 tiles (K, 1 or 3, h, w) as one PNG under `title`, each in its own range and enlarged in whole
    pixels, with a caption below where there are captions.

    Three channels are shown as red, green and blue, from the tile's least to its greatest value; one in `colours`.
    """
    images = [coloured(tile, colours) for tile in tiles[:MOST_TILES].float().cpu()]
    height, width = images[0].shape[:2]
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    scale = max(1, math.ceil(LEAST_SIDE / max(columns * width, rows * height)))
    cell_width, cell_height = width * scale + GAP, height * scale + GAP + (CAPTION_HEIGHT if captions else 0)
    sheet = Image.new("RGB", (max(columns * cell_width, LEAST_SIDE), TITLE_HEIGHT + rows * cell_height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    draw.text((4, 5), title, fill="black", font=font)
    for place, image in enumerate(images):
        left, top = place % columns * cell_width, TITLE_HEIGHT + place // columns * cell_height
        enlarged = Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, top))
        if place < len(captions):
            draw.text((left, top + height * scale), captions[place], fill="black", font=ImageFont.load_default(11))
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")


def coloured(tile: Tensor, colours: Colours) -> npt.NDArray[np.uint8]:
    """(1 or 3, h, w) -> (h, w, 3) in 0..255; a flat tile is all of the least colour, of "signed" of zero's."""
    if tile.shape[0] == 3 or colours == "bright":
        low, high = tile.min(), tile.max()
        share = torch.nan_to_num((tile - low) / (high - low), nan=0.0)
    else:
        share = torch.nan_to_num(tile / tile.abs().max(), nan=0.0) / 2 + 0.5
    values = rearrange(share, "c h w -> h w c").numpy()
    if tile.shape[0] == 3:
        return np.rint(values * 255).astype(np.uint8)
    anchors = np.array(_ANCHORS[colours])
    places = np.linspace(0, 1, len(anchors))
    return np.stack([np.rint(np.interp(values[..., 0], places, anchors[:, c])) for c in range(3)], -1).astype(np.uint8)

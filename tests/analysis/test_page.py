"""HTML pieces: escaping, unique identifiers, pictures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.analysis.runs.run_writer import write_media
from tidepool.analysis import page

HOSTILE = "<script>alert('x')</script>\"&\0\ud800"


def test_text_escapes_markup_quotes_and_what_html_cannot_hold() -> None:
    assert page.text(HOSTILE) == "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&quot;&amp;??"


def test_table_escapes_every_cell_and_heading() -> None:
    view = pd.DataFrame({"Compared": ["<script>"], "Backend": ["<script>"], "<b>": ["1"]}, dtype="object")
    assert "<script" not in page.table(view)
    assert "<b>" not in page.table(view)


def test_table_groups_rows_under_one_heading() -> None:
    view = pd.DataFrame({"Compared": ["a", "a", "b"], "Backend": ["x", "y", "z"]}, dtype="object")
    assert page.table(view).count('<tr class="group">') == 2


def test_inline_svg_prefixes_identifiers_and_their_references() -> None:
    svg = (
        '<?xml version="1.0"?><!DOCTYPE svg><svg xmlns:xlink="x"><style type="text/css">*{stroke: red}</style>'
        '<g id="a"/><use xlink:href="#a" clip-path="url(#c)"/></svg>'
    )
    drawing = page.inline_svg(svg, "p-", 'label "quoted"')
    assert drawing.startswith('<svg role="img" aria-label="label &quot;quoted&quot;"')
    assert 'id="p-a"' in drawing
    assert 'href="#p-a"' in drawing
    assert "url(#p-c)" in drawing
    assert "<style" not in drawing


def test_picture_is_a_data_uri(tmp_path: Path) -> None:
    write_media(tmp_path, 0)
    assert 'src="data:image/png;base64,iVBOR' in page.picture(tmp_path / "feature_maps.png", "maps")


def test_picture_refuses_what_is_no_png(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<svg onload=alert(1)>")
    with pytest.raises(ValueError, match="not a PNG file"):
        page.picture(tmp_path / "a.png", "a")

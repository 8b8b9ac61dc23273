"""Pieces of the report's HTML. Every text is escaped here; nothing on the page refers to anything outside it."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tidepool.analysis.drawing import Figure
from tidepool.analysis.text import MISSING, NOT_MEASURED, TEXT_HEADINGS, UNTIMED

Section = tuple[str, str, list[str]]
"""Key, heading and parts of a block of the page."""
GENERATOR = "tidepool.analysis.report"
_PNG = b"\x89PNG\r\n\x1a\n"
_STATUS_CLASS = {"finished": "good", "diverged": "bad", "failed": "bad", "interrupted": "warn", "unfinished": "warn"}

_FILES = Path(__file__).with_name("page_files")


@dataclass(frozen=True)
class Badge:
    """One verdict: what it is on, the verdict itself, and a line that says what it rests on."""

    name: str
    verdict: str
    note: str = ""
    tone: str = ""
    """good, warn, bad, or nothing."""


def document(title: str, body: Iterable[str]) -> str:
    """The whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="{GENERATOR}">\n<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>{_file('style.css')}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + f"\n</main>\n<script>{_file('script.js')}</script>\n</body>\n</html>\n"
    )


def _file(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def badges(found: Iterable[Badge]) -> str:
    """The verdicts at the top of the page."""
    items = "".join(
        f'<div class="badge {badge.tone}"><dt>{text(badge.name)}</dt><dd>{text(badge.verdict)}'
        + (f"<small>{text(badge.note)}</small>" if badge.note else "")
        + "</dd></div>"
        for badge in found
    )
    return f'<dl class="badges">{items}</dl>'


def text(value: object) -> str:
    """``value`` safe to stand in HTML, attributes too; lone surrogates and NUL, which HTML cannot hold, as ``?``."""
    clean = str(value).encode("utf-8", errors="replace").decode("utf-8").replace("\0", "?")
    return html.escape(clean, quote=True)


def paragraphs(lines: Iterable[str], css: str = "") -> str:
    """One escaped paragraph a line."""
    attribute = f' class="{css}"' if css else ""
    return "".join(f"<p{attribute}>{text(line)}</p>" for line in lines)


def bullets(lines: Sequence[str]) -> str:
    """An escaped list."""
    return "<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>"


def answers(pairs: Iterable[tuple[str, str]]) -> str:
    """The first screen's block: names, each with the HTML of its answer."""
    rows = "\n".join(f"<dt>{text(name)}</dt><dd>{answer}</dd>" for name, answer in pairs)
    folded = fold("What was compared, on what, and what was not measured", f"<dl>\n{rows}\n</dl>")
    return f'<section class="first">{folded}</section>'


def section(identity: str, heading: str, *parts: str, folded: bool = False) -> str:
    """A titled block that the navigation can point to; ``folded``, its content shows on a click and in print."""
    title, content = f"<h2>{text(heading)}</h2>", "\n".join(parts)
    if folded:
        return f'<section id="{identity}">\n{fold(title, content)}\n</section>'
    return f'<section id="{identity}">\n{title}\n{content}\n</section>'


def fold(summary: str, content: str) -> str:
    """HTML that shows on a click on ``summary``, and in print."""
    return f"<details><summary>{summary}</summary>\n{content}\n</details>"


def table(view: pd.DataFrame, *, long: Iterable[str] = (), most: int | None = None) -> str:
    """A frame of text as a table that scrolls on its own; a column ``Compared`` becomes headings between the rows.

    ``long`` names columns of sentences, which get room to wrap. Of more than ``most`` rows the first are shown.
    """
    wide = frozenset(long)
    headings = [name for name in view.columns if name != "Compared"]
    classes = {name: "text" if name in TEXT_HEADINGS else "num" for name in headings}
    head = "".join(f'<th scope="col" class="{classes[name]}">{text(name)}</th>' for name in headings)
    bodies: list[list[str]] = []
    before = None
    for row in view.head(most or len(view)).to_dict("records"):
        if not bodies or ("Compared" in row and row["Compared"] != before):
            bodies.append([])
        if "Compared" in row and row["Compared"] != before:
            before = row["Compared"]
            cell = f'<th scope="colgroup" colspan="{len(headings)}">{text(before)}</th>'
            bodies[-1].append(f'<tr class="group">{cell}</tr>')
        cells = []
        for name in headings:
            css = classes[name] + (" long" if name in wide else "") + _cell_class(row[name])
            cells.append(f'<td class="{css}">{_lines(row[name])}</td>')
        bodies[-1].append(f"<tr>{''.join(cells)}</tr>")
    rows = "\n".join("<tbody>\n" + "\n".join(body) + "\n</tbody>" for body in bodies)
    left = len(view) - (most or len(view))
    note = f"<p>{left} more rows are in tables/.</p>" if left > 0 else ""
    table_ = f'<table class="sorts">\n<thead><tr>{head}</tr></thead>\n{rows}\n</table>'
    return f'<div class="scroll">{table_}</div>{note}'


def figure_grid(figures: Sequence[Figure], *, wide: bool = False) -> str:
    """Drawings side by side where there is room, each with its caption; ``wide`` ones have a row of their own."""
    items = [
        f"<figure{_points(figure)}>{inline_svg(figure.svg, f'f{figure.name}-', figure.caption)}"
        f"<figcaption>{text(figure.caption)}</figcaption></figure>"
        for figure in figures
    ]
    css = "figures wide" if wide else "figures"
    return f'<div class="{css}">{"".join(items)}</div>' if items else ""


def _points(figure: Figure) -> str:
    """The values that a figure shows under the pointer, as an attribute."""
    if not figure.points:
        return ""
    rows = [[round(x, 4), round(y, 4), label] for x, y, label in figure.points]
    return f' data-points="{text(json.dumps(rows, ensure_ascii=False, separators=(",", ":")))}"'


def inline_svg(svg: str, prefix: str, label: str) -> str:
    """An SVG file's drawing inside HTML: no prologue, identifiers made unique by ``prefix``, named by ``label``."""
    drawing = svg[svg.index("<svg") :].strip()
    drawing = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', drawing)
    drawing = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", drawing)
    drawing = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}\1"', drawing)
    # Each drawing's rule "* {…}" would otherwise reach the whole page.
    drawing = re.sub(r"<style type=\"text/css\">.*?</style>", "", drawing, flags=re.DOTALL)
    head = f'<svg role="img" aria-label="{text(label)}" style="stroke-linejoin: round; stroke-linecap: butt"'
    return drawing.replace("<svg", head, 1)


def picture(path: Path, caption: str) -> str:
    """A PNG as part of the page. Raises ValueError, in one line, where the file is none."""
    content = path.read_bytes()
    if not content.startswith(_PNG):
        raise ValueError("not a PNG file")
    data = base64.b64encode(content).decode("ascii")
    return (
        f'<figure><img alt="{text(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def _lines(cell: str) -> str:
    first, *rest = cell.split("\n")
    return text(first) + "".join(f"<br><small>{text(line)}</small>" for line in rest)


def _cell_class(cell: str) -> str:
    if cell in _STATUS_CLASS:
        return f" status {_STATUS_CLASS[cell]}"
    if cell in UNTIMED.values():
        return " mark"
    return " muted" if cell in (MISSING, NOT_MEASURED) else ""

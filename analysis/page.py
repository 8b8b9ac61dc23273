"""Pieces of the report's HTML. Every text is escaped here; nothing on the page refers to anything outside it."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from tidepool.analysis.drawing import Figure
from tidepool.analysis.text import MISSING, NOT_MEASURED, TEXT_HEADINGS, UNTIMED

Section = tuple[str, str, list[str]]
"""Key, heading and parts of a block of the page."""
GENERATOR = "tidepool.analysis.report"
_PNG = b"\x89PNG\r\n\x1a\n"
_STATUS_CLASS = {"finished": "good", "diverged": "bad", "failed": "bad", "interrupted": "warn", "unfinished": "warn"}

_STYLE = """
:root { color-scheme: light; --ink: #1d2733; --soft: #5a6775; --line: #dde3e8; --paper: #fff; --tint: #f4f6f8;
  --accent: #0b4f8a; --warn: #8a5300; --bad: #a01c1c; --good: #1b6b4f; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--tint); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", Roboto, sans-serif; overflow-wrap: anywhere; }
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .2rem 0 .4rem; }
h2 { font-size: 1.2rem; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; color: var(--soft); font-weight: 600; }
p { margin: .4rem 0; max-width: 48rem; }
.eyebrow { color: var(--soft); font-size: .85rem; letter-spacing: .03em; margin: 0; }
.question { color: var(--soft); font-style: italic; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 1.25rem 1.4rem;
  margin-top: 1.1rem; }
.first dl { display: grid; grid-template-columns: 8.5rem minmax(0, 1fr); gap: .55rem 1.2rem; margin: 0; }
.first dt { font-weight: 600; color: var(--accent); }
.first dd { margin: 0; }
.first dd p { margin: 0 0 .25rem; max-width: none; }
.result { font-size: 1.05rem; }
nav { margin-top: .9rem; font-size: .9rem; }
nav a { color: var(--accent); margin-right: 1rem; white-space: nowrap; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .4rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: normal; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
th.text, td.text { text-align: left; }
td.num { white-space: nowrap; }
td.text { min-width: 5.5rem; }
td.long { min-width: 15rem; }
tr.group th { text-align: left; color: var(--ink); background: var(--tint); }
td small { color: var(--soft); white-space: normal; }
.muted { color: #6b7885; }
.mark { color: var(--warn); font-weight: 600; }
.status { font-weight: 600; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 23rem), 1fr)); gap: 1.1rem; }
figure { margin: 0; max-width: 32rem; }
.figures.wide { grid-template-columns: 1fr; }
.figures.wide figure { max-width: 48rem; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .82rem; color: var(--soft); margin-top: .3rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.pictures figure { max-width: 22rem; }
.pictures img { width: 22rem; max-width: 100%; height: auto; display: block; image-rendering: pixelated;
  border: 1px solid var(--line); }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: 6px; padding: .7rem .9rem; margin: .5rem 0;
  white-space: pre-wrap; font: .85rem/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
ul { margin: .4rem 0; padding-left: 1.2rem; }
@media (max-width: 40rem) {
  main { padding: .9rem .7rem 3rem; }
  h1 { font-size: 1.35rem; }
  section { padding: 1rem .85rem; }
  .first dl { grid-template-columns: 1fr; gap: .1rem; }
  .first dd { margin-bottom: .6rem; }
}
@media print { body { background: #fff; } section { break-inside: avoid-page; } nav { display: none; } }
"""


def document(title: str, body: Iterable[str]) -> str:
    """The whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="{GENERATOR}">\n<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


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
    return f'<section class="first"><dl>\n{rows}\n</dl></section>'


def section(identity: str, heading: str, *parts: str) -> str:
    """A titled block that the navigation can point to."""
    return f'<section id="{identity}">\n<h2>{text(heading)}</h2>\n' + "\n".join(parts) + "\n</section>"


def table(view: pd.DataFrame, *, long: Iterable[str] = ()) -> str:
    """A frame of text as a table that scrolls on its own; a column ``Compared`` becomes headings between the rows.

    ``long`` names columns of sentences, which get room to wrap.
    """
    wide = frozenset(long)
    headings = [name for name in view.columns if name != "Compared"]
    classes = {name: "text" if name in TEXT_HEADINGS else "num" for name in headings}
    lines = ["".join(f'<th scope="col" class="{classes[name]}">{text(name)}</th>' for name in headings)]
    before = None
    for _, row in view.iterrows():
        if "Compared" in view.columns and row["Compared"] != before:
            before = row["Compared"]
            lines.append(f'<th scope="colgroup" colspan="{len(headings)}">{text(before)}</th>')
        cells = []
        for name in headings:
            css = classes[name] + (" long" if name in wide else "") + _cell_class(row[name])
            cells.append(f'<td class="{css}">{_lines(row[name])}</td>')
        lines.append("".join(cells))
    rows = "\n".join(f'<tr class="group">{x}</tr>' if "colgroup" in x[:24] else f"<tr>{x}</tr>" for x in lines[1:])
    return f'<div class="scroll"><table>\n<thead><tr>{lines[0]}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def figure_grid(figures: Sequence[Figure], *, wide: bool = False) -> str:
    """Drawings side by side where there is room, each with its caption; ``wide`` ones have a row of their own."""
    items = [
        f"<figure>{inline_svg(figure.svg, f'f{figure.name}-', figure.caption)}"
        f"<figcaption>{text(figure.caption)}</figcaption></figure>"
        for figure in figures
    ]
    css = "figures wide" if wide else "figures"
    return f'<div class="{css}">{"".join(items)}</div>' if items else ""


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

"""A page that stands alone: text, tables and pictures in one HTML file, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from mbgraph.bench.grids import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["bullets", "code", "grid_html", "page", "paragraph", "picture", "section", "table"]

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
body { overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.scroll { overflow-x: auto; margin: .8rem 0; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #8884; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr.rule td { border-top: 2px solid #888; }
td.best { font-weight: bold; } td.second { text-decoration: underline; }
.text td { text-align: left; white-space: normal; } .note { font-size: .85rem; opacity: .85; }
.warn { background: #b0002018; border-left: 4px solid #b00020; padding: .5rem .8rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: #fff; }
pre { overflow-x: auto; background: #8881; padding: .6rem; font-size: .85rem; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """Return a whole page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src '
        "'unsafe-inline'\">\n"
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n'
        f"<h1>{escape(title)}</h1>\n" + "\n".join(part for part in parts if part) + "\n</body>\n</html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """Return a section, empty where there is nothing in it."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(heading)}</h2>\n{body}\n</section>" if body else ""


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; ``kind`` is ``note`` or ``warn``."""
    mark = f' class="{kind}"' if kind else ""
    return f"<p{mark}>{escape(text)}</p>" if text else ""


def bullets(lines: Sequence[str]) -> str:
    """Return a list."""
    return "<ul>\n" + "\n".join(f"<li>{escape(line)}</li>" for line in lines) + "\n</ul>" if lines else ""


def code(text: str) -> str:
    """Return text as it stands."""
    return f"<pre>{escape(text)}</pre>" if text else ""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, text: bool = False) -> str:
    """Return a table; ``text`` wraps its cells."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    mark = ' class="text"' if text else ""
    return f'<div class="scroll"><table{mark}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def grid_html(grid: Grid) -> str:
    """Return a grid of results with its caption."""
    head = "".join(f"<th>{escape(column)}</th>" for column in grid.columns)
    lines = []
    for number, row in enumerate(grid.rows):
        cells = "".join(
            f"<td{' class=best' if box.best else ' class=second' if box.second else ''}>{escape(box.text)}</td>"
            for box in row
        )
        lines.append(f"<tr{' class=rule' if number == grid.rule else ''}>{cells}</tr>")
    made = "\n".join(lines)
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{made}\n</tbody></table></div>\n'
        + paragraph(grid.caption, "note")
        + bullets([f"failed: {note}" for note in grid.notes])
    )


def picture(figure: Figure, words: str) -> str:
    """Return a figure inside the page, with the words that stand for it."""
    from mbgraph.bench.pictures import svg

    data = base64.b64encode(svg(figure).encode()).decode()
    return (
        f'<figure><img alt="{escape(words, quote=True)}" src="data:image/svg+xml;base64,{data}">'
        f'<figcaption class="note">{escape(words)}</figcaption></figure>'
    )

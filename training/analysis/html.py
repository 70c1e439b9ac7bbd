"""Builds a self-contained HTML page: its images are embedded, and its policy forbids loading anything."""

import base64
import html
from collections.abc import Iterable, Sequence

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
table { border-collapse: collapse } th, td { padding: .15rem .8rem .15rem 0; text-align: left }
th { border-bottom: 1px solid #999 } td.number { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100% } pre { overflow-x: auto; font-size: 12px }
.pixels { image-rendering: pixelated } .tiles { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0; width: 9rem } figure img { width: 9rem } figcaption { font-size: 13px; overflow-wrap: anywhere }
"""
CONTENT_SECURITY_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, sections: Iterable[str]) -> str:
    """Returns the document. `title` is plain text; the sections are HTML."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>",
            f"<body><h1>{html.escape(title)}</h1>",
            *sections,
            "</body></html>\n",
        ]
    )


def section(title: str, *blocks: str) -> str:
    """Returns a section. `title` is plain text; the blocks are HTML."""
    return "\n".join([f"<h2>{html.escape(title)}</h2>", *blocks])


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def preformatted(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def table(header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """Returns a table. Cells are plain text; integers and text that ends in % are right-aligned."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def image(png: bytes, alt_text: str, is_pixelated: bool = False) -> str:
    """Returns an embedded image. With `is_pixelated`, browsers enlarge it without smoothing."""
    encoded = base64.b64encode(png).decode()
    class_attribute = ' class="pixels"' if is_pixelated else ""
    return f'<img{class_attribute} alt="{html.escape(alt_text)}" src="data:image/png;base64,{encoded}">'


def tiles(images_with_captions: Iterable[tuple[str, str]]) -> str:
    """Returns images (HTML) side by side, each with its caption (plain text) below."""
    figures = (
        f"<figure>{image}<figcaption>{html.escape(text)}</figcaption></figure>" for image, text in images_with_captions
    )
    return f'<div class="tiles">{"".join(figures)}</div>'


def _cell(value: str | int) -> str:
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    number = ' class="number"' if value.endswith("%") else ""
    return f"<td{number}>{html.escape(value)}</td>"

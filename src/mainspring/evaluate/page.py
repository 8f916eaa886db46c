"""A page that needs nothing but itself: pictures inside, no script, no network.

All text is escaped here; whatever is called `html` already is.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template

LONG = 5
"""Sections from which on there is a table of contents."""


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        title: Its heading.
        html: What is under it.
    """

    title: str
    html: str

    @property
    def anchor(self) -> str:
        """Where links lead."""
        return slug(self.title)


def render(title: str, subtitle: str, sections: Sequence[Section]) -> bytes:
    """The whole page, in the order given."""
    parts = [_contents(sections)] if len(sections) >= LONG else []
    parts += [
        f'<section id="{section.anchor}">\n<h2>{escape(section.title)}</h2>\n'
        f"{section.html}\n</section>"
        for section in sections
    ]
    template = resources.files("mainspring.evaluate").joinpath("report.html").read_text("utf-8")
    page = Template(template).substitute(
        title=escape(title), subtitle=escape(subtitle), body="\n".join(parts)
    )
    return page.encode("utf-8", "replace")  # file names may hold what is no Unicode


def escape(text: object) -> str:
    """Text as HTML that shows just that text, in attributes too."""
    return html.escape(str(text), quote=True)


def slug(text: str) -> str:
    """Lower-case letters, digits and hyphens: for anchors and file names."""
    kept = "".join(letter if letter.isalnum() and letter.isascii() else " " for letter in text)
    return "-".join(kept.lower().split()) or "x"


def paragraphs(*texts: str, kind: str = "") -> str:
    """Each text a paragraph, of a class of the style sheet if `kind` names one."""
    mark = f' class="{kind}"' if kind else ""
    return "\n".join(f"<p{mark}>{escape(text)}</p>" for text in texts if text)


def preformatted(text: str) -> str:
    """Text whose columns are aligned by blanks."""
    return f"<pre>{escape(text)}</pre>"


def picture(png: bytes, width: int, height: int, alt: str, caption: str) -> str:
    """A PNG, embedded; width and height in CSS pixels."""
    data = base64.b64encode(png).decode()
    return (
        f'<figure>\n<div class="picture"><img src="data:image/png;base64,{data}" width="{width}" '
        f'height="{height}" alt="{escape(alt)}"></div>\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>"
    )


def table(
    rows: Iterable[Sequence[object]],
    head: Sequence[str] = (),
    caption: str = "",
    subject: str = "",
) -> str:
    """A table whose first column names its rows.

    Args:
        rows: Cells; a number, or text that ends in % or is a dash, stands to the right.
        head: Names of the columns.
        caption: What it shows.
        subject: Name of the row that stands out.
    """
    lines = [f"<caption>{escape(caption)}</caption>"] if caption else []
    body = list(rows)
    right = [_numeric([row[at] for row in body]) for at in range(len(body[0]))] if body else []
    if head:
        cells = "".join(
            f'<th scope="col"{_mark(side)}>{escape(name)}</th>'
            for name, side in zip(head, right, strict=True)
        )
        lines.append(f"<thead><tr>{cells}</tr></thead>")
    lines.append("<tbody>")
    for row in body:
        cells = "".join(
            f"<td{_mark(side)}>{escape(cell)}</td>"
            for cell, side in zip(row[1:], right[1:], strict=True)
        )
        mark = ' class="subject"' if subject and row[0] == subject else ""
        lines.append(f'<tr{mark}><th scope="row">{escape(row[0])}</th>{cells}</tr>')
    lines.append("</tbody>")
    return '<div class="scroll"><table>\n' + "\n".join(lines) + "\n</table></div>"


def details(summary: str, html: str) -> str:
    """Something that opens when it is asked for."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{html}\n</details>"


def _contents(sections: Sequence[Section]) -> str:
    links = "".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in sections)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def _numeric(cells: Sequence[object]) -> bool:
    return all(isinstance(cell, int | float) or str(cell).endswith(("%", "-")) for cell in cells)


def _mark(right: bool) -> str:
    return ' class="number"' if right else ""

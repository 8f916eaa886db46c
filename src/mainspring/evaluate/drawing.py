"""How all pictures look: colours, fonts, and names at the ends of lines.

Figures are drawn off screen and need no display; nothing here touches pyplot.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter
from sklearn.isotonic import isotonic_regression

from mainspring.evaluate.vectors import Vectors

PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#4D4D4D",
)  # fmt: skip
"""Okabe & Ito's colours for all kinds of colour vision, without the yellow that paper swallows."""

INK, QUIET, FAINT = "#1f2328", "#6b7280", "#e5e7eb"
GOOD, BAD = "#009E73", "#D55E00"
MARKERS = "os^DvP<X>*"
WIDTH = 9.6
DPI = 100
"""Points an inch at which figures are shown: `WIDTH` inches fill the report's column."""

OTHER_SCRIPTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans", "Microsoft YaHei",
    "Malgun Gothic", "WenQuanYi Zen Hei", "Arial Unicode MS",
)  # fmt: skip
"""Fonts that are asked, where installed, for what matplotlib's own cannot write."""


@contextmanager
def canvas(height: float, width: float = WIDTH) -> Iterator[Figure]:
    """An empty figure of so many inches, with the style in force while it is drawn on."""
    with matplotlib.rc_context(style()):
        yield Figure(figsize=(width, height), layout="constrained")


def png(figure: Figure) -> bytes:
    """The figure as a PNG, at twice the resolution it is shown at."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(style()), warnings.catch_warnings():
        # A character that no font here can write is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="png", dpi=2 * DPI, metadata={"Software": None})
    return buffer.getvalue()


def said(figure: Figure) -> str:
    """The titles of a figure, for those who cannot see it."""
    parts = [figure.get_suptitle(), *(axes.get_title(loc="left") for axes in figure.axes)]
    return ". ".join(part for part in parts if part)


def style() -> Any:
    """The settings that all figures share, as `rc_context` takes them."""
    there = {font.name for font in font_manager.fontManager.ttflist}
    return {
        "font.family": ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in there)],
        "font.size": 10,
        "text.color": INK,
        "text.parse_math": False,  # a dollar in a file's name is a dollar
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.labelcolor": INK,
        "axes.edgecolor": QUIET,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "lines.linewidth": 2,
        "hatch.linewidth": 0.6,
        "figure.constrained_layout.h_pad": 0.09,
        "figure.dpi": DPI,
        "figure.facecolor": "white",
    }


def shares(axes: Axes) -> None:
    """A vertical axis from 0 to 100 %."""
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_locator(MultipleLocator(0.2))
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def name_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], apart: float) -> None:
    """Writes (height, name, colour) to the right of the axes, where lines end.

    Names nearer to one another than `apart` are moved as little as possible, in the sense of
    least squares, without changing their order.
    """
    ordered = sorted(ends)
    steps = [height - apart * place for place, (height, _, _) in enumerate(ordered)]
    for place, (at, (_, name, colour)) in enumerate(
        zip(isotonic_regression(steps), ordered, strict=True)
    ):
        axes.text(
            1.01, at + apart * place, name, color=colour, va="center",
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip


def short(text: str, most: int) -> str:
    """One line of at most so many characters; what is too much goes from the middle, and what is
    no Unicode (in names of files) becomes a question mark."""
    line = " ".join(text.split()).encode("utf-8", "replace").decode()
    if len(line) <= most:
        return line
    tail = (most - 1) // 2
    return f"{line[: most - 1 - tail]}…{line[len(line) - tail :]}"


def percent(share: float, digits: int = 0) -> str:
    """A share in percent."""
    return f"{100 * share:.{digits}f} %"


def unit(vectors: Vectors) -> str:
    """What a row of the vectors is: a window, or after `pooled` a whole recording."""
    return "windows" if len(np.unique(vectors.rows)) < len(vectors) else "recordings"

"""How training went, from the lines of metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mainspring.errors import DataError
from mainspring.evaluate.drawing import PALETTE, canvas, name_ends, percent, shares, short

SMOOTH = 30
"""Strong lines are running means over so many-th of the steps."""

MOST_STEPS = 2_000
MOST_MEASURES = 6

NO_MEASURES = {"step", "samples", "loss", "lr", "answers", "speed", "waiting"}
WATCHED = {
    "rank": ("Effective rank", "directions in use"),
    "spread": ("Spread", "from 0, collapsed, to 1"),
}


def curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """How training went: the loss, each question's accuracy beside chance, effective rank and
    spread, and what else the pretext measures. Single steps are faint.

    Args:
        rows: Lines of metrics.jsonl.

    Raises:
        DataError: If there is no step.
    """
    if not rows:
        raise DataError("There is no step to draw: metrics.jsonl is empty.")
    numbers = {
        name
        for row in rows
        for name, value in row.items()
        if name not in NO_MEASURES and isinstance(value, int | float)
    }
    measures = [*(n for n in WATCHED if n in numbers), *sorted(numbers - WATCHED.keys())]
    measures = measures[:MOST_MEASURES]
    asked = any(row.get("answers") for row in rows)
    lines = math.ceil((1 + asked + len(measures)) / 2)
    with canvas(2.9 * lines) as figure:
        places = iter(figure.subplots(lines, 2, squeeze=False).flat)
        loss = _measure(next(places), rows, "loss", PALETTE[0])
        loss.set(ylabel="loss", title=f"Loss {loss.get_title(loc='left')}")
        if asked:
            _answers(next(places), rows)
        for name in measures:
            axes = _measure(next(places), rows, name, PALETTE[7])
            title, unit = WATCHED.get(name, (name, name))
            fell = axes.get_title(loc="left")
            axes.set(ylabel=short(unit, 30), title=f"{short(title, 24)} {fell}")
        for axes in places:
            axes.remove()
        each = round(rows[-1].get("samples", 0) / max(1, rows[-1]["step"]))
        for axes in figure.axes:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.set_xlabel(f"step (of {each} samples)" if each else "step")
    return figure


def _series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of a measure; of very many steps, means of neighbours."""
    there = [(row["step"], row[name]) for row in rows if name in row]
    table = np.array(there, np.float64).reshape(-1, 2)
    table = table[np.isfinite(table[:, 1])]
    if len(table) > MOST_STEPS:
        table = np.array([part.mean(axis=0) for part in np.array_split(table, MOST_STEPS)])
    return table[:, 0], table[:, 1]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running means over a thirtieth of the values, shorter at both ends."""
    reach = len(values) // (2 * SMOOTH)
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _line(axes: Axes, steps: np.ndarray, values: np.ndarray, colour: str) -> np.ndarray:
    """Single steps faint, running means strong; returns the latter."""
    smooth = _smooth(values)
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
    axes.plot(steps, smooth, color=colour)
    return smooth


def _measure(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, colour: str) -> Axes:
    """One measure, titled by where it begins and ends."""
    smooth = _line(axes, *_series(rows, name), colour)
    if not smooth.any():
        axes.set_ylim(0, 1)  # not from below 0, where nothing can be
    if len(smooth):
        axes.set_title(f"{smooth[0]:.3g} → {smooth[-1]:.3g}")
    return axes


def _answers(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Accuracy of each question, chance dashed."""
    names = list(dict.fromkeys(name for row in rows for name in row.get("answers", {})))
    ends, beyond = [], 0
    for at, name in enumerate(names):
        colour = PALETTE[at % len(PALETTE)]
        asked = [row for row in rows if name in row.get("answers", {})]
        got = [{"step": r["step"], "got": r["answers"][name][0]} for r in asked]
        luck = [{"step": r["step"], "luck": r["answers"][name][1]} for r in asked]
        steps, values = _series(got, "got")
        smooth = _line(axes, steps, values, colour)
        axes.plot(*_series(luck, "luck"), color=colour, linestyle="--", linewidth=1.2)
        ends.append((smooth[-1], f"{short(name, 16)} {percent(smooth[-1])}", colour))
        last = values[-max(5, len(values) // 10) :]
        error = last.std() / math.sqrt(len(last))
        beyond += bool(last.mean() - 3 * error > asked[-1]["answers"][name][1])
    shares(axes)
    name_ends(axes, ends, 0.09)
    count = f"{len(names)} questions" if len(names) > 1 else "1 question"
    axes.set(
        ylabel="correct (dashed: chance)",
        title=f"{beyond} of {count} answered beyond chance",
    )

"""The pictures of a run: each function takes results and returns a matplotlib figure.

    figure = label_curve({"trained": ..., "random weights": ..., "raw features": ...})
    Path("labels.png").write_bytes(png(figure))

Titles say what is seen, lines are named where they end, and what differs by colour differs by
place or shape too.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mainspring.errors import DataError
from mainspring.evaluate.baselines import RANDOM, RAW
from mainspring.evaluate.curves import curves
from mainspring.evaluate.drawing import (
    INK,
    MARKERS,
    PALETTE,
    QUIET,
    WIDTH,
    canvas,
    name_ends,
    percent,
    png,
    shares,
    short,
)
from mainspring.evaluate.maps import map_2d
from mainspring.evaluate.probe import ProbeResult
from mainspring.evaluate.verdict import TRAINED

__all__ = ["arms", "confusion", "curves", "label_curve", "map_2d", "png"]


def confusion(result: ProbeResult) -> Figure:
    """Which classes the probe takes for which: each row, a true class, is 100 %."""
    counts = result.confusion
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
    wrong = share - np.diag(np.diag(share))
    true, told = np.unravel_index(wrong.argmax(), wrong.shape)
    names = [short(name, 20) for name in result.classes]
    title = "No class is taken for another"
    if wrong.max() > 0:
        title = f"{names[true]} is taken for {names[told]} in {percent(wrong.max())}"
    few = len(names) <= 15
    side = 0.52 if few else 0.26
    size = min(7.5, max(2.4, side * len(names)))
    longest = 0.08 * max(map(len, names))
    with canvas(size + longest + 1.0, min(WIDTH, size + longest + 2.6)) as figure:
        axes = figure.subplots()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        bar = figure.colorbar(image, format=PercentFormatter(1), shrink=0.8)
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set(title=title, xlabel="class the probe says", ylabel="true class")
        axes.tick_params(length=0)
        if size / len(names) > 0.12:
            upright = max(map(len, names)) > 5
            axes.set_xticks(range(len(names)), names, rotation=90 if upright else 0)
            axes.set_yticks(range(len(names)), names)
        if few:
            for (row, column), value in np.ndenumerate(share):
                colour = "white" if value > 0.55 else INK
                text = f"{100 * value:.0f}" if value >= 0.005 else "·"
                axes.text(column, row, text, ha="center", va="center", color=colour)
    return figure


def label_curve(results: Mapping[str, ProbeResult]) -> Figure:
    """Accuracy by labels a class; bars are one standard deviation over draws of the labels.

    Args:
        results: By what was probed ("trained", "random weights", ...), all for one label.

    Raises:
        DataError: If there is no result.
    """
    if not results:
        raise DataError("There is no probe to draw.")
    amounts = {point.labels for result in results.values() for point in result.curve}
    order = [*sorted(amount for amount in amounts if amount is not None), None]
    with canvas(4.2) as figure:
        axes = figure.subplots()
        ends = []
        for at, (name, result) in enumerate(results.items()):
            aside = 0.05 * (at - (len(results) - 1) / 2)  # so that bars do not hide each other
            places = [order.index(point.labels) + aside for point in result.curve]
            heights = [point.accuracy for point in result.curve]
            colour = PALETTE[at % len(PALETTE)]
            axes.errorbar(
                places, heights, [point.spread for point in result.curve], color=colour,
                marker=MARKERS[at % len(MARKERS)], markersize=6, capsize=3, elinewidth=1.2,
            )  # fmt: skip
            ends.append((heights[-1], f"{short(name, 24)} {percent(heights[-1])}", colour))
        chance = next(iter(results.values())).chance_majority
        axes.axhline(chance, color=QUIET, linestyle="--", linewidth=1.2)
        ends.append((chance, f"chance {percent(chance, 1)}", QUIET))
        shares(axes)
        name_ends(axes, ends, 0.06)
        axes.set_xticks(range(len(order)), ["all" if k is None else str(k) for k in order])
        axes.set(xlabel="labels a class", ylabel="share told correctly", title=_worth(results))
    return figure


def arms(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """The question asked decides what is learnt: the accuracy of each label, arm beside arm.

    Args:
        results: For each arm and label "accuracy", the ends "low" and "high" of its interval, and
            "chance".

    Raises:
        DataError: If there is no result.
    """
    labels = list(dict.fromkeys(label for found in results.values() for label in found))
    if not labels:
        raise DataError("There is no arm to draw.")
    wide = 0.8 / len(labels)
    with canvas(4.8, max(WIDTH, 1.2 * len(results))) as figure:
        axes = figure.subplots()
        chances: dict[str, list[str]] = {}
        ends: dict[str, tuple[float, str]] = {}
        for at, label in enumerate(labels):
            colour = PALETTE[at % len(PALETTE)]
            there = [(place, f[label]) for place, f in enumerate(results.values()) if label in f]
            places = [place - 0.4 + wide * (at + 0.5) for place, _ in there]
            heights = [found["accuracy"] for _, found in there]
            below = [max(0.0, found["accuracy"] - found["low"]) for _, found in there]
            above = [max(0.0, found["high"] - found["accuracy"]) for _, found in there]
            axes.bar(
                places, heights, 0.94 * wide, color=colour, label=short(label, 30),
                hatch=("", "//", "..", "xx")[at % 4], edgecolor="white", linewidth=0,
            )  # fmt: skip
            axes.errorbar(
                places, heights, [below, above], fmt="none", ecolor=INK, capsize=3, elinewidth=1.2
            )
            for place, height, reach in zip(places, heights, above, strict=True):
                axes.text(place, height + reach + 0.015, percent(height), ha="center")
            chance = float(np.mean([found["chance"] for _, found in there]))
            axes.axhline(chance, color="white", linewidth=3)  # to be seen across the bars
            axes.axhline(chance, color=colour, linestyle="--", linewidth=1.5)
            chances.setdefault(percent(chance, 1), []).append(label)
            ends[percent(chance, 1)] = (chance, colour)
        shares(axes)
        axes.set_ylim(0, 1.08)
        name_ends(
            axes,
            [
                (ends[text][0], f"chance {text}", ends[text][1] if len(said) == 1 else QUIET)
                for text, said in chances.items()
            ],
            0.05,
        )
        axes.set_xticks(range(len(results)), [textwrap.fill(short(a, 40), 15) for a in results])
        axes.tick_params(axis="x", length=0)
        axes.grid(visible=False, axis="x")
        axes.set(ylabel="share told correctly, with 95 % interval", title=_best(results, labels))
        figure.legend(loc="outside lower center", ncols=min(4, len(labels)))
    return figure


def subject(results: Mapping[str, ProbeResult]) -> str:
    """Which result is talked about: "trained", or else the most accurate of what was trained."""
    if TRAINED in results:
        return TRAINED
    learnt = [name for name in results if name not in (RANDOM, RAW)]
    return max(learnt or results, key=lambda name: results[name].accuracy)


def _worth(results: Mapping[str, ProbeResult]) -> str:
    """How many labels training saves against the best of what takes none."""
    name = subject(results)
    mine = results[name]
    others = {other: found.accuracy for other, found in results.items() if other != name}
    others = {n: found for n, found in others.items() if n in (RANDOM, RAW)} or others
    if not others:
        return f"{short(name, 24)}: {percent(mine.accuracy)} with all labels"
    best = max(others, key=lambda other: others[other])
    for point in sorted(mine.curve, key=lambda point: point.labels or math.inf):
        if point.labels is not None and point.accuracy >= results[best].curve[-1].accuracy:
            many = "1 label" if point.labels == 1 else f"{point.labels} labels"
            return (
                f"{short(name, 24)} needs {many} a class for what {short(best, 24)} does with all"
            )
    return (
        f"With all labels: {short(name, 24)} {percent(mine.accuracy)}, "
        f"{short(best, 24)} {percent(others[best])}"
    )


def _best(results: Mapping[str, Mapping[str, Mapping[str, float]]], labels: list[str]) -> str:
    """Which arm is best at which label."""
    parts = []
    for label in labels:
        there = {arm: found[label]["accuracy"] for arm, found in results.items() if label in found}
        best = max(there, key=lambda arm: there[arm])
        parts.append(f"{short(label, 20)} best by {short(best, 24)} ({percent(there[best])})")
    return "; ".join(parts)

"""The nearest neighbour under dynamic time warping: what a series encoder has to beat.

    window = learn_window(train, labels)          # or None: any warping
    found = dtw_neighbour(train, labels, test, truth, window)
    found.accuracy

The distance is that of Sakoe & Chiba ("Dynamic programming algorithm optimization for spoken word
recognition", IEEE TASSP 1978) with squared differences and steps of one, as in the UCR archive (Dau
et al., "The UCR time series archive", IEEE/CAA JAS 2019), whose columns DTW(w=100) and
DTW(learned_w) are `window=None` and `learn_window`. Channels of multivariate series are warped
together: a step's difference is the sum over channels.

Many pairs are warped at once, one anti-diagonal of all their tables after the other, and pairs that
lower bounds rule out are not warped at all. Neither changes the result.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mainspring.errors import ConfigError, DataError
from mainspring.evaluate.classify import Classified, by_score, class_scores
from mainspring.evaluate.gaps import Filled, Series, filled, scaled

CELLS = 100_000
"""Cells of the anti-diagonals worked on at once; a handful of such arrays fits a core's cache."""

Distances = Float64[np.ndarray, "n known"]
Index = Int64[np.ndarray, "pair"]


def dtw_neighbour(
    train: Series,
    train_labels: np.ndarray,
    test: Series,
    test_labels: np.ndarray,
    window: int | None = None,
    scale: bool = True,
) -> Classified:
    """Tells each test series the class of its nearest train series.

    Lengths may differ where there is no window; missing values are filled as `filled` says. A
    class's score is minus the distance to its nearest series.

    Args:
        train: Series to compare with.
        train_labels: Their classes.
        test: Series to tell the class of.
        test_labels: Their classes.
        window: Steps by which two series may be out of step at most; None for any number.
        scale: Bring each series (and channel) to mean 0 and deviation 1 first. The archive's
            published columns do; its files are not all so (BME, Chinatown, UMD).

    Raises:
        ConfigError: If there is a window and lengths differ, or the window is negative.
        DataError: If the series have different channels.
    """
    known, asked = filled(train), filled(test)
    if scale:
        known, asked = scaled(known), scaled(asked)
    _check(known, asked, window)
    codes = np.unique(train_labels, return_inverse=True)[1]
    lower = lower_bounds(asked, known, window)
    distances = _lazily(lower, codes, lambda i, j: _warp(asked, known, i, j, window))
    return by_score(
        class_scores(np.sqrt(distances), train_labels), test_labels, train_labels,
        {"window": window},
    )  # fmt: skip


def dtw_distances(series: Series, others: Series, window: int | None = None) -> Distances:
    """Distances of all pairs: the root of the least sum of squared differences.

    Raises:
        ConfigError: If there is a window and lengths differ, or the window is negative.
        DataError: If the series have different channels.
    """
    a, b = filled(series), filled(others)
    _check(a, b, window)
    i, j = np.indices((len(a), len(b))).reshape(2, -1)
    return np.sqrt(_warp(a, b, i, j, window)).reshape(len(a), len(b))


def learn_window(train: Series, labels: np.ndarray, percent: int = 100, scale: bool = True) -> int:
    """The window with the best leave-one-out accuracy on train; of equals the smallest.

    Windows of 0, 1, ... % of the length are tried, the widest first: a distance under a window
    bounds those under all smaller windows from below, so that few pairs are warped again.

    Args:
        train: Series of one length.
        labels: Their classes.
        percent: The widest window tried, in per cent of the length.
        scale: As in `dtw_neighbour`.

    Returns:
        Steps.

    Raises:
        ConfigError: If lengths differ.
        DataError: If there are fewer than two series.
    """
    known = scaled(filled(train)) if scale else filled(train)
    _check(known, known, 0)
    count = len(known)
    if count < 2:
        raise DataError(f"A window is learned by leaving one out, but there are {count} series.")
    length = known.values.shape[1]
    windows = sorted({length * share // 100 for share in range(percent + 1)}, reverse=True)
    lower = np.zeros((count, count))
    np.fill_diagonal(lower, np.inf)
    together = np.zeros(count, np.int64)
    best, chosen = -1, 0
    for window in windows:

        def warp(i: Index, j: Index, window: int = window) -> Float64[np.ndarray, "pair"]:
            # A pair and its mirror image are one.
            pairs, back = np.unique(
                np.minimum(i, j) * count + np.maximum(i, j), return_inverse=True
            )
            return _warp(known, known, pairs // count, pairs % count, window)[back]

        distances = _lazily(np.maximum(lower, lower_bounds(known, known, window)), together, warp)
        right = int((labels[distances.argmin(axis=1)] == labels).sum())
        if right >= best:
            best, chosen = right, window
        found = np.where(np.isfinite(distances), distances, 0)
        lower = np.maximum(lower, np.maximum(found, found.T))
    return chosen


def lower_bounds(asked: Filled, known: Filled, window: int | None) -> Distances:
    """What squared distances are at least.

    The larger of three: both ways, how far each step of one series lies outside the envelope of
    the other within the window (Keogh & Ratanamahatana, "Exact indexing of dynamic time warping",
    KAIS 2005), and the differences of the first and of the last steps, which are always paired.
    """
    found = np.empty((len(asked), len(known)))
    tops, floors = _envelope(known, window)
    for at, (top, floor) in enumerate(zip(tops, floors, strict=True)):
        found[:, at] = _outside(asked, top, floor)
    tops, floors = _envelope(asked, window)
    for at, (top, floor) in enumerate(zip(tops, floors, strict=True)):
        np.maximum(found[at], _outside(known, top, floor), out=found[at])
    ends = []
    for step in (0, -1):
        a, b = (f.values[np.arange(len(f)), step % f.lengths] for f in (asked, known))
        ends.append(((a[:, None] - b) ** 2).sum(axis=2))
    several = (asked.lengths[:, None] > 1) | (known.lengths > 1)
    # A shade below, so that rounding never rules out a pair at the bound.
    return np.maximum(found, ends[0] + np.where(several, ends[1], 0)) * (1 - 1e-9)


def _envelope(series: Filled, window: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Largest and least value within the window of each step, shapes (n, time or 1, channel)."""
    values, time = series.values, series.values.shape[1]
    there = (np.arange(time) < series.lengths[:, None])[..., None]
    tops, floors = np.where(there, values, -np.inf), np.where(there, values, np.inf)
    if window is None or window >= time:
        return tops.max(axis=1, keepdims=True), floors.min(axis=1, keepdims=True)
    around = ((0, 0), (window, window), (0, 0))
    found = []
    for part, edge, pick in ((tops, -np.inf, np.maximum), (floors, np.inf, np.minimum)):
        part = np.pad(part, around, constant_values=edge)
        # Windows of 1, 2, 4, ... steps, of which two overlapping ones make any length.
        size = 1
        while 2 * size <= 2 * window + 1:
            part = pick(part[:, :-size], part[:, size:])
            size *= 2
        found.append(pick(part[:, :time], part[:, 2 * window + 1 - size :][:, :time]))
    return found[0], found[1]


def _outside(series: Filled, top: np.ndarray, floor: np.ndarray) -> Float64[np.ndarray, "n"]:
    """Sum over steps and channels of the squared distance from the band floor .. top."""
    beyond = series.values - np.clip(series.values, floor, top)
    if not series.equal:
        beyond *= (np.arange(beyond.shape[1]) < series.lengths[:, None])[..., None]
    return np.einsum("ntc,ntc->n", beyond, beyond)


def _lazily(
    lower: Distances,
    groups: Int64[np.ndarray, "known"],
    warp: Callable[[Index, Index], Float64[np.ndarray, "pair"]],
) -> Distances:
    """Distances, infinite where the lower bound shows that a nearer one of its group exists.

    Each row's candidates are taken in order of their bounds, one, one, two, four ... at a time
    (all rows together), while the bound is not above the least distance found in the group.
    """
    found = np.full(lower.shape, np.inf)
    for group in np.unique(groups):
        columns = np.flatnonzero(groups == group)
        bounds = lower[:, columns]
        order = np.argsort(bounds, axis=1, kind="stable")
        bounds = np.take_along_axis(bounds, order, axis=1)
        at = 0
        while at < len(columns):
            until = max(1, 2 * at)
            best = found[:, columns].min(axis=1)
            rows, places = np.nonzero(
                (bounds[:, at:until] <= best[:, None]) & np.isfinite(bounds[:, at:until])
            )
            if len(rows):
                these = columns[order[rows, at + places]]
                found[rows, these] = warp(rows, these)
            at = until
    return found


def _warp(
    a: Filled, b: Filled, i: Index, j: Index, window: int | None
) -> Float64[np.ndarray, "pair"]:
    """Squared distances of the pairs (i, j), sorted by length so that little is padding."""
    found = np.empty(len(i))
    order = np.lexsort((b.lengths[j], a.lengths[i]))
    step = max(16, CELLS // a.values.shape[1])
    for at in range(0, len(i), step):
        some = order[at : at + step]
        rows, columns = i[some], j[some]
        tall, wide = a.lengths[rows], b.lengths[columns]
        left = np.ascontiguousarray(a.values[rows, : tall.max()].T)
        right = np.ascontiguousarray(b.values[columns, : wide.max()].T)
        found[some] = _tables(left, right, tall, wide, window)
    return found


def _tables(
    a: Float64[np.ndarray, "channel tall pair"],
    b: Float64[np.ndarray, "channel wide pair"],
    tall: Index,
    wide: Index,
    window: int | None,
) -> Float64[np.ndarray, "pair"]:
    """Fills the tables of all pairs along their anti-diagonals.

    Cell (i, j) of diagonal k = i + j is the squared difference plus the least of (i - 1, j),
    (i, j - 1) on diagonal k - 1 and (i - 1, j - 1) on k - 2. Row i is kept at i + 1, with infinity
    on both sides of the part that is filled. A pair's answer is cell (tall - 1, wide - 1); what
    lies beyond does not reach it.
    """
    rows, columns, count = a.shape[1], b.shape[1], a.shape[2]
    b = np.ascontiguousarray(b[:, ::-1])  # along a diagonal j falls as i rises
    reach = rows + columns if window is None else window
    before, last, now = (np.full((rows + 2, count), np.inf) for _ in range(3))
    least, more = np.empty((rows, count)), np.empty((rows, count))
    answers = np.empty(count)
    ends = tall + wide - 2
    asked: Bool[np.ndarray, "diagonal"] = np.zeros(rows + columns - 1, bool)
    asked[ends] = True
    before[0] = 0  # so that cell (0, 0) adds nothing
    for k in range(rows + columns - 1):
        low = max(0, k - columns + 1, (k - reach + 1) // 2)
        high = min(k, rows - 1, (k + reach) // 2) + 1
        cost = now[low + 1 : high + 1]
        shift = columns - 1 - k
        for channel in range(len(a)):
            part = cost if channel == 0 else more[low:high]
            np.subtract(a[channel, low:high], b[channel, shift + low : shift + high], out=part)
            np.multiply(part, part, out=part)
            if channel:
                np.add(cost, part, out=cost)
        smallest = least[low:high]
        np.minimum(last[low + 1 : high + 1], last[low:high], out=smallest)
        np.minimum(smallest, before[low:high], out=smallest)
        np.add(cost, smallest, out=cost)
        now[low] = np.inf
        now[high + 1] = np.inf
        if asked[k]:
            done = np.flatnonzero(ends == k)
            answers[done] = now[tall[done], done]
        before, last, now = last, now, before
    return answers


def _check(a: Filled, b: Filled, window: int | None) -> None:
    if a.values.shape[2] != b.values.shape[2]:
        raise DataError(
            f"Series of {a.values.shape[2]} channels cannot be compared with series of "
            f"{b.values.shape[2]}."
        )
    if window is None:
        return
    if window < 0:
        raise ConfigError(f"window must be 0 steps or more, or None for any warping, not {window}.")
    if len({*a.lengths.tolist(), *b.lengths.tolist()}) > 1:
        raise ConfigError(
            "A window needs series of one length; stretch them to one, or use window=None."
        )

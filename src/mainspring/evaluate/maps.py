"""Embeddings in the plane, by principal components or UMAP."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mainspring.errors import ConfigError, DataError, unknown
from mainspring.evaluate.drawing import MARKERS, PALETTE, canvas, percent, short, unit
from mainspring.evaluate.vectors import Vectors, known

MOST_POINTS = 3_000
MOST_CLASSES = 16


def map_2d(
    vectors: Vectors, colour_by: np.ndarray | None = None, method: str = "pca", seed: int = 0
) -> Figure:
    """The windows in the plane, each a point.

    Args:
        vectors: Of more than 3000 windows, that many are drawn by lot.
        colour_by: A name for each window, None where unknown; the 16 commonest get a colour.
        method: "pca", or "umap" where umap-learn is installed.
        seed: Which windows are drawn, and UMAP's seed.

    Raises:
        ConfigError: If the method is unknown or not installed.
        DataError: If fewer than three windows have finite vectors.
    """
    if method not in ("pca", "umap"):
        raise unknown("method", method, ("pca", "umap"))
    kept = np.flatnonzero(np.isfinite(vectors.matrix).all(axis=1))
    if len(kept) < 3:
        raise DataError(f"A map needs at least 3 windows with finite vectors, not {len(kept)}.")
    if len(kept) > MOST_POINTS:
        kept = np.sort(np.random.default_rng(seed).permutation(kept)[:MOST_POINTS])
    matrix = vectors.matrix[kept].astype(np.float64)
    names = np.full(len(kept), None) if colour_by is None else colour_by[kept]
    with canvas(5.6) as figure:
        axes = figure.subplots()
        if method == "pca":
            points, (first, second) = _principal(matrix)
            axes.set(
                title=f"{len(kept)} {unit(vectors)}: two directions hold "
                f"{percent(first + second)} of their variance",
                xlabel=f"first principal component ({percent(first)} of variance)",
                ylabel=f"second principal component ({percent(second)} of variance)",
            )
        else:
            points = _umap(matrix, seed)
            axes.set(title=f"{len(kept)} {unit(vectors)}, near ones together", xticks=[], yticks=[])
            axes.set(xlabel="UMAP 1 (no unit)", ylabel="UMAP 2 (no unit)")
        _scatter(axes, points, names)
    return figure


def _principal(
    matrix: Float64[np.ndarray, "n dim"],
) -> tuple[Float64[np.ndarray, "n 2"], tuple[float, float]]:
    """The first two principal components and their shares of the variance."""
    centred = matrix - matrix.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(matrix), 2))
    width = min(2, len(singular))
    points[:, :width] = left[:, :width] * singular[:width]
    largest = points[np.abs(points).argmax(axis=0), [0, 1]]
    points *= np.where(largest < 0, -1, 1)  # signs are free: the farthest point is at plus
    power = np.append(singular**2, [0.0, 0.0])
    power /= max(power.sum(), 1e-300)
    return points, (float(power[0]), float(power[1]))


def _umap(matrix: np.ndarray, seed: int) -> np.ndarray:
    try:
        from umap import UMAP
    except ImportError as error:
        raise ConfigError(
            f"method='umap' needs umap-learn, which cannot be imported ({error}). Install it with "
            "`pip install mainspring[umap]`, or take method='pca'."
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on threads and seeds, and on small sets
        neighbours = min(15, len(matrix) - 1)
        return UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(matrix)


def _scatter(axes: Axes, points: np.ndarray, names: np.ndarray) -> None:
    """Points, the commonest names each in a colour and a shape, the others grey."""
    size = float(np.clip(9000 / len(points), 10, 44))
    counts = Counter(names[known(names)])
    named = sorted(name for name, _ in counts.most_common(MOST_CLASSES))
    rest = np.array([name not in named for name in names], bool)
    if rest.any():
        axes.scatter(
            points[rest, 0], points[rest, 1], s=0.7 * size, color="#9ca3af", alpha=0.7, lw=0,
            label="others" if named else None,
        )  # fmt: skip
    for at, name in enumerate(named):
        mine = points[names == name]
        axes.scatter(
            mine[:, 0], mine[:, 1], s=size, color=PALETTE[at % len(PALETTE)], alpha=0.8, lw=0,
            marker=MARKERS[at % len(MARKERS)], label=f" {short(str(name), 24)}",
        )  # fmt: skip
    if named:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), handletextpad=0.2)

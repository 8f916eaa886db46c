"""Ridge regressions of many penalties and many targets from one pass over the rows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

Wide = Float64[np.ndarray, "width width"]


class NormalEquations:
    """The sums over rows that a least-squares fit needs; rows may be added at any time.

    Inputs are kept about a fixed point (the mean of the first rows), so that subtracting the mean
    afterwards loses no digits.

    Args:
        width: Inputs of a row.
        targets: Targets of a row.
    """

    def __init__(self, width: int, targets: int) -> None:
        self.rows = 0
        self.origin = np.zeros(width)
        self.gram = np.zeros((width, width))
        self.cross = np.zeros((width, targets))
        self.inputs = np.zeros(width)
        self.targets = np.zeros(targets)

    def add(
        self, x: Float64[np.ndarray, "row width"], y: Float64[np.ndarray, "row target"]
    ) -> None:
        """Adds rows."""
        if self.rows == 0 and len(x):
            self.origin = x.mean(axis=0)
        x = x - self.origin
        self.gram += x.T @ x
        self.cross += x.T @ y
        self.inputs += x.sum(axis=0)
        self.targets += y.sum(axis=0)
        self.rows += len(x)

    def keep(self, targets: int) -> None:
        """Drops all targets but the first so many; further rows have only these."""
        self.cross = self.cross[:, :targets].copy()
        self.targets = self.targets[:targets].copy()

    def solve(self) -> RidgePath:
        """The fits to the rows so far."""
        return RidgePath(self)


class RidgePath:
    """The fits of all penalties, by one eigendecomposition.

    With centred rows A and A'A = V diag(s) V', the coefficients for a penalty p are
    V diag(1 / (s + p)) V'A'Y; the intercept is not penalised. These are scikit-learn's `Ridge`.
    """

    def __init__(self, sums: NormalEquations) -> None:
        mean = sums.inputs / sums.rows
        gram = sums.gram - sums.rows * np.outer(mean, mean)
        cross = sums.cross - np.outer(mean, sums.targets)
        values, self.vectors = np.linalg.eigh(gram)
        self.values = np.maximum(values, 0)
        self.centre = sums.origin + mean
        self.intercept = sums.targets / sums.rows
        self.rotated = self.vectors.T @ cross

    def rotate(self, x: Float64[np.ndarray, "row width"]) -> Float64[np.ndarray, "row width"]:
        """Rows of inputs in the coordinates in which `predict` takes them."""
        return (x - self.centre) @ self.vectors

    def predict(
        self, rotated: Float64[np.ndarray, "row width"], penalty: float
    ) -> Float64[np.ndarray, "row target"]:
        """Targets of rows that `rotate` prepared."""
        return rotated @ (self.rotated / (self.values + penalty)[:, None]) + self.intercept

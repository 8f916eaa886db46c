"""Random convolutions and a ridge classifier: fast, without training, and hard to beat.

MiniRocket (Dempster, Schmidt & Webb, "MiniRocket: a very fast (almost) deterministic transform for
time series classification", KDD 2021), written from the paper:

    found = rocket(train, labels, test, truth)
    found.accuracy

A feature is the share of a convolution's outputs that lie above a bias ("PPV"). The 84 kernels are
all of length 9 with three weights of 2 and six of -1; dilations grow exponentially up to the length
of the series; biases are quantiles of the outputs on train.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float32, Float64, Int64
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mainspring.errors import DataError
from mainspring.evaluate.classify import Classified
from mainspring.evaluate.gaps import Filled, Series, filled

LENGTH = 9
KERNELS = list(combinations(range(LENGTH), 3))
"""Where each kernel's three weights of 2 are; its other six are -1, so that they sum to zero."""

FEATURES = 9_996
MOST_DILATIONS = 32
MOST_CHANNELS = 9
PENALTIES = tuple(np.logspace(-3, 3, 10))
GOLDEN = (np.sqrt(5) + 1) / 2
VALUES_AT_ONCE = 32_768
"""Values of one convolution's output worked on at once (128 KiB); they stay in a core's cache."""

MOST_COUNTED = 255
"""Steps counted in a byte before they are added up."""


@dataclass(frozen=True)
class _Group:
    """One dilation of one kernel, with what it was fitted to.

    Attributes:
        kernel: Which of the 84.
        channels: Which channels are added up.
        padded: Whether the series is continued with zeros, so that every step has an output.
        biases: One a feature.
    """

    kernel: int
    channels: tuple[int, ...]
    padded: bool
    biases: Float32[np.ndarray, "bias"]


class MiniRocket:
    """The transform; nothing in it is trained, only biases are read off some training series.

    Where the paper is for one channel, of one length and without holes:

    - several channels: each kernel and dilation adds up a random subset of at most 9 channels, its
      size log-uniform, as ROCKET does (Dempster, Petitjean & Webb, DMKD 2020, released code);
    - biases are quantiles of the outputs that are counted (the released code takes them of padded
      outputs for kernels without padding too);
    - unequal lengths: dilations fit the longest series of train; shares are of a series' own
      outputs, its surroundings are zero, and a share of no output is 0;
    - missing values are filled as `mainspring.evaluate.gaps.filled` says.

    Args:
        features: About how many; rounded down to a multiple of 84.
        seed: Which training series give the biases, and which channels are added up.
    """

    def __init__(self, features: int = FEATURES, seed: int = 0) -> None:
        self.each = max(1, features // len(KERNELS))
        self.seed = seed
        self.groups: dict[int, list[_Group]] = {}
        self.channels = 0

    def fit(self, series: Series) -> MiniRocket:
        """Chooses dilations and biases.

        Raises:
            DataError: If there is no series.
        """
        known = filled(series)
        if len(known) == 0:
            raise DataError("There is no series to fit to.")
        rng = np.random.default_rng(self.seed)
        self.channels = known.values.shape[2]
        self.groups = {}
        made = 0
        for dilation, count in dilations(int(known.lengths.max()), self.each):
            groups: list[_Group] = []
            for kernel in range(len(KERNELS)):
                channels = _some_channels(self.channels, rng)
                one = int(rng.integers(len(known)))
                # Every second one is padded, in turns, so that each dilation has both.
                padded = len(groups) % 2 == (len(self.groups) % 2)
                steps = _steps(known, np.array([one]), channels)
                outputs = _convolve(_taps(steps, dilation), kernel)
                inside = _inside(known.lengths[one : one + 1], dilation, padded, len(outputs))
                values = outputs[inside[:, 0], 0]
                # Quantiles spread evenly, whatever their number: multiples of the golden ratio.
                shares = (np.arange(made + 1, made + count + 1) * GOLDEN) % 1
                made += count
                # A series too short for the kernel has no output to read.
                biases = np.quantile(values, shares) if len(values) else np.zeros(count)
                groups.append(_Group(kernel, channels, padded, biases.astype(np.float32)))
            self.groups[dilation] = groups
        return self

    def transform(self, series: Series) -> Float32[np.ndarray, "n feature"]:
        """One row of shares in [0, 1] a series.

        Raises:
            DataError: If it was not fitted, or to other channels.
        """
        asked = filled(series)
        if asked.values.shape[2] != self.channels:
            raise DataError(
                f"These series have {asked.values.shape[2]} channels; `fit` saw {self.channels}."
            )
        width = sum(len(group.biases) for groups in self.groups.values() for group in groups)
        found = np.empty((len(asked), width), np.float32)
        step = max(1, VALUES_AT_ONCE // asked.values.shape[1])
        for at in range(0, len(asked), step):
            rows = np.arange(at, min(at + step, len(asked)))
            found[rows] = self._shares(asked, rows)
        return found

    def _shares(self, series: Filled, rows: np.ndarray) -> Float32[np.ndarray, "n feature"]:
        lengths = series.lengths[rows]
        steps = _steps(series, rows, tuple(range(self.channels)))
        found = []
        for dilation, groups in self.groups.items():
            inside = {p: _inside(lengths, dilation, p, steps.shape[1]) for p in (False, True)}
            channels: tuple[int, ...] = ()
            for group in groups:
                if group.channels != channels:
                    channels = group.channels
                    taps = _taps(steps[list(channels)], dilation)
                counts = inside[group.padded]
                first, last = _rows(counts)
                outputs = _convolve(taps[:, first:last], group.kernel)
                counts = counts[first:last]
                if not counts.all():
                    outputs[~counts] = -np.inf
                total = np.maximum(counts.sum(axis=0), 1)
                found += [_count(outputs > bias) / total for bias in group.biases]
        return np.stack(found, axis=1).astype(np.float32)


def rocket(
    train: Series,
    train_labels: np.ndarray,
    test: Series,
    test_labels: np.ndarray,
    features: int = FEATURES,
    seed: int = 0,
) -> Classified:
    """MiniRocket and a ridge classifier whose penalty is chosen by leaving one out.

    The paper advises logistic regression by gradient descent beyond 10,000 rows; the ridge here
    then takes minutes and rows x features x 8 bytes.

    Raises:
        DataError: If there is nothing to fit to, or channels differ.
    """
    transform = MiniRocket(features, seed).fit(train)
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=PENALTIES))
    model.fit(transform.transform(train).astype(np.float64), train_labels)
    asked = transform.transform(test).astype(np.float64)
    value = model.decision_function(asked)
    scores = np.stack([-value, value], axis=1) if value.ndim == 1 else value
    settings = {"alpha": float(model[-1].alpha_)}
    return Classified.of(model.predict(asked), scores, test_labels, train_labels, settings)


def dilations(length: int, features: int) -> list[tuple[int, int]]:
    """Dilations of each kernel, and how many features it gets of each.

    At most 32 values floor(2^e), e evenly spaced from 0 to where the kernel spans the series;
    equal ones are joined, what does not divide goes to the smallest.
    """
    most = np.log2(max(1, (length - 1) / (LENGTH - 1)))
    count = min(features, MOST_DILATIONS)
    sizes, shared = np.unique(
        np.floor(2 ** np.linspace(0, most, count) + 1e-9).astype(np.int64), return_counts=True
    )
    given = shared * features // count
    left = features - int(given.sum())
    given += left // len(given) + (np.arange(len(given)) < left % len(given))
    return [(int(size), int(number)) for size, number in zip(sizes, given, strict=True)]


def _some_channels(channels: int, rng: np.random.Generator) -> tuple[int, ...]:
    most = min(channels, MOST_CHANNELS)
    size = int(2 ** rng.uniform(0, np.log2(most + 1)))
    return tuple(sorted(int(c) for c in rng.choice(channels, min(size, most), replace=False)))


def _steps(
    series: Filled, rows: np.ndarray, channels: tuple[int, ...]
) -> Float32[np.ndarray, "channel time n"]:
    """Some channels of some series, time before series."""
    some = series.values[rows][..., list(channels)]
    return np.ascontiguousarray(some.transpose(2, 1, 0), np.float32)


def _taps(
    steps: Float32[np.ndarray, "channel time n"], dilation: int
) -> Float32[np.ndarray, "ten time n"]:
    """The channels' sum as each of the kernel's nine places sees it, times 3, and last of all
    minus the sum of the nine: any kernel is that and three of the nine."""
    line = steps.sum(axis=0)
    time = len(line)
    found = np.zeros((LENGTH + 1, *line.shape), np.float32)
    for place in range(LENGTH):
        shift = (place - LENGTH // 2) * dilation
        low, high = max(0, -shift), min(time, time - shift)
        if low < high:
            found[place, low:high] = line[low + shift : high + shift]
    found[LENGTH] = -found[:LENGTH].sum(axis=0)
    found[:LENGTH] *= 3
    return found


def _convolve(
    taps: Float32[np.ndarray, "ten time n"], kernel: int
) -> Float32[np.ndarray, "time n"]:
    one, two, three = KERNELS[kernel]
    found = taps[LENGTH] + taps[one]
    found += taps[two]
    found += taps[three]
    return found


def _inside(lengths: Int64[np.ndarray, "n"], dilation: int, padded: bool, time: int) -> np.ndarray:
    """Which outputs count, shape (time, n): those of the series, or those that touch no padding."""
    edge = 0 if padded else dilation * (LENGTH // 2)
    at = np.arange(time)[:, None]
    return (at >= edge) & (at < lengths - edge)


def _rows(inside: np.ndarray) -> tuple[int, int]:
    """The first and the last step, plus one, at which any output counts."""
    there = np.flatnonzero(inside.any(axis=1))
    return (int(there[0]), int(there[-1]) + 1) if len(there) else (0, 0)


def _count(above: np.ndarray) -> Float64[np.ndarray, "n"]:
    """How many steps are true, in bytes as far as they reach."""
    total = np.zeros(above.shape[1])
    counted = above.view(np.uint8)
    for at in range(0, len(above), MOST_COUNTED):
        total += counted[at : at + MOST_COUNTED].sum(axis=0, dtype=np.uint8)
    return total

"""Was it worth training? In plain words, against random weights and raw features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mainspring.evaluate.intervals import (
    FEWEST_GROUPS,
    Difference,
    Tally,
    difference,
    interval,
)
from mainspring.evaluate.neighbours import nearest
from mainspring.evaluate.probe import ProbeResult
from mainspring.evaluate.vectors import Vectors
from mainspring.training.monitors import effective_rank

TRAINED = "trained"
ASKED_AT_LEAST = 10
ASKED_AT_MOST = 5_000
"""Recordings with two separate windows that the check without labels needs, and looks at."""


@dataclass(frozen=True)
class Unlabelled:
    """What can be said of embeddings without labels.

    Attributes:
        accuracy: R@1: share of recordings whose one window finds the other among the other windows
            of all recordings; None where too few recordings have two windows.
        low: Lower end of its 95 % interval; 0 with fewer than five groups.
        high: Upper end; then 1.
        chance: One over the number of recordings asked.
        rank: Effective rank of the windows' vectors.
        dim: Width of the vectors.
        tally: Hits by group, for comparisons.
    """

    accuracy: float | None
    low: float
    high: float
    chance: float
    rank: float
    dim: int
    tally: Tally | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: value for name, value in vars(self).items() if name != "tally"}


def unlabelled(vectors: Vectors, seed: int = 0) -> Unlabelled:
    """Do two windows of one recording find each other, and how many directions are used?

    The first and the last window of a recording (they share the least) are query and item. This
    rewards whatever tells recordings apart, the background as much as what happens.
    """
    rng = np.random.default_rng(seed)
    order = np.lexsort((vectors.starts, vectors.rows))
    rows = vectors.rows[order]
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    last = np.append(first[1:], len(rows)) - 1
    ends = np.stack([order[first], order[last]], axis=1)[first < last]
    ends = ends[vectors.ends[ends[:, 0]] <= vectors.starts[ends[:, 1]] + 1e-6]
    some = rng.permutation(len(vectors))[:ASKED_AT_MOST]
    rank = effective_rank(torch.from_numpy(vectors.matrix[np.sort(some)]))
    dim = vectors.matrix.shape[1]
    if len(ends) < ASKED_AT_LEAST:
        return Unlabelled(None, 0.0, 1.0, 1.0, rank, dim, None)
    ends = ends[np.sort(rng.permutation(len(ends))[:ASKED_AT_MOST])]
    found, _ = nearest(vectors.matrix[ends[:, 0]], vectors.matrix[ends[:, 1]], 1)
    hit = (found[:, 0] == np.arange(len(ends))).astype(np.float64)
    tally = Tally.of(hit, vectors.sides[ends[:, 0]])
    low, high = (0.0, 1.0) if tally.few else interval(tally, rng)
    return Unlabelled(float(hit.mean()), low, high, 1 / len(ends), rank, dim, tally)


def margins(
    results: Mapping[str, ProbeResult] | Mapping[str, Unlabelled], seed: int = 0
) -> dict[str, Difference]:
    """For each result but "trained", by how much "trained" is above it, with a paired interval."""
    ours = results[TRAINED].tally
    found = {}
    for name, result in results.items():
        if name != TRAINED and ours is not None and result.tally is not None:
            found[name] = difference(ours, result.tally, np.random.default_rng(seed))
    return found


def verdict(results: Mapping[str, ProbeResult] | Mapping[str, Unlabelled]) -> str:
    """One sentence on the trained encoder, one on each of the others, one on what it means.

    Args:
        results: Under "trained" the trained encoder's; under "random weights", "raw features" and
            whatever else the others'. All probes of one label, or all checks without labels.
    """
    ours = results[TRAINED]
    apart = margins(results)
    if isinstance(ours, ProbeResult):
        lines = [
            f"A linear probe on the trained vectors is right for {_percent(ours.accuracy)} of "
            f"{ours.rows} ({_span(ours.low, ours.high)}; always saying the commonest of "
            f"{len(ours.classes)} classes: {_percent(ours.chance_majority)})."
        ]
    else:
        lines = [_without_labels(ours)]
    for name, by in apart.items():
        theirs = results[name].accuracy or 0.0
        if by.word == "no better":
            said = f"no better; the difference, {_points(by)}, may be none"
        else:
            said = f"{by.word} by {_points(by)}"
        lines.append(f"Than {name} ({_percent(theirs)}): {said}.")
    if isinstance(ours, Unlabelled):
        ranks = [
            f"{name} {result.rank:.1f} of {result.dim}"
            for name, result in results.items()
            if isinstance(result, Unlabelled)
        ]
        lines.append(f"Effective rank: {', '.join(ranks)}.")
    lines += [_meaning(apart), *_caveats(ours)]
    return "\n".join(line for line in lines if line)


def _without_labels(ours: Unlabelled) -> str:
    if ours.accuracy is None or ours.tally is None:
        return (
            f"Without labels, and with fewer than {ASKED_AT_LEAST} recordings that hold two "
            f"separate windows, only the effective rank can be told."
        )
    count = round(1 / ours.chance)
    return (
        f"Without labels: of {count} recordings, one window finds the other of the same recording "
        f"first in {_percent(ours.accuracy)} ({_span(ours.low, ours.high)}; by chance "
        f"{_percent(ours.chance)})."
    )


def _meaning(apart: Mapping[str, Difference]) -> str:
    if not apart:
        return ""
    words = {name: by.word for name, by in apart.items()}
    if all(word == "better" for word in words.values()):
        return "Training paid."
    short = [name for name, word in words.items() if word != "better"]
    return (
        f"Training has not shown its worth against {' or '.join(short)}: train longer, look at "
        f"the alarms in log.txt, or ask another question (`mainspring pretexts`)."
    )


def _caveats(ours: ProbeResult | Unlabelled) -> list[str]:
    few = []
    if ours.tally is not None and ours.tally.few:
        few = [
            f"Note: the recordings are of {len(ours.tally.groups)} groups, and fewer than "
            f"{FEWEST_GROUPS} cannot tell how sure the numbers are."
        ]
    if isinstance(ours, ProbeResult):
        return [*few, *(f"Note: {note}." for note in ours.notes)]
    if ours.accuracy is None:
        return []
    return [
        *few,
        "This check rewards telling recordings apart by anything, the background included; "
        "labels for a few recordings (`mainspring probe`) say more.",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _span(low: float, high: float) -> str:
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f}"


def _points(by: Difference) -> str:
    sign = -1 if by.word == "worse" else 1
    ends = sorted((sign * by.low, sign * by.high))
    return f"{100 * sign * by.mean:.1f} points ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"

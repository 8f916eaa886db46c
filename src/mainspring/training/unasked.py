"""What a run did not ask about, and why: clips that are silent or absent, steps without a question.

Pretexts leave such clips out and tell their share as a metric; those listed here are said at the
end of a run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

WHY = {
    "silent": "sound clips were not asked about: nothing is heard in them",
    "absent": "clips were not asked about: their recordings lack the stream, or have too little",
    "same_sentence": "moments were not asked about: their sentence is that of another moment",
}
"""By name of a metric that is a share: what of, and the reason."""


def idle(loss: float, answers: Mapping[str, tuple[float, float]]) -> bool:
    """Whether a step asked nothing: its loss is exactly 0, and no answer had an alternative (a
    chance of 0 or 1), if there was any answer.

    Args:
        loss: Of the step.
        answers: For each question its accuracy and chance.
    """
    return loss == 0 and not any(0 < chance < 1 for _, chance in answers.values())


def said(shares: Mapping[str, float]) -> list[str]:
    """A line for each share above 0."""
    return [
        f"{name}: {_percent(shares[name])} of {why}."
        for name, why in WHY.items()
        if shares.get(name, 0.0) > 0
    ]


def means(metrics: Path) -> dict[str, float]:
    """The mean over a run's steps of each share that its metrics.jsonl has."""
    sums: dict[str, list[float]] = {}
    for line in metrics.read_text().splitlines():
        row = json.loads(line)
        for name in WHY.keys() & row.keys():
            sums.setdefault(name, []).append(row[name])
    return {name: sum(sums[name]) / len(sums[name]) for name in WHY if name in sums}


def _percent(share: float) -> str:
    return "less than 1 %" if share < 0.005 else f"{100 * share:.0f} %"

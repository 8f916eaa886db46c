"""What the demonstration says of its own table."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mainspring import demo
from mainspring.cli.shares import left_out
from mainspring.evaluate.probe import ProbeResult, probe


def found(accuracy: float) -> tuple[ProbeResult, dict[str, float]]:
    matrix = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    names = np.array(["a", "b"] * 10, object)
    groups = np.arange(20).astype(str).astype(object)
    return replace(probe(matrix, names, groups, seeds=(0,), per_class=()), accuracy=accuracy), {}


@pytest.mark.parametrize(
    ("asked", "said"), [(0.68, "asked about time, how they move"), (0.1, "more --minutes")]
)
def test_the_lesson_is_drawn_where_it_appears(asked: float, said: str) -> None:
    arms = {"random weights": found(0.16), "contrast only": found(0.12), "task only": found(asked)}
    told = demo._text({"motion": arms, "appearance": arms}, Path("runs"), Path("videos"))
    assert said in told
    assert ("how things look" in told) == (asked > 0.5)


def test_long_lists_of_what_is_left_out_end() -> None:
    told = left_out({f"{number}.wav": "it is cut off" for number in range(25)})
    assert told[0] == "25 recordings left out:"
    assert told[-1] == "  and 15 more; --json lists them all."
    assert len(told) == 12

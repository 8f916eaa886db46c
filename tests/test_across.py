"""What `across` says: intervals where there are groups to resample, moments where there are any."""

import numpy as np
import pytest

from mainspring.api.modalities import Across, measured
from mainspring.cli.across import _text
from mainspring.cli.shares import WIDE
from mainspring.evaluate.intervals import FEWEST_GROUPS
from mainspring.evaluate.moments import Moments


def found(groups: int, still: bool = False) -> Across:
    """Twelve recordings of four moments; text, if `still`, is one vector a recording."""
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(12), 4)
    video = rng.normal(size=(48, 8)).astype(np.float32)
    text = video[rows * 4] if still else video + rng.normal(0, 0.5, (48, 8)).astype(np.float32)
    return measured(
        Moments(
            {"video": video, "text": text + np.float32(1e-8)},
            np.tile(np.arange(4.0), 12),
            rows,
            np.array([f"g{row % groups}" for row in rows], object),
            {},
            0,
        ),
        ("video", "text"),
    )


def test_intervals_take_five_groups() -> None:
    many, few = found(FEWEST_GROUPS).to_dict(), found(FEWEST_GROUPS - 1).to_dict()
    recall = many["retrieval"]["video to text"]["recall"]
    low, high = recall[1]["interval"]
    assert low <= recall[1]["value"] <= high
    assert "No intervals" not in _text(many)
    assert few["retrieval"]["video to text"]["recall"][1] == {
        name: pytest.approx(value) for name, value in recall[1].items() if name != "interval"
    }
    assert "interval" not in str(few)
    text = _text(few)
    assert "No intervals: the recordings are of 4 group(s)" in text
    # The columns stay where they are.
    lines = {line[:WIDE]: line for line in text.splitlines() if "R@" in line or "off by" in line}
    assert {len(line) for line in lines.values()} == {WIDE + 35}
    assert set(lines) == {
        line[:WIDE] for line in _text(many).splitlines() if "R@" in line or "off by" in line
    }


def test_a_stream_that_stands_still_is_not_asked_which_moment() -> None:
    moving, still = found(6), found(6, still=True)
    assert moving.still == ()
    assert moving.seconds is not None
    assert (still.still, still.seconds, list(still.spread)) == (("text",), None, ["video"])
    text = _text(still.to_dict())
    assert "Within a recording" not in text
    assert "the same all through each recording" in text

import numpy as np
import pytest

from mainspring.clips import ClipSpec, Extent, Timeline
from mainspring.errors import ConfigError
from mainspring.evaluate.windows import cut
from mainspring.recordings.recording import Recording


def test_windows_cover_the_recording_and_lie_in_the_files_time() -> None:
    clip = ClipSpec(length=3, rate=10.0, stride=2)  # spans 5 positions
    found = cut(Recording("a", start=7.0), Timeline({"video": Extent(12, 10.0)}), "video", clip)
    np.testing.assert_array_equal(found.clips, [[0, 2, 4], [5, 7, 9], [7, 9, 11]])
    np.testing.assert_allclose(found.starts, [7.0, 7.5, 7.7])
    np.testing.assert_allclose(found.ends, [7.5, 8.0, 8.2])


def test_short_recordings_are_held_or_padded() -> None:
    clip = ClipSpec(length=5, rate=None)
    recording = Recording("a")
    for stream, expected in (
        ("video", [0, 1, 2, 2, 2]),
        ("audio", [0, 1, 2, 2, 2]),
        ("series", [0, 1, 2, -1, -1]),
    ):
        found = cut(recording, Timeline({stream: Extent(3, 2.0)}), stream, clip)
        assert found.clips.tolist() == [expected]
        assert (found.starts.tolist(), found.ends.tolist()) == ([0], [1.5])


@pytest.mark.parametrize("hop", [0.0, -1.0, np.inf, np.nan])
def test_a_hop_is_a_number_of_seconds(hop: float) -> None:
    with pytest.raises(ConfigError, match="positive and finite"):
        cut(Recording("a"), Timeline({"series": Extent(3, 1.0)}), "series", ClipSpec(length=2), hop)

"""Clips of two streams around the same moments."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from mainspring.clips import NOTHING, ClipSpec, Extent, Timeline
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, DataError
from mainspring.evaluate.moments import moments
from mainspring.recordings.recording import Recording

SPECS = {
    "audio": ClipSpec(length=50, rate=50),
    "series": ClipSpec(length=6, rate=10, stride=2),
    "text": ClipSpec(length=4),
}


class Clock(Encoder):
    """The mean of what is present: of the clock below, the second in the middle of a clip."""

    citation = "none"

    def __init__(self, stream: str, clip: ClipSpec) -> None:
        super().__init__()
        self.stream, self.clip, self.dim = stream, clip, 1  # type: ignore[misc]
        self.settings = {}

    def forward(self, samples: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        assert present is not None
        real = torch.nan_to_num(samples.float().flatten(2)[..., 0] if samples.ndim > 2 else samples)
        return ((real.float() * present).sum(1) / present.sum(1))[:, None]


class ClockReader:
    """Every sample is its own second, for all that a recording is said to hold."""

    def __init__(self, seconds: Mapping[str, Mapping[str, float]]) -> None:
        self.seconds = seconds

    def timeline(self, recording: Recording) -> Timeline:
        held = self.seconds[recording.uri]
        return Timeline({s: Extent(int(held[s] * rate(s, held)), rate(s, held)) for s in held})

    def read(self, recording: Recording, draws: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        held = self.seconds[recording.uri]
        found = {}
        for stream, clips in draws.items():
            assert clips.max() < self.timeline(recording)[stream].length
            values = np.where(clips == NOTHING, 0, (clips + 0.5) / rate(stream, held))
            found[stream] = values.astype(np.float32)[..., None] if stream == "series" else values
            if stream == "audio":
                silent = recording.uri.startswith("quiet") & (values < 3)
                found[stream] = np.where(silent, 0, values).astype(np.float32)
        return found

    def stamp(self) -> dict[str, str]:
        return {}


def rate(stream: str, held: Mapping[str, float]) -> float:
    return 4 * 3 / held[stream] if stream == "text" else SPECS[stream].rate or 0.0


def embedded(seconds: dict[str, dict[str, float]], *streams: str, count: int = 10):
    recordings = [Recording(uri, group=None if uri == "a" else "g") for uri in seconds]
    encoders = {stream: Clock(stream, SPECS[stream]) for stream in streams}
    ticks: list[tuple[int, int]] = []
    found = moments(
        encoders, SPECS, recordings, ClockReader(seconds), count, 3,
        lambda done, total: ticks.append((done, total)),
    )  # fmt: skip
    assert ticks == [(n + 1, len(recordings)) for n in range(len(recordings))]
    return found


def test_both_streams_look_at_the_same_moments() -> None:
    found = embedded({"a": {"audio": 8, "series": 8}, "b": {"series": 4, "audio": 9}},
                     "audio", "series")  # fmt: skip
    np.testing.assert_array_equal(found.rows, np.repeat([0, 1], 10))
    # Audio clips last 1 s, those of the series 1.1 s: the longer must fit, in the shorter stream.
    expected = np.concatenate([np.linspace(0.55, 7.45, 10), np.linspace(0.55, 3.45, 10)])
    np.testing.assert_allclose(found.times, expected)
    np.testing.assert_allclose(found.vectors["audio"][:, 0], expected, atol=0.5 / 50 + 1e-6)
    np.testing.assert_allclose(found.vectors["series"][:, 0], expected, atol=0.5 / 10 + 1e-6)
    assert found.groups.tolist() == ["a"] * 10 + ["g"] * 10
    assert (found.problems, found.silent) == ({}, 0)


def test_times_count_from_the_files_beginning() -> None:
    encoders = {"audio": Clock("audio", SPECS["audio"])}
    span = [Recording("a", start=100.0, end=104.0)]
    found = moments(encoders, SPECS, span, ClockReader({"a": {"audio": 4}}), 3)
    np.testing.assert_allclose(found.times, [100.5, 102.0, 103.5])


@pytest.mark.parametrize(("seconds", "count"), [(8.0, 10), (2.1, 6), (1.35, 2), (1.1, 1), (0.5, 1)])
def test_moments_are_two_tenths_of_a_second_apart(seconds: float, count: int) -> None:
    found = embedded({"a": {"audio": seconds, "series": seconds}}, "audio", "series")
    assert len(found.times) == count
    assert (np.diff(found.times) >= 0.2 - 1e-9).all()


def test_a_recording_shorter_than_a_clip_is_one_moment_of_all_of_it() -> None:
    found = embedded({"a": {"audio": 0.5, "series": 0.5}}, "audio", "series")
    # Sound is held at its last sample; of the series the mean of what there is: 0.05, 0.25, 0.45.
    assert found.vectors["series"][0, 0] == pytest.approx(0.25, abs=1e-6)
    held = np.minimum(np.arange(50), 24) + 0.5
    assert found.vectors["audio"][0, 0] == pytest.approx(held.mean() / 50, rel=1e-5)


def test_recordings_that_lack_a_stream_or_are_silent_are_left_out_with_the_reason() -> None:
    held = {
        "a": {"audio": 8, "series": 8},
        "b": {"audio": 8},
        "c": {},
        "quiet": {"audio": 3, "series": 3},
        "quiet later": {"audio": 9, "series": 9},
    }
    found = embedded(held, "audio", "series")
    assert found.problems == {
        "b": "no series, only audio",
        "c": "no audio, only other streams",
        "quiet": "its sound is silent",
    }
    assert sorted(set(found.rows.tolist())) == [0, 4]
    kept = found.times[found.rows == 4]
    assert found.silent == 10 + (10 - len(kept))
    assert (kept > 2.5).all()
    assert len(found.vectors["series"]) == len(found.times) == len(found.groups)


def test_nothing_to_embed_says_why() -> None:
    with pytest.raises(
        DataError, match=r"None of the 1 recordings has both audio and series. b: no"
    ):
        embedded({"b": {"audio": 8}}, "audio", "series")


def test_a_recording_with_a_known_problem_is_not_opened() -> None:
    broken = [Recording("x", problem="the file is cut off"), Recording("a")]

    class Opened(ClockReader):
        def timeline(self, recording: Recording) -> Timeline:
            assert recording.problem is None
            return super().timeline(recording)

    reader = Opened({"a": {"audio": 4}})
    found = moments({"audio": Clock("audio", SPECS["audio"])}, SPECS, broken, reader, 2)
    assert found.problems == {"x": "the file is cut off"}


@pytest.mark.parametrize("asked", [{"count": 0}, {"batch": 0}, {"batch": -1}])
def test_moments_and_batches_are_one_at_least(asked: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="1 at least"):
        moments({}, {}, [Recording("a")], ClockReader({"a": {}}), **asked)

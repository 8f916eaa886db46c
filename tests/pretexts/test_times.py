"""Clips of all streams at the same times, and the sentences that stand for them."""

import numpy as np
import pytest

from mainspring.clips import NOTHING, ClipSpec, Extent, Timeline
from mainspring.errors import DataError
from mainspring.pretexts.times import (
    around,
    nearest_sentences,
    sentence_at,
    sentences,
    starts_at,
    times,
)

VIDEO = ClipSpec(length=4, rate=8.0, stride=2)
AUDIO = ClipSpec(length=64, rate=64.0)
SERIES = ClipSpec(length=6, rate=10.0, stride=2)
TEXT = ClipSpec(length=4)
CLIPS = {"video": VIDEO, "audio": AUDIO, "text": TEXT}


def test_times_lie_on_the_grid_of_the_first_stream_and_fit_into_all():
    timeline = Timeline(
        {"video": Extent(64, 8.0), "audio": Extent(448, 64.0), "text": Extent(12, 12 / 8)}
    )
    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        found = times(timeline, CLIPS, 2, 0.5, rng)
        assert abs(found[0] - found[1]) >= 0.5
        assert (found * 8 % 1 == 0).all()
        assert starts_at(timeline, CLIPS, "video", found).tolist() == (found * 8).tolist()
        assert starts_at(timeline, CLIPS, "audio", found).tolist() == (found * 64).tolist()
        # The sound of a clip lasts longest, so the middle is half a second on.
        sentence = np.floor((found + 0.5) / (8 / 3))
        assert starts_at(timeline, CLIPS, "text", found).tolist() == (4 * sentence).tolist()
        seen |= set(found.tolist())
    assert seen == {k / 8 for k in range(6 * 8 + 1)}  # the sound ends a second before the video
    with pytest.raises(DataError, match="50 different times do not fit"):
        times(timeline, CLIPS, 50, 0.5, rng)


@pytest.mark.parametrize("lines", [1, 3])
def test_a_recording_of_nothing_but_text_has_any_number_of_times(lines):
    timeline = Timeline({"text": Extent(4 * lines, 4 * lines / 8)})
    rng, seen = np.random.default_rng(0), set()
    for _ in range(200):
        found = times(timeline, {"text": TEXT}, 2, 0.5, rng)
        assert abs(found[0] - found[1]) >= 0.5
        seen |= set(starts_at(timeline, {"text": TEXT}, "text", found).tolist())
    assert seen == {4 * line for line in range(lines)}


@pytest.mark.parametrize("moment", [-3.0, 0.0, 0.2, 4.0, 7.9, 20.0])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_clips_are_moved_in_at_the_ends(moment, share):
    for stream, spec, count in (("video", VIDEO, 64), ("audio", AUDIO, 512), ("audio", AUDIO, 64)):
        (clip,) = around(np.array([moment]), Extent(count, spec.rate), spec, stream, share)
        assert clip.shape == (spec.length,)
        there = clip[clip != NOTHING]
        assert 0 <= there.min() <= there.max() < count
        assert len(there) == (4 if stream == "video" else round(share * 64))


def test_clips_have_their_middles_at_the_times():
    seconds = np.array([1.0, 2.5, 5.0])
    for stream, spec in (("video", VIDEO), ("audio", AUDIO), ("series", SERIES)):
        clips = around(seconds, Extent(1000, spec.rate), spec, stream)
        middles = (clips[:, 0] + spec.span / 2) / spec.rate
        np.testing.assert_allclose(middles, seconds, atol=0.5 / spec.rate)
        assert (np.diff(clips) == spec.stride).all()


def test_streams_shorter_than_a_clip_are_held_and_series_padded():
    sound = around(np.array([0.1]), Extent(25, 64.0), AUDIO, "audio")
    assert sound[0].tolist() == [min(k, 24) for k in range(64)]
    series = around(np.array([0.1]), Extent(5, 10.0), SERIES, "series")
    assert series[0].tolist() == [0, 2, 4, -1, -1, -1]


def test_of_text_the_sentence_that_is_said_then():
    extent = Extent(12, 12 / 9)  # three sentences of four words over nine seconds
    assert sentences(extent, TEXT) == (3, pytest.approx(3.0))
    moments = np.array([-1.0, 0.0, 2.9, 3.0, 3.1, 8.9, 9.0, 12.0])
    expected = [0, 0, 0, 1, 1, 2, 2, 2]
    assert sentence_at(moments, extent, TEXT).tolist() == expected
    clips = around(moments, extent, TEXT, "text")
    np.testing.assert_array_equal(clips, 4 * np.array(expected)[:, None] + np.arange(4))


def test_the_nearest_sentences_begin_with_the_one_that_is_said():
    extent = Extent(20, 20 / 10)  # five sentences, two seconds each
    for moment in np.random.default_rng(0).uniform(0, 10, 50).tolist():
        said = around(np.array([moment]), extent, TEXT, "text")
        np.testing.assert_array_equal(nearest_sentences(moment, extent, TEXT, 1), said)
    near = nearest_sentences(4.9, extent, TEXT, 3)
    assert near[:, 0].tolist() == [4, 8, 12]
    assert (nearest_sentences(4.9, extent, TEXT, 7)[5:] == NOTHING).all()

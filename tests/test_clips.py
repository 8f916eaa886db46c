"""Properties of index arithmetic, for any recording and any draw."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring import clips
from mainspring.clips import NOTHING, ClipSpec, Extent, Timeline

lengths = st.integers(2, 40)
strides = st.integers(1, 9)
seeds = st.integers(0, 2**32 - 1)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(lengths, st.one_of(strides, st.floats(0.3, 7)), st.integers(0, 100), seeds)
def test_window_lies_within_the_recording_and_keeps_its_stride(length, stride, room, seed):
    extent = clips.span(length, stride) + room
    clip = clips.window(extent, length, stride, rng(seed))
    assert len(clip) == length
    assert clip.dtype == np.int64
    assert clip[0] >= 0
    assert clip[-1] < extent
    np.testing.assert_allclose(clip - clip[0], np.arange(length) * stride, atol=0.5 + 1e-9)


@given(lengths, strides)
def test_window_that_exactly_fits_is_the_whole_recording(length, stride):
    clip = clips.window(clips.span(length, stride), length, stride, rng(0))
    assert clip[0] == 0
    assert clip[-1] == clips.span(length, stride) - 1


def test_window_reaches_both_ends_evenly():
    starts = [clips.window(12, 4, 3, rng(seed))[0] for seed in range(600)]
    counts = np.bincount(starts, minlength=3)
    assert len(counts) == 3
    assert counts.min() > 150


def test_window_that_does_not_fit_says_what_is_missing():
    with pytest.raises(ValueError, match="covers 22 positions, but only 21"):
        clips.window(21, 8, 3, rng(0))


@given(lengths, strides, seeds)
def test_reverse_is_its_own_inverse(length, stride, seed):
    clip = clips.window(1000, length, stride, rng(seed))
    np.testing.assert_array_equal(clips.reverse(clips.reverse(clip)), clip)
    assert (np.diff(clips.reverse(clip)) == -stride).all()


@given(lengths, strides, st.integers(-50, 50), st.integers(-50, 50))
def test_shifts_add_up_and_leave_padding_alone(length, stride, one, two):
    clip = clips.regular(200, length, stride)
    clip[-1] = NOTHING
    twice = clips.shift(clips.shift(clip, one), two)
    np.testing.assert_array_equal(twice, clips.shift(clip, one + two))
    assert twice[-1] == NOTHING


@given(lengths, strides, st.integers(1, 5), st.integers(1, 5))
def test_whole_speeds_multiply(length, stride, one, two):
    clip = clips.regular(3, length, stride)
    np.testing.assert_array_equal(
        clips.speed(clips.speed(clip, one), two), clips.speed(clip, one * two)
    )


@given(lengths, strides, st.floats(0.25, 4))
def test_speed_keeps_the_start_and_scales_the_span(length, stride, factor):
    clip = clips.regular(5, length, stride)
    fast = clips.speed(clip, factor)
    assert fast[0] == clip[0]
    assert abs((fast[-1] - fast[0]) - (clip[-1] - clip[0]) * factor) <= 0.5 + 1e-9
    assert (np.diff(fast) >= 0).all()


def test_half_speed_shows_each_sample_twice():
    np.testing.assert_array_equal(clips.speed(np.arange(10, 14), 0.5), np.array([10, 11, 11, 12]))


@pytest.mark.parametrize("factor", [0, -1])
def test_speed_must_be_positive(factor):
    with pytest.raises(ValueError, match="positive"):
        clips.speed(np.arange(4), factor)


@given(st.integers(3, 12), st.booleans(), seeds)
def test_shuffle_keeps_the_samples_and_changes_the_order(length, directed, seed):
    clip = clips.regular(7, length, 2)
    shuffled = clips.shuffle(clip, rng(seed), directed)
    np.testing.assert_array_equal(np.sort(shuffled), clip)
    assert not np.array_equal(shuffled, clip)
    if directed:
        assert not np.array_equal(shuffled, clip[::-1])


def test_shuffle_draws_every_other_order_equally_often():
    counts: dict[tuple, int] = {}
    generator = rng(1)
    for _ in range(5000):
        order = tuple(clips.shuffle(np.arange(3), generator).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 5
    assert max(counts.values()) < 1.2 * min(counts.values())


@given(st.integers(3, 16), strides, st.integers(2, 6), seeds)
def test_odd_one_out_has_one_clip_out_of_order(length, stride, count, seed):
    extent = clips.span(int(length * 1.5), stride) + 10
    rows, odd = clips.odd_one_out(extent, length, stride, count, rng(seed))
    assert rows.shape == (count, length)
    assert rows.min() >= 0
    assert rows.max() < extent
    for branch, row in enumerate(rows):
        assert len(set(row.tolist())) == length
        assert (np.diff(row) > 0).all() == (branch != odd)


@given(st.integers(2, 200), seeds)
def test_crop_pair_overlaps_in_the_shared_part(extent, seed):
    one, two, shared = clips.crop_pair(extent, 2, rng(seed))
    assert shared >= 2
    np.testing.assert_array_equal(one[-shared:], two[:shared])
    assert one[0] <= two[0]
    assert one[-1] <= two[-1]
    assert one[0] >= 0
    assert two[-1] < extent


@given(st.integers(1, 60), st.sampled_from(["hold", "wrap", "nothing"]))
def test_fit_brings_positions_inside(extent, beyond):
    positions = np.concatenate([[NOTHING], np.arange(0, 2 * extent)])
    fitted = clips.fit(positions, extent, beyond)
    inside = fitted[1 : extent + 1]
    np.testing.assert_array_equal(inside, np.arange(extent))
    assert fitted[0] == NOTHING
    rest = fitted[extent + 1 :]
    expected = {"hold": extent - 1, "wrap": np.arange(extent), "nothing": NOTHING}[beyond]
    np.testing.assert_array_equal(rest, np.broadcast_to(expected, extent))


@given(st.integers(1, 300), st.integers(1, 50), st.integers(1, 50))
def test_windows_cover_every_sample_once_hop_allows(extent, length, hop):
    spans = clips.windows(extent, length, min(hop, length))
    seen = np.zeros(extent, bool)
    for start, stop in spans:
        seen[start:stop] = True
        assert stop - start == min(length, extent)
    assert seen.all()
    assert spans == sorted(set(spans))


def test_streams_meet_in_seconds():
    timeline = Timeline({"video": Extent(100, 25.0), "audio": Extent(64000, 16000.0)})
    met = timeline.meet(np.array([0, 25, 50, NOTHING]), "video", "audio")
    np.testing.assert_array_equal(met, [0, 16000, 32000, NOTHING])
    np.testing.assert_array_equal(timeline.meet(met, "audio", "video"), [0, 25, 50, NOTHING])


def test_the_nearest_position_is_met():
    timeline = Timeline({"video": Extent(100, 30.0), "series": Extent(100, 25.0)})
    met = timeline.meet(np.arange(7), "video", "series")  # 0, .83, 1.67, 2.5, 3.33, 4.17, 5
    np.testing.assert_array_equal(met, [0, 1, 2, 3, 3, 4, 5])


def test_any_clip_may_be_the_odd_one():
    drawn = {clips.odd_one_out(40, 6, 1, 4, rng(seed))[1] for seed in range(80)}
    assert drawn == {0, 1, 2, 3}


def test_clip_spec_counts_both_ends():
    assert ClipSpec(length=8, stride=8).span == 57
    assert Extent(100, 25.0).seconds == 4.0


def test_an_excerpt_is_a_window_or_all_there_is_and_padding():
    rng = np.random.default_rng(0)
    assert clips.excerpt(3, 5, 1, rng).tolist() == [0, 1, 2, NOTHING, NOTHING]
    assert clips.excerpt(5, 3, 2, rng).tolist() == [0, 2, 4]
    starts = {clips.excerpt(8, 3, 2, rng)[0] for _ in range(100)}
    assert starts == {0, 1, 2, 3}

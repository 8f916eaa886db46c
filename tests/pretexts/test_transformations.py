"""What a transformation says it did can be read back from the positions it drew."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mainspring.clips import ClipSpec
from mainspring.errors import ConfigError
from mainspring.pretexts.transformations import Again, Reverse, Rotation, Shuffle, Speed

SPEC = ClipSpec(length=8, stride=3)
ALL = [
    Again(),
    Rotation(),
    Reverse(),
    Shuffle(),
    Shuffle(clips=6, pieces=3),
    Shuffle(clips=1),
    Speed(),
    Speed(speeds=(0.5, 1, 2.5)),
]


@pytest.mark.parametrize("transformation", ALL)
@given(seed=st.integers(0, 2**32), room=st.integers(0, 50), length=st.integers(4, 20))
def test_clips_lie_within_any_recording_that_is_long_enough(transformation, seed, room, length):
    spec = ClipSpec(length=length, stride=3)
    extent = transformation.reach(spec) + room
    clips, values = transformation.draw(extent, spec, np.random.default_rng(seed))
    assert clips.shape == (transformation.views, length)
    assert values.shape == (transformation.views,)
    assert clips.min() >= 0
    assert clips.max() < extent


@pytest.mark.parametrize("transformation", ALL)
def test_a_recording_shorter_than_its_reach_does_not_do(transformation):
    extent = transformation.reach(SPEC) - 1

    def draw_often() -> None:
        for seed in range(100):
            transformation.draw(extent, SPEC, np.random.default_rng(seed))

    with pytest.raises(ValueError, match="covers"):
        draw_often()


@given(seed=st.integers(0, 2**32))
def test_direction_is_the_sign_of_the_steps(seed):
    clips, values = Reverse().draw(200, SPEC, np.random.default_rng(seed))
    assert (np.diff(clips[0]) == (-3 if values[0] else 3)).all()


@given(seed=st.integers(0, 2**32))
def test_speed_is_the_size_of_the_steps(seed):
    speeds = (1, 2, 4)
    clips, values = Speed(speeds=speeds).draw(200, SPEC, np.random.default_rng(seed))
    assert (np.diff(clips[0]) == 3 * speeds[values[0]]).all()


@given(seed=st.integers(0, 2**32), pieces=st.sampled_from([0, 2, 3, 8]))
def test_the_odd_clip_is_the_one_out_of_order(seed, pieces):
    clips, values = Shuffle(clips=6, pieces=pieces).draw(200, SPEC, np.random.default_rng(seed))
    unordered = (np.diff(clips, axis=1) < 0).any(1)
    assert unordered.tolist() == values.astype(bool).tolist()
    assert values.sum() == 1


def test_pieces_are_shuffled_whole():
    spec = ClipSpec(length=24, stride=2)
    clips, _ = Shuffle(clips=2, pieces=4).draw(500, spec, np.random.default_rng(0))
    assert (np.diff(clips.reshape(2, 4, 6), axis=2) == 2).all()


def test_gaps_do_not_betray_the_odd_clip():
    """Odd or not, a clip's sorted positions come from the same distribution."""
    spans: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(500):
        clips, values = Shuffle().draw(200, SPEC, np.random.default_rng(seed))
        for clip, odd in zip(clips, values, strict=True):
            spans[bool(odd)].append(clip.max() - clip.min())
    assert np.mean(spans[True]) == pytest.approx(np.mean(spans[False]), rel=0.03)


@pytest.mark.parametrize("transformation", [Rotation(), Reverse(), Shuffle(), Speed()])
def test_classes_are_balanced(transformation):
    rng = np.random.default_rng(0)
    values = np.stack([transformation.draw(200, SPEC, rng)[1] for _ in range(1200)])
    answers = transformation.answer(torch.from_numpy(values))
    counts = np.bincount(answers.numpy(), minlength=transformation.classes)
    assert len(counts) == transformation.classes
    assert np.abs(counts / 1200 - 1 / transformation.classes).max() < 0.06


def test_the_shuffled_clip_is_the_one_to_contrast():
    mine = torch.randn(3, 4, 5)
    values = torch.tensor([[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    changed = Shuffle().changed(mine, values)
    torch.testing.assert_close(changed, torch.stack([mine[0, 2], mine[1, 0], mine[2, 3]]))


def test_speed_is_named_beside_the_plain_clip_or_alone():
    mine, plain = torch.randn(3, 1, 5), torch.randn(3, 5)
    assert torch.equal(Speed().compared(mine, plain), torch.stack([plain, mine[:, 0]], 1))
    assert torch.equal(Speed(beside_plain=False).compared(mine, plain), mine)
    for transformation in (Speed(), Speed(beside_plain=False), Reverse()):
        assert transformation.branches == transformation.compared(mine, plain).shape[1]


def test_settings_that_cannot_be_are_named():
    with pytest.raises(ConfigError, match=r"even number of clips, not 5.*Set clips to 6"):
        Shuffle(clips=5)
    with pytest.raises(ConfigError, match="2 or more pieces"):
        Shuffle(pieces=1)
    with pytest.raises(ConfigError, match="two or more different"):
        Speed(speeds=(1, 1))
    with pytest.raises(ConfigError, match="positive, not 0"):
        Speed(speeds=(0, 1))
    with pytest.raises(ConfigError, match="no other order"):
        Shuffle().draw(10, ClipSpec(length=1), np.random.default_rng(0))

"""Which clips count as sound: level over what is present, whatever offset or padding is there."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mainspring.pretexts.silence import FLOOR_DECIBELS, heard

RATE = 8000


def tone(decibels: float, seconds: float = 0.5) -> Tensor:
    """A tone whose root mean square lies so far from full scale."""
    time = torch.arange(round(seconds * RATE)) / RATE
    return 10 ** (decibels / 20) * math.sqrt(2) * torch.sin(2 * torch.pi * 440 * time)


def all_of(clips: Tensor) -> Tensor:
    return torch.ones(clips.shape, dtype=torch.bool)


def reference(clip: np.ndarray, present: np.ndarray, floor: float) -> bool:
    """The definition, word for word, in float64."""
    there = clip[present].astype(np.float64)
    if len(there) == 0 or (there == there[0]).all():
        return False
    level = np.sqrt(np.mean((there - there.mean()) ** 2))
    return bool(20 * np.log10(level) >= floor)


def test_the_level_decides() -> None:
    clips = torch.stack([tone(level) for level in (-90, -61, -59, -20, 0)])
    assert heard(clips, all_of(clips)).tolist() == [False, False, True, True, True]
    assert heard(clips, all_of(clips), floor=-30.0).tolist() == [False, False, False, True, True]
    assert FLOOR_DECIBELS == -60.0


def test_it_equals_the_definition() -> None:
    rng = np.random.default_rng(0)
    clips = (10 ** rng.uniform(-5, 0, (200, 1)) * rng.standard_normal((200, 64))).astype(np.float32)
    clips += rng.choice([0.0, 0.3], (200, 1)).astype(np.float32)
    present = rng.random((200, 64)) < rng.random((200, 1))
    expected = [reference(*pair, -50.0) for pair in zip(clips, present, strict=True)]
    got = heard(torch.from_numpy(clips), torch.from_numpy(present), -50.0)
    assert got.tolist() == expected
    assert 40 < sum(expected) < 160


@pytest.mark.parametrize("value", [0.0, 0.1, -0.7, 1.0])
def test_a_constant_is_no_sound(value: float) -> None:
    clips = torch.full((2, 16_000), value)
    assert not heard(clips, all_of(clips)).any()
    assert not heard(clips, all_of(clips), floor=-math.inf).any()


def test_an_offset_makes_no_sound_and_hides_none() -> None:
    clips = torch.stack([tone(-80) + 0.4, tone(-40) + 0.4])
    assert heard(clips, all_of(clips)).tolist() == [False, True]


def test_what_is_absent_has_no_say() -> None:
    loud, silent = tone(-10), torch.zeros(4000)
    present = torch.zeros(4000, dtype=torch.bool)
    clips = torch.stack([loud, loud, silent])
    masks = torch.stack([present, present, present])
    masks[1, :400] = True
    assert heard(clips, masks).tolist() == [False, True, False]
    # The same samples, whatever stands where nothing is, and however much of that there is.
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, generator=rng)
    noise[2000] = math.nan
    masks[:, :400] = True
    other = torch.where(masks, clips, noise)
    assert torch.equal(heard(clips, masks), heard(other, masks))
    assert torch.equal(heard(clips[:, :400], masks[:, :400]), heard(clips, masks))


def test_one_click_is_measured_over_the_whole_clip() -> None:
    clip = torch.zeros(1, 8000)
    clip[0, 4000] = 0.05  # -26 dB for one sample is -65 dB over a second
    assert not heard(clip, all_of(clip)).any()
    assert heard(clip[:, 3900:4100], all_of(clip[:, 3900:4100])).all()


def test_half_precision_and_no_clips() -> None:
    clips = torch.stack([tone(-65), tone(-55)]).half()
    assert heard(clips, all_of(clips)).tolist() == [False, True]
    assert heard(torch.zeros(0, 10), all_of(torch.zeros(0, 10))).shape == (0,)

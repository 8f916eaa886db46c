"""The grid of AV-HuBERT: what is seen, heard and described at a frame is of the frame's time."""

import numpy as np
import pytest
import torch

from mainspring.clips import ClipSpec
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.logmel import LogMel
from mainspring.pretexts.cepstra import cepstra, cosines
from mainspring.pretexts.crossmodal._grid import Grid, heard_width

RATE, SECONDS, COUNT = 1600, 0.08, 16
GRID = Grid(COUNT, SECONDS)
SAMPLES = round(COUNT * SECONDS * RATE)


def ear(centred: bool = True, mels: int = 20) -> LogMel:
    torch.manual_seed(0)
    settings = {"rate": RATE, "window": 0.05, "hop": 0.005, "width": 2, "normalise": "fixed"}
    return LogMel(mels=mels, centred=centred, **settings).eval()


def middles(encoder: LogMel, windows: int) -> np.ndarray:
    """Seconds at the middle of each window of a spectrogram."""
    return encoder.hop / RATE * np.arange(windows) + (0 if encoder.centred else 0.025)


def noise() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (3, SAMPLES))).float()


@pytest.mark.parametrize("centred", [True, False])
def test_a_window_is_of_the_frame_nearest_in_time(centred):
    encoder = ear(centred)
    at = middles(encoder, encoder.prepare(noise()).shape[1])
    away = np.abs(at[:, None] - SECONDS * np.arange(COUNT))
    got = GRID.frame_of(encoder, len(at)).numpy()
    np.testing.assert_allclose(away[np.arange(len(at)), got], away.min(1), atol=1e-9)


@torch.no_grad()
def test_cepstra_of_a_frame_are_the_mean_of_its_windows():
    encoder, basis, sound = ear(), cosines(20), noise()
    every = cepstra(encoder.prepare(sound), basis)
    frame = GRID.frame_of(encoder, every.shape[1])
    got = GRID.cepstra(encoder, sound, basis)
    for t in range(COUNT):
        torch.testing.assert_close(got[:, t], every[:, frame == t].mean(1))


@pytest.mark.parametrize("centred", [True, False])
def test_sound_is_heard_at_its_time_and_bands_stay_apart(centred):
    """Tokens that say when and in which band they are, which is every 16 hops and 16 bands."""
    encoder = ear(centred)
    assert heard_width(encoder) == 2 * encoder.dim

    def tokens(hidden: torch.Tensor) -> torch.Tensor:
        count = -(-hidden.shape[2] // 8)
        when = torch.from_numpy(middles(encoder, 16 * count)[::16]).float()
        made = torch.zeros(len(hidden), count, 2, encoder.dim)
        made[..., 0], made[:, :, 1, 1] = when[:, None], 1.0
        return made

    encoder.trunk = tokens
    rows = torch.tensor([True, False, True])
    got = GRID.hear(encoder, noise(), rows)
    last = (SAMPLES / RATE) // 0.08 * 0.08
    first = middles(encoder, 1)[0]
    expected = torch.from_numpy(np.clip(SECONDS * np.arange(COUNT), first, last)).float()
    bands = got.unflatten(2, (2, encoder.dim))
    for row in (0, 2):
        torch.testing.assert_close(bands[row, :, 0, 0], expected)
        torch.testing.assert_close(bands[row, :, 1, 0], expected)
        assert (bands[row, :, :, 1] == torch.tensor([0.0, 1.0])).all()
    assert not got[1].any()


@torch.no_grad()
def test_hidden_sound_is_blank_and_the_rest_is_as_it_was():
    encoder = ear()
    seen = []
    stem = encoder.stem
    encoder.stem = lambda levels: (seen.append(levels), stem(levels))[1]
    hidden = torch.zeros(3, COUNT, dtype=torch.bool)
    hidden[0, 3:6], hidden[2, 15] = True, True
    rows = torch.tensor([True, False, True])
    blank = torch.arange(20.0)
    GRID.hear(encoder, noise(), rows, hidden, blank)
    (levels,) = seen
    before = encoder.prepare(noise()[rows])
    frame = GRID.frame_of(encoder, levels.shape[1])
    for mine, row in enumerate((0, 2)):
        covered = hidden[row, frame]
        assert (levels[mine, covered] == blank).all()
        torch.testing.assert_close(levels[mine, ~covered], before[mine, ~covered])


class Frames(Encoder):
    """Tokens that say at which picture they stand, one for every second one, in four places."""

    stream, clip, citation = "video", ClipSpec(length=COUNT), "none"

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.settings, self.shown = 2, {}, []

    def tokens(self, samples, present=None):
        self.shown.append(present)
        made = torch.zeros(len(samples), COUNT // 2, 2, 2, 2)
        made[..., 0] = 2.0 * torch.arange(COUNT // 2)[:, None, None]
        made[..., 1] = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
        return made


def test_pictures_are_seen_at_their_time():
    encoder, film = Frames(), torch.zeros(3, COUNT, 4, 4, 3)
    shown = torch.rand(3, COUNT) < 0.5
    rows = torch.tensor([False, True, True])
    got = GRID.see(encoder, film, rows, shown)
    expected = torch.arange(float(COUNT)).clamp(max=COUNT - 2)
    torch.testing.assert_close(got[1:, :, 0], expected.expand(2, -1))
    torch.testing.assert_close(got[1:, :, 1], torch.full((2, COUNT), 1.5))
    assert not got[0].any()
    assert (encoder.shown[0] == shown[rows]).all()

"""Sound source: its draws, its arithmetic, and that the map finds what sounds."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import assert_parts_equal_the_whole
from torch import nn

from mainspring.clips import ClipSpec, Extent, Timeline
from mainspring.encoders.encoder import Encoder, as_float_image
from mainspring.encoders.r2plus1d import R2Plus1DTiny
from mainspring.errors import ConfigError
from mainspring.losses.maps import POOLS, choose_own, compare
from mainspring.pretexts.crossmodal.sound_source import (
    SoundSource,
    SoundSourceConfig,
    around,
    maps,
)
from mainspring.pretexts.pretext import Batch, Views

CLIPS = {"video": ClipSpec(length=2, size=16), "audio": ClipSpec(length=256)}
COLOURS = 255 * np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]])
CYCLES = (8, 16, 24, 32, 40, 48)  # in a clip: the tone of each colour


class Eyes(Encoder):
    """A token for every 4 by 4 pixels of every frame."""

    stream = "video"
    clip = CLIPS["video"]
    citation = "none"

    def __init__(self, dim=24):
        super().__init__()
        self.dim, self.settings = dim, {"dim": dim}
        self.patches = nn.Conv3d(3, dim, (1, 4, 4), stride=(1, 4, 4))
        self.mix = nn.Linear(dim, dim)

    def tokens(self, samples, present=None):
        seen = F.gelu(self.patches(as_float_image(samples).permute(0, 4, 1, 2, 3)))
        return F.gelu(self.mix(seen.permute(0, 2, 3, 4, 1)))


class Ears(Encoder):
    """The spectrum's magnitudes, then two layers."""

    stream = "audio"
    clip = CLIPS["audio"]
    citation = "none"

    def __init__(self, dim=20):
        super().__init__()
        self.dim, self.settings = dim, {"dim": dim}
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.Linear(32, dim), nn.GELU())

    def tokens(self, samples, present=None):
        return self.layers(torch.fft.rfft(samples)[:, :64].abs() / 64)[:, None]


def build(**settings):
    torch.manual_seed(0)
    dims = {"video": 24, "audio": 20}
    settings = {"width": 16, "flip": 0.0} | settings
    return SoundSource(CLIPS, dims, 10, SoundSourceConfig(**settings))


def listeners():
    torch.manual_seed(1)
    return {"video": Eyes(), "audio": Ears()}


def squares(count, clips, rng):
    """Two coloured squares on grey noise, and the tone of one of them.

    Returns the batch and the cell (row, column) of the square that sounds and of the other."""
    pictures = rng.integers(90, 110, (count, clips, 2, 16, 16, 3)).astype(np.uint8)
    sounds = np.empty((count, clips, 256), np.float32)
    cells = np.empty((count, clips, 2, 2), int)
    for b in range(count):
        for v in range(clips):
            two = rng.choice(6, 2, replace=False)
            for which, place in enumerate(rng.choice(16, 2, replace=False)):
                row, column = cells[b, v, which] = divmod(int(place), 4)
                rows = slice(4 * row, 4 * row + 4)
                pictures[b, v, :, rows, 4 * column : 4 * column + 4] = COLOURS[two[which]]
            phase = 2 * np.pi * (CYCLES[two[0]] * np.arange(256) / 256 + rng.uniform())
            sounds[b, v] = 0.3 * np.sin(phase) + rng.normal(0, 0.01, 256)
    return together(torch.from_numpy(pictures), torch.from_numpy(sounds)), cells


def together(pictures, sounds):
    streams = {
        "video": Views(pictures, torch.ones(pictures.shape[:3], dtype=torch.bool), {}),
        "audio": Views(sounds, torch.ones(sounds.shape, dtype=torch.bool), {}),
    }
    return Batch(streams, torch.arange(len(pictures)), torch.Generator().manual_seed(0))


def unit(values):
    return values / values.norm(dim=-1, keepdim=True)


def reference(places, sounds, recording, config):
    """The loss of every picture and every sound, one by one, in double precision."""
    places, sounds, count = places.double(), sounds.double(), len(places)
    tau = config.temperature

    def pooled(i, j):
        s = [float(vector @ sounds[j]) for vector in places[i]]
        if config.pool == "max":
            return max(s) / tau
        if config.pool == "soft":
            return math.log(sum(math.exp(v / tau) for v in s) / len(s))
        if config.pool == "attend":
            weights = [math.exp(v / tau) for v in s]
        else:
            weights = [1 / (1 + math.exp(-(v - 0.65) / 0.03)) for v in s]
        return sum(w * v for w, v in zip(weights, s, strict=True)) / sum(weights) / tau

    def background(i):
        s = [float(vector @ sounds[i]) for vector in places[i]]
        weights = [1 - 1 / (1 + math.exp(-(v - 0.4) / 0.03)) for v in s]
        return sum(w * v for w, v in zip(weights, s, strict=True)) / sum(weights) / tau

    total = 0.0
    for i in range(count):
        for score in (lambda j, i=i: pooled(i, j), lambda j, i=i: pooled(j, i)):
            others = [
                j for j in range(count)
                if j == i or config.within or recording[j] != recording[i]
            ]  # fmt: skip
            choices = [math.exp(score(j)) for j in others]
            if config.background:
                choices.append(math.exp(background(i)))
            total -= score(i) - math.log(sum(choices))
    return total / (2 * count)


def features(count=5, clips=2, t=2, h=3, w=3, width=16, seed=0):
    make = torch.Generator().manual_seed(seed)
    return {
        "places": unit(torch.randn(count, clips, t, h, w, width, generator=make)),
        "sound": unit(torch.randn(count, clips, width, generator=make)),
        "heard": torch.ones(count, clips, dtype=torch.bool),
        "embedding": torch.randn(count, clips, 8, generator=make),
    }


def facts(count):
    return Batch({}, torch.arange(count), torch.Generator())


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("within", [False, True])
def test_loss_is_the_papers(pool, background, within):
    pretext = build(pool=pool, background=background, within=within, temperature=0.1)
    made = features()
    outcome = pretext.ask(made, facts(5))
    expected = reference(
        made["places"].flatten(0, 1).flatten(1, 3),
        made["sound"].flatten(0, 1),
        [i // 2 for i in range(10)],
        pretext.config,
    )
    assert outcome.loss.item() == pytest.approx(expected, rel=1e-4)
    assert outcome.answers["sound"].chance == pytest.approx(1 / (10 if within else 9))


def test_the_trimap_learns_from_maps_that_are_nowhere_near_its_threshold():
    """All weights are then near 1e-10, which must not be rounded away."""
    places = torch.zeros(4, 9, 16)
    places[..., 0] = 1
    sounds = unit(torch.cat([torch.full((4, 1), -1.0), torch.randn(4, 15) / 9], 1))
    sounds.requires_grad_()
    scores = compare(places, sounds, POOLS["trimap"], 1.0)
    torch.testing.assert_close(scores, (places @ sounds.T).mean(1))
    scores.sum().backward()
    assert sounds.grad.norm() > 0.1


@pytest.mark.parametrize("pool", POOLS)
def test_parts_equal_the_whole_with_gradients(pool):
    made = features()
    found = []
    for held in (10**9, 40):
        places = made["places"].flatten(0, 1).flatten(1, 3).double().requires_grad_()
        sounds = made["sound"].flatten(0, 1).double().requires_grad_()
        scores = compare(places, sounds, POOLS[pool], 0.1, held)
        scores.square().sum().backward()
        found.append((scores, places.grad, sounds.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_accuracy_is_at_chance_for_vectors_without_meaning_and_0_for_equal_ones():
    accuracy = []
    for seed in range(30):
        outcome = build().ask(features(seed=seed), facts(5))
        accuracy += [float(answer.accuracy) for answer in outcome.answers.values()]
    assert abs(np.mean(accuracy) - 0.1) < 0.04
    flat = features()
    flat["sound"] = flat["sound"][:1, :1].expand(5, 2, -1)
    assert build().ask(flat, facts(5)).answers["sound"].accuracy == 0


def test_own_map_is_told_from_others_by_its_best_place_alone():
    made = features()
    made["places"] = unit(made["places"] * 0.1 + torch.eye(16)[15])
    made["sound"] = torch.eye(16)[:10].unflatten(0, (5, 2)).contiguous()
    made["places"][:, :, 1, 2, 0] = made["sound"]
    outcome = build(pool="max", temperature=0.05).ask(made, facts(5))
    assert outcome.answers["sound"].accuracy == outcome.answers["picture"].accuracy == 1
    assert outcome.metrics["map_max"] == pytest.approx(1)
    assert outcome.metrics["map_mean"] < 0.2


def test_silent_clips_have_no_influence():
    pretext, made = build(), features()
    made["heard"][1, 0] = made["heard"][3] = False
    changed = {name: value.clone() for name, value in made.items()}
    other = features(seed=9)
    for name in ("places", "sound"):
        changed[name][~made["heard"]] = other[name][~made["heard"]]
    one, two = pretext.ask(made, facts(5)), pretext.ask(changed, facts(5))
    assert one.loss == two.loss
    assert one.answers["sound"] == two.answers["sound"]
    assert one.metrics["silent"] == pytest.approx(0.3)
    expected = reference(
        made["places"][made["heard"]].flatten(1, 3),
        made["sound"][made["heard"]],
        [0, 0, 1, 2, 2, 4, 4],
        pretext.config,
    )
    assert one.loss.item() == pytest.approx(expected, rel=1e-4)


def test_silent_sounds_take_no_part_in_batch_statistics():
    batch, _ = squares(4, 2, np.random.default_rng(0))
    batch["audio"].samples[1:3, 0] = 0
    heard = batch["audio"].samples.any(2)
    pretext, encoders, alone = build(), listeners(), listeners()
    for ears in (encoders["audio"], alone["audio"]):
        ears.layers.append(nn.BatchNorm1d(20))
    got = pretext.encode(encoders, batch)
    assert got["heard"].equal(heard)
    expected = pretext.sound(alone["audio"](batch["audio"].samples[heard]))
    torch.testing.assert_close(got["sound"][heard], expected)
    assert not got["sound"][~heard].any()
    batch["audio"].samples[:] = 0
    assert pretext.ask(pretext.encode(encoders, batch), batch.without_samples()).loss.item() == 0


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("heard", [0, 1])
def test_next_to_nothing_heard_is_no_loss_and_no_error(heard, background):
    made = features()
    made["heard"][:] = False
    made["heard"][0, :heard] = True
    for name in ("places", "sound"):
        made[name].requires_grad_()
    outcome = build(background=background).ask(made, facts(5))
    outcome.loss.backward()
    assert outcome.loss.isfinite()
    assert made["places"].grad.isfinite().all()
    assert bool(outcome.answers) == bool(heard)
    if not background:
        assert outcome.loss == 0


def test_silence_and_absence_are_noticed():
    pretext, encoders = build(), listeners()
    batch, _ = squares(4, 2, np.random.default_rng(0))
    batch["audio"].samples[0, 1] = 0
    batch["audio"].present[1] = False
    batch["video"].present[2, 0] = False
    found = pretext.encode(encoders, batch)["heard"]
    assert found.tolist() == [[True, False], [False, False], [False, True], [True, True]]


def test_micro_batches_equal_the_whole_batch():
    pretext, encoders = build(), listeners()
    batch, _ = squares(6, 2, np.random.default_rng(0))
    assert_parts_equal_the_whole(pretext, encoders, batch)


@pytest.mark.parametrize("video_rate", [10.0, 30.0])
@pytest.mark.parametrize("audio_length", [800, 3200, 12800])
def test_clips_of_both_streams_meet_and_keep_apart(video_rate, audio_length):
    clips = {"video": ClipSpec(8, stride=2, size=16), "audio": ClipSpec(audio_length)}
    pretext = SoundSource(clips, {"video": 8, "audio": 8}, 4, SoundSourceConfig(clips=3))
    extents = {"video": Extent(round(8 * video_rate), video_rate), "audio": Extent(63000, 8000.0)}
    longest = max(15 / video_rate, audio_length / 8000)
    seen = []
    for seed in range(40):
        drawn = pretext.draw(Timeline(extents), np.random.default_rng(seed))
        middles = {}
        for stream, draw in drawn.items():
            assert draw.clips.shape == (3, clips[stream].length)
            assert draw.clips.min() >= 0
            assert draw.clips.max() < extents[stream].length
            step = np.diff(draw.clips, axis=1)
            assert (step == clips[stream].stride).all()
            middles[stream] = (draw.clips[:, 0] + clips[stream].span / 2) / extents[stream].rate
        assert np.abs(middles["video"] - middles["audio"]).max() < 1 / 8000
        assert np.diff(middles["video"]).min() > longest - 1 / video_rate - 1e-6
        seen.extend(middles["video"])
    assert np.ptp(seen) > 7.8 - longest - 0.6


def test_a_recording_of_just_what_is_needed_is_enough():
    pretext = build(clips=2, apart=1.5)
    extents = {
        "video": Extent(pretext.needs("video"), 10.0), "audio": Extent(pretext.needs("audio"), 1280)
    }  # fmt: skip
    clips = {
        s: d.clips for s, d in pretext.draw(Timeline(extents), np.random.default_rng(0)).items()
    }
    assert pretext.needs("audio") == 640
    assert clips["video"].tolist() == [[0, 1], [3, 4]]
    assert clips["audio"][:, 0].tolist() == [0, 384]


def test_what_lies_beyond_a_recording_is_held():
    timeline = Timeline({"video": Extent(10, 10.0), "audio": Extent(1000, 1000.0)})
    clips = {"video": ClipSpec(4, size=16), "audio": ClipSpec(600)}
    rows = around(timeline, clips, np.array([0.0, 1.0]))
    assert rows["video"].tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert rows["audio"][0].tolist() == list(range(600))
    assert rows["audio"][1].tolist() == [min(500 + i, 999) for i in range(600)]


def test_maps_are_cosines_over_the_grid_and_move_with_the_picture():
    pretext, encoders = build(), listeners()
    batch, _ = squares(3, 1, np.random.default_rng(0))
    pictures, sounds = batch["video"].samples[:, 0], batch["audio"].samples[:, 0]
    found = maps(encoders, pretext, pictures, sounds)
    assert found.shape == (3, 2, 4, 4)
    made = pretext.encode(encoders, batch)
    for n in range(3):
        for t, y, x in np.ndindex(2, 4, 4):
            cosine = made["places"][n, 0, t, y, x].double() @ made["sound"][n, 0].double()
            assert found[n, t, y, x].item() == pytest.approx(cosine.item(), abs=1e-5)
    rolled = maps(encoders, pretext, pictures.roll((4, 8), (2, 3)), sounds)
    torch.testing.assert_close(rolled, found.roll((1, 2), (2, 3)))
    pretext.clips = CLIPS | {"video": ClipSpec(length=2, size=16, crop=8)}
    middle = maps(encoders, pretext, pictures, sounds)
    torch.testing.assert_close(middle, found[:, :, 1:3, 1:3])


def test_in_a_clip_of_one_frame_nothing_moves():
    pretext = build()
    pretext.clips = CLIPS | {"video": ClipSpec(length=1, size=16)}
    pretext.attach({"video": R2Plus1DTiny(), "audio": Ears()})
    with pytest.raises(ConfigError, match=r"nothing moves.*architecture.video.moving"):
        pretext.attach({"video": R2Plus1DTiny(moving=True), "audio": Ears()})


def test_one_stream_is_not_enough():
    with pytest.raises(ConfigError, match="video and audio together, not video alone"):
        SoundSource({"video": CLIPS["video"]}, {"video": 4}, 3, SoundSourceConfig())
    assert SoundSource.wants(SoundSourceConfig(), {"video": 3, "series": 3}) == []
    assert SoundSource.wants(SoundSourceConfig(), {"audio": 1, "video": 3}) == ["video", "audio"]


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match=r"Unknown pool 'trymap'\. Did you mean 'trimap'"):
        build(pool="trymap")
    with pytest.raises(ConfigError, match="temperature 0"):
        build(temperature=0)
    with pytest.raises(ConfigError, match="apart is 0"):
        build(apart=0.0)


def test_a_tie_with_another_is_no_right_answer():
    allowed = torch.ones(2, 2, dtype=torch.bool)
    loss, accuracy = choose_own(torch.tensor([[1.0, 1.0], [0.0, 2.0]]), allowed)
    assert accuracy == 0.5
    assert loss.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(-2))) / 2)


def test_the_square_that_sounds_is_found_without_being_told():
    rng, pretext, encoders = np.random.default_rng(2), build(), listeners()
    modules = nn.ModuleList([pretext, *encoders.values()])
    optimiser = torch.optim.AdamW(modules.parameters(), lr=3e-3)
    late = []
    for step in range(80):
        batch, _ = squares(16, 2, rng)
        outcome = pretext(encoders, batch)
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
        if step >= 70:
            late.append(float(outcome.answers["sound"].accuracy))
    assert np.mean(late) > 2 / 32  # and no more: the 32 clips share 6 colours
    batch, cells = squares(100, 1, rng)
    found = maps(encoders, pretext, batch["video"].samples[:, 0], batch["audio"].samples[:, 0])
    best = found.mean(1).flatten(1).argmax(1).numpy()
    sounding, other = (4 * cells[:, 0, i, 0] + cells[:, 0, i, 1] for i in (0, 1))
    assert (best == sounding).mean() > 0.9  # a cell by lot: 1 in 16; one of the squares: a half
    assert (best == other).mean() < 0.05

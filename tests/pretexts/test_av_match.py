"""AV match: half of its pairs are false, its losses are the papers', and it finds what belongs."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import assert_parts_equal_the_whole, gradients
from torch import nn

from mainspring.clips import NOTHING, ClipSpec, Extent, Timeline
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError
from mainspring.pretexts.audiovisual import of_others
from mainspring.pretexts.crossmodal.av_match import AvMatch, AvMatchConfig
from mainspring.pretexts.pretext import Batch, Views

CLIPS = {"video": ClipSpec(length=4, rate=4.0, size=4), "audio": ClipSpec(length=64, rate=64.0)}
SECONDS = 5
WORLD = Timeline({"video": Extent(4 * SECONDS, 4.0), "audio": Extent(64 * SECONDS, 64.0)})
ROWS = np.arange(6)
FORMS = ("fused", "distance")


class Eyes(Encoder):
    """Mean colour, two layers."""

    stream = "video"
    clip = CLIPS["video"]
    citation = "none"

    def __init__(self, norm=False):
        super().__init__()
        self.dim, self.settings = 12, {}
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 12))
        self.norm = nn.BatchNorm1d(12) if norm else nn.Identity()

    def tokens(self, samples, present=None):
        return self.norm(self.layers(samples.float().mean((1, 2, 3)) / 255))[:, None]


class Ears(Encoder):
    """The spectrum's magnitudes, two layers."""

    stream = "audio"
    clip = CLIPS["audio"]
    citation = "none"

    def __init__(self, norm=False):
        super().__init__()
        self.dim, self.settings = 10, {}
        self.layers = nn.Sequential(nn.Linear(33, 16), nn.ReLU(), nn.Linear(16, 10))
        self.norm = nn.BatchNorm1d(10) if norm else nn.Identity()

    def tokens(self, samples, present=None):
        return self.norm(self.layers(torch.fft.rfft(samples).abs() / 16))[:, None]


def build(clips=CLIPS, **settings):
    torch.manual_seed(0)
    settings = {"width": 16, "flip": 0.0, "jitter": 0.0} | settings
    return AvMatch(clips, {"video": 12, "audio": 10}, 100, AvMatchConfig(**settings))


def watchers(norm=False):
    torch.manual_seed(1)
    return {"video": Eyes(norm), "audio": Ears(norm)}


def tones(count, rng):
    """Films of one colour and a tone: the redder the higher."""
    red = rng.uniform(size=count)
    film = rng.integers(0, 40, (count, 4 * SECONDS, 4, 4, 3))
    film[..., 0] += (200 * red[:, None, None, None]).astype(int)
    time = np.arange(64 * SECONDS) / 64
    phase = rng.uniform(0, 6, (count, 1))
    sound = 0.3 * np.sin(2 * np.pi * (2 + 28 * red[:, None]) * time + phase)
    return film.astype(np.uint8), sound.astype(np.float32)


def batch_of(pretext, world, rows, rng):
    """What the loader would make of these rows."""
    draws = [pretext.draw(WORLD, rng) for _ in rows]
    streams = {}
    for stream, samples in zip(("video", "audio"), world, strict=True):
        clips = np.stack([draw[stream].clips for draw in draws])
        seen = np.stack([samples[row][clip] for row, clip in zip(rows, clips, strict=True)])
        streams[stream] = Views(torch.from_numpy(seen), torch.from_numpy(clips != NOTHING), {})
    generator = torch.Generator().manual_seed(3)
    return Batch(streams, torch.from_numpy(rows.astype(np.int64)), generator)


def batch_for(pretext, rows=ROWS):
    return batch_of(pretext, tones(10, np.random.default_rng(5)), rows, np.random.default_rng(0))


def asked(pretext, encoders, batch):
    """Features, and the outcome with a generator of its own."""
    features = pretext.encode(encoders, batch)
    facts = batch.without_samples()
    facts.generator = torch.Generator().manual_seed(4)
    return features, pretext.ask(features, facts)


@pytest.mark.parametrize("overlap", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("samples", [32, 64, 128])
def test_sound_overlaps_the_clip(overlap, samples):
    clips = {**CLIPS, "audio": ClipSpec(length=samples, rate=64.0)}
    pretext, rng = build(clips, overlap=overlap), np.random.default_rng(0)
    shifts, begins = [], []
    for _ in range(300):
        draw = pretext.draw(WORLD, rng)
        (frames,), (sound,) = draw["video"].clips, draw["audio"].clips
        assert frames.min() >= 0
        assert frames.max() < 4 * SECONDS
        assert sound.min() >= 0
        assert sound.max() < 64 * SECONDS
        begin, end = frames[0] / 4, (frames[-1] + 1) / 4
        common = min(end, (sound[-1] + 1) / 64) - max(begin, sound[0] / 64)
        least = overlap * min(end - begin, samples / 64)
        assert common >= least - 0.25  # a frame is as long
        shifts.append(common)
        begins.append((begin, sound[0] / 64))
    if samples == 64 and overlap < 1:
        assert min(shifts) < 1.3 * overlap
        sooner = np.subtract(*np.transpose(begins))  # the sound than the clip
        assert sooner.min() < -0.5 * (1 - overlap) < 0.5 * (1 - overlap) < sooner.max()
    latest = SECONDS - np.array([1.0, samples / 64])
    assert (np.min(begins, 0) <= 0.3).all()
    assert (np.max(begins, 0) >= latest - 0.3).all()


@pytest.mark.parametrize(
    "extents",
    [
        {"video": Extent(20, 4.0)},
        {"audio": Extent(320, 64.0)},
        {"video": Extent(3, 4.0), "audio": Extent(320, 64.0)},
        {"video": Extent(20, 4.0), "audio": Extent(63, 64.0)},
        {},
    ],
)
def test_a_recording_that_lacks_a_stream_is_not_read(extents):
    pretext = build()
    assert AvMatch.partial
    draw = pretext.draw(Timeline(extents), np.random.default_rng(0))
    assert draw["video"].clips.shape == (1, 4)
    assert draw["audio"].clips.shape == (1, 64)
    assert (draw["video"].clips == NOTHING).all()
    assert (draw["audio"].clips == NOTHING).all()


def test_others_are_one_cycle():
    generator = torch.Generator().manual_seed(0)
    seen = torch.zeros(7, 7)
    for _ in range(600):
        other = of_others(torch.arange(7) + 30, generator)
        assert sorted(other.tolist()) == list(range(7))
        row, steps = int(other[0]), 1
        while row != 0:
            row, steps = int(other[row]), steps + 1
        assert steps == 7
        seen[torch.arange(7), other] += 1
    assert not seen.diag().any()
    assert abs(seen / 100 - 1 + torch.eye(7)).max() < 0.5
    again = of_others(torch.arange(7), torch.Generator().manual_seed(9))
    assert again.equal(of_others(torch.arange(7), torch.Generator().manual_seed(9)))


def test_nobody_is_another_to_itself():
    generator = torch.Generator().manual_seed(0)
    assert of_others(torch.tensor([4]), generator).tolist() == [-1]
    assert of_others(torch.tensor([4, 4]), generator).tolist() == [-1, -1]
    assert of_others(torch.zeros(0, dtype=torch.int64), generator).tolist() == []


def logit(pretext, video, audio):
    """Section 3.1 of either paper, in float64."""
    if pretext.config.compare == "fused":
        first, _, last = pretext.fused.double()
        x = torch.cat([video, audio]) @ first.weight.T + first.bias
        return float(x.clamp(min=0) @ last.weight[0] + last.bias[0])
    unit = []
    for stream, vector in (("video", video), ("audio", audio)):
        first, _, last = pretext.heads[stream].double().layers
        x = (vector @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias
        unit.append(x / x.norm())
    return float(pretext.offset - pretext.scale * (unit[0] - unit[1]).norm())


@pytest.mark.parametrize("compare", FORMS)
@torch.no_grad()
def test_loss_is_the_papers(compare):
    pretext, encoders = build(compare=compare), watchers()
    batch = batch_for(pretext)
    features, outcome = asked(pretext, encoders, batch)
    video, audio = (encoders[s](batch[s].samples[:, 0]).double() for s in ("video", "audio"))
    torch.testing.assert_close(features["video"], video.float())
    order = torch.randperm(6, generator=torch.Generator().manual_seed(4)).tolist()
    partner = {order[i]: order[i - 1] for i in range(6)}
    loss, right = 0.0, 0
    for i in range(6):
        true, false = (
            logit(pretext, video[i], audio[i]),
            logit(pretext, video[i], audio[partner[i]]),
        )
        loss += (math.log1p(math.exp(-true)) + math.log1p(math.exp(false))) / 12
        right += (true > 0) + (false <= 0)
    assert outcome.loss.item() == pytest.approx(loss, rel=1e-4)
    assert outcome.answers["match"].accuracy.item() == pytest.approx(right / 12)
    assert outcome.answers["match"].chance == 0.5


@pytest.mark.parametrize("compare", FORMS)
def test_absent_and_silent_recordings_have_no_influence(compare):
    pretext = build(compare=compare)
    batch = batch_for(pretext, np.arange(8))
    batch["audio"].samples[2] = 0
    for stream in ("video", "audio"):
        batch[stream].present[6] = False
    batch["video"].samples[6] = 0
    batch["audio"].present[7] = False
    kept = [0, 1, 3, 4, 5]
    found = []
    for some in (batch, batch.map(lambda value: value[kept])):
        encoders = watchers(norm=True)
        _, outcome = asked(pretext, encoders, some)
        outcome.loss.backward()
        found.append((outcome, gradients(pretext, *encoders.values())))
    (one, mine), (other, theirs) = found
    assert one.loss.item() == other.loss.item()
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert one.metrics["silent"].item() == pytest.approx(1 / 8)
    assert one.metrics["absent"].item() == pytest.approx(2 / 8)
    assert len(one.embedding) == 5


@pytest.mark.parametrize("compare", FORMS)
@pytest.mark.parametrize("left", [0, 1])
def test_one_recording_is_no_question(compare, left):
    pretext, encoders = build(compare=compare), watchers()
    batch = batch_for(pretext)
    batch["audio"].samples[left:] = 0
    features = pretext.encode(encoders, batch)
    features = {k: v.detach().requires_grad_(v.is_floating_point()) for k, v in features.items()}
    outcome = pretext.ask(features, batch.without_samples())
    outcome.loss.backward()
    assert outcome.loss.item() == 0
    assert not outcome.answers


@pytest.mark.parametrize("compare", FORMS)
def test_micro_batches_equal_the_whole_batch(compare):
    pretext, encoders = build(compare=compare), watchers()
    batch = batch_for(pretext)
    assert_parts_equal_the_whole(pretext, encoders, batch, cut=2)


@pytest.mark.parametrize("compare", FORMS)
def test_random_weights_answer_at_chance(compare):
    pretext, encoders = build(compare=compare), watchers()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        batch = batch_of(pretext, tones(400, rng), np.arange(400), rng)
        _, outcome = asked(pretext, encoders, batch)
    assert abs(outcome.answers["match"].accuracy.item() - 0.5) < 0.08


def test_settings_that_contradict_each_other_are_named():
    assert AvMatch.wants(AvMatchConfig(), {"audio": 4, "video": 3}) == ["video", "audio"]
    assert AvMatch.wants(AvMatchConfig(), {"audio": 4}) == []
    with pytest.raises(ConfigError, match="needs video and audio"):
        build({"audio": CLIPS["audio"]})
    with pytest.raises(ConfigError, match="Did you mean 'distance'"):
        build(compare="distanc")
    with pytest.raises(ConfigError, match="overlap"):
        build(overlap=0.0)
    with pytest.raises(ConfigError, match="series"):
        build({**CLIPS, "series": ClipSpec(length=3)})


@pytest.mark.parametrize("compare", FORMS)
def test_what_belongs_is_learnt(compare):
    pretext, encoders = build(compare=compare), watchers()
    world, rng = tones(200, np.random.default_rng(1)), np.random.default_rng(0)
    modules = (pretext, *encoders.values())
    optimiser = torch.optim.AdamW([w for m in modules for w in m.parameters()], lr=5e-3)
    for _ in range(150):
        batch = batch_of(pretext, world, rng.choice(200, 32, replace=False), rng)
        outcome = pretext(encoders, batch)
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
    others = batch_of(pretext, tones(100, np.random.default_rng(2)), np.arange(100), rng)
    with torch.no_grad():
        features, outcome = asked(pretext, encoders, others)
    assert outcome.answers["match"].accuracy.item() > 0.75
    heads = pretext.joint()
    assert set(heads) == (set() if compare == "fused" else {"video", "audio"})
    if heads:
        video, audio = (heads[s](features[s]) for s in ("video", "audio"))
        torch.testing.assert_close(video.norm(dim=1), torch.ones(100))
        ranked = F.normalize(video) @ audio.T
        rank = (ranked > ranked.diag()[:, None]).sum(1)
        assert rank.float().median() < 20  # of 100, where 50 is chance

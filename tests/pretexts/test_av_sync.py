"""AV sync: its draws give nothing away, its losses are the papers', and timing is learnt."""

import copy
import math

import numpy as np
import pytest
import torch
from tiny import assert_parts_equal_the_whole, gradients
from torch import nn

from mainspring.clips import ClipSpec, Extent, Timeline
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError
from mainspring.pretexts.crossmodal._offsets import neighbours
from mainspring.pretexts.crossmodal._steps import in_time, slide
from mainspring.pretexts.crossmodal.av_sync import AvSync, AvSyncConfig
from mainspring.pretexts.pretext import Batch, Views

CLIPS = {
    "video": ClipSpec(length=12, rate=10.0, size=4),
    "audio": ClipSpec(length=120, rate=100.0),
}
FRAMES = 40
WORLD = Timeline({"video": Extent(FRAMES, 10.0), "audio": Extent(10 * FRAMES, 100.0)})
ROWS = np.arange(6)


class Eyes(Encoder):
    """A token for every quarter of every frame."""

    stream = "video"
    clip = CLIPS["video"]
    citation = "none"

    def __init__(self, norm=False):
        super().__init__()
        self.dim, self.settings = 8, {}
        self.patches = nn.Conv3d(3, 8, (1, 2, 2), stride=(1, 2, 2))
        self.norm = nn.BatchNorm3d(8) if norm else nn.Identity()

    def tokens(self, samples, present=None):
        seen = self.norm(self.patches(samples.permute(0, 4, 1, 2, 3).float() / 255))
        return seen.relu().permute(0, 2, 3, 4, 1)


class Ears(Encoder):
    """A token for every tenth of a second, of two bands that say the same."""

    stream = "audio"
    clip = CLIPS["audio"]
    citation = "none"

    def __init__(self, norm=False):
        super().__init__()
        self.dim, self.settings = 6, {}
        self.bands = nn.Linear(1, 6)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()

    def tokens(self, samples, present=None):
        level = samples.unflatten(1, (-1, 10)).abs().mean(2)[..., None, None]
        heard = self.bands(level.expand(-1, -1, 2, 1))
        return self.norm(heard.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).relu()


def build(clips=CLIPS, **settings):
    torch.manual_seed(0)
    settings = {"steps": 12, "width": 16, "flip": 0.0} | settings
    return AvSync(clips, {"video": 8, "audio": 6}, 100, AvSyncConfig(**settings))


def watchers(norm=False):
    torch.manual_seed(1)
    return {"video": Eyes(norm), "audio": Ears(norm)}


def flashes(count, rng):
    """Films of a dark square that flashes now and then, and a click with each flash."""
    lit = rng.random((count, FRAMES)) < 0.2
    noise = rng.integers(0, 30, (count, FRAMES, 4, 4, 3))
    film = (noise + 200 * lit[:, :, None, None, None]).astype(np.uint8)
    sound = rng.normal(0, 0.03, (count, FRAMES, 10)) + 0.5 * lit[:, :, None] * np.cos(
        np.pi * np.arange(10)
    )
    return film, sound.reshape(count, -1).astype(np.float32)


def read(pretext, world, rows, rng, offsets=None):
    """What the loader would make of these rows."""
    draws = [
        pretext.draw(WORLD, rng) if offsets is None else pretext.at_offsets(WORLD, offsets, rng)
        for _ in rows
    ]
    streams = {}
    for stream, samples in zip(("video", "audio"), world, strict=True):
        mine = [draw[stream] for draw in draws]
        seen = np.stack([samples[row][d.clips] for row, d in zip(rows, mine, strict=True)])
        factors = {
            name: torch.from_numpy(np.stack([d.factors[name] for d in mine]))
            for name in mine[0].factors
        }
        present = torch.ones(seen.shape[:3], dtype=torch.bool)
        streams[stream] = Views(torch.from_numpy(seen), present, factors)
    generator = torch.Generator().manual_seed(3)
    return Batch(streams, torch.from_numpy(rows.astype(np.int64)), generator)


def batch_for(pretext, rows=ROWS, seed=0):
    return read(pretext, flashes(10, np.random.default_rng(5)), rows, np.random.default_rng(seed))


def asked(pretext, encoders, batch):
    """Features, and the outcome with a generator of its own."""
    features = pretext.encode(encoders, batch)
    facts = batch.without_samples()
    facts.generator = torch.Generator().manual_seed(4)
    return features, pretext.ask(features, facts)


def test_a_clip_comes_with_its_own_sound_and_with_shifted_ones():
    pretext, rng = build(shifted=3, gap=0.5, far=1.5), np.random.default_rng(0)
    offsets = []
    for _ in range(200):
        draw = pretext.draw(WORLD, rng)
        (frames,), sounds = draw["video"].clips, draw["audio"].clips
        assert frames[0] >= 0
        assert frames[-1] < FRAMES
        assert sounds.min() >= 0
        assert sounds.max() < 10 * FRAMES
        np.testing.assert_array_equal(sounds[0, ::10], 10 * frames)
        shift = draw["audio"].factors["offset"]
        np.testing.assert_allclose((sounds[:, 0] - sounds[0, 0]) / 100, shift)
        offsets.extend(shift[1:])
    assert set(np.round(offsets, 6)) == {s * k / 10 for k in range(5, 16) for s in (-1, 1)}


def test_a_worker_draws_without_weights():
    pretext = build()
    one = pretext.draw(WORLD, np.random.default_rng(7))
    other = pretext.light().draw(WORLD, np.random.default_rng(7))
    np.testing.assert_array_equal(one["audio"].clips, other["audio"].clips)


@pytest.mark.parametrize(("room", "gap", "far"), [(7, 5, 7), (12, 3, 5), (9, 1, 20), (5, 5, 5)])
def test_places_say_nothing_of_who_is_shifted(room, gap, far):
    rng = np.random.default_rng(0)
    fits = {(p, q) for p in range(room + 1) for q in range(room + 1) if gap <= abs(p - q) <= far}
    draws = 100 * len(fits)
    counts = dict.fromkeys(fits, 0)
    for _ in range(draws // 2):
        place, others = neighbours(room, gap, min(far, room), 2, rng)
        for other in others.tolist():
            counts[place, other] += 1
    assert set(counts) == fits
    seen = np.array(list(counts.values())) / draws * len(fits)
    assert abs(seen - 1).max() < 0.6  # six standard deviations


def test_sounds_in_step_and_shifted_come_from_the_same_places():
    pretext, rng = build(shifted=1, far=1.0), np.random.default_rng(0)
    starts = np.array([pretext.draw(WORLD, rng)["audio"].clips[:, 0] for _ in range(3000)])
    one, other = (np.bincount(column // 10, minlength=29) / 3000 for column in starts.T)
    assert abs(one - other).max() < 0.02


def test_offsets_are_classes_of_a_symmetric_grid():
    pretext = build(ask="offset", reach=0.8, step=0.2, shifted=2)
    rng = np.random.default_rng(0)
    seen = np.zeros(9)
    for _ in range(900):
        draw = pretext.draw(WORLD, rng)
        frames, sounds = draw["video"].clips, draw["audio"].clips
        names = draw["audio"].factors["class"]
        assert len(set(names.tolist())) == 2
        np.testing.assert_allclose(draw["audio"].factors["offset"], (names - 4) * 0.2, atol=1e-9)
        np.testing.assert_array_equal(sounds[:, 0], 10 * frames[0, 0] + 20 * (names - 4))
        assert sounds.min() >= 0
        assert max(sounds.max() // 10, frames.max()) < FRAMES
        seen[names] += 1
    assert abs(seen / 200 - 1).max() < 0.3


@pytest.mark.parametrize(
    "settings", [{"gap": 0.55}, {"ask": "offset", "reach": 0.75, "step": 0.25}]
)
@pytest.mark.parametrize("shifted", [1, 2])
def test_the_shortest_recording_that_is_taken_can_be_drawn_from(settings, shifted):
    pretext, rng = build(shifted=shifted, **settings), np.random.default_rng(0)
    video, audio = pretext.needs("video"), pretext.needs("audio")
    short = Timeline({"video": Extent(video, 10.0), "audio": Extent(audio, 100.0)})
    for _ in range(100):
        draw = pretext.draw(short, rng)
        assert draw["video"].clips.min() >= 0
        assert draw["video"].clips.max() < video
        assert draw["audio"].clips.min() >= 0
        assert draw["audio"].clips.max() < audio
    if "gap" in settings:
        assert abs(draw["audio"].factors["offset"][1:]).min() >= 0.55


def test_the_shorter_stream_sets_the_room():
    pretext, rng = build(gap=0.2), np.random.default_rng(0)
    uneven = Timeline({"video": Extent(FRAMES, 10.0), "audio": Extent(205, 100.0)})
    starts = [pretext.draw(uneven, rng)["audio"].clips for _ in range(200)]
    assert max(clip.max() for clip in starts) <= 204
    assert {int(clip[0, 0]) for clip in starts} == set(range(0, 81, 10))


def test_sequences_keep_time_and_pool_the_rest():
    tokens = torch.randn(2, 7, 3, 2, 5)
    for steps, share in [(7, 1.0), (4, 1.0), (11, 0.6)]:
        got = in_time(tokens, steps, share)
        at = np.linspace(0, 6 * share, steps)
        for n in range(2):
            for d in range(5):
                mean = tokens[n, :, :, :, d].mean((1, 2)).numpy()
                np.testing.assert_allclose(got[n, :, d], np.interp(at, range(7), mean), atol=1e-6)
    single = torch.randn(2, 1, 5)
    torch.testing.assert_close(in_time(single, 3, 1.0), single.expand(2, 3, 5))


def test_sliding_undoes_a_shift():
    line = torch.randn(1, 20, 4)
    early, late = line[:, :12], line[:, 3:15]
    moved, both = slide(late, 3.0)
    assert both.tolist() == [step >= 3 for step in range(12)]
    torch.testing.assert_close(moved[:, both], early[:, both])
    moved, both = slide(early, -2.5)
    assert both.tolist() == [step <= 8 for step in range(12)]
    torch.testing.assert_close(moved[:, :9], (early[:, 2:11] + early[:, 3:12]) / 2)


def slow_loss(pretext, features, partner, share):
    """The loss by loops in float64."""
    video, sound = features["video"].detach().double(), features["sound"].detach().double()
    count, views = sound.shape[:2]
    head = copy.deepcopy(pretext.head)

    def cost(i, j, view, in_step):
        if pretext.config.compare == "fused":
            both = torch.ones(sound.shape[2], dtype=torch.bool)
            logit = head.double()(video[i, None], sound[j, view, None], both).item()
            return math.log1p(math.exp(-logit if in_step else logit))
        total = 0.0
        for step in range(sound.shape[2]):
            v, s = video[i, step], sound[j, view, step]
            total += float((v / v.norm() - s / s.norm()).square().sum())
        distance = math.sqrt(total / sound.shape[2])
        return distance**2 if in_step else max(pretext.config.margin - distance, 0) ** 2

    right = sum(cost(i, i, 0, True) for i in range(count)) / count
    hard = [cost(i, i, view, False) for i in range(count) for view in range(1, views)]
    easy = sum(cost(i, partner[i], 0, False) for i in range(count)) / count
    return 0.5 * right + 0.5 * (share * sum(hard) / len(hard) + (1 - share) * easy)


@pytest.mark.parametrize("compare", ["fused", "distance"])
def test_loss_is_the_papers(compare):
    pretext, encoders = build(compare=compare, hard=0.3, margin=1.2), watchers()
    batch = batch_for(pretext)
    features, outcome = asked(pretext, encoders, batch)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(4)).tolist()
    partner = {order[i]: order[i - 1] for i in range(6)}
    assert all(mine != other for mine, other in partner.items())
    want = slow_loss(pretext, features, partner, share=0.3)
    assert outcome.loss.item() == pytest.approx(want, rel=1e-4)
    assert {name: a.chance for name, a in outcome.answers.items()} == {
        "in_step": 0.5,
        "own_sound": 0.5,
    }


def test_negatives_are_easy_first():
    pretext, encoders = build(hard=1.0, easy_steps=2), watchers()
    batch = batch_for(pretext)
    losses = []
    for _ in range(3):
        features, outcome = asked(pretext, encoders, batch)
        losses.append(outcome.loss.item())
        pretext.after_step(encoders, batch.without_samples(), features)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(4)).tolist()
    partner = {order[i]: order[i - 1] for i in range(6)}
    assert losses[0] == losses[1] == pytest.approx(slow_loss(pretext, features, partner, 0), 1e-4)
    assert losses[2] == pytest.approx(slow_loss(pretext, features, partner, 1), 1e-4)
    again = build(hard=1.0, easy_steps=2)
    again.load_state_dict(pretext.state_dict())
    assert int(again.seen) == 3


@torch.no_grad()
def test_the_offset_is_a_class_of_k():
    pretext, encoders = build(ask="offset", reach=0.6, step=0.2, shifted=2), watchers()
    batch = batch_for(pretext)
    features, outcome = asked(pretext, encoders, batch)
    truth = batch["audio"].factors["class"]
    loss, right, away = 0.0, 0, 0.0
    for i in range(6):
        for view in range(2):
            logits = []
            for name in range(7):
                by = (name - 3) * 2  # steps, which are frames here
                video, sound = features["video"][i], features["sound"][i, view]
                moved = torch.zeros_like(sound)
                both = torch.zeros(12, dtype=torch.bool)
                for step in range(12):
                    if 0 <= step - by < 12:
                        moved[step], both[step] = sound[step - by], True
                logits.append(pretext.head(video[None], moved[None], both)[0])
            logits = torch.stack(logits).double()
            name = int(truth[i, view])
            loss -= float(logits.log_softmax(0)[name]) / 12
            right += int(logits.argmax()) == name
            away += abs(int(logits.argmax()) - name) * 0.2 / 12
    assert outcome.loss.item() == pytest.approx(loss, rel=1e-4)
    assert outcome.answers["offset"].accuracy.item() == pytest.approx(right / 12)
    assert outcome.answers["offset"].chance == pytest.approx(1 / 7)
    assert outcome.metrics["offset_error_seconds"].item() == pytest.approx(away, rel=1e-4)


@pytest.mark.parametrize("ask", ["in_step", "offset"])
def test_silent_recordings_have_no_influence(ask):
    pretext = build(ask=ask, reach=0.6, step=0.2)
    batch = batch_for(pretext, np.arange(8))
    batch["audio"].samples[[2, 5]] = 0
    batch["video"].present[7] = False
    kept = [0, 1, 3, 4, 6]
    found = {}
    for name, some in {"all": batch, "kept": batch.map(lambda value: value[kept])}.items():
        encoders = watchers(norm=True)
        _, outcome = asked(pretext, encoders, some)
        outcome.loss.backward()
        found[name] = (outcome, gradients(pretext, *encoders.values()))
    one, other = found["all"], found["kept"]
    assert one[0].loss.item() == other[0].loss.item()
    for mine, theirs in zip(one[1], other[1], strict=True):
        assert torch.equal(mine, theirs)
    assert one[0].metrics["silent"].item() == pytest.approx(3 / 8)
    assert len(one[0].embedding) == 5


def test_a_silent_negative_is_not_asked():
    pretext, encoders = build(shifted=2), watchers()
    batch = batch_for(pretext)
    batch["audio"].samples[:, 2] = 0
    features, outcome = asked(pretext, encoders, batch)
    fewer = {k: v[:, :2] if k in ("sound", "heard") else v for k, v in features.items()}
    facts = batch.without_samples()
    facts.generator = torch.Generator().manual_seed(4)
    assert outcome.loss.item() == pytest.approx(pretext.ask(fewer, facts).loss.item(), rel=1e-6)
    assert outcome.metrics["silent"].item() == 0


@pytest.mark.parametrize("hard", [1.0, 0.25])
def test_a_sound_that_comes_alone_cannot_be_known_by_ear(hard):
    """Half of the recordings hum, the others click once and are silent. A score that all sounds of
    a recording share says nothing, so it is right by chance and no recording asks for another."""
    pretext, encoders = build(shifted=2, hard=hard), watchers()
    film, _ = flashes(40, np.random.default_rng(0))
    place = np.arange(10 * FRAMES)
    sound = np.tile(0.2 * np.cos(np.pi * place), (40, 1)).astype(np.float32)
    sound[::2] *= place // 10 == 20
    batch = read(pretext, (film, sound), np.arange(40), np.random.default_rng(0))
    features = pretext.encode(encoders, batch)
    alone = features["heard"][:, 0] & ~features["heard"][:, 1:].any(1)
    assert 0 < alone.sum() < 20
    by_ear = torch.zeros(40).requires_grad_()
    features["sound"] = by_ear[:, None, None, None].expand_as(features["sound"])
    pretext.pair_scores = lambda video, sound: sound[:, 0, 0]
    (slope,) = torch.autograd.grad(pretext.ask(features, batch.without_samples()).loss, by_ear)
    torch.testing.assert_close(slope, torch.zeros(40))
    with torch.no_grad():
        by_ear[::2], by_ear[1::2] = 1.0, -1.0
    features["sound"] = by_ear[:, None, None, None].expand_as(features["sound"])
    answers = pretext.ask(features, batch.without_samples()).answers
    assert answers["in_step"].accuracy.item() == pytest.approx(0.5)
    assert answers["own_sound"].accuracy.item() == pytest.approx(0.5)


@pytest.mark.parametrize("ask", ["in_step", "offset"])
def test_silence_alone_teaches_nothing(ask):
    pretext, encoders = build(ask=ask, reach=0.6, step=0.2), watchers(norm=True)
    batch = batch_for(pretext)
    batch["audio"].samples[:] = 0
    features = pretext.encode(encoders, batch)
    for name in ("video", "sound"):
        features[name] = features[name].detach().requires_grad_()
    outcome = pretext.ask(features, batch.without_samples())
    outcome.loss.backward()
    assert outcome.loss.item() == 0
    assert not features["video"].grad.any()
    assert not outcome.answers
    assert outcome.metrics["silent"].item() == 1


def test_a_recording_that_stands_twice_is_no_stranger_to_itself():
    pretext, encoders = build(hard=0.0), watchers()
    batch = batch_for(pretext, np.array([3, 3]))
    _, outcome = asked(pretext, encoders, batch)
    assert set(outcome.answers) == {"in_step"}
    assert outcome.loss.isfinite()


@pytest.mark.parametrize("settings", [{}, {"compare": "distance"}, {"ask": "offset", "reach": 0.5}])
def test_micro_batches_equal_the_whole_batch(settings):
    pretext, encoders = build(**settings), watchers()
    batch = batch_for(pretext)
    assert_parts_equal_the_whole(pretext, encoders, batch, cut=2)


@pytest.mark.parametrize("compare", ["fused", "distance"])
def test_noise_is_answered_at_chance(compare):
    pretext, encoders = build(compare=compare), watchers()
    rng = np.random.default_rng(0)
    film = rng.integers(0, 255, (300, FRAMES, 4, 4, 3)).astype(np.uint8)
    world = film, rng.normal(0, 0.1, (300, 10 * FRAMES)).astype(np.float32)
    with torch.no_grad():
        _, outcome = asked(pretext, encoders, read(pretext, world, np.arange(300), rng))
    for answer in outcome.answers.values():
        assert abs(answer.accuracy.item() - 0.5) < 0.06


def test_scores_take_each_sound_by_itself():
    pretext, encoders = build(), watchers()
    world = flashes(10, np.random.default_rng(5))
    offsets = [0.0, -0.5, 0.5, 1.0]
    batch = read(pretext, world, ROWS, np.random.default_rng(0), offsets)
    np.testing.assert_allclose(batch["audio"].factors["offset"], [offsets] * 6)
    scores = pretext.scores(encoders, batch)
    one = pretext.scores(encoders, batch.map(lambda value: value[1:2]))
    torch.testing.assert_close(scores[1:2], one)
    features = pretext._look(encoders, batch, torch.ones(6, 4) > 0, lambda samples, _: samples)
    for view in range(4):
        mine = pretext.pair_scores(features["video"], features["sound"][:, view])
        torch.testing.assert_close(scores[:, view], mine)
    batch["audio"].samples[2, 3] = 0
    silent = pretext.scores(encoders, batch)
    assert silent.isnan().nonzero().tolist() == [[2, 3]]
    with pytest.raises(ValueError, match="do not fit"):
        pretext.at_offsets(WORLD, [-2.0, 2.0], np.random.default_rng(0))


def test_a_pretext_needs_two_streams_with_rates():
    assert AvSync.wants(AvSyncConfig(), {"video": 4, "audio": 3, "text": 9}) == ["video", "audio"]
    assert AvSync.wants(AvSyncConfig(), {"video": 4}) == []
    with pytest.raises(ConfigError, match="needs video and audio"):
        build({"video": CLIPS["video"]})
    with pytest.raises(ConfigError, match=r"clip\.audio\.rate"):
        build({**CLIPS, "audio": ClipSpec(length=120)})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ask": "in_stp"}, "Did you mean 'in_step'"),
        ({"compare": "fuse"}, "Did you mean 'fused'"),
        ({"ask": "offset", "compare": "distance"}, "by how much"),
        ({"gap": 0.0}, "gap"),
        ({"gap": 0.51, "far": 0.59}, "whole number of frames"),
        ({"ask": "offset", "reach": 1.1}, "longer clips"),
        ({"ask": "offset", "reach": 0.5, "step": 0.01}, "at least one frame"),
        ({"step": 0.0}, "at least one frame"),
        ({"shifted": 0}, "at least 1"),
        ({"hard": 1.5}, "share"),
        ({"steps": 1}, "at least 2"),
    ],
)
def test_settings_that_contradict_each_other_are_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        build(**settings)


def test_settings_of_the_other_question_stand_in_nobody_s_way():
    slow = {"video": ClipSpec(length=12, rate=3.0, size=4), "audio": CLIPS["audio"]}
    assert build(slow).config.step < 1 / 3
    assert build(ask="offset", reach=0.5, gap=0.0).config.ask == "offset"


def learn(pretext, encoders, world, steps):
    """A plain loop. Returns the mean accuracies of the last tenth."""
    rng = np.random.default_rng(0)
    modules = (pretext, *encoders.values())
    optimiser = torch.optim.AdamW([w for m in modules for w in m.parameters()], lr=5e-3)
    late = {}
    for step in range(steps):
        batch = read(pretext, world, rng.choice(len(world[0]), 16, replace=False), rng)
        features = pretext.encode(encoders, batch)
        outcome = pretext.ask(features, batch.without_samples())
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
        pretext.after_step(encoders, batch.without_samples(), features)
        if step >= steps * 9 // 10:
            for name, answer in outcome.answers.items():
                late.setdefault(name, []).append(float(answer.accuracy))
    return {name: float(np.mean(values)) for name, values in late.items()}


@pytest.mark.parametrize("compare", ["fused", "distance"])
def test_steps_are_learnt_and_hold_on_other_recordings(compare):
    pretext, encoders = build(compare=compare, hard=0.75), watchers()
    accuracy = learn(pretext, encoders, flashes(150, np.random.default_rng(1)), 120)
    assert accuracy["in_step"] > 0.75
    assert accuracy["own_sound"] > 0.75
    others = flashes(100, np.random.default_rng(2))
    offsets = [0.0, -0.5, 0.5, -1.2, 1.2]
    batch = read(pretext, others, np.arange(100), np.random.default_rng(3), offsets)
    scores = pretext.scores(encoders, batch)
    called = (scores > 0).float().mean(0)
    assert called[0] > 0.75
    assert called[1:].max() < 0.3
    beaten = (scores[:, :1] > scores[:, 1:]).float().mean()
    assert beaten > 0.9


def test_offsets_are_learnt():
    pretext, encoders = build(ask="offset", reach=0.6, step=0.2), watchers()
    accuracy = learn(pretext, encoders, flashes(150, np.random.default_rng(1)), 100)
    assert accuracy["offset"] > 3 / 7
    others = flashes(100, np.random.default_rng(2))
    batch = read(pretext, others, np.arange(100), np.random.default_rng(3), [0.0, -0.4, 0.6])
    assert (pretext.scores(encoders, batch).argmax(1) == 0).float().mean() > 2 / 3

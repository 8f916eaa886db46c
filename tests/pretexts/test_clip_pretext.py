"""Two streams of a recording find each other, at the times and by the losses of the papers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import TinyEncoder, gradients, part

from mainspring.clips import NOTHING, ClipSpec, Extent, Timeline
from mainspring.encoders.words import Words
from mainspring.errors import ConfigError
from mainspring.losses.multiple import Mined, compare, mil_nce, noise_level, pair_nce
from mainspring.pretexts.catalog import find
from mainspring.pretexts.crossmodal.clip import Clip, ClipConfig
from mainspring.pretexts.pretext import Batch, Views
from mainspring.recordings.text import numbers
from mainspring.training.settings import make, settle

VIDEO = ClipSpec(length=4, rate=8.0, stride=2, size=2)
AUDIO = ClipSpec(length=64, rate=64.0)
SERIES = ClipSpec(length=16, rate=16.0)
TEXT = ClipSpec(length=6)
SPECS = {"video": VIDEO, "audio": AUDIO, "series": SERIES, "text": TEXT}
DIM = 32
SECONDS = 8


def build(*streams: str, recordings: int = 50, **settings) -> Clip:
    torch.manual_seed(0)
    clips = {stream: SPECS[stream] for stream in streams or ("video", "audio")}
    settings.setdefault("flip", 0.0)
    return Clip(clips, dict.fromkeys(clips, DIM), recordings, ClipConfig(**settings))


def encoders_for(pretext) -> dict[str, torch.nn.Module]:
    torch.manual_seed(1)
    kinds = {
        "video": lambda: TinyEncoder(DIM, 12, 1),
        "audio": lambda: TinyEncoder(DIM),
        "series": lambda: TinyEncoder(DIM, 2),
        "text": lambda: Words(buckets=997, width=24, dim=DIM),
    }
    return {stream: kinds[stream]() for stream in pretext.clips}


class TinyEncoder(TinyEncoder):
    """Of one frame at a time, for clips of few frames."""

    def __init__(self, dim: int = DIM, channels: int = 1, kernel: int = 5) -> None:
        super().__init__(dim, channels)
        if kernel == 1:
            self.layers = torch.nn.Sequential(
                torch.nn.Conv1d(channels, dim, 1), torch.nn.ReLU(), torch.nn.Conv1d(dim, dim, 1)
            )

    def tokens(self, samples, present=None):
        scaled = samples.float() / 128 - 1 if samples.dtype == torch.uint8 else samples
        return super().tokens(scaled, present)


def world(count: int, seed: int = 0, sentences: int = 4) -> list[dict[str, np.ndarray]]:
    """Recordings of 8 s with a character of four numbers, which shows in the colours of the
    picture, in the loudness of four tones, in the levels of a series and in words."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        z = rng.uniform(0, 1, 4)
        time = np.arange(SECONDS * 64) / 64
        tones = np.sin(2 * np.pi * np.outer([3, 7, 13, 25], time) + rng.uniform(0, 6, (4, 1)))
        frame = np.concatenate([z, 1 - z, np.full(4, 0.5)]).reshape(2, 2, 3)
        noise = rng.normal(0, 0.02, (SECONDS * 8, 2, 2, 3))
        levels = [f"{name}{int(v * 5)}" for name, v in zip("abcd", z, strict=True)]
        text = [" ".join(rng.permutation([*levels, f"then{i}"])) for i in range(sentences)]
        made.append(
            {
                "video": ((frame + noise).clip(0, 1) * 255).astype(np.uint8),
                "audio": (z @ tones).astype(np.float32),
                "series": np.tile(z[:2], (SECONDS * 16, 1)).astype(np.float32),
                "text": np.concatenate([numbers(line, TEXT.length) for line in text]),
            }
        )
    return made


def timeline_of(recording: dict[str, np.ndarray]) -> Timeline:
    return Timeline({k: Extent(len(v), len(v) / SECONDS) for k, v in recording.items()})


def read(pretext, recordings: list[dict[str, np.ndarray]], rows, rng) -> Batch:
    """What the loader would make of these rows: nothing is zeros, NaN in series."""
    rows = np.asarray(rows)
    draws = [pretext.draw(timeline_of(recordings[row]), rng) for row in rows]
    streams = {}
    for stream in pretext.clips:
        samples = []
        for row, draw in zip(rows, draws, strict=True):
            clips = draw[stream].clips
            if stream in recordings[row]:
                values = recordings[row][stream][np.maximum(clips, 0)].copy()
            else:
                like = world(1)[0][stream]
                values = np.zeros((*clips.shape, *like.shape[1:]), like.dtype)
            values[clips == NOTHING] = np.nan if stream == "series" else 0
            samples.append(values)
        present = np.stack([draw[stream].clips != NOTHING for draw in draws])
        factors = {
            k: torch.from_numpy(np.stack([d[stream].factors[k] for d in draws]))
            for k in draws[0][stream].factors
        }
        streams[stream] = Views(
            torch.from_numpy(np.stack(samples)), torch.from_numpy(present), factors
        )
    seed = int(rng.integers(2**31))
    return Batch(streams, torch.from_numpy(rows), torch.Generator().manual_seed(seed))


def learn(pretext, encoders, recordings, steps: int, size: int = 32, lr: float = 5e-3) -> list:
    """A plain loop; returns the losses."""
    rng = np.random.default_rng(0)
    modules = [pretext, *encoders.values()]
    weights = [w for module in modules for w in module.parameters() if w.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=lr)
    losses = []
    for _ in range(steps):
        batch = read(pretext, recordings, rng.choice(len(recordings), size, replace=False), rng)
        features = pretext.encode(encoders, batch)
        outcome = pretext.ask(features, batch.without_samples())
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
        detached = {name: value.detach() for name, value in features.items()}
        pretext.after_step(encoders, batch.without_samples(), detached)
        losses.append(outcome.loss.item())
    return losses


@torch.no_grad()
def vectors(pretext, encoders, recordings) -> dict[str, torch.Tensor]:
    """One vector a recording and stream in the shared space."""
    batch = read(pretext, recordings, np.arange(len(recordings)), np.random.default_rng(1))
    return {
        stream: pretext.joint()[stream](
            encoders[stream](batch[stream].samples[:, 0], batch[stream].present[:, 0])
        )
        for stream in pretext.clips
    }


def recall(queries: torch.Tensor, keys: torch.Tensor) -> float:
    """R@1 of the key in the same row."""
    nearest = (queries @ keys.T).argmax(1)
    return (nearest == torch.arange(len(queries))).float().mean().item()


# -- when ----------------------------------------------------------------------------------------


def test_clips_of_both_streams_have_the_same_middle():
    pretext, rng = build(), np.random.default_rng(0)
    for _ in range(100):
        draws = pretext.draw(timeline_of(world(1)[0]), rng)
        video, audio = draws["video"].clips[0], draws["audio"].clips[0]
        assert (np.diff(video) == 2).all()
        assert (np.diff(audio) == 1).all()
        assert 0 <= video[0] <= video[-1] < 64
        assert 0 <= audio[0] <= audio[-1] < 512
        if audio[0] > 0 and audio[-1] < 511:  # at the ends it is moved in
            heard = (audio[0] + 32) / 64
            assert heard == pytest.approx((video[0] + 3.5) / 8, abs=1 / 64)


def test_overlapping_clips_have_their_middle_within_the_first_and_lengths_at_random():
    pretext, rng = build(overlap=True, shortest=0.5), np.random.default_rng(0)
    lengths, places = [], []
    for _ in range(300):
        draws = pretext.draw(timeline_of(world(1)[0]), rng)
        video, audio = draws["video"].clips[0], draws["audio"].clips[0]
        there = audio[audio != NOTHING]
        assert (np.diff(there) == 1).all()
        assert (audio[: len(there)] == there).all()  # padding comes after
        lengths.append(len(there))
        begin, end = video[0] / 8, (video[0] + 7) / 8
        heard = (there[0] + len(there) / 2) / 64
        room = len(there) / 2 / 64
        if begin > room and end < SECONDS - room:
            places.append((heard - begin) / (end - begin))
    assert min(lengths) == 32
    assert max(lengths) >= 63
    assert np.mean(lengths) == pytest.approx(48, abs=2)
    assert min(places) > -0.03
    assert max(places) < 1.03
    assert np.mean(places) == pytest.approx(0.5, abs=0.06)
    assert np.std(places) == pytest.approx(12**-0.5, abs=0.05)


def test_around_a_sentence_the_clip_is_drawn_as_in_videoclip():
    pretext, rng = build("video", "text", overlap=True), np.random.default_rng(0)
    spans, sentences = set(), []
    for _ in range(300):
        draws = pretext.draw(timeline_of(world(1)[0]), rng)
        video, text = draws["video"].clips[0], draws["text"].clips[0]
        assert text.tolist() == list(range(text[0], text[0] + 6))
        sentence = text[0] // 6
        sentences.append(sentence)
        moment = (video[0] + (video[-1] - video[0] + 1) / 2) / 8
        assert 2 * sentence - 1 / 8 <= moment <= 2 * sentence + 2 + 1 / 8
        spans.add(int(video[-1] - video[0]))
    assert spans == {2, 3, 4, 5, 6}  # a quarter of 3 steps of 2, up to all of them
    assert np.bincount(sentences).min() > 50


def test_a_bag_is_the_sentences_nearest_in_time():
    pretext, rng = build("text", "video", sentences=3), np.random.default_rng(0)
    assert (pretext.first, pretext.second) == ("video", "text")
    recording = world(1, sentences=5)[0]
    for _ in range(50):
        draws = pretext.draw(timeline_of(recording), rng)
        moment = (draws["video"].clips[0, 0] + 3.5) / 8
        bag = draws["text"].clips
        assert bag.shape == (3, 6)
        got = [int(row[0]) // 6 for row in bag]
        distance = [abs((k + 0.5) * SECONDS / 5 - moment) for k in range(5)]
        assert got == sorted(np.argsort(distance, kind="stable")[:3])
    few = pretext.draw(timeline_of(world(1, sentences=2)[0]), rng)["text"].clips
    assert few[:2].tolist() == [list(range(6)), list(range(6, 12))]
    assert (few[2] == NOTHING).all()


def test_a_worker_can_draw_without_the_weights():
    pretext = build("video", "text", sentences=2, overlap=True, mined=2)
    timeline = timeline_of(world(1)[0])
    drawn = pretext.light().draw(timeline, np.random.default_rng(1))
    expected = pretext.draw(timeline, np.random.default_rng(1))
    for stream in ("video", "text"):
        assert np.array_equal(drawn[stream].clips, expected[stream].clips)


# -- what is asked -------------------------------------------------------------------------------


def batch_for(pretext, count: int = 8, seed: int = 0, rows=None) -> Batch:
    rows = np.arange(count) if rows is None else rows
    return read(pretext, world(max(rows) + 1), rows, np.random.default_rng(seed))


def test_the_loss_is_clips():
    pretext = build("video", "audio")
    encoders, batch = encoders_for(pretext), batch_for(pretext)
    outcome = pretext(encoders, batch)
    x = pretext.heads["video"](encoders["video"](batch["video"].samples[:, 0])).double()
    y = pretext.heads["audio"](encoders["audio"](batch["audio"].samples[:, 0])).double()
    torch.testing.assert_close(x.norm(dim=1), torch.ones(8).double())
    logits = x @ y.T / 0.07
    truth = torch.arange(8)
    want = (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2
    assert outcome.loss.item() == pytest.approx(want.item(), rel=1e-5)
    there = outcome.answers["video to audio"]
    back = outcome.answers["audio to video"]
    assert there.accuracy == (logits.argmax(1) == truth).float().mean()
    assert back.accuracy == (logits.argmax(0) == truth).float().mean()
    assert there.chance == back.chance == pytest.approx(1 / 8)
    assert outcome.metrics["temperature"].item() == pytest.approx(0.07)
    assert outcome.metrics["paired"] == 1
    torch.testing.assert_close(outcome.embedding, encoders["video"](batch["video"].samples[:, 0]))


def test_a_bag_with_a_missing_sentence_is_that_of_mil_nce():
    pretext = build("video", "text", loss="mil_nce", sentences=5)
    encoders, batch = encoders_for(pretext), batch_for(pretext)
    assert not batch["text"].present[:, 4].any()  # there are four
    features = pretext.encode(encoders, batch)
    assert features["there"].tolist() == [[True] * 4 + [False]] * 8
    text = [encoders["text"](batch["text"].samples[:, k]) for k in range(4)]
    second = torch.stack([pretext.heads["text"](t) for t in text], 1)
    all_there = torch.ones(8, 4, dtype=torch.bool)
    scores = compare(features["first"], second, all_there, torch.arange(8), torch.tensor(1 / 0.07))
    loss = pretext.ask(features, batch.without_samples()).loss
    torch.testing.assert_close(loss, mil_nce(scores))
    assert pretext.ask(features, batch).answers["video to text"].chance == pytest.approx(4 / 32)


@pytest.mark.parametrize("loss", ["info_nce", "mil_nce", "cpd"])
def test_micro_batches_equal_the_whole_batch(loss):
    pretext = build("video", "text", loss=loss, sentences=2, mined=3)
    encoders = encoders_for(pretext)
    g = torch.Generator().manual_seed(0)
    stored = F.normalize(torch.randn(2, 20, 256, generator=g), dim=2)
    pretext.bank.remember(stored[0], stored[1], torch.ones(20).bool(), torch.arange(20, 40))
    batch = batch_for(pretext)

    def ask(parts: list[slice]) -> torch.Tensor:
        features = [pretext.encode(encoders, part(batch, rows)) for rows in parts]
        joined = {k: torch.cat([f[k] for f in features]) for k in features[0]}
        batch.generator.manual_seed(3)
        return pretext.ask(joined, batch.without_samples()).loss

    whole = ask([slice(0, 8)])
    whole.backward()
    expected = gradients(pretext, *encoders.values())
    joined = ask([slice(0, 5), slice(5, 8)])
    joined.backward()
    torch.testing.assert_close(joined, whole)
    for mine, theirs in zip(gradients(pretext, *encoders.values()), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_silent_sounds_and_empty_sentences_have_no_influence():
    pretext = build("video", "audio")
    encoders, batch = encoders_for(pretext), batch_for(pretext)
    batch["audio"].samples[2] = 0
    loss = pretext(encoders, batch)
    assert loss.metrics["silent"] == 1 / 8
    assert loss.metrics["paired"] == 7 / 8
    assert loss.answers["audio to video"].chance == pytest.approx(1 / 7)
    batch["video"].samples[2] = 255 - batch["video"].samples[2]
    assert torch.equal(pretext(encoders, batch).loss, loss.loss)
    kept = torch.tensor([0, 1, 3, 4, 5, 6, 7])
    fewer = batch.map(lambda value: value[kept])
    torch.testing.assert_close(pretext(encoders, fewer).loss, loss.loss)

    pretext = build("video", "text")
    encoders, batch = encoders_for(pretext), batch_for(pretext)
    batch["text"].samples[5] = 0
    outcome = pretext(encoders, batch)
    assert outcome.metrics["paired"] == 7 / 8
    assert outcome.metrics["silent"] == 0


@pytest.mark.parametrize("loss", ["info_nce", "mil_nce", "cpd"])
def test_a_batch_of_silence_teaches_nothing(loss):
    pretext = build("video", "audio", loss=loss)
    encoders, batch = encoders_for(pretext), batch_for(pretext)
    batch["audio"].samples.zero_()
    outcome = pretext(encoders, batch)
    outcome.loss.backward()
    assert outcome.loss == 0
    assert outcome.answers == {}
    for grad in gradients(pretext, *encoders.values()):
        assert not grad.any()
    pretext.after_step(encoders, batch.without_samples(), {**pretext.encode(encoders, batch)})
    assert pretext.level.isnan().all()


def test_the_temperature_is_learnt_within_bounds_and_fixed_for_cpd():
    pretext = build()
    encoders, batch = encoders_for(pretext), batch_for(pretext)
    pretext(encoders, batch).loss.backward()
    assert pretext.scale.grad.abs() > 0
    with torch.no_grad():
        pretext.scale.fill_(7.0)
    pretext.after_step(encoders, batch.without_samples(), {})
    assert pretext.scale.exp().item() == pytest.approx(100)
    assert not build(loss="cpd").scale.requires_grad


def test_the_constant_of_cpd_is_that_of_the_first_step():
    pretext = build(loss="cpd")
    encoders = encoders_for(pretext)
    levels = []
    for seed in range(2):
        batch = batch_for(pretext, seed=seed, rows=np.arange(8) + 8 * seed)
        features = pretext.encode(encoders, batch)
        scale = torch.tensor(1 / 0.07)
        there = torch.ones(8, 1, dtype=torch.bool)
        scores = compare(features["first"], features["second"], there, torch.arange(8), scale)
        levels.append(noise_level(scores))
        pretext.after_step(encoders, batch.without_samples(), features)
    torch.testing.assert_close(pretext.level, levels[0])
    assert not torch.allclose(levels[0], levels[1])


# -- mined negatives -----------------------------------------------------------------------------


def test_mined_negatives_are_near_and_never_of_the_batch():
    pretext = build(mined=3)
    g = torch.Generator().manual_seed(0)
    stored = F.normalize(torch.randn(2, 50, 256, generator=g), dim=2)
    seen = torch.arange(50) < 30
    pretext.bank.remember(stored[0], stored[1], seen, torch.arange(50))
    recording = torch.arange(5)
    first, second = stored[:, recording] + 0.1
    centre = F.normalize(stored.sum(0), dim=1)
    near = F.normalize(first + second, dim=1) @ centre.T
    near[:, :5] = near[:, 30:] = -9
    six = near.topk(6, dim=1).indices
    chosen = set()
    for seed in range(20):
        g.manual_seed(seed)
        mined = pretext.bank.nearest(first, second, recording, 3, g)
        assert mined.allowed.all()
        for i in range(5):
            rows = [int((stored[0] == v).all(1).nonzero()) for v in mined.first[i]]
            assert len(set(rows)) == 3
            assert set(rows) <= set(six[i].tolist())
            assert torch.equal(mined.second[i], stored[1, rows])
            chosen |= {(i, row) for row in rows}
    assert len(chosen) == 30  # all six of each have their turn


def test_the_bank_keeps_a_recording_of_which_one_sentence_has_words():
    pretext = build("video", "text", sentences=2, mined=1, width=2)
    first = F.normalize(torch.tensor([[1.0, 2.0], [3.0, 1.0], [1.0, 1.0]]), dim=1)
    second = torch.eye(2).expand(3, 2, 2)
    there = torch.tensor([[True, True], [False, True], [False, False]])
    features = {"first": first, "second": second, "there": there}
    pretext.after_step({}, Batch({}, torch.tensor([4, 7, 9]), torch.Generator()), features)
    assert pretext.bank.seen.nonzero()[:, 0].tolist() == [4, 7]
    torch.testing.assert_close(pretext.bank.first[[4, 7]], first[:2])
    want = torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 1.0]])
    torch.testing.assert_close(pretext.bank.second[[4, 7]], want)


def test_a_bank_that_knows_too_few_says_so():
    pretext = build(mined=4, recordings=6)
    vectors = F.normalize(torch.randn(6, 256, generator=torch.Generator().manual_seed(0)), dim=1)
    there = torch.tensor([True, False, True, True, False, True])
    pretext.bank.remember(vectors, vectors, there, torch.arange(6))
    mined = pretext.bank.nearest(
        vectors[:1], vectors[:1], torch.tensor([0]), 4, torch.Generator().manual_seed(0)
    )
    assert mined.allowed.sum() == 3
    rows = {int((vectors == v).all(1).nonzero()) for v in mined.first[0][mined.allowed[0]]}
    assert rows == {2, 3, 5}


def test_mined_negatives_join_the_loss_in_training_alone():
    pretext, plain = build(mined=2), build()
    encoders, batch = encoders_for(pretext), batch_for(pretext)
    features = pretext.encode(encoders, batch)
    empty = pretext.ask(features, batch.without_samples())
    torch.testing.assert_close(empty.loss, plain.ask(features, batch.without_samples()).loss)
    other = batch_for(pretext, rows=np.arange(8, 16))
    elsewhere = pretext.encode(encoders, other)
    pretext.after_step(encoders, other.without_samples(), elsewhere)
    assert pretext.bank.seen.nonzero()[:, 0].tolist() == list(range(8, 16))
    batch.generator.manual_seed(5)
    outcome = pretext.ask(features, batch.without_samples())
    assert outcome.loss > empty.loss
    assert outcome.answers == empty.answers
    batch.generator.manual_seed(5)
    mined = pretext.bank.nearest(
        features["first"], features["second"][:, 0], batch.recording, 2, batch.generator
    )
    assert isinstance(mined, Mined)
    scores = compare(
        features["first"],
        features["second"],
        features["there"],
        batch.recording,
        torch.tensor(1 / 0.07),
        mined,
    )
    torch.testing.assert_close(outcome.loss, pair_nce(scores))
    pretext.eval()
    torch.testing.assert_close(pretext.ask(features, batch.without_samples()).loss, empty.loss)


def test_a_resumed_run_is_the_run_never_stopped():
    def start():
        pretext = build("video", "text", loss="cpd", sentences=2, mined=2)
        return pretext, encoders_for(pretext)

    def steps(pretext, encoders, seeds) -> list[float]:
        losses = []
        for seed in seeds:
            batch = batch_for(pretext, seed=seed, rows=np.arange(8) + 4 * seed)
            features = pretext.encode(encoders, batch)
            outcome = pretext.ask(features, batch.without_samples())
            outcome.loss.backward()
            with torch.no_grad():
                for module in (pretext, *encoders.values()):
                    for weight in module.parameters():
                        if weight.grad is not None:
                            weight -= 0.01 * weight.grad
                            weight.grad = None
            detached = {name: value.detach() for name, value in features.items()}
            pretext.after_step(encoders, batch.without_samples(), detached)
            losses.append(outcome.loss.item())
        return losses

    one, other = start(), start()
    steps(*one, range(3))
    other[0].load_state_dict(one[0].state_dict())
    for stream in other[1]:
        other[1][stream].load_state_dict(one[1][stream].state_dict())
    assert steps(*other, range(3, 6)) == steps(*one, range(3, 6))


# -- what it makes of a world --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("streams", "settings", "least"),
    [
        (("video", "audio"), {"overlap": True, "shortest": 0.5, "mined": 4}, 0.4),
        (("audio", "series"), {}, 0.1),  # the series shows half of the character
        (("video", "text"), {"loss": "cpd"}, 0.4),
        (("video", "text"), {"loss": "mil_nce", "sentences": 3}, 0.4),
    ],
)
def test_unseen_recordings_find_their_other_half(streams, settings, least):
    pretext = build(*streams, recordings=200, **settings)
    encoders = encoders_for(pretext)
    unseen = world(100, seed=77)
    first, second = pretext.first, pretext.second
    before = vectors(pretext, encoders, unseen)
    assert recall(before[first], before[second]) < 0.06  # chance is 0.01
    learn(pretext, encoders, world(200), steps=120)
    after = vectors(pretext, encoders, unseen)
    assert recall(after[first], after[second]) > least
    assert recall(after[second], after[first]) > least


def test_random_weights_answer_at_chance():
    pretext = build()
    batch = batch_for(pretext, count=200)
    with torch.no_grad():
        answers = pretext(encoders_for(pretext), batch).answers
    for answer in answers.values():
        assert answer.chance == pytest.approx(1 / 200)
        assert answer.accuracy < 0.05


# -- what it is given ----------------------------------------------------------------------------


def test_it_wants_the_first_two_streams_that_there_are():
    def wants(*there: str) -> list[str]:
        return Clip.wants(ClipConfig(), dict.fromkeys(there, 10))

    assert wants("text", "audio", "video") == ["video", "audio"]
    assert wants("text", "series") == ["series", "text"]
    assert wants("video") == []


def test_presets_are_settings_of_a_run():
    assert find("clip") is Clip
    for name in Clip.presets:
        settings = settle({"data": "x", "pretext": "clip", "preset": name})
        config = make(ClipConfig, settings.question, "question")
        pretext = build(*settings.stream, **settings.question)
        assert pretext.config == config or config.flip == 0.5
    settings = settle({"data": "x", "pretext": "clip", "preset": "milnce"})
    assert settings.stream == ("video", "text")
    assert settings.question == {"loss": "mil_nce", "sentences": 5}


def test_heads_are_handed_on():
    pretext = build("audio", "text", width=48)
    assert set(pretext.joint()) == {"audio", "text"}
    for head in pretext.joint().values():
        assert head.settings["dim"] == DIM
        assert head.settings["width"] == 48


def test_settings_that_contradict_each_other_are_named():
    with pytest.raises(ConfigError, match=r"two streams, not 3.*imagebind"):
        build("video", "audio", "series")
    with pytest.raises(ConfigError, match="Did you mean 'mil_nce'"):
        build(loss="milnce")
    with pytest.raises(ConfigError, match="none of video and audio is text"):
        build(sentences=3)
    with pytest.raises(ConfigError, match="shortest"):
        build(shortest=0.0)
    with pytest.raises(ConfigError, match=r"at least 0\.01"):
        build(temperature=0.001)
    with pytest.raises(ConfigError, match="mined at least 0"):
        build(mined=-1)
    assert math.isclose(build(temperature=0.01).scale.exp().item(), 100, rel_tol=1e-5)

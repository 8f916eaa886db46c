"""AV-HuBERT: its loss, what it hides and leaves out, its rounds, and that it is learnt."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mainspring.clips import NOTHING, ClipSpec, Extent, Timeline
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.logmel import LogMel
from mainspring.errors import ConfigError
from mainspring.pretexts.crossmodal.av_hubert import AvHubert, AvHubertConfig
from mainspring.pretexts.pretext import Batch, Views

RATE = 1600
CLIPS = {
    "video": ClipSpec(length=16, rate=12.5, size=4, crop=4),
    "audio": ClipSpec(length=100, rate=RATE),
}
SAMPLES = 2048  # 16 frames of 80 ms
SMALL = {"clusters": (6, 6), "every": 40, "gather": 4, "pool": 512, "width": 32, "final": 16}


class Colours(Encoder):
    """A small network on each picture by itself."""

    stream = "video"
    clip = ClipSpec(length=16)
    citation = "none"

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.dim = dim
        self.settings = {"dim": dim}
        self.layers = nn.Sequential(nn.Linear(3, dim), nn.ReLU(), nn.Linear(dim, dim))

    def tokens(self, samples, present=None):
        pixels = samples / 255 - 0.5
        if present is not None:
            pixels = pixels * present[:, :, None, None, None]
        return self.layers(pixels)


def ear() -> LogMel:
    return LogMel(rate=RATE, mels=16, window=0.05, hop=0.005, width=2)


def build(**settings) -> tuple[AvHubert, dict[str, Encoder]]:
    torch.manual_seed(0)
    encoders = {"video": Colours(), "audio": ear()}
    config = AvHubertConfig(**{**SMALL, **settings})
    pretext = AvHubert(CLIPS, {s: e.dim for s, e in encoders.items()}, 100, config)
    pretext.attach(encoders)
    return pretext, encoders


def world(count: int, rng: np.random.Generator, related: bool = True) -> tuple[np.ndarray, ...]:
    """Lamps that change colour every few frames, each colour with a tone of its own: 40 frames of
    4 by 4 pixels and their sound. Unrelated ones sound as another lamp would."""
    colours = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250], [240, 240, 240]])
    state = np.repeat(rng.integers(4, size=(count, 10)), 4, axis=1)
    film = np.tile(colours[state][:, :, None, None], (1, 1, 4, 4, 1))
    film = np.clip(film + rng.normal(0, 15, film.shape), 0, 255).astype(np.uint8)
    heard = state if related else np.roll(state, 1, axis=0)
    pitch = np.array([120.0, 240.0, 420.0, 640.0])[heard]
    phase = 2 * np.pi * np.cumsum(np.repeat(pitch, RATE * 2 // 25, axis=1), axis=1) / RATE
    return film, (0.3 * np.sin(phase) + rng.normal(0, 0.01, phase.shape)).astype(np.float32)


TIMELINE = Timeline({"video": Extent(40, 12.5), "audio": Extent(5120, float(RATE))})


def read(
    pretext: AvHubert,
    film: np.ndarray,
    sound: np.ndarray,
    rows: np.ndarray,
    rng: np.random.Generator,
    timelines: list[Timeline] | None = None,
) -> Batch:
    """What the loader would make of these rows."""
    draws = [pretext.draw(timelines[i] if timelines else TIMELINE, rng) for i in range(len(rows))]
    views = {}
    for stream, data in (("video", film), ("audio", sound)):
        clips = np.stack([draw[stream].clips for draw in draws])
        samples = np.stack([data[r][c] for r, c in zip(rows, clips, strict=True)])
        samples[clips == NOTHING] = 0
        views[stream] = Views(torch.from_numpy(samples), torch.from_numpy(clips != NOTHING), {})
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return Batch(views, torch.from_numpy(rows), generator)


def train(pretext, encoders, film, sound, steps, size=16):
    """A plain loop. Each answer's mean accuracy and chance over the last tenth of the steps."""
    rng = np.random.default_rng(0)
    weights = [w for m in (pretext, *encoders.values()) for w in m.parameters() if w.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=3e-3)
    late: dict[str, list[tuple[float, float]]] = {}
    metrics = []
    for step in range(steps):
        batch = read(pretext, film, sound, rng.choice(len(film), size, replace=False), rng)
        features = pretext.encode(encoders, batch)
        outcome = pretext.ask(features, batch.without_samples())
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
        detached = {k: v.detach() for k, v in features.items()}
        pretext.after_step(encoders, batch.without_samples(), detached)
        metrics.append({name: value.item() for name, value in outcome.metrics.items()})
        if step >= steps * 9 // 10:
            for name, answer in outcome.answers.items():
                late.setdefault(name, []).append((answer.accuracy.item(), answer.chance))
    return {name: np.mean(values, axis=0) for name, values in late.items()}, metrics


def some(pretext: AvHubert, count: int = 6, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    return read(pretext, *world(count, rng), np.arange(count), rng)


def fixed(**settings) -> tuple[AvHubert, dict[str, Encoder]]:
    """Nothing random, no batch statistics: all sound is hidden and all else is seen."""
    hidden = {"audio_span": 100.0, "video_mask": 0.0, "flip": 0.0, "both": 1.0, "dropout": 0.0}
    pretext, encoders = build(**{**hidden, **settings})
    encoders["audio"].eval()
    return pretext, encoders


def test_loss_is_the_equation_of_section_3_1():
    pretext, encoders = build(unmasked=0.3)
    batch = some(pretext)
    features = pretext.encode(encoders, batch)
    pretext.after_step(encoders, batch, {k: v.detach() for k, v in features.items()})
    outcome = pretext.ask(features, batch.without_samples())
    centres = pretext.clusters[0].centres.double()
    book = pretext.codebooks[0]
    words = book.words.detach().double()
    states = book.project(features["state"]).detach().double()
    total = weights = right = hidden = 0.0
    named = []
    for n in range(6):
        for t in range(16):
            described = features["described"][n, t].double()
            label = int(torch.stack([(described - c).norm() for c in centres]).argmin())
            state = states[n, t]
            logits = [float(state @ w / (state.norm() * w.norm())) / 0.1 for w in words]
            share = math.exp(logits[label]) / sum(math.exp(value) for value in logits)
            weight = 1.0 if features["hidden"][n, t] else 0.3
            total -= weight * math.log(share)
            weights += weight
            if features["hidden"][n, t]:
                named.append(logits.index(max(logits)))
                right += named[-1] == label
                hidden += 1
    assert outcome.loss.item() == pytest.approx(total / weights, rel=1e-4)
    counts = [int((features["given"] == code).sum()) for code in (3, 1, 2)]
    assert sum(counts) == 6
    every = torch.cat([features["hidden"][features["given"] == c].flatten() for c in (3, 1, 2)])
    shares = {"both": 3, "video_alone": 1, "sound_alone": 2}
    asked = {n: int(features["hidden"][features["given"] == c].sum()) for n, c in shares.items()}
    found = sum(a.accuracy.item() * asked[name] for name, a in outcome.answers.items())
    assert found == pytest.approx(right, abs=1e-3)
    assert int(every.sum()) == hidden
    share = np.unique(named, return_counts=True)[1] / len(named)
    perplexity = math.exp(-(share * np.log(share)).sum())
    assert outcome.metrics["clusters_named"].item() == pytest.approx(perplexity, rel=1e-4)


def test_chance_is_the_share_of_the_most_frequent_cluster():
    pretext, encoders = fixed(clusters=(6,))
    film, sound = world(8, np.random.default_rng(0))
    sound[:6] = sound[0]  # one recording many times over
    batch = read(pretext, film, sound, np.arange(8), np.random.default_rng(1))
    features = pretext.encode(encoders, batch)
    labels = pretext.clusters[0](features["described"].flatten(0, 1))
    chance = pretext.ask(features, batch.without_samples()).answers["both"].chance
    assert chance == pytest.approx(labels.bincount().max().item() / len(labels))


def test_streams_are_cut_at_the_same_seconds():
    pretext, _ = build()
    starts = set()
    for seed in range(200):
        draw = pretext.draw(TIMELINE, np.random.default_rng(seed))
        film, sound = draw["video"].clips[0], draw["audio"].clips[0]
        assert len(film) == 16
        assert len(sound) == SAMPLES == pretext.needs("audio")
        assert film[0] / 12.5 == pytest.approx(sound[0] / RATE)
        assert 0 <= film[0] <= film[-1] < 40
        assert 0 <= sound[0] <= sound[-1] < 5120
        starts.add(int(film[0]))
    assert starts == set(range(40 - 16 + 1))


def test_a_recording_may_lack_a_stream_or_have_too_little_of_it():
    pretext, _ = build()
    rng = np.random.default_rng(0)
    alone = pretext.draw(Timeline({"audio": Extent(5120, float(RATE))}), rng)
    assert (alone["video"].clips == NOTHING).all()
    assert alone["video"].clips.shape == (1, 16)
    short = {"video": Extent(40, 12.5), "audio": Extent(SAMPLES - 1, float(RATE))}
    seen = pretext.draw(Timeline(short), rng)
    assert (seen["audio"].clips == NOTHING).all()
    assert (np.diff(seen["video"].clips) == 1).all()
    assert AvHubert.wants(AvHubertConfig(), {"audio": 3, "video": 2}) == ["video", "audio"]
    assert AvHubert.wants(AvHubertConfig(), {"audio": 3}) == []


@pytest.mark.parametrize("step", [0, 40])
def test_what_is_absent_or_silent_has_no_influence(step):
    """Not on the loss, not on batch statistics, whatever stands in its place."""
    values = []
    for filling in (0.0, 1e-5, None):
        pretext, encoders = build()
        pretext.step += step  # in the second round the network's features are clustered
        batch = some(pretext)
        sound, film = batch["audio"], batch["video"]
        film.present[0], film.samples[0] = False, 77
        if filling is None:
            sound.present[1:3], sound.samples[1:3] = False, 0.5
        else:
            sound.samples[1:3] = filling * torch.sin(torch.arange(SAMPLES))
        features = pretext.encode(encoders, batch)
        outcome = pretext.ask(features, batch.without_samples())
        outcome.loss.backward()
        values.append((outcome.loss.item(), encoders["audio"].norm.running_mean.clone()))
        assert features["given"][:3].tolist() == [2, 1, 1]
        assert features["usable"].tolist() == [True, step > 0, step > 0, True, True, True]
        silent = 0 if filling is None else 2 / 6
        assert outcome.metrics["silent"].item() == pytest.approx(silent)
    for loss, mean in values[1:]:
        assert loss == pytest.approx(values[0][0], rel=1e-5)
        torch.testing.assert_close(mean, values[0][1])


def test_without_any_sound_nothing_is_asked_and_nothing_breaks():
    pretext, encoders = build()
    batch = some(pretext)
    batch["audio"].samples.zero_()
    features = pretext.encode(encoders, batch)
    outcome = pretext.ask(features, batch.without_samples())
    outcome.loss.backward()
    pretext.after_step(encoders, batch, {k: v.detach() for k, v in features.items()})
    assert outcome.loss.item() == 0
    assert outcome.answers == {}
    assert int(pretext.clusters[0].used) == 0


def test_modality_dropout_has_the_shares_of_section_3_3():
    pretext, _ = build(both=0.5, sound=0.75)
    there = {stream: torch.ones(20_000, dtype=torch.bool) for stream in ("video", "audio")}
    given = pretext.leave_out(there, torch.Generator().manual_seed(0))
    code = given["video"] + 2 * given["audio"].long()
    share = code.bincount(minlength=4) / 20_000
    torch.testing.assert_close(share, torch.tensor([0, 0.125, 0.375, 0.5]), atol=0.01, rtol=0)


def test_what_is_hidden_cannot_be_seen_or_heard():
    """All sound is hidden here: neither the state nor a gradient knows of it, but its mean."""
    pretext, encoders = fixed()
    batch = some(pretext)
    whole = pretext.encode(encoders, batch)
    batch["audio"].samples = batch["audio"].samples.flip(2)
    other = pretext.encode(encoders, batch)
    assert whole["hidden"].all()
    torch.testing.assert_close(whole["state"], other["state"])
    assert not torch.allclose(whole["described"], other["described"])


@pytest.mark.parametrize("substitute", [True, False])
def test_hidden_pictures_are_replaced(substitute):
    settings = {"audio_mask": 0.0, "video_mask": 1.5, "video_span": 0.24, "flip": 0.0}
    pretext, encoders = build(**settings, substitute=substitute, both=1.0)
    seen = []
    pictures = encoders["video"].tokens
    encoders["video"].tokens = lambda film, present=None: (
        seen.append((film, present)) or pictures(film, present)
    )
    batch = some(pretext)
    hidden = pretext.encode(encoders, batch)["hidden"]
    ((film, present),) = seen
    before = batch["video"].samples[:, 0]
    assert 0.4 < hidden.float().mean() < 1
    if substitute:
        same = (film == before).flatten(2).all(2)
        assert same[~hidden].all()
        assert not same[hidden].any()
        frames = {picture.numpy().tobytes() for clip in before for picture in clip}
        assert all(picture.numpy().tobytes() in frames for clip in film for picture in clip)
    else:
        assert (film == before).all()
        assert (present == ~hidden).all()


def test_micro_batches_equal_the_whole_batch():
    pretext, encoders = fixed(unmasked=0.5)
    batch = some(pretext)
    parts = batch.split(2)
    grads = []
    for share in ([batch], parts):
        features = [pretext.encode(encoders, part) for part in share]
        joined = {k: torch.cat([f[k] for f in features]) for k in features[0]}
        outcome = pretext.ask(joined, batch.without_samples())
        outcome.loss.backward()
        weights = [w for m in (pretext, *encoders.values()) for w in m.parameters()]
        grads.append([w.grad.clone() for w in weights if w.grad is not None])
        for weight in weights:
            weight.grad = None
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("step", [0, 40])
def test_half_precision_leaves_targets_and_loss_exact(step):
    exact, rough = [], []
    for found, wanted in ((exact, False), (rough, True)):
        pretext, encoders = fixed()
        pretext.step += step
        batch = some(pretext)
        with torch.autocast("cpu", torch.bfloat16, enabled=wanted):
            features = pretext.encode(encoders, batch)
        found.extend([features["described"], pretext.ask(features, batch).loss])
    assert exact[0].dtype == rough[0].dtype == rough[1].dtype == torch.float32
    if step == 0:  # later targets are what a network computes in half precision
        torch.testing.assert_close(rough[0], exact[0])
        torch.testing.assert_close(rough[1], exact[1], rtol=0.05, atol=0)


def steps(pretext, encoders, numbers) -> list[float]:
    losses = []
    for number in numbers:
        torch.manual_seed(number)
        batch = some(pretext, seed=number)
        features = pretext.encode(encoders, batch)
        outcome = pretext.ask(features, batch.without_samples())
        outcome.loss.backward()
        with torch.no_grad():
            for module in (pretext, *encoders.values()):
                for weight in module.parameters():
                    if weight.grad is not None:
                        weight -= 0.01 * weight.grad
                        weight.grad = None
            detached = {k: v.detach() for k, v in features.items()}
            pretext.after_step(encoders, batch.without_samples(), detached)
        losses.append(outcome.loss.item())
    return losses


@pytest.mark.parametrize("stop", [2, 5, 7])
def test_a_resumed_run_is_the_run_never_stopped(stop):
    """Stopped while frames are gathered, at the turn of a round, and in the next."""
    settings = {"every": 5, "gather": 3, "pool": 60}
    one, other = build(**settings), build(**settings)
    steps(*one, range(stop))
    for mine, theirs in zip(
        (other[0], *other[1].values()), (one[0], *one[1].values()), strict=True
    ):
        mine.load_state_dict(theirs.state_dict())
    assert steps(*other, range(stop, 9)) == steps(*one, range(stop, 9))


def test_a_round_takes_its_targets_from_the_network_of_the_round_before():
    pretext, encoders = build(every=5, gather=3, pool=60)
    steps(pretext, encoders, range(5))
    assert pretext.round == 1
    teacher = pretext.teacher["fusion"].state_dict()
    for name, value in pretext.fusion.state_dict().items():
        torch.testing.assert_close(teacher[name], value)
    before = pretext.clusters[0].centres.clone()
    batch = some(pretext)
    targets = pretext.encode(encoders, batch)["described"]
    steps(pretext, encoders, range(5, 12))
    torch.testing.assert_close(pretext.encode(encoders, batch)["described"], targets)
    torch.testing.assert_close(pretext.clusters[0].centres, before)
    assert int(pretext.clusters[1].used) == 6
    assert not any(w.requires_grad for w in pretext.teacher.parameters())


def test_later_targets_are_made_of_what_a_recording_has():
    pretext, encoders = fixed()
    pretext.step += 40
    batch = some(pretext)
    batch["audio"].present[0] = batch["video"].present[1] = False
    before = pretext.encode(encoders, batch)["described"]
    batch["video"].samples = 255 - batch["video"].samples
    changed = (pretext.encode(encoders, batch)["described"] != before).any(2).any(1)
    assert changed.tolist() == [True, False, True, True, True, True]


def test_the_network_learns_where_it_should():
    pretext, encoders = build(clusters=(6,))
    pretext(encoders, some(pretext)).loss.backward()
    for module in (pretext, *encoders.values()):
        for name, weight in module.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.any(), name


def test_a_worker_can_draw_without_the_weights():
    pretext, _ = build()
    drawn = pretext.light().draw(TIMELINE, np.random.default_rng(1))
    expected = pretext.draw(TIMELINE, np.random.default_rng(1))
    assert all((drawn[s].clips == expected[s].clips).all() for s in ("video", "audio"))


def test_settings_that_cannot_be_meant_are_named():
    with pytest.raises(ConfigError, match="Did you mean 'concat'"):
        build(fusion="conct")
    with pytest.raises(ConfigError, match="both is 2"):
        build(both=2.0)
    with pytest.raises(ConfigError, match="nothing is hidden"):
        build(audio_mask=0.0, video_mask=0.0)
    with pytest.raises(ConfigError, match="gather"):
        build(every=3)
    with pytest.raises(ConfigError, match="multiple of heads"):
        build(width=34)
    with pytest.raises(ConfigError, match="multiple of heads, 0"):
        build(heads=0)
    with pytest.raises(ConfigError, match=r"dropout 1\.5"):
        build(dropout=1.5)
    with pytest.raises(ConfigError, match=r"temperature -0\.1"):
        build(temperature=-0.1)
    with pytest.raises(ConfigError, match="final 0"):
        build(final=0)
    with pytest.raises(ConfigError, match="needs video and audio together, not video alone"):
        AvHubert({"video": CLIPS["video"]}, {"video": 8}, 10, AvHubertConfig())
    with pytest.raises(ConfigError, match=r"clip\.video\.rate"):
        AvHubert({**CLIPS, "video": ClipSpec(16)}, {"video": 8, "audio": 8}, 9, AvHubertConfig())
    pretext, encoders = build()
    with pytest.raises(ConfigError, match="use the encoder logmel"):
        pretext.attach({**encoders, "audio": Colours()})


def test_sound_is_told_from_video_where_they_are_related():
    film, sound = world(200, np.random.default_rng(1))
    answers, metrics = train(*build(clusters=(6, 6), every=80), film, sound, 130)
    for name in ("both", "video_alone", "sound_alone"):
        accuracy, chance = answers[name]
        assert accuracy > chance + 0.1, name
    assert [metrics[0]["round"], metrics[-1]["round"]] == [0, 1]
    assert metrics[-1]["clusters_used"] > 3


def test_sound_is_not_told_from_video_where_they_are_not():
    film, sound = world(200, np.random.default_rng(1), related=False)
    answers, _ = train(*build(clusters=(6,)), film, sound, 60)
    accuracy, chance = answers["video_alone"]
    assert accuracy < chance + 0.06

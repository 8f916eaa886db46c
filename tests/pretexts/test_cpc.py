"""Cpc: its draws, its arithmetic, what takes no part, and that the future is told from others."""

import math

import numpy as np
import pytest
import torch
from tiny import TinyEncoder, assert_parts_equal_the_whole, timeline

from mainspring.clips import ClipSpec
from mainspring.encoders.cpc_series import CpcSeries
from mainspring.encoders.dilated import Dilated
from mainspring.errors import ConfigError
from mainspring.pretexts.autoregressive.cpc import Cpc, CpcConfig, Negatives, distinct
from mainspring.pretexts.catalog import find
from mainspring.pretexts.pretext import Batch, Views


def small(**settings) -> CpcSeries:
    torch.manual_seed(0)
    return CpcSeries(**{"channels": 1, "width": 16, "dim": 24, **settings})


def build(encoder=None, length: int = 48, **settings) -> Cpc:
    encoder = encoder or small()
    spec = ClipSpec(length=length)
    torch.manual_seed(1)
    pretext = Cpc({"series": spec}, {"series": encoder.dim}, 10, CpcConfig(**settings))
    pretext.attach({"series": encoder})
    return pretext


def read(pretext: Cpc, world: list[np.ndarray], rows, seed: int = 0) -> Batch:
    """What the loader would make of recordings of any length."""
    rng = np.random.default_rng(seed)
    clips = [pretext.draw(timeline(len(world[r])), rng)["series"].clips for r in rows]
    samples = [
        np.where(c[..., None] < 0, np.nan, world[r][c]) for r, c in zip(rows, clips, strict=True)
    ]
    views = Views(
        torch.from_numpy(np.stack(samples).astype(np.float32)),
        torch.from_numpy(np.stack(clips) >= 0),
        {},
    )
    return Batch({"series": views}, torch.tensor(rows), torch.Generator().manual_seed(seed))


def noise(lengths, channels: int = 1, missing: float = 0.0) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    world = [rng.normal(size=(length, channels)) for length in lengths]
    for series in world:
        series[rng.random(series.shape) < missing] = np.nan
    return world


# -- drawing --------------------------------------------------------------------------------------


def test_a_clip_is_a_window_or_the_whole_recording_and_padding():
    pretext = build()
    for seed in range(50):
        (clip,) = pretext.draw(timeline(60), np.random.default_rng(seed))["series"].clips
        assert (np.diff(clip) == 1).all()
        assert 0 <= clip[0] <= 12
    (clip,) = pretext.draw(timeline(7), np.random.default_rng(0))["series"].clips
    assert clip.tolist() == [*range(7), *[-1] * 41]
    assert pretext.needs("series") == 2
    assert find("cpc") is Cpc


def test_distinct_places_are_allowed_uniform_and_without_repetition():
    allowed = torch.tensor([[True] * 6 + [False] * 2, [False] * 7 + [True]])
    counts = torch.zeros(8)
    for seed in range(600):
        chosen = distinct(allowed, 3, torch.Generator().manual_seed(seed))
        assert chosen.there.tolist() == [[True] * 3, [True, False, False]]
        assert len(set(chosen.place[0].tolist())) == 3
        assert chosen.place[1, 0] == 7
        counts[chosen.place[0]] += 1
    torch.testing.assert_close(counts[:6] / 600, torch.full((6,), 0.5), atol=0.07, rtol=0)
    assert not counts[6:].any()


def test_mix_says_where_negatives_come_from():
    latents, known = torch.randn(4, 30, 5), torch.ones(4, 30, dtype=torch.bool)
    known[:, 25:] = False
    recording = torch.tensor([7, 8, 7, 9])  # one recording stands in the batch twice
    owner = recording[:, None].expand(4, 30)
    for mix, own in ((0.0, 0), (0.25, 4), (1.0, 16)):
        pretext = build(negatives=16, mix=mix)
        drawn = pretext.negatives(latents, known, recording, torch.Generator())
        assert drawn.there.all()
        assert ((drawn.place >= 0).sum(1) == own).all()
        for i in range(4):
            for vector, place in zip(drawn.latents[i], drawn.place[i].tolist(), strict=True):
                row, token = ((latents == vector).all(-1)).nonzero()[0].tolist()
                assert known[row, token]
                if place >= 0:
                    assert (row, token) == (i, place)
                else:
                    assert owner[row, token] != recording[i]


# -- arithmetic -----------------------------------------------------------------------------------


def slow(pretext: Cpc, features, drawn: Negatives) -> tuple[float, dict[str, tuple[float, float]]]:
    """Equations 3 and 4 in float64, one question at a time."""
    latents, context = (features[name].detach().double() for name in ("latents", "context"))
    known = features["known"]
    maps = pretext.foretell.weight.detach().double().unflatten(0, (pretext.config.steps, -1))
    width = latents.shape[2]
    losses, answers = [], {}
    for k in range(1, pretext.config.steps + 1):
        terms, right, luck = [], [], []
        for i in range(len(latents)):
            for t in range(latents.shape[1] - k):
                if not known[i, t + k] or not known[i, : t + 1].any():
                    continue
                guess = maps[k - 1] @ context[i, t]
                true = float(guess @ latents[i, t + k]) / math.sqrt(width)
                false = [
                    float(guess @ drawn.latents[i, n].detach().double()) / math.sqrt(width)
                    for n in range(drawn.place.shape[1])
                    if drawn.there[i, n] and drawn.place[i, n] != t + k
                ]
                if not false:
                    continue
                total = sum(math.exp(score) for score in [true, *false])
                terms.append(-math.log(math.exp(true) / total))
                right.append(all(true > score for score in false))
                luck.append(1 / (1 + len(false)))
        if terms:
            losses.append(np.mean(terms))
            answers[f"step_{k}"] = (np.mean(right), np.mean(luck))
    return float(np.mean(losses)), answers


@pytest.mark.parametrize("kind", ["cpc_series", "dilated"])
@pytest.mark.parametrize("mix", [0.0, 0.4, 1.0])
def test_the_loss_equals_a_slow_float64_reference(mix, kind):
    encoder = small(channels=2) if kind == "cpc_series" else Dilated(2, 8, 3, 12, causal=True)
    pretext = build(encoder, steps=5, negatives=10, mix=mix)
    world = noise([48, 60, 9, 30, 2], channels=2, missing=0.3)
    world[1][:8] = np.nan  # begins unseen
    batch = read(pretext, world, [0, 1, 2, 3, 4, 0])
    features = pretext.encode({"series": encoder}, batch)
    drawn = pretext.negatives(
        features["latents"], features["known"], batch.recording, torch.Generator().manual_seed(0)
    )
    want, answers = slow(pretext, features, drawn)
    batch.generator.manual_seed(0)
    got = pretext.ask(features, batch.without_samples())
    assert float(got.loss.detach()) == pytest.approx(want, rel=1e-5)
    assert set(got.answers) == set(answers)
    for name, (accuracy, chance) in answers.items():
        assert float(got.answers[name].accuracy) == pytest.approx(accuracy, abs=1e-6)
        assert got.answers[name].chance == pytest.approx(chance, abs=1e-6)


def test_steps_that_no_recording_reaches_weigh_nothing():
    encoder = Dilated(1, 8, 3, 12, causal=True)
    pretext = build(encoder, steps=5, negatives=10, mix=0.0)
    batch = read(pretext, noise([4, 3, 4]), [0, 1, 2])
    features = pretext.encode({"series": encoder}, batch)
    batch.generator.manual_seed(0)
    drawn = pretext.negatives(
        features["latents"], features["known"], batch.recording, torch.Generator().manual_seed(0)
    )
    want, _ = slow(pretext, features, drawn)
    got = pretext.ask(features, batch.without_samples())
    assert set(got.answers) == {"step_1", "step_2", "step_3"}
    assert float(got.loss.detach()) == pytest.approx(want, rel=1e-5)


def test_a_negative_is_never_the_true_latent():
    # Every latent of the series is drawn, so each must leave the question it answers.
    pretext = build(steps=3, negatives=12, mix=1.0)
    latents, known = torch.randn(2, 12, 16), torch.ones(2, 12, dtype=torch.bool)
    drawn = pretext.negatives(latents, known, torch.arange(2), torch.Generator())
    right, wrong, asked = pretext.scores(latents, torch.randn(2, 12, 24), known, drawn)
    for i, t, k in asked.nonzero().tolist():
        assert int((wrong[i, t, k] == -torch.inf).sum()) == 1
        assert not (wrong[i, t, k] - right[i, t, k]).abs().min() < 1e-6


def test_contexts_without_meaning_answer_by_chance():
    pretext = build(steps=4, negatives=9)
    features = {
        "latents": torch.randn(40, 30, 16),
        "context": torch.randn(40, 30, 24),
        "known": torch.ones(40, 30, dtype=torch.bool),
        "embedding": torch.randn(40, 24),
    }
    outcome = pretext.ask(features, Batch({}, torch.arange(40), torch.Generator()))
    for answer in outcome.answers.values():
        assert answer.chance == pytest.approx(0.1, abs=0.003)
        assert float(answer.accuracy) == pytest.approx(answer.chance, abs=0.03)
    collapsed = {**features, "latents": torch.ones(40, 30, 16)}
    outcome = pretext.ask(collapsed, Batch({}, torch.arange(40), torch.Generator()))
    assert not any(float(answer.accuracy) for answer in outcome.answers.values())
    assert float(outcome.loss.detach()) == pytest.approx(math.log(10), abs=0.02)


# -- what takes no part ---------------------------------------------------------------------------


def test_padding_takes_no_part():
    encoder, world = small(), noise([30, 17, 24, 9])
    losses = []
    for length in (30, 47):
        pretext = build(encoder, length=length, steps=3, negatives=100)
        outcome = pretext({"series": encoder}, read(pretext, world, [0, 1, 2, 3]))
        losses.append(
            (float(outcome.loss.detach()), {k: v.chance for k, v in outcome.answers.items()})
        )
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)  # all there are were drawn
    assert losses[0][1] == pytest.approx(losses[1][1])


def test_what_was_never_observed_is_neither_asked_for_nor_a_negative():
    encoder, world = small(), noise([40] * 3)
    world[0][12:24] = np.nan
    pretext = build(encoder, length=40, negatives=64)
    features = pretext.encode({"series": encoder}, read(pretext, world, [0, 1, 2]))
    assert features["known"][0].tolist() == [True] * 3 + [False] * 3 + [True] * 4
    assert features["known"][1:].all()
    hidden = features["latents"].detach().requires_grad_()
    batch = Batch({}, torch.arange(3), torch.Generator())
    pretext.ask({**features, "latents": hidden}, batch).loss.backward()
    assert not hidden.grad[0, 3:6].any()
    assert hidden.grad[0, 6:].any()


@pytest.mark.parametrize("world", [noise([40] * 3, missing=1.0), noise([2] * 3)])
def test_nothing_to_ask_leaves_a_finite_loss(world):
    encoder = small()
    pretext = build(encoder)
    outcome = pretext({"series": encoder}, read(pretext, world, [0, 1, 2]))
    outcome.loss.backward()
    assert float(outcome.loss.detach()) == 0
    assert not outcome.answers


def test_micro_batches_equal_the_whole_batch():
    encoder = small()
    pretext = build(encoder, steps=4, negatives=12)
    batch = read(pretext, noise([48, 30, 60, 11, 48, 20], missing=0.2), list(range(6)))
    encoders = {"series": encoder}
    assert_parts_equal_the_whole(pretext, encoders, batch)


def test_what_cannot_be_is_named():
    for encoder in (TinyEncoder(), Dilated(1, 8, 2, 12)):
        with pytest.raises(ConfigError, match=r"looks back only .*Use encoder cpc_series, or dila"):
            build(encoder)
    with pytest.raises(ConfigError, match="steps is 0"):
        build(steps=0)
    with pytest.raises(ConfigError, match="negatives 0"):
        build(negatives=0)
    with pytest.raises(ConfigError, match=r"mix is 1\.5; it must lie between 0 and 1"):
        build(mix=1.5)
    with pytest.raises(ConfigError, match="Cpc reads series, not audio"):
        Cpc({"audio": ClipSpec(9)}, {"audio": 8}, 10, CpcConfig())


# -- learning -------------------------------------------------------------------------------------


def swings(count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Sines of any period and phase in two channels, noisy, with gaps, 60 to 100 steps long."""
    world = []
    for length in rng.integers(60, 101, count):
        period, phase = rng.uniform(8, 24), rng.uniform(0, 1, 2)
        wave = np.sin(2 * np.pi * (np.arange(length)[:, None] / period + phase))
        wave = wave + rng.normal(0, 0.1, wave.shape)
        wave[rng.random(wave.shape) < 0.05] = np.nan
        world.append(wave)
    return world


@pytest.mark.parametrize("kind", ["cpc_series", "dilated"])
def test_the_future_is_told_from_the_same_series_and_others(kind):
    torch.manual_seed(0)
    kinds = {"cpc_series": CpcSeries(2, 32, 48), "dilated": Dilated(2, 16, 4, 48, causal=True)}
    encoder = kinds[kind]
    pretext = build(encoder, length=96, steps=4, negatives=15)
    rng = np.random.default_rng(0)
    world = swings(200, rng)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *pretext.parameters()], lr=3e-3)
    for step in range(80):
        rows = rng.choice(160, 24, replace=False).tolist()
        outcome = pretext({"series": encoder}, read(pretext, world, rows, step))
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
    with torch.no_grad():
        held = pretext({"series": encoder}, read(pretext, world, list(range(160, 200)), 999))
    for name, answer in held.answers.items():
        assert answer.chance < 0.08
        assert float(answer.accuracy) > 3 * answer.chance, name
    assert held.embedding.shape == (40, 48)

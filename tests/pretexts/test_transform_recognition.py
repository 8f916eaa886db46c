"""Transformation recognition: what is done to whom, who is asked, and that changes are learnt."""

import numpy as np
import pytest
import torch
from tiny import part, read, timeline

from mainspring.augment import warps
from mainspring.clips import ClipSpec
from mainspring.encoders.dilated import Dilated
from mainspring.errors import ConfigError
from mainspring.pretexts.pretext import Batch, Views
from mainspring.pretexts.recognition.transform_recognition import (
    TransformRecognition,
    TransformRecognitionConfig,
)

TIME = 50
ALL = TransformRecognitionConfig().changes


def build(length: int = TIME, stride: int = 1, dim: int = 16, **settings) -> TransformRecognition:
    torch.manual_seed(0)
    spec = ClipSpec(length=length, stride=stride)
    config = TransformRecognitionConfig(**settings)
    return TransformRecognition({"series": spec}, {"series": dim}, 10, config)


def encoder(channels: int = 2, **settings) -> Dilated:
    torch.manual_seed(0)
    return Dilated(channels, **{"width": 8, "depth": 3, "dim": 16} | settings)


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def saws(count: int = 64, channels: int = 2, length: int = TIME, seed: int = 0) -> torch.Tensor:
    """Teeth that rise slowly and fall at once, in odd units: they have a direction, an upside, and
    a pace."""
    rng = np.random.default_rng(seed)
    period, phase = rng.uniform(9, 11, (count, 1, 1)), rng.random((count, 1, channels))
    wave = ((np.arange(length)[:, None] / period + phase) % 1) ** 2
    wave = (wave + rng.normal(0, 0.05, wave.shape)) * rng.uniform(1, 100, (count, 1, 1))
    return torch.from_numpy(wave.astype(np.float32))


def batch_of(samples: torch.Tensor, change: torch.Tensor, extent: torch.Tensor) -> Batch:
    present = torch.arange(samples.shape[1]) < extent[:, None]
    views = Views(samples[:, None], present[:, None], {"change": change[:, None]})
    return Batch({"series": views}, torch.arange(len(samples)), dice())


# -- what is looked at ----------------------------------------------------------------------------


def test_every_change_is_drawn_as_often_and_short_recordings_are_padded():
    pretext = build(stride=2)
    draws = [pretext.draw(timeline(60), np.random.default_rng(s))["series"] for s in range(1600)]
    share = np.bincount([int(d.factors["change"][0]) for d in draws]) / 1600
    np.testing.assert_allclose(share, 1 / 8, atol=0.03)
    assert draws[0].clips[0].tolist() == [*range(0, 60, 2), *[-1] * 20]
    assert pretext.needs("series") == 15
    long = [pretext.draw(timeline(101), np.random.default_rng(s))["series"] for s in range(40)]
    assert {int(d.clips[0, 0]) for d in long} == {0, 1, 2}


# -- what is done ---------------------------------------------------------------------------------


def test_each_series_gets_the_change_of_its_own_number():
    pretext, samples = build(between=False), saws()
    change, extent = torch.arange(64) % 8, torch.full((64,), TIME)
    changed, asked = pretext.change(samples, extent, change, dice())
    assert asked.all()
    rows = {name: change == index for index, name in enumerate(pretext.names)}
    assert torch.equal(changed[rows["none"]], samples[rows["none"]])
    assert torch.equal(changed[rows["reverse"]], samples[rows["reverse"]].flip(1))
    torch.testing.assert_close(changed[rows["negate"]], warps.negate(samples[rows["negate"]]))
    for name in ("permute", "reverse"):
        ordered = changed[rows[name]].sort(1).values
        assert torch.equal(ordered, samples[rows[name]].sort(1).values)
    noise = (changed - samples)[rows["jitter"]] / warps.spread(samples)[rows["jitter"]]
    assert float(noise.std()) == pytest.approx(0.2, abs=0.02)
    for name in ("scale", "warp", "slice"):
        assert (changed[rows[name]] != samples[rows[name]]).any(2).any(1).all()


def test_the_sizes_of_changes_are_those_of_the_settings():
    ramp = torch.arange(TIME).float().repeat(200, 1)[:, :, None]

    def changed(name: str, **settings) -> torch.Tensor:
        pretext = build(changes=(name,), between=False, **settings)
        return pretext.change(ramp, torch.full((200,), TIME), torch.ones(200).long(), dice())[0]

    for pieces in (2, 6):
        jumps = (changed("permute", pieces=pieces).diff(dim=1) != 1).sum((1, 2))
        assert int(jumps.max()) == pieces - 1
    for keep in (0.2, 0.8):
        kept = changed("slice", keep=keep).diff(dim=1).mean((1, 2))
        assert keep - 1e-4 < float(kept.min()) < keep + 0.1
        assert float(kept.max()) < (1 + keep) / 2 + 1e-4
    level = ramp.mean(1, keepdim=True)
    for scale in (1.2, 5.0):
        gain = ((changed("scale", scale=scale) - level) / (ramp - level)).amax()
        assert scale**0.5 < float(gain) < scale * 1.001
    assert (changed("warp", warp=0.02) - ramp).abs().amax() < 2
    assert (changed("warp", warp=1.0) - ramp).abs().amax() > 10


def test_between_reads_unchanged_series_between_samples_too():
    samples = saws(8)
    extent, none = torch.full((8,), TIME), torch.zeros(8, dtype=torch.int64)
    changed, asked = build().change(samples, extent, none, dice())
    assert asked.all()
    by = torch.rand(8, generator=dice()) - 0.5
    for row in range(8):
        place = np.clip(np.arange(TIME) + float(by[row]), 0, TIME - 1)
        want = np.interp(place, np.arange(TIME), samples[row, :, 0])
        np.testing.assert_allclose(changed[row, :, 0], want, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("between", [True, False])
def test_missing_values_and_padding_do_not_spread(between):
    pretext = build(between=between)
    samples, change = saws(400), torch.arange(400) % 8
    extent = torch.tensor([TIME, 30, 9, 1]).repeat_interleave(100)
    samples[torch.rand(samples.shape, generator=dice(1)) < 0.3] = torch.nan
    samples[torch.arange(TIME) >= extent[:, None]] = torch.nan
    changed, _ = pretext.change(samples, extent, change, dice())
    assert not changed.isinf().any()
    for index, name in enumerate(pretext.names):
        whole = (change == index) & (extent == TIME)
        assert float(changed[whole].isnan().float().mean()) == pytest.approx(0.3, abs=0.05), name
    assert changed[torch.arange(TIME) >= extent[:, None]].isnan().all()


def test_what_lies_in_padding_is_never_seen():
    pretext, encoders = build(), {"series": encoder()}
    change, extent = torch.arange(32) % 8, torch.full((32,), 33)
    features = []
    for filling in (torch.nan, 0.0, 1e5):
        samples = saws(32)
        samples[:, 33:] = filling
        features.append(pretext.encode(encoders, batch_of(samples, change, extent)))
    for other in features[1:]:
        for name, value in features[0].items():
            assert torch.equal(value, other[name])


def test_padding_does_not_change_what_is_done():
    pretext = build(changes=("negate", "reverse"), between=False)
    short, extent = saws(9, length=30), torch.full((9,), 30)
    padded = torch.cat([short, torch.full((9, 20, 2), torch.nan)], dim=1)
    change = torch.arange(9) % 3
    plain, _ = pretext.change(short, extent, change, dice())
    other, _ = pretext.change(padded, extent, change, dice())
    torch.testing.assert_close(other[:, :30], plain)


def test_a_normalising_encoder_sees_the_scaling():
    samples, extent = saws(8), torch.full((8,), TIME)
    pretext = build(changes=("scale",), between=False)
    changed, _ = pretext.change(samples, extent, torch.ones(8, dtype=torch.int64), dice())
    seen = encoder().prepare(changed) - encoder().prepare(samples)
    assert float(seen.abs().amax((1, 2)).min()) > 0.2


# -- who is asked ---------------------------------------------------------------------------------


def test_series_that_cannot_change_are_not_asked_about():
    pretext, encoders = build(), {"series": encoder()}
    samples, change = saws(32), torch.arange(32) % 8
    samples[8:16] = 1234.567
    samples[16:24] = torch.nan
    samples[24:, 1:] = torch.nan  # one step is left, where nothing can be seen to change
    features = pretext.encode(encoders, batch_of(samples, change, torch.full((32,), TIME)))
    assert features["asked"].tolist() == [1.0] * 8 + [0.0] * 24
    facts = batch_of(samples, change, torch.full((32,), TIME)).without_samples()
    whole = pretext.ask(features, facts)
    some = pretext.ask(
        {name: value[:8] for name, value in features.items()}, part_of(facts, slice(0, 8))
    )
    torch.testing.assert_close(whole.loss, some.loss)
    torch.testing.assert_close(whole.answers["change"].accuracy, some.answers["change"].accuracy)


def part_of(facts: Batch, rows: slice) -> Batch:
    views = facts["series"]
    factors = {name: value[rows] for name, value in views.factors.items()}
    return Batch(
        {"series": Views(None, views.present[rows], factors)}, facts.recording[rows], dice()
    )


def test_the_loss_is_the_cross_entropy_of_those_asked():
    pretext = build()
    change = torch.tensor([0, 3, 3, 7, 1])
    logits = torch.randn(5, 8, generator=dice())
    logits[1, 3] = logits[3, 0] = 9.0  # right, and wrong
    asked = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])
    facts = batch_of(saws(5), change, torch.full((5,), TIME)).without_samples()
    outcome = pretext.ask(
        {"logits": logits, "asked": asked, "embedding": torch.zeros(5, 16)}, facts
    )
    rows = logits.double().numpy()
    losses = [np.log(np.exp(rows[i]).sum()) - rows[i, int(change[i])] for i in range(5) if asked[i]]
    assert float(outcome.loss) == pytest.approx(np.mean(losses), rel=1e-6)
    right = [float(rows[i].argmax() == int(change[i])) for i in range(5) if asked[i]]
    assert float(outcome.answers["change"].accuracy) == pytest.approx(np.mean(right))
    assert outcome.answers["change"].chance == 1 / 8
    assert set(outcome.metrics) == {f"accuracy_{pretext.names[index]}" for index in (0, 1, 3, 7)}
    assert pretext.names[3] == "permute"
    assert float(outcome.metrics["accuracy_permute"]) == 1
    assert float(outcome.metrics[f"accuracy_{pretext.names[7]}"]) == 0


def test_nothing_observed_at_all_leaves_a_finite_loss():
    pretext = build()
    world = np.full((4, TIME, 2), np.nan, dtype=np.float32)
    outcome = pretext(
        {"series": encoder()}, read(pretext, world, np.arange(4), np.random.default_rng(0))
    )
    outcome.loss.backward()
    assert float(outcome.loss.detach()) == 0
    assert outcome.answers == {}


def test_micro_batches_hold_their_own_rows():
    pretext, encoders = build(), {"series": encoder()}
    batch = read(pretext, saws(6).numpy(), np.arange(6), np.random.default_rng(0))
    features = [pretext.encode(encoders, part(batch, rows)) for rows in (slice(0, 4), slice(4, 6))]
    joined = {name: torch.cat([f[name] for f in features]) for name in features[0]}
    assert all(len(value) == 6 for value in joined.values())
    assert pretext.ask(joined, batch.without_samples()).loss.isfinite()


def test_what_cannot_be_is_named():
    with pytest.raises(ConfigError, match=r"Unknown change 'wrap'\. Did you mean 'warp'\?"):
        build(changes=("wrap",))
    with pytest.raises(ConfigError, match="changes are empty"):
        build(changes=())
    with pytest.raises(ConfigError, match="changes are warp, warp; give one or more, each once"):
        build(changes=("warp", "warp"))
    for wrong in ({"scale": 1.0}, {"pieces": 1}, {"keep": 1.0}):
        with pytest.raises(ConfigError, match="must be above 1, at least 2, and between 0 and 1"):
            build(**wrong)
    for wrong in ({"jitter": 0.0}, {"warp": -1.0}):
        with pytest.raises(ConfigError, match="both must be positive"):
            build(**wrong)


# -- learning -------------------------------------------------------------------------------------


def learn(pretext, encoders, world, steps: int):
    rng = np.random.default_rng(0)
    weights = [*encoders["series"].parameters(), *pretext.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=5e-3)
    for _ in range(steps):
        outcome = pretext(encoders, read(pretext, world, rng.choice(300, 32), rng))
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
    with torch.no_grad():
        return pretext(encoders, read(pretext, world, rng.integers(300, 400, 300), rng))


def test_changes_of_saws_are_learnt():
    pretext, encoders = build(dim=32), {"series": encoder(2, width=16, depth=4, dim=32)}
    world = saws(400)
    world[torch.rand(world.shape, generator=dice()) < 0.03] = torch.nan
    outcome = learn(pretext, encoders, world.numpy(), 150)
    assert outcome.answers["change"].accuracy > 0.45  # chance is 0.125
    both = outcome.metrics["accuracy_reverse"] + outcome.metrics["accuracy_negate"]
    assert both / 2 > 0.5


def test_a_direction_that_is_not_there_is_not_found():
    noise = torch.randn(400, TIME, 1, generator=dice()).numpy()
    pretext = build(dim=32, changes=("negate", "reverse"))
    outcome = learn(pretext, {"series": encoder(1, width=16, dim=32)}, noise, 60)
    assert abs(float(outcome.answers["change"].accuracy) - 1 / 3) < 0.1

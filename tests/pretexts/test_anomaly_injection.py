"""Anomaly injection: what is broken, how it is told, and that both questions are learnt."""

import math

import numpy as np
import pytest
import torch
from tiny import TinyEncoder, part, read, timeline

from mainspring.augment import warps
from mainspring.clips import ClipSpec
from mainspring.encoders.dilated import Dilated
from mainspring.errors import ConfigError
from mainspring.pretexts.pretext import Batch, Views
from mainspring.pretexts.recognition.anomaly_injection import (
    AnomalyInjection,
    AnomalyInjectionConfig,
)

TIME = 60


def build(length: int = TIME, stride: int = 1, dim: int = 16, **settings) -> AnomalyInjection:
    torch.manual_seed(0)
    spec = ClipSpec(length=length, stride=stride)
    config = AnomalyInjectionConfig(**settings)
    return AnomalyInjection({"series": spec}, {"series": dim}, 10, config)


def encoder(channels: int = 2, **settings) -> Dilated:
    torch.manual_seed(0)
    return Dilated(channels, **{"width": 8, "depth": 3, "dim": 16} | settings)


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def waves(count: int = 60, channels: int = 2, seed: int = 0) -> torch.Tensor:
    """Smooth waves of any phase in odd units."""
    rng = np.random.default_rng(seed)
    period, phase = rng.uniform(18, 22, (count, 1, 1)), rng.random((count, 1, channels))
    wave = np.sin(2 * np.pi * (np.arange(TIME)[:, None] / period + phase))
    wave = (wave + rng.normal(0, 0.05, wave.shape)) * rng.uniform(1, 100, (count, 1, 1))
    return torch.from_numpy(wave.astype(np.float32))


def batch_of(samples: torch.Tensor, kind: torch.Tensor, extent: torch.Tensor) -> Batch:
    present = torch.arange(samples.shape[1]) < extent[:, None]
    views = Views(samples[:, None], present[:, None], {"anomaly": kind[:, None]})
    return Batch({"series": views}, torch.arange(len(samples)), dice())


# -- what is looked at, and what is broken --------------------------------------------------------


def test_every_kind_is_drawn_as_often_and_short_recordings_are_padded():
    pretext = build()
    draws = [pretext.draw(timeline(40), np.random.default_rng(s))["series"] for s in range(1200)]
    share = np.bincount([int(d.factors["anomaly"][0]) for d in draws]) / 1200
    np.testing.assert_allclose(share, 1 / 6, atol=0.035)
    assert draws[0].clips[0].tolist() == [*range(40), *[-1] * 20]
    assert pretext.needs("series") == 8


def test_the_truth_of_a_step_is_whether_it_was_changed():
    pretext, samples = build(), waves()
    kind, extent = torch.arange(60) % 6, torch.full((60,), TIME)
    broken, wrong, asked = pretext.inject(samples, extent, kind, dice())
    assert asked.all()
    assert torch.equal(wrong, (broken != samples).any(2))
    count = wrong.sum(1)
    assert (count[kind == 0] == 0).all()
    assert (count[kind == 1] <= 3).all()
    for index in (2, 3, 5):
        assert (count[kind == index] <= 12).all()
        assert (count[kind == index] >= 3).all()
    assert (count[kind == 4] <= 24).all()


def test_some_channels_are_broken_and_one_at_least():
    samples = torch.randn(900, TIME, 3, generator=dice(4))
    kind, extent = torch.full((900,), 2), torch.full((900,), TIME)
    for chance, mean in ((0.0, 1.0), (1.0, 3.0), (0.5, 1.5 + 0.5**3)):
        broken, _, _ = build(channel=chance).inject(samples, extent, kind, dice())
        hit = (broken != samples).any(1).sum(1)
        assert int(hit.min()) >= 1
        assert float(hit.float().mean()) == pytest.approx(mean, abs=0.08)


def test_missing_values_and_padding_are_no_anomalies():
    pretext, samples = build(), waves(300)
    kind = torch.arange(300) % 6
    extent = torch.tensor([TIME, 30, 9]).repeat_interleave(100)
    samples[torch.rand(samples.shape, generator=dice(1)) < 0.3] = torch.nan
    samples[torch.arange(TIME) >= extent[:, None]] = torch.nan
    broken, wrong, asked = pretext.inject(samples, extent, kind, dice())
    assert not wrong[torch.arange(TIME) >= extent[:, None]].any()
    still = kind != 4  # in a swap, missing values go with their steps
    assert torch.equal(broken[still].isnan(), samples[still].isnan())
    assert not (wrong & samples.isnan().all(2))[still].any()
    assert torch.equal(asked, wrong.any(1) | (kind == 0))
    assert float(asked.float().mean()) > 0.8


def test_series_that_cannot_be_broken_are_not_asked_about():
    pretext, encoders = build(), {"series": encoder()}
    samples, kind, extent = waves(18), torch.arange(18) % 6, torch.full((18,), TIME)
    samples[6:12] = 1234.567
    samples[12:] = torch.nan
    features = pretext.encode(encoders, batch_of(samples, kind, extent))
    assert features["asked"].tolist() == [1.0] * 6 + [0.0] * 12
    assert (features["broken_steps"] + features["sound_steps"])[6:].sum() == 0


def test_a_constant_channel_is_never_the_one_chosen():
    samples, kind = waves(60), torch.full((60,), 2)
    samples[:, :, 0] = 1234.567
    broken, wrong, _ = build(channel=0.0).inject(samples, torch.full((60,), TIME), kind, dice())
    assert torch.equal(broken[:, :, 0], samples[:, :, 0])
    assert wrong.any(1).all()


def test_units_do_not_matter():
    pretext, samples = build(), waves()
    kind, extent = torch.arange(60) % 6, torch.full((60,), TIME)
    plain, wrong, _ = pretext.inject(samples, extent, kind, dice())
    other, also, _ = pretext.inject(samples * 400 - 70, extent, kind, dice())
    torch.testing.assert_close(other, plain * 400 - 70, rtol=1e-3, atol=0.1)
    assert float((wrong == also).float().mean()) > 0.999


def test_what_lies_in_padding_is_never_seen():
    pretext, encoders = build(), {"series": encoder()}
    kind, extent = torch.arange(30) % 6, torch.full((30,), 41)
    features = []
    for filling in (torch.nan, 0.0, 1e5):
        samples = waves(30)
        samples[:, 41:] = filling
        features.append(pretext.encode(encoders, batch_of(samples, kind, extent)))
    assert float((features[0]["broken_steps"] + features[0]["sound_steps"]).max()) == 41
    for other in features[1:]:
        for name, value in features[0].items():
            assert torch.equal(value, other[name])


# -- arithmetic -----------------------------------------------------------------------------------


def made_up() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logits = 2 * torch.randn(5, 12, generator=dice(1))
    wrong = torch.rand(5, 12, generator=dice(2)) < 0.3
    visible = torch.rand(5, 12, generator=dice(3)) < 0.8
    wrong[0] = False
    return logits, wrong, visible


def test_the_outcome_equals_a_slow_float64_reference():
    pretext = build(place=0.7)
    logits, wrong, visible = made_up()
    what = torch.randn(5, 6, generator=dice(4))
    asked = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])
    visible &= asked[:, None] > 0
    kind = torch.tensor([0, 1, 2, 4, 4])
    sums = pretext.compare(logits, wrong, visible)
    outcome = pretext.ask(
        {"logits": what, "asked": asked, "embedding": torch.zeros(5, 16), **sums},
        batch_of(waves(5), kind, torch.full((5,), TIME)).without_samples(),
    )
    losses, hits = {True: [], False: []}, {True: [], False: []}
    for i in range(5):
        for t in range(12):
            if visible[i, t]:
                truth, x = bool(wrong[i, t]), float(logits[i, t])
                chance = 1 / (1 + math.exp(-x))
                losses[truth].append(-math.log(chance if truth else 1 - chance))
                hits[truth].append((x > 0) == truth)
    where = (np.mean(losses[True]) + np.mean(losses[False])) / 2
    rows = what.double().numpy()
    named = np.mean(
        [np.log(np.exp(rows[i]).sum()) - rows[i, int(kind[i])] for i in range(5) if asked[i]]
    )
    assert float(outcome.loss) == pytest.approx(named + 0.7 * where, rel=1e-5)
    balanced = (np.mean(hits[True]) + np.mean(hits[False])) / 2
    assert float(outcome.answers["place"].accuracy) == pytest.approx(balanced, rel=1e-5)
    assert outcome.answers["place"].chance == 0.5
    assert outcome.answers["kind"].chance == 1 / 6
    right, false = sum(hits[True]), len(hits[False]) - sum(hits[False])
    f1 = 2 * right / (2 * right + false + len(hits[True]) - right)
    assert float(outcome.metrics["f1"]) == pytest.approx(f1, rel=1e-5)
    every = 2 * len(hits[True]) / (2 * len(hits[True]) + len(hits[False]))
    assert float(outcome.metrics["f1_everything"]) == pytest.approx(every, rel=1e-5)


def test_calling_every_step_broken_is_at_chance():
    pretext = build()
    _, wrong, visible = made_up()
    sums = pretext.compare(torch.ones(5, 12), wrong, visible)
    outcome = pretext.ask(
        {
            "logits": torch.zeros(5, 6),
            "asked": torch.ones(5),
            "embedding": torch.zeros(5, 16),
            **sums,
        },
        batch_of(waves(5), torch.arange(5), torch.full((5,), TIME)).without_samples(),
    )
    assert float(outcome.answers["place"].accuracy) == 0.5
    assert float(outcome.metrics["f1"]) == pytest.approx(float(outcome.metrics["f1_everything"]))


def test_without_a_broken_step_there_is_no_answer_of_the_place():
    pretext, kind = build(), torch.zeros(3, dtype=torch.int64)
    batch = batch_of(waves(3), kind, torch.full((3,), TIME))
    outcome = pretext({"series": encoder()}, batch)
    assert set(outcome.answers) == {"kind"}


def test_nothing_observed_at_all_leaves_a_finite_loss():
    pretext = build()
    world = np.full((4, TIME, 2), np.nan, dtype=np.float32)
    batch = read(pretext, world, np.arange(4), np.random.default_rng(0))
    outcome = pretext({"series": encoder()}, batch)
    outcome.loss.backward()
    assert float(outcome.loss.detach()) == 0
    assert outcome.answers == {}
    assert all(value.isfinite() for value in outcome.metrics.values())


def test_micro_batches_join_to_the_whole():
    pretext, encoders = build(), {"series": encoder()}
    batch = read(pretext, waves(6).numpy(), np.arange(6), np.random.default_rng(0))
    features = [pretext.encode(encoders, part(batch, rows)) for rows in (slice(0, 4), slice(4, 6))]
    joined = {name: torch.cat([f[name] for f in features]) for name in features[0]}
    assert all(len(value) == 6 for value in joined.values())
    assert pretext.ask(joined, batch.without_samples()).loss.isfinite()


def test_what_cannot_be_is_named():
    with pytest.raises(ConfigError, match=r"Unknown kind of anomaly 'spikes'.*mean 'spike'"):
        build(kinds=("spikes",))
    with pytest.raises(ConfigError, match="kinds are empty"):
        build(kinds=())
    for wrong in ({"size": 0.0}, {"wide": 0.6}, {"channel": 1.1}):
        with pytest.raises(ConfigError, match=r"must be positive, in \(0, 0.5\], and between"):
            build(**wrong)
    with pytest.raises(ConfigError, match="place is -1"):
        build(place=-1.0)
    pretext = build()
    batch = read(pretext, waves().numpy(), np.arange(4), np.random.default_rng(0))
    with pytest.raises(ConfigError, match="TinyEncoder makes tokens of shape"):
        pretext.encode({"series": TinyEncoder(16, 2)}, batch)


def test_the_kinds_are_those_of_the_settings():
    pretext, samples = build(kinds=("swap",)), waves(10)
    broken, wrong, _ = pretext.inject(
        samples, torch.full((10,), TIME), torch.ones(10, dtype=torch.int64), dice()
    )
    assert torch.equal(broken.sort(1).values, samples.sort(1).values)
    assert wrong.any(1).all()
    assert warps.altered(samples, broken).any()


# -- learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_broken_and_where_is_learnt(channels):
    pretext = build(dim=32)
    encoders = {"series": encoder(channels, width=16, depth=4, dim=32)}
    world = waves(400, channels)
    world[torch.rand(world.shape, generator=dice()) < 0.03] = torch.nan
    rng = np.random.default_rng(0)
    weights = [*encoders["series"].parameters(), *pretext.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=5e-3)
    for _ in range(100):
        outcome = pretext(encoders, read(pretext, world.numpy(), rng.choice(300, 32), rng))
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
    with torch.no_grad():
        batch = read(pretext, world.numpy(), rng.integers(300, 400, 300), rng)
        outcome = pretext(encoders, batch)
    assert outcome.answers["kind"].accuracy > 0.4  # chance is 0.167
    assert outcome.answers["place"].accuracy > 0.75
    assert outcome.metrics["f1"] > 2 * outcome.metrics["f1_everything"]

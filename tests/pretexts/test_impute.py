"""Impute: what is hidden, its arithmetic, and that hidden values are learnt."""

import math

import numpy as np
import pytest
import torch
from tiny import TinyEncoder, part, read, timeline

from mainspring.clips import ClipSpec
from mainspring.encoders.dilated import Dilated
from mainspring.errors import ConfigError
from mainspring.pretexts.masked.impute import Impute, ImputeConfig, interpolate
from mainspring.pretexts.pretext import Batch, Outcome

SPEC = ClipSpec(length=40)


def encoder(channels: int = 2, **settings) -> Dilated:
    torch.manual_seed(0)
    return Dilated(channels, **{"width": 8, "depth": 3, "dim": 16} | settings)


def build(channels: int = 2, spec: ClipSpec = SPEC, dim: int = 16, **settings) -> Impute:
    pretext = Impute({"series": spec}, {"series": dim}, 10, ImputeConfig(**settings))
    torch.manual_seed(0)
    pretext.attach({"series": encoder(channels)})
    return pretext


def walks(n: int = 5, length: int = 40, channels: int = 2) -> torch.Tensor:
    """Random walks in odd units, a fifth of the values missing."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n, length, channels)).cumsum(1) * [1000, 0.01] + [5, -3]
    values[rng.random(values.shape) < 0.2] = np.nan
    return torch.from_numpy(values.astype(np.float32))


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cells(pretext: Impute, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    observed = ~samples.isnan()
    return observed, pretext.hide(observed, dice())


def guesses(samples: torch.Tensor) -> torch.Tensor:
    return torch.randn(samples.shape, generator=dice(1))


def answer(pretext: Impute, sums: dict[str, torch.Tensor]) -> Outcome:
    batch = Batch({}, torch.arange(5), torch.Generator())
    return pretext.ask({**sums, "embedding": torch.zeros(5, 16)}, batch)


# -- what is looked at, and what is hidden --------------------------------------------------------


def test_a_long_recording_gives_a_window_and_a_short_one_ends_in_padding():
    pretext = build()
    starts = {
        int(pretext.draw(timeline(43), np.random.default_rng(seed))["series"].clips[0, 0])
        for seed in range(60)
    }
    assert starts == {0, 1, 2, 3}
    clip = pretext.draw(timeline(25), np.random.default_rng(0))["series"].clips[0]
    assert clip.tolist() == [*range(25), *[-1] * 15]
    assert pretext.needs("series") == 8
    assert build(spec=ClipSpec(length=6, stride=3)).needs("series") == 16


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({}, 0.15),
        ({"span": 0, "point": 0.3}, 0.3),
        ({"span": 0, "channel": 0.5, "stretch": 0.4}, 0.2),
        ({"point": 0.2}, 1 - 0.85 * 0.8),
    ],
)
def test_each_mask_hides_its_share_of_what_was_observed(settings, share):
    samples = walks(300, 60)
    observed, hidden = cells(build(**settings), samples)
    assert not (hidden & ~observed).any()
    assert float(hidden.sum() / observed.sum()) == pytest.approx(share, abs=0.012)


def test_spans_of_channels_are_independent():
    _, hidden = cells(build(span=0.3), torch.zeros(300, 60, 2))
    both = hidden[:, :, 0] & hidden[:, :, 1]
    assert float(both.float().mean()) == pytest.approx(0.09, abs=0.01)


def test_a_channel_that_was_never_observed_does_not_spare_the_others():
    observed = torch.ones(20, 40, 3, dtype=torch.bool)
    observed[:, :, 2] = False
    hidden = build(span=0, channel=0.9).hide(observed, dice())
    assert (hidden.sum((1, 2)) >= 20).all()  # half of the recording, in two of three channels


def test_the_encoder_sees_no_hidden_value():
    pretext, seen = build(), []

    class Watcher(Dilated):
        def tokens(self, samples, present=None):
            seen.append(samples)
            return super().tokens(samples, present)

    torch.manual_seed(0)
    watcher = Watcher(2, 8, 3, 16)
    world = walks(4, 60).numpy()
    batch = read(pretext, world, np.arange(4), np.random.default_rng(0))
    state = batch.generator.get_state()
    plain = pretext.encode({"series": watcher}, batch)
    samples, _ = batch["series"].flat()
    batch.generator.set_state(state)
    hidden = pretext.hide(~samples.isnan(), batch.generator)
    assert torch.equal(seen[0].isnan(), samples.isnan() | hidden)

    batch["series"].samples[hidden[:, None]] = 1e6
    batch.generator.set_state(state)
    other = pretext.encode({"series": watcher}, batch)
    assert torch.equal(plain["embedding"], other["embedding"])
    assert not torch.equal(plain["error"], other["error"])


# -- arithmetic -----------------------------------------------------------------------------------


def slow_line(column: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """numpy's interpolation holds the ends, as ours does."""
    known = np.flatnonzero(seen)
    return np.interp(np.arange(len(column)), known, column[known])


def slow_sums(pretext: Impute, restored, samples, observed, hidden) -> list[dict[str, float]]:
    """Cell by cell, in float64."""
    limit, rows = pretext.config.limit, []
    for i in range(len(samples)):
        sums = dict.fromkeys(("error", "mean", "linear", "cells", "right", "moved"), 0.0)
        for c in range(samples.shape[2]):
            column = samples[i, :, c].double().numpy()
            seen = (observed & ~hidden)[i, :, c].numpy()
            visible = [float(v) for v in column[seen]]
            if len(set(visible)) < 2:
                continue
            mean = sum(visible) / len(visible)
            scale = math.sqrt(sum((v - mean) ** 2 for v in visible) / len(visible))
            line = slow_line(column, seen)
            for t in np.flatnonzero(hidden[i, :, c].numpy()):
                target = max(-limit, min(limit, (column[t] - mean) / scale))
                filled = max(-limit, min(limit, (line[t] - mean) / scale))
                guess = float(restored[i, t, c])
                sums["error"] += (guess - target) ** 2
                sums["mean"] += target**2
                sums["linear"] += (filled - target) ** 2
                sums["cells"] += 1
                sums["moved"] += target != filled
                sums["right"] += (target - filled) * (guess - filled) > 0
        rows.append(sums)
    return rows


@pytest.mark.parametrize("limit", [10.0, 1.2])
def test_sums_equal_a_slow_float64_reference(limit):
    pretext, samples = build(limit=limit, span=0.3), walks()
    samples[2, :, 1] = 4.0  # constant: has no unit
    samples[3, :, 0] = torch.nan  # never observed
    observed, hidden = cells(pretext, samples)
    hidden[1, :, 0] = observed[1, :, 0]  # nothing left to see
    restored = guesses(samples)
    got = pretext.compare(restored, samples, observed, hidden)
    for i, want in enumerate(slow_sums(pretext, restored, samples, observed, hidden)):
        for name, value in want.items():
            assert float(got[name][i]) == pytest.approx(value, rel=1e-4, abs=1e-4), (i, name)


def test_the_line_is_numpys():
    values = torch.randn(6, 30, 2, generator=dice())
    seen = torch.rand(6, 30, 2, generator=dice(1)) < 0.3
    seen[0, :, 0] = False
    seen[0, 13, 0] = True
    got = interpolate(torch.where(seen, values, 0.0), seen)
    for i in range(6):
        for c in range(2):
            want = slow_line(values[i, :, c].double().numpy(), seen[i, :, c].numpy())
            np.testing.assert_allclose(got[i, :, c], want, atol=1e-6)
    nothing = torch.zeros(1, 5, 1)
    assert torch.equal(interpolate(nothing, nothing.bool()), nothing)


def test_loss_and_metrics_are_those_of_all_values_together():
    pretext, samples = build(), walks()
    sums = pretext.compare(guesses(samples), samples, *cells(pretext, samples))
    outcome = answer(pretext, sums)
    total = {k: float(v.sum()) for k, v in sums.items()}
    assert float(outcome.loss) == pytest.approx(total["error"] / total["cells"])
    for naive in ("mean", "linear"):
        skill = 1 - total["error"] / total[naive]
        assert float(outcome.metrics[f"skill_{naive}"]) == pytest.approx(skill, rel=1e-5)
    assert float(outcome.answers["side"].accuracy) == pytest.approx(total["right"] / total["moved"])
    assert outcome.answers["side"].chance == 0.5


def test_the_fillings_that_know_nothing_have_no_skill_over_themselves():
    pretext, samples = build(span=0.3), walks()
    observed, hidden = cells(pretext, samples)
    visible = samples.masked_fill(hidden, torch.nan)
    mean = visible.nanmean(1, keepdim=True)
    scale = (visible - mean).square().nanmean(1, keepdim=True).sqrt()
    line = (interpolate(visible.nan_to_num(), ~visible.isnan()) - mean) / scale
    for naive, restored in (("linear", line), ("mean", torch.zeros_like(line))):
        outcome = answer(pretext, pretext.compare(restored, samples, observed, hidden))
        assert float(outcome.metrics[f"skill_{naive}"]) == pytest.approx(0, abs=1e-3)


def test_a_coin_is_right_half_of_the_time():
    pretext, samples = build(), walks(400)
    sums = pretext.compare(10 * guesses(samples), samples, *cells(pretext, samples))
    assert float(answer(pretext, sums).answers["side"].accuracy) == pytest.approx(0.5, abs=0.03)


def test_units_do_not_matter():
    pretext, samples = build(), walks()
    marks = cells(pretext, samples)
    plain = pretext.compare(guesses(samples), samples, *marks)
    moved = samples * torch.tensor([0.01, 500.0]) + torch.tensor([2.0, 9.0])
    other = pretext.compare(guesses(samples), moved, *marks)
    for name in ("error", "mean", "linear"):
        torch.testing.assert_close(other[name], plain[name], rtol=1e-3, atol=1e-3)


def test_only_hidden_observed_values_have_a_gradient():
    pretext, samples = build(span=0.4), walks()
    samples[2, :, 1] = 7.0
    observed, hidden = cells(pretext, samples)
    restored = guesses(samples).requires_grad_()
    pretext.compare(restored, samples, observed, hidden)["error"].sum().backward()
    asked = hidden.clone()
    asked[2, :, 1] = False
    assert torch.equal(restored.grad != 0, asked)


def test_padding_changes_nothing():
    pretext, encoders = build(), {"series": encoder(2)}
    samples = walks(3, 40)[:, None]
    present = torch.ones(3, 1, 40, dtype=torch.bool)
    present[:, :, 25:] = False
    batch = read(pretext, walks(3, 40).numpy(), np.arange(3), np.random.default_rng(0))
    batch["series"].present = present
    state = batch.generator.get_state()
    sums = []
    for filling in (torch.nan, 1e5):
        batch["series"].samples = torch.where(present[..., None], samples, filling)
        batch.generator.set_state(state)
        sums.append(pretext.encode(encoders, batch))
    assert sums[0]["cells"].sum() > 0
    for name in sums[0]:
        torch.testing.assert_close(sums[0][name], sums[1][name], rtol=0, atol=0)


def test_micro_batches_equal_the_whole_batch():
    pretext, encoders = build(), {"series": encoder(2)}
    batch = read(pretext, walks(6, 60).numpy(), np.arange(6), np.random.default_rng(0))
    parts = [part(batch, rows) for rows in (slice(0, 4), slice(4, 6))]
    features = [pretext.encode(encoders, piece) for piece in parts]
    joined = {name: torch.cat([f[name] for f in features]) for name in features[0]}
    asked = joined["cells"].sum()
    means = [f["error"].sum() / f["cells"].sum() for f in features]
    weights = [f["cells"].sum() / asked for f in features]
    loss = pretext.ask(joined, batch.without_samples()).loss
    torch.testing.assert_close(loss, means[0] * weights[0] + means[1] * weights[1])


def test_nothing_observed_at_all_leaves_a_finite_loss():
    pretext = build(channels=1)
    world = np.full((3, 60, 1), np.nan, dtype=np.float32)
    batch = read(pretext, world, np.arange(3), np.random.default_rng(0))
    outcome = pretext({"series": encoder(1)}, batch)
    outcome.loss.backward()
    assert float(outcome.loss.detach()) == 0
    assert outcome.answers == {}


def test_what_cannot_be_is_named():
    with pytest.raises(ConfigError, match="impute must hide something"):
        build(span=0)
    with pytest.raises(ConfigError, match="limit is 0"):
        build(limit=0)
    with pytest.raises(ConfigError, match=r"share of 1.5 was to be hidden"):
        build(point=1.5)
    with pytest.raises(ConfigError, match=r"share of 2 was to be hidden"):
        build(channel=0.5, stretch=2)
    with pytest.raises(ConfigError, match="mean must be at least 1"):
        build(length=0.5)
    tiny = TinyEncoder(16, 2)
    pretext = build()
    with pytest.raises(ConfigError, match=r"TinyEncoder makes tokens of shape \(16,\) of 40 steps"):
        pretext.encode(
            {"series": tiny}, read(pretext, walks().numpy(), np.arange(4), np.random.default_rng(0))
        )
    del tiny.settings["channels"]
    with pytest.raises(ConfigError, match="TinyEncoder has no setting `channels`"):
        pretext.attach({"series": tiny})


# -- learning -------------------------------------------------------------------------------------


def swings(count: int, rng: np.random.Generator, length: int = 60) -> np.ndarray:
    """Two channels of one quick swing in any phase and unit, with gaps: the mean and the straight
    line are poor fillings of it, and each channel tells of the other."""
    period, phase = rng.uniform(6, 10, (2, count, 1, 1))
    t = np.arange(length)[:, None]
    wave = np.sin(2 * np.pi * (t / period + phase) + np.array([0, 1.5]))
    wave = (wave + rng.normal(0, 0.1, wave.shape)) * rng.uniform(1, 100, (count, 1, 1))
    wave[rng.random(wave.shape) < 0.05] = np.nan
    return wave.astype(np.float32)


@pytest.mark.parametrize("settings", [{}, {"span": 0, "channel": 0.5, "stretch": 0.3}])
def test_hidden_values_of_swings_are_learnt(settings):
    pretext, encoders = build(dim=32, **settings), {"series": encoder(2, width=16, dim=32)}
    rng = np.random.default_rng(0)
    weights = [*encoders["series"].parameters(), *pretext.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=5e-3)
    world = swings(400, rng)
    for _ in range(80):
        outcome = pretext(encoders, read(pretext, world, rng.choice(300, 32), rng))
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
    with torch.no_grad():
        held_out = pretext(encoders, read(pretext, world, np.arange(300, 400), rng))
    assert held_out.metrics["skill_mean"] > 0.6
    assert held_out.metrics["skill_linear"] > 0.4
    assert held_out.answers["side"].accuracy > 0.75

"""Forecast: its draws, its arithmetic, and that the future is learnt."""

import math

import numpy as np
import pytest
import torch
from tiny import TinyEncoder, assert_parts_equal_the_whole, read, timeline

from mainspring.clips import ClipSpec
from mainspring.encoders.dilated import Dilated
from mainspring.encoders.patch_transformer import PatchTransformer
from mainspring.errors import ConfigError
from mainspring.pretexts.autoregressive.forecast import Forecast, ForecastConfig
from mainspring.pretexts.pretext import Batch, Outcome

SPEC = ClipSpec(length=40)


def build(channels: int = 2, spec: ClipSpec = SPEC, dim: int = 32, **settings) -> Forecast:
    torch.manual_seed(0)
    pretext = Forecast({"series": spec}, {"series": dim}, 10, ForecastConfig(**settings))
    pretext.attach({"series": TinyEncoder(dim, channels)})
    return pretext


def walks(n: int = 5, length: int = 40, channels: int = 2) -> torch.Tensor:
    """Random walks in odd units, a fifth of the values missing."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n, length, channels)).cumsum(1) * [1000, 0.01] + [5, -3]
    values[rng.random(values.shape) < 0.2] = np.nan
    return torch.from_numpy(values.astype(np.float32))


def everywhere(samples: torch.Tensor) -> torch.Tensor:
    return torch.ones(samples.shape[:2], dtype=torch.bool)


def answer(pretext: Forecast, sums: dict[str, torch.Tensor]) -> Outcome:
    batch = Batch({}, torch.arange(5), torch.Generator())
    return pretext.ask({**sums, "embedding": torch.zeros(5, 32)}, batch)


# -- drawing --------------------------------------------------------------------------------------


def test_a_clip_is_context_and_horizon_in_order():
    pretext = build(spec=ClipSpec(length=40, stride=3))
    starts = set()
    for seed in range(120):
        draw = pretext.draw(timeline(120), np.random.default_rng(seed))["series"]
        assert draw.clips.shape == (1, 40)
        assert (np.diff(draw.clips) == 3).all()
        assert draw.clips.max() < 120
        starts.add(int(draw.clips[0, 0]))
    assert starts == {0, 1, 2}
    assert pretext.needs("series") == 118


def test_the_horizon_is_a_share_or_a_number_of_steps():
    assert (build(horizon=0.25).context, build(horizon=0.25).horizon) == (30, 10)
    assert (build(horizon=12).context, build(horizon=12).horizon) == (28, 12)
    for wrong in (39, 40, 2.5, 0.001, 0, -3):
        with pytest.raises(ConfigError, match=rf"horizon of {wrong:g} .* of the 40 steps"):
            build(horizon=wrong)


def test_what_cannot_be_is_named():
    with pytest.raises(ConfigError, match=r"Unknown loss 'mae2'.*Known: mse, smooth_l1"):
        build(loss="mae2")
    with pytest.raises(ConfigError, match="limit is 0"):
        build(limit=0)
    with pytest.raises(ConfigError, match="Forecast reads series, not audio"):
        Forecast({"audio": SPEC}, {"audio": 8}, 10, ForecastConfig())
    encoder = TinyEncoder()
    del encoder.settings["channels"]
    with pytest.raises(ConfigError, match="TinyEncoder has no setting `channels`"):
        build().attach({"series": encoder})


# -- arithmetic -----------------------------------------------------------------------------------


def slow_sums(pretext: Forecast, foretold, samples, loss: str) -> list[dict[str, float]]:
    """Cell by cell, in float64."""
    context, limit = pretext.context, pretext.config.limit
    rows = []
    for i in range(len(samples)):
        sums = dict.fromkeys(
            ("error", "squared", "persistence", "mean", "cells", "right", "moved"), 0.0
        )
        for c in range(samples.shape[2]):
            past = [float(v) for v in samples[i, :context, c] if not math.isnan(v)]
            if len(set(past)) < 2:
                continue
            mean = sum(past) / len(past)
            scale = math.sqrt(sum((v - mean) ** 2 for v in past) / len(past))
            last = (past[-1] - mean) / scale
            for h in range(pretext.horizon):
                value = float(samples[i, context + h, c])
                if math.isnan(value):
                    continue
                target = max(-limit, min(limit, (value - mean) / scale))
                guess = float(foretold[i, h, c])
                error = (guess - target) ** 2
                sums["squared"] += error
                if loss == "smooth_l1":
                    away = abs(guess - target)
                    error = 0.5 * away**2 if away < 1 else away - 0.5
                sums["error"] += error
                sums["persistence"] += (last - target) ** 2
                sums["mean"] += target**2
                sums["cells"] += 1
                if value != past[-1]:
                    sums["moved"] += 1
                    sums["right"] += (target - last) * (guess - last) > 0
        rows.append(sums)
    return rows


@pytest.mark.parametrize("loss", ["mse", "smooth_l1"])
def test_sums_equal_a_slow_float64_reference(loss):
    pretext, samples = build(loss=loss, limit=1.5), walks()
    samples[1, : pretext.context, 0] = torch.nan  # never seen: has no unit
    samples[2, : pretext.context, 1] = 4.0  # constant: has no unit
    foretold = torch.randn(5, 10, 2, generator=torch.Generator().manual_seed(1))
    got = pretext.compare(foretold, samples, everywhere(samples))
    for i, want in enumerate(slow_sums(pretext, foretold, samples, loss)):
        for name, value in want.items():
            assert float(got[name][i]) == pytest.approx(value, rel=1e-4, abs=1e-4), (i, name)


def test_loss_and_metrics_are_those_of_all_values_together():
    pretext, samples = build(), walks()
    foretold = torch.randn(5, 10, 2, generator=torch.Generator().manual_seed(1))
    sums = pretext.compare(foretold, samples, everywhere(samples))
    outcome = answer(pretext, sums)
    total = {k: float(v.sum()) for k, v in sums.items()}
    assert float(outcome.loss) == pytest.approx(total["error"] / total["cells"])
    assert float(outcome.metrics["mse"]) == pytest.approx(float(outcome.loss))
    for naive in ("persistence", "mean"):
        skill = 1 - total["squared"] / total[naive]
        assert float(outcome.metrics[f"skill_{naive}"]) == pytest.approx(skill, rel=1e-5)
    right = total["right"] / total["moved"]
    assert float(outcome.answers["direction"].accuracy) == pytest.approx(right)
    assert outcome.answers["direction"].chance == 0.5


def test_the_naive_forecasts_have_no_skill_over_themselves():
    pretext, samples = build(), walks()
    past = samples[:, : pretext.context]
    mean = past.nanmean(1, keepdim=True)
    scale = (past - mean).square().nanmean(1, keepdim=True).sqrt()
    last = torch.stack([torch.stack([c[~c.isnan()][-1] for c in row.T]) for row in past])[:, None]
    for naive, foretold in (
        ("persistence", ((last - mean) / scale).expand(5, 10, 2)),
        ("mean", torch.zeros(5, 10, 2)),
    ):
        sums = pretext.compare(foretold.contiguous(), samples, everywhere(samples))
        outcome = answer(pretext, sums)
        assert float(outcome.metrics[f"skill_{naive}"]) == pytest.approx(0, abs=1e-4)


def test_units_do_not_matter():
    pretext, samples = build(), walks()
    foretold = torch.randn(5, 10, 2, generator=torch.Generator().manual_seed(1))
    plain = pretext.compare(foretold, samples, everywhere(samples))
    moved = samples * torch.tensor([0.01, 500.0]) + torch.tensor([2.0, 9.0])
    other = pretext.compare(foretold, moved, everywhere(samples))
    for name in ("error", "persistence", "mean"):
        torch.testing.assert_close(other[name], plain[name], rtol=1e-3, atol=1e-3)


def test_what_was_not_observed_has_no_gradient():
    pretext, samples = build(), walks()
    samples[0, pretext.context :] = torch.nan
    samples[1, : pretext.context, 0] = torch.nan
    samples[2, : pretext.context, 1] = 7.0
    present = everywhere(samples)
    present[3, -4:] = False
    foretold = torch.randn(5, 10, 2, requires_grad=True)
    pretext.compare(foretold, samples, present)["error"].sum().backward()
    silent = samples[:, pretext.context :].isnan() | ~present[:, pretext.context :, None]
    silent[1, :, 0] = silent[2, :, 1] = True
    assert torch.equal(foretold.grad == 0, silent)


def test_the_encoder_never_sees_the_future():
    pretext, encoder = build(channels=1), TinyEncoder()
    world = np.random.default_rng(0).normal(size=(4, 40, 1)).astype(np.float32)
    changed = world.copy()
    changed[:, pretext.context :] = 1e3
    plain, other = (
        pretext.encode(
            {"series": encoder}, read(pretext, w, np.arange(4), np.random.default_rng(0))
        )
        for w in (world, changed)
    )
    assert torch.equal(plain["embedding"], other["embedding"])
    assert not torch.equal(plain["error"], other["error"])


def test_the_last_tokens_of_all_channels_are_read():
    pretext = build(channels=3, dim=16)
    encoder = PatchTransformer(3, patch=5, dim=16, depth=1, heads=2, positions="sincos").eval()
    world = walks(4, 40, 2).numpy()
    world = np.nan_to_num(np.concatenate([world, world[:, :, :1] ** 2], 2))
    errors = []
    with torch.no_grad():
        pretext.head.weight[:, 16:] = 0  # of the last tokens alone
        pretext.head.weight.copy_(pretext.head.weight[:1].expand_as(pretext.head.weight))
        pretext.head.bias.zero_()
        for order in ([0, 1, 2], [2, 0, 1]):
            batch = read(pretext, world[:, :, order], np.arange(4), np.random.default_rng(0))
            errors.append(pretext.encode({"series": encoder}, batch)["error"])
    torch.testing.assert_close(*errors)


def test_tokens_of_another_width_than_the_embedding_are_named():
    pretext = build(channels=2, dim=32)
    encoder = PatchTransformer(2, patch=5, dim=16, depth=1, heads=2, pool="channels")
    batch = read(pretext, walks(4, 40, 2).numpy(), np.arange(4), np.random.default_rng(0))
    with pytest.raises(ConfigError, match=r"tokens of 16 numbers .* of 32; set question\.last"):
        pretext.encode({"series": encoder}, batch)


def test_micro_batches_equal_the_whole_batch():
    pretext, encoders = build(channels=1), {"series": TinyEncoder()}
    world = walks(6, 60, 2)[..., :1].numpy()
    world[0, 20:50] = np.nan  # so that recordings have unlike numbers of values
    batch = read(pretext, world, np.arange(6), np.random.default_rng(0))
    assert_parts_equal_the_whole(pretext, encoders, batch)


def test_nothing_observed_at_all_leaves_a_finite_loss():
    pretext = build(channels=1)
    world = np.full((3, 60, 1), np.nan, dtype=np.float32)
    batch = read(pretext, world, np.arange(3), np.random.default_rng(0))
    outcome = pretext({"series": Dilated(1, 8, 2, 32)}, batch)
    outcome.loss.backward()
    assert float(outcome.loss.detach()) == 0
    assert outcome.answers == {}


# -- learning -------------------------------------------------------------------------------------


def swings(count: int, rng: np.random.Generator, length: int = 100) -> np.ndarray:
    """Sines of any period and phase in any unit, with noise and gaps: persistence and the mean
    are poor forecasts of them."""
    period, phase = rng.uniform(8, 16, (2, count, 1, 1))
    wave = np.sin(2 * np.pi * (np.arange(length)[:, None] / period + phase))
    wave = (wave + rng.normal(0, 0.1, wave.shape)) * rng.uniform(1, 100, (count, 1, 1))
    wave[rng.random(wave.shape) < 0.05] = np.nan
    return wave.astype(np.float32)


@pytest.mark.parametrize(("causal", "last"), [(True, True), (False, False)])
def test_the_future_of_swings_is_learnt(causal, last):
    pretext = build(channels=1, last=last)
    torch.manual_seed(0)
    encoders = {"series": Dilated(width=16, depth=4, dim=32, causal=causal)}
    pretext.attach(encoders)
    rng = np.random.default_rng(0)
    weights = [*encoders["series"].parameters(), *pretext.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=3e-3)
    world = swings(500, rng)
    for _ in range(120):
        outcome = pretext(encoders, read(pretext, world, rng.choice(400, 48), rng))
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
    with torch.no_grad():
        held_out = pretext(encoders, read(pretext, world, np.arange(400, 500), rng))
    assert held_out.metrics["skill_mean"] > 0.5
    assert held_out.metrics["skill_persistence"] > 0.7
    assert held_out.answers["direction"].accuracy > 0.75

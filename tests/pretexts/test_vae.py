"""The variational autoencoder: its bound, its annealing, and that a collapse can be seen."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import TinyEncoder, part, read, timeline
from torch.distributions import Normal, kl_divergence

from mainspring.clips import ClipSpec
from mainspring.encoders.dilated import Dilated
from mainspring.errors import ConfigError
from mainspring.pretexts import catalog
from mainspring.pretexts.generative.vae import (
    ANNEALING,
    Vae,
    VaeConfig,
    active_units,
    gaussian_surprise,
    kl,
    nearest,
    reparameterise,
    target,
)
from mainspring.pretexts.pretext import Batch, Outcome

SPEC = ClipSpec(length=32)


def build(channels: int = 1, spec: ClipSpec = SPEC, dim: int = 32, **settings) -> Vae:
    torch.manual_seed(0)
    config = VaeConfig(**{"latent": 4, "hidden": 64, **settings})
    pretext = Vae({"series": spec}, {"series": dim}, 10, config)
    pretext.attach({"series": TinyEncoder(dim, channels)})
    return pretext


def facts(n: int) -> Batch:
    return Batch({}, torch.arange(n), torch.Generator())


def posterior(n: int = 6, latent: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, n, latent, generator=torch.Generator().manual_seed(seed)).unbind()


def walks(n: int = 6, length: int = 40, channels: int = 2) -> np.ndarray:
    """Random walks in odd units, a fifth of the values missing."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n, length, channels)).cumsum(1) * [1000, 0.01][:channels] + 5
    values[rng.random(values.shape) < 0.2] = np.nan
    return values.astype(np.float32)


# -- arithmetic -----------------------------------------------------------------------------------


def test_kl_is_that_of_gaussians():
    mean, log_variance = posterior()
    normal = Normal(mean.double(), (0.5 * log_variance.double()).exp())
    want = kl_divergence(normal, Normal(0.0, 1.0))
    torch.testing.assert_close(kl(mean, log_variance).double(), want, atol=1e-6, rtol=1e-5)
    for value in kl(mean, log_variance).flatten().tolist():
        assert value >= 0
    zero = torch.zeros(1, 1)
    assert float(kl(zero, zero)) == 0


def test_surprise_is_minus_the_log_density():
    generator = torch.Generator().manual_seed(0)
    x, r = torch.randn(2, 5, 9, generator=generator).double()
    got = gaussian_surprise((x - r).square().sum(1), torch.full((5,), 9.0), torch.tensor(0.3))
    want = -Normal(r, math.sqrt(0.3)).log_prob(x).sum(1)
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-6)


def test_the_bound_meets_the_evidence_of_a_linear_model():
    # z ~ N(0, 1), x = w z + noise: with the exact posterior the bound is log p(x), on average
    # over draws of z. Here the posterior of each x is known, and 20,000 draws are taken of it.
    w, noise = torch.tensor([0.9, -0.4, 1.7]).double(), 0.5
    x = torch.tensor([0.3, 1.1, -0.8]).double()
    precision = 1 + w.square().sum() / noise**2
    mean, variance = (w @ x) / noise**2 / precision, 1 / precision
    n = 20_000
    means = mean.expand(n, 1).float()
    logs = variance.log().expand(n, 1).float()
    draw = torch.randn(n, 1, generator=torch.Generator().manual_seed(0))
    z = reparameterise(means, logs, draw).double()
    squared = (x - z * w).square().sum(1).float()
    surprise = gaussian_surprise(squared, torch.full((n,), 3.0), torch.tensor(noise**2))
    elbo = float(-surprise.mean() - kl(means, logs).mean())
    covariance = torch.outer(w, w) + noise**2 * torch.eye(3)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(3).double(), covariance)
    assert elbo == pytest.approx(float(evidence.log_prob(x)), abs=0.03)


def slow_loss(features: dict, scale: float, weight: float, free: float) -> tuple[float, float]:
    """Loss and bound in float64, number by number."""
    n, latent = features["mean"].shape
    rows = [i for i in range(n) if features["asked"][i].any()]
    errors = {i: float(features["squared"][i]) for i in rows}
    cells = {i: int(features["asked"][i].sum()) for i in rows}
    variance = scale**2 if scale else sum(errors.values()) / sum(cells.values())
    surprise = sum(
        errors[i] / (2 * variance) + cells[i] * 0.5 * math.log(2 * math.pi * variance) for i in rows
    ) / len(rows)
    units = []
    for j in range(latent):
        total = 0.0
        for i in rows:
            m, s = float(features["mean"][i, j]), float(features["log_variance"][i, j])
            total -= 0.5 * (1 + s - m**2 - math.exp(s))  # Kingma & Welling, Equation 10
        units.append(total / len(rows))
    loss = surprise + weight * sum(max(free, unit) for unit in units)
    return loss, -surprise - sum(units)


@pytest.mark.parametrize("scale", [0.0, 0.7])
@pytest.mark.parametrize("free", [0.0, 0.6])
def test_loss_equals_a_slow_float64_reference(scale, free):
    pretext = build(2, spec=ClipSpec(length=40), scale=scale, free=free, beta=2.0, anneal=10)
    pretext.taken += 5
    world = walks()
    world[2] = np.nan  # a recording of which nothing is known does not count
    batch = read(pretext, world, np.arange(6), np.random.default_rng(0))
    with torch.no_grad():
        features = pretext.encode({"series": TinyEncoder(channels=2)}, batch)
        outcome = pretext.ask(features, batch.without_samples())
    loss, elbo = slow_loss(features, scale, 2.0 * 0.5, free)
    assert float(outcome.loss) == pytest.approx(loss, rel=1e-4)
    assert float(outcome.metrics["elbo"]) == pytest.approx(elbo, rel=1e-4)
    assert float(outcome.metrics["beta"]) == 1.0
    units = [float(outcome.metrics[f"kl_{j:02d}"]) for j in range(4)]
    assert float(outcome.metrics["kl"]) == pytest.approx(sum(units), rel=1e-5)


def test_targets_are_in_units_of_the_recording():
    samples, present = torch.from_numpy(walks()), torch.ones(6, 40, dtype=torch.bool)
    samples[1, :, 0] = 4.0  # constant: has no unit
    samples[2, :, 1] = torch.nan
    present[3, 30:] = False
    values, asked = (v.unflatten(1, (40, 2)) for v in target(samples, present))
    assert not asked[1, :, 0].any()
    assert not asked[2, :, 1].any()
    assert not asked[3, 30:].any()
    want = ~samples.isnan() & present[:, :, None]
    want[1, :, 0] = False
    assert torch.equal(asked, want)
    for i in range(6):
        for c in range(2):
            row = values[i, :, c][asked[i, :, c]]
            if len(row):
                assert float(row.mean()) == pytest.approx(0, abs=1e-4)
                assert float(row.std(correction=0)) == pytest.approx(1, abs=1e-4)
    moved = samples * torch.tensor([0.01, 500.0]) + torch.tensor([2.0, 9.0])
    moved[1, :, 0] = 4.0
    torch.testing.assert_close(
        target(moved, present)[0].unflatten(1, (40, 2)), values, atol=1e-3, rtol=1e-3
    )


def test_gradients_pass_the_draw():
    mean, log_variance = (p.double().requires_grad_() for p in posterior())
    noise = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).double()
    reparameterise(mean, log_variance, noise).sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones_like(mean))
    want = 0.5 * (0.5 * log_variance).exp() * noise
    torch.testing.assert_close(log_variance.grad, want.detach())


def test_gradients_of_the_draw_are_those_of_the_expectation():
    # E (z - 3)² = (m - 3)² + v for z ~ N(m, v), so its gradients in m and log v are known.
    mean, log_variance = torch.full((200_000, 1), 0.5), torch.full((200_000, 1), -0.4)
    mean.requires_grad_()
    log_variance.requires_grad_()
    noise = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    (reparameterise(mean, log_variance, noise) - 3).square().sum().backward()
    assert float(mean.grad.mean()) == pytest.approx(2 * (0.5 - 3), abs=0.03)
    assert float(log_variance.grad.mean()) == pytest.approx(math.exp(-0.4), abs=0.03)


def test_the_estimated_scale_is_the_most_likely_one():
    squared, cells = torch.tensor([3.0, 8.0, 1.0]), torch.tensor([5.0, 9.0, 4.0])
    best = build().variance(squared.sum() / cells.sum())
    least = gaussian_surprise(squared, cells, best).sum()
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert gaussian_surprise(squared, cells, best * factor).sum() > least
    assert build().variance(torch.tensor(0.0)) > 0
    assert build(scale=0.5).variance(torch.tensor(9.0)) == 0.25


def test_active_units_are_means_that_vary():
    spread = torch.tensor([0.0, 0.09, 0.11, 1.0])  # deviations; the limit is 0.1
    mean = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)) * spread
    assert int(active_units(mean)) == 2
    assert int(active_units(mean[:1])) == 0


def test_windows_of_which_nothing_is_known_make_no_unit_active():
    mean = torch.zeros(6, 4)
    mean[2] = 9.0
    asked = torch.ones(6, 5, dtype=torch.bool)
    asked[2] = False
    features = {
        "embedding": torch.zeros(6, 32),
        "mean": mean,
        "log_variance": torch.zeros(6, 4),
        "squared": asked.sum(1).float(),
        "restored": torch.randn(6, 5),
        "values": torch.randn(6, 5) * asked,
        "asked": asked,
    }
    metrics = build().ask(features, facts(6)).metrics
    assert metrics["active_units"] == 0
    assert metrics["kl"] == 0


def test_the_nearest_restoration_is_found_by_the_values_asked_for():
    generator = torch.Generator().manual_seed(0)
    restored = torch.randn(12, 30, generator=generator)
    asked = torch.rand(12, 30, generator=generator) > 0.3
    values = (restored + torch.randn(12, 30, generator=generator) * 1.5) * asked
    for i, right in enumerate(nearest(values, asked, restored).tolist()):
        apart = [(asked[i] * (values[i] - r) ** 2).sum().item() for r in restored]
        assert right == (int(np.argmin(apart)) == i)


# -- annealing ------------------------------------------------------------------------------------


def test_annealing_follows_its_shape():
    for shape, done, want in (
        ("constant", 0.0, 1.0),
        ("linear", 0.25, 0.25),
        ("linear", 3.0, 1.0),
        ("sigmoid", 0.5, 0.5),
        ("cyclic", 0.25, 0.5),
        ("cyclic", 0.75, 1.0),
        ("cyclic", 1.25, 0.5),
    ):
        assert ANNEALING[shape](done) == want
    pretext = build(annealing="cyclic", anneal=10, cycles=2, beta=3.0)
    weights = []
    for _ in range(25):
        weights.append(pretext.weight())
        pretext.after_step({}, facts(1), {})
    cycle = [3 * min(1.0, 0.2 * step) for step in range(10)]
    assert weights == pytest.approx(cycle + cycle + [3.0] * 5)


@given(st.sampled_from(sorted(ANNEALING)), st.floats(0, 5))
def test_weights_stay_between_0_and_1(shape, done):
    assert 0 <= ANNEALING[shape](done) <= 1


def test_the_count_of_steps_is_part_of_a_checkpoint():
    pretext, again = build(anneal=10), build(anneal=10)
    for _ in range(4):
        pretext.after_step({}, facts(1), {})
    again.load_state_dict(pretext.state_dict())
    assert again.weight() == pretext.weight() == 0.4
    assert pretext.light().draw(timeline(40), np.random.default_rng(0))


# -- what is not there, and how it is cut ----------------------------------------------------------


def test_a_window_lies_anywhere_and_short_recordings_are_padded():
    pretext = build()
    starts = {
        int(pretext.draw(timeline(34), np.random.default_rng(s))["series"].clips[0, 0])
        for s in range(60)
    }
    assert starts == {0, 1, 2}
    short = pretext.draw(timeline(20), np.random.default_rng(0))["series"].clips[0]
    assert short.tolist() == [*range(20)] + [-1] * 12
    assert pretext.needs("series") == 2
    strided = Vae({"series": ClipSpec(32, stride=3)}, {"series": 32}, 10, VaeConfig())
    assert strided.needs("series") == 4


def test_padding_and_missing_values_have_no_influence():
    pretext, encoder = build(2, dim=12), Dilated(2, 8, 2, 12)
    pretext.attach({"series": encoder})
    world = walks(length=32)
    outcomes = []
    for beyond in (1e4, np.nan, -3.0):
        world[:, 25:] = beyond
        batch = read(pretext, world, np.arange(6), np.random.default_rng(0))
        batch["series"].present[:, :, 25:] = False
        outcomes.append(pretext({"series": encoder}, batch))
    for other in outcomes[1:]:
        assert torch.equal(other.loss, outcomes[0].loss)
        assert torch.equal(other.embedding, outcomes[0].embedding)


def test_micro_batches_equal_the_whole_batch():
    pretext, encoders = build(2), {"series": TinyEncoder(channels=2)}
    pretext.posterior[0].weight.data[4:] = 0
    pretext.posterior[0].bias.data[4:] = -40.0  # no noise to speak of: its draws differ by part
    batch = read(pretext, walks(), np.arange(6), np.random.default_rng(0))
    whole = pretext.encode(encoders, batch)
    parts = [pretext.encode(encoders, part(batch, rows)) for rows in (slice(0, 4), slice(4, 6))]
    joined = {name: torch.cat([features[name] for features in parts]) for name in whole}
    asked = [pretext.ask(f, batch.without_samples()).loss for f in (joined, whole)]
    torch.testing.assert_close(asked[0], asked[1], atol=0.05, rtol=1e-2)
    assert torch.equal(joined["mean"], whole["mean"])


def test_draws_come_from_the_batch():
    pretext, encoder = build(), TinyEncoder()
    world = walks(channels=1)
    again = [
        pretext.encode({"series": encoder}, read(pretext, world, np.arange(6), rng(seed)))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(again[0]["restored"], again[1]["restored"])
    assert not torch.equal(again[0]["restored"], again[2]["restored"])


def test_nothing_observed_at_all_leaves_a_finite_loss():
    pretext, encoder = build(), Dilated(1, 8, 2, 32)
    world = np.full((3, 40, 1), np.nan, dtype=np.float32)
    outcome = pretext({"series": encoder}, read(pretext, world, np.arange(3), rng()))
    outcome.loss.backward()
    assert float(outcome.loss.detach()) == 0
    assert outcome.answers == {}
    assert all(value.isfinite() for value in outcome.metrics.values())
    weights = [*pretext.parameters(), *encoder.parameters()]
    assert all(p.grad is None or p.grad.isfinite().all() for p in weights)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_what_cannot_be_is_named():
    assert catalog.find("vae") is Vae
    with pytest.raises(ConfigError, match=r"Unknown annealing 'linea'. Did you mean 'linear'"):
        build(annealing="linea")
    for name in ("latent", "hidden", "anneal", "cycles"):
        with pytest.raises(ConfigError, match=f"{name} is 0; it must be at least 1"):
            build(**{name: 0})
    for name in ("scale", "beta", "free"):
        with pytest.raises(ConfigError, match=f"{name} is -1; it must not be negative"):
            build(**{name: -1})
    encoder = TinyEncoder()
    del encoder.settings["channels"]
    with pytest.raises(ConfigError, match="TinyEncoder has no setting `channels`"):
        build().attach({"series": encoder})


# -- learning -------------------------------------------------------------------------------------


def shapes(count: int, channels: int, length: int = 32) -> np.ndarray:
    """Two things are different from recording to recording, the phase of a wave and how bent its
    baseline is; the rest is noise. Units, gaps and lengths are odd."""
    r = rng()
    t = np.arange(length)[:, None] / length
    phase, bend = r.uniform(0, 1, (count, 1, channels)), r.normal(size=(count, 1, channels))
    wave = np.sin(2 * np.pi * (2 * t + phase)) + 3 * bend * (t - 0.5) ** 2
    wave = (wave + r.normal(0, 0.1, wave.shape)) * r.uniform(1, 100, (count, 1, channels)) + 7
    wave[r.random(wave.shape) < 0.05] = np.nan
    for i, stop in enumerate(r.integers(20, length + 1, count)):
        wave[i, stop:] = np.nan
    return wave.astype(np.float32)


def trained(channels: int, steps: int, **settings) -> tuple[Outcome, Vae]:
    """The outcome on recordings kept back."""
    pretext = build(channels, **settings)
    torch.manual_seed(0)
    encoders = {"series": Dilated(channels, width=16, depth=3, dim=32)}
    weights = [*encoders["series"].parameters(), *pretext.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=3e-3)
    world, r = shapes(500, channels), rng()
    for _ in range(steps):
        batch = read(pretext, world, r.choice(400, 48), r)
        outcome = pretext(encoders, batch)
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
        pretext.after_step(encoders, batch, {})
    with torch.no_grad():
        return pretext(encoders, read(pretext, world, np.arange(400, 500), r)), pretext


@pytest.mark.parametrize("channels", [1, 2])
def test_windows_are_told_in_a_few_numbers(channels):
    held_out, _ = trained(channels, 250, anneal=100)
    assert held_out.metrics["active_units"] >= 2
    assert held_out.metrics["skill"] > 0.3
    assert held_out.answers["recognised"].accuracy > 5 * held_out.answers["recognised"].chance


def test_a_collapse_is_seen_and_free_bits_prevent_it():
    collapsed, _ = trained(1, 120, scale=1.0, beta=30.0, annealing="constant")
    assert collapsed.metrics["kl"] < 0.1
    assert collapsed.metrics["active_units"] == 0
    assert collapsed.answers["recognised"].accuracy < 0.06
    free, _ = trained(1, 120, scale=1.0, beta=30.0, annealing="constant", free=0.5)
    assert free.metrics["kl"] > 1
    assert free.metrics["active_units"] > 0


def test_the_metric_elbo_does_not_depend_on_the_weight():
    pretext, encoder = build(anneal=100), TinyEncoder()
    world = walks(channels=1)
    bounds, losses = [], []
    for taken in (0, 100):
        pretext.taken.fill_(taken)
        outcome = pretext({"series": encoder}, read(pretext, world, np.arange(6), rng()))
        bounds.append(float(outcome.metrics["elbo"]))
        losses.append(float(outcome.loss.detach()))
    assert bounds[0] == bounds[1]
    assert losses[1] == pytest.approx(-bounds[1], rel=1e-5)
    assert losses[0] < losses[1]

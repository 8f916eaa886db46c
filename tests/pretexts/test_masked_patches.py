"""Masked patches: what is hidden, what is asked for, and that it is learnt."""

import math

import numpy as np
import pytest
import torch
from tiny import TinyEncoder, assert_parts_equal_the_whole, read, timeline

from mainspring.clips import ClipSpec
from mainspring.encoders.patch_transformer import PatchTransformer
from mainspring.errors import ConfigError
from mainspring.pretexts import catalog
from mainspring.pretexts.masked import masked_patches
from mainspring.pretexts.masked.masked_patches import (
    MaskedPatches,
    MaskedPatchesConfig,
    choose,
    compare,
    lines,
)
from mainspring.pretexts.pretext import Batch
from mainspring.training.settings import Settings, make

SPEC = ClipSpec(length=48)


def little(channels: int = 1, **settings) -> PatchTransformer:
    torch.manual_seed(0)
    size = {"patch": 6, "dim": 32, "depth": 2, "heads": 4, "hidden": 64, "dropout": 0.0}
    return PatchTransformer(channels, **{**size, **settings})


def build(
    encoder: PatchTransformer | None = None, spec: ClipSpec = SPEC, **settings
) -> tuple[MaskedPatches, PatchTransformer]:
    encoder = encoder or little()
    config = MaskedPatchesConfig(**{"dropout": 0.0, **settings})
    pretext = MaskedPatches({"series": spec}, {"series": encoder.dim}, 10, config)
    pretext.attach({"series": encoder})
    return pretext, encoder


def patches(n=4, count=10, channels=2, patch=3, seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (0 where missing) and what was observed."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n, count, channels, patch, generator=generator)
    observed = torch.rand(values.shape, generator=generator) > 0.25
    return values * observed, observed


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- drawing and hiding ---------------------------------------------------------------------------


def test_a_window_lies_anywhere_and_short_recordings_are_padded():
    pretext, _ = build(spec=ClipSpec(length=48, stride=2))
    starts = set()
    for seed in range(60):
        clip = pretext.draw(timeline(98), np.random.default_rng(seed))["series"].clips
        assert clip.shape == (1, 48)
        assert (np.diff(clip) == 2).all()
        starts.add(int(clip[0, 0]))
    assert starts == {0, 1, 2, 3}
    short = pretext.draw(timeline(30), np.random.default_rng(0))["series"].clips[0]
    assert short.tolist() == [*range(0, 30, 2)] + [-1] * 33
    assert pretext.needs("series") == 3  # at stride 2, two samples


def test_papers_window_hides_17_of_42_patches_of_each_channel():
    seen = torch.ones(8, 42, 7, dtype=torch.bool)
    hidden = choose(seen, 0.4, generator())
    assert (hidden.sum(1) == 17).all()
    assert not torch.equal(hidden[:, :, 0], hidden[:, :, 1])  # each channel by itself
    assert not torch.equal(hidden[0], hidden[1])
    assert torch.equal(hidden, choose(seen, 0.4, generator()))
    share = torch.stack([choose(seen, 0.4, generator(s)) for s in range(60)]).float().mean((0, 1))
    assert (share - 17 / 42).abs().max() < 0.1  # every place alike: 6 standard errors of 480


@pytest.mark.parametrize("ratio", [0.1, 0.4, 0.5, 0.75, 0.99])
def test_the_number_hidden_is_exact_among_patches_that_hold_something(ratio):
    count = torch.arange(21)
    seen = (torch.arange(20)[:, None] < count).T[:, :, None]
    seen = seen[:, torch.randperm(20, generator=generator())]
    hidden = choose(seen, ratio, generator(1))
    assert not (hidden & ~seen).any()
    for m, row in zip(count.tolist(), hidden[:, :, 0], strict=True):
        stay = max(1, math.floor(m * round(1 - ratio, 6) + 1e-9))
        assert int(row.sum()) == max(0, m - stay)


@pytest.mark.parametrize("fill", ["zeros", "learned"])
def test_what_is_hidden_cannot_be_seen(fill):
    pretext, encoder = build(little(2), fill=fill)
    samples = torch.randn(3, 48, 2, generator=generator())
    prepared = encoder.prepare(samples)
    hidden = choose(encoder.seen(prepared), 0.4, generator())
    plain = pretext.hide(encoder, prepared, hidden)
    other = prepared.clone()
    other[..., :6][hidden] = 9.0
    other[..., 6:][hidden] = 0.0  # not even its gaps
    assert torch.equal(pretext.hide(encoder, other, hidden), plain)
    blank = pretext.mask if fill == "learned" else encoder.project.bias
    torch.testing.assert_close(plain[hidden], blank.expand(int(hidden.sum()), -1))
    torch.testing.assert_close(plain[~hidden], encoder.stem(prepared)[~hidden])


def test_hidden_patches_are_attended_to_like_others(monkeypatch):
    pretext, encoder = build(little(2))
    attended, trunk = [], encoder.trunk
    monkeypatch.setattr(encoder, "trunk", lambda *given: attended.append(given[1]) or trunk(*given))
    world = np.random.default_rng(0).normal(size=(3, 48, 2)).astype(np.float32)
    pretext.encode({"series": encoder}, read(pretext, world, np.arange(3), rng()))
    assert attended[0].shape == (3, 8, 2)
    assert attended[0].all()


def test_tokens_are_dropped_out_before_the_head_in_training_alone():
    pretext, encoder = build(little(norm="layer"), dropout=0.5)
    world = np.random.default_rng(0).normal(size=(3, 48, 1)).astype(np.float32)
    for training in (True, False):
        pretext.train(training)
        errors = [
            pretext.encode({"series": encoder}, read(pretext, world, np.arange(3), rng()))
            for _ in range(2)
        ]
        assert torch.equal(errors[0]["squared"], errors[1]["squared"]) != training


# -- arithmetic -----------------------------------------------------------------------------------


def slow_sums(restored, values, observed, hidden) -> list[dict[str, float]]:
    """Value by value, in float64."""
    n, count, channels, patch = values.shape
    rows = []
    for i in range(n):
        sums = dict.fromkeys(("squared", "mean", "line", "cells", "right", "apart"), 0.0)
        for c in range(channels):
            steps = [(k, s) for k in range(count) for s in range(patch)]
            known = {
                k * patch + s: float(values[i, k, c, s])
                for k, s in steps
                if observed[i, k, c, s] and not hidden[i, k, c]
            }
            for k, s in steps:
                if not hidden[i, k, c] or not observed[i, k, c, s]:
                    continue
                here, value = k * patch + s, float(values[i, k, c, s])
                before = [t for t in known if t < here]
                after = [t for t in known if t > here]
                if before and after:
                    a, b = max(before), min(after)
                    line = known[a] + (known[b] - known[a]) * (here - a) / (b - a)
                elif before or after:
                    line = known[max(before) if before else min(after)]
                else:
                    line = 0.0
                guess = float(restored[i, k, c, s])
                sums["squared"] += (guess - value) ** 2
                sums["mean"] += value**2
                sums["line"] += (line - value) ** 2
                sums["cells"] += 1
                sums["apart"] += value != line
                sums["right"] += (value - line) * (guess - line) > 0
        rows.append(sums)
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_sums_equal_a_slow_float64_reference(seed):
    values, observed = patches(seed=seed)
    observed[0, :, 0] = False
    values = values * observed
    hidden = choose(observed.any(-1), 0.4, generator(seed))
    hidden[1, 1:, 1] = hidden[2, :9, 0] = True  # nothing known on one side
    hidden[3, :, 1] = True  # nothing known at all
    restored = torch.randn(values.shape, generator=generator(9))
    got = compare(restored, values, observed, hidden)
    for i, want in enumerate(slow_sums(restored, values, observed, hidden)):
        for name, value in want.items():
            assert float(got[name][i]) == pytest.approx(value, rel=1e-4, abs=1e-4), (i, name)


def test_a_straight_line_is_filled_exactly():
    slope = (torch.arange(30.0) * 0.3 - 2).reshape(1, 10, 1, 3)
    known = torch.ones_like(slope, dtype=torch.bool)
    known[:, 2:7] = False
    torch.testing.assert_close(lines(slope, known), slope)


def test_the_fillings_have_no_skill_over_themselves():
    pretext, _ = build()
    values, observed = patches()
    hidden = choose(observed.any(-1), 0.4, generator())
    line = lines(values, observed & ~hidden[..., None])
    for naive, restored in (("mean", torch.zeros_like(values)), ("line", line)):
        sums = compare(restored, values, observed, hidden)
        sums["embedding"] = torch.zeros(4, 32)
        outcome = pretext.ask(sums, Batch({}, torch.arange(4), generator()))
        assert float(outcome.metrics[f"skill_{naive}"]) == pytest.approx(0, abs=1e-5)
        total = {name: float(value.sum()) for name, value in sums.items()}
        assert float(outcome.loss) == pytest.approx(total["squared"] / total["cells"])
    assert outcome.answers["side"].accuracy == 0  # on the line is on neither side
    sums = compare(torch.randn(values.shape, generator=generator(3)) * 9, values, observed, hidden)
    assert float(sums["right"].sum() / sums["apart"].sum()) == pytest.approx(0.5, abs=0.2)


def test_what_was_not_observed_or_not_hidden_has_no_gradient():
    values, observed = patches()
    hidden = choose(observed.any(-1), 0.4, generator())
    restored = torch.randn(values.shape, requires_grad=True)
    compare(restored, values, observed, hidden)["squared"].sum().backward()
    assert torch.equal(restored.grad != 0, observed & hidden[..., None])


def test_padding_and_missing_values_have_no_influence():
    pretext, encoder = build(little(2), spec=ClipSpec(length=60))
    world = np.random.default_rng(0).normal(size=(4, 60, 2)).astype(np.float32)
    world[:, 50:] = 1e4
    world[0, 4:20, 1] = np.nan
    outcomes = []
    for beyond in (1e4, np.nan, -3.0):
        world[:, 48:] = beyond
        batch = read(pretext, world, np.arange(4), np.random.default_rng(0))
        batch["series"].present[:, :, 48:] = False
        outcomes.append(pretext({"series": encoder}, batch))
    for other in outcomes[1:]:
        assert torch.equal(other.loss, outcomes[0].loss)
        assert torch.equal(other.embedding, outcomes[0].embedding)


def test_micro_batches_equal_the_whole_batch(monkeypatch):
    third = torch.arange(8)[:, None] % 3 == 1
    monkeypatch.setattr(masked_patches, "choose", lambda seen, ratio, generator: seen & third)
    pretext, encoder = build(little(norm="layer"))
    encoders = {"series": encoder}
    world = np.random.default_rng(0).normal(size=(6, 60, 1)).cumsum(1).astype(np.float32)
    world[0, 20:50] = np.nan  # so that recordings have unlike numbers of values
    batch = read(pretext, world, np.arange(6), np.random.default_rng(0))
    assert_parts_equal_the_whole(pretext, encoders, batch)


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_observed_at_all_leaves_a_finite_loss(channels):
    pretext, encoder = build(little(channels))
    world = np.full((3, 60, channels), np.nan, dtype=np.float32)
    outcome = pretext({"series": encoder}, read(pretext, world, np.arange(3), rng()))
    outcome.loss.backward()
    assert float(outcome.loss.detach()) == 0
    assert outcome.answers == {}
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- settings -------------------------------------------------------------------------------------


def test_the_recipe_is_the_papers():
    assert catalog.find("masked_patches") is MaskedPatches
    recipe = {"data": "x", "pretext": "masked_patches", **MaskedPatches.recipe}
    settings = make(Settings, recipe, "recipe")
    assert settings.encoder == ("patch_transformer",)
    assert (settings.batch, settings.optimiser.lr, settings.optimiser.warmup) == (64, 1e-4, 0.3)
    assert MaskedPatches.whole == PatchTransformer.clip.length == 512


def test_what_cannot_be_is_named():
    with pytest.raises(ConfigError, match=r"Unknown fill 'zero'. Did you mean 'zeros'"):
        build(fill="zero")
    for ratio in (0.0, 1.0):
        with pytest.raises(ConfigError, match=f"ratio is {ratio}"):
            build(ratio=ratio)
    with pytest.raises(ConfigError, match="dropout is 1"):
        build(dropout=1.0)
    pretext, _ = build()
    with pytest.raises(ConfigError, match="TinyEncoder has none; use the encoder patch_trans"):
        pretext.attach({"series": TinyEncoder()})
    with pytest.raises(ConfigError, match="6 steps every 3 overlap"):
        build(little(stride=3))
    with pytest.raises(ConfigError, match=r"11 steps holds 1 patch of 6.*patch to 5 or less"):
        build(spec=ClipSpec(length=11))
    with pytest.raises(ConfigError, match="MaskedPatches reads series, not audio"):
        MaskedPatches({"audio": SPEC}, {"audio": 8}, 10, MaskedPatchesConfig())


# -- learning -------------------------------------------------------------------------------------


def swings(count: int, channels: int, length: int = 70) -> np.ndarray:
    """Sines of any phase in any unit, with noise, gaps and unlike lengths: neither their mean nor
    a line over six hidden steps says where they are."""
    r = rng()
    period, phase = r.uniform(11, 12, (2, count, 1, channels))
    wave = np.sin(2 * np.pi * (np.arange(length)[:, None] / period + phase))
    wave = (wave + r.normal(0, 0.1, wave.shape)) * r.uniform(1, 100, (count, 1, channels)) + 7
    wave[r.random(wave.shape) < 0.05] = np.nan
    for i, stop in enumerate(r.integers(40, length, count)):
        wave[i, stop:] = np.nan
    return wave.astype(np.float32)


@pytest.mark.parametrize(
    ("channels", "norm", "fill"), [(1, "batch", "zeros"), (2, "layer", "learned")]
)
def test_hidden_patches_of_swings_are_learnt(channels, norm, fill):
    pretext, encoder = build(little(channels, norm=norm, depth=1), fill=fill)
    encoders = {"series": encoder}
    optimiser = torch.optim.AdamW([*encoder.parameters(), *pretext.parameters()], lr=5e-3)
    world, r = swings(500, channels), rng()
    for _ in range(140):
        outcome = pretext(encoders, read(pretext, world, r.choice(400, 48), r))
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
    encoder.eval()
    with torch.no_grad():
        held_out = pretext(encoders, read(pretext, world, np.arange(400, 500), r))
    assert held_out.metrics["skill_mean"] > 0.4
    assert held_out.metrics["skill_line"] > 0.6
    assert held_out.answers["side"].accuracy > 0.75

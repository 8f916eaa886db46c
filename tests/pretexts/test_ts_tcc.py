"""TsTcc: its views, its arithmetic, what takes no part, and that both questions are learnt."""

import math

import numpy as np
import pytest
import torch
from tiny import TinyEncoder, assert_parts_equal_the_whole, timeline

from mainspring.clips import ClipSpec
from mainspring.encoders.cpc_series import CpcSeries
from mainspring.encoders.dilated import Dilated
from mainspring.encoders.patch_transformer import PatchTransformer
from mainspring.errors import ConfigError
from mainspring.losses.contrast import agreement, all_but_self, contrast
from mainspring.pretexts.catalog import find
from mainspring.pretexts.contrastive.ts_tcc import TsTcc, TsTccConfig, averaged, tell_the_future
from mainspring.pretexts.pretext import Batch, Views

STILL = {"scaling_mean": 1.0, "scaling": 0.0, "segments": 1, "jitter": 0.0}


def build(length: int = 48, dim: int = 16, **settings) -> TsTcc:
    torch.manual_seed(0)
    changes = {"hidden": 12, "heads": 2, "depth": 2, "projection": 6, **settings}
    return TsTcc({"series": ClipSpec(length)}, {"series": dim}, 10, TsTccConfig(**changes))


def small(**settings) -> Dilated:
    torch.manual_seed(0)
    return Dilated(**{"width": 8, "depth": 3, "dim": 16, **settings})


def read(pretext: TsTcc, world: list[np.ndarray], rows, seed: int = 0) -> Batch:
    """What the loader would make of recordings of any length."""
    rng = np.random.default_rng(seed)
    draws = [pretext.draw(timeline(len(world[r])), rng)["series"] for r in rows]
    samples = [
        np.where(d.clips[..., None] < 0, np.nan, world[r][d.clips])
        for r, d in zip(rows, draws, strict=True)
    ]
    views = Views(
        torch.from_numpy(np.stack(samples).astype(np.float32)),
        torch.from_numpy(np.stack([d.clips for d in draws]) >= 0),
        {},
    )
    batch = Batch({"series": views}, torch.tensor(rows), torch.Generator().manual_seed(seed))
    batch.common.manual_seed(seed)
    return batch


def noise(lengths, channels: int = 1, missing: float = 0.0) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    world = [rng.normal(size=(length, channels)) for length in lengths]
    for series in world:
        series[rng.random(series.shape) < missing] = np.nan
    return world


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- drawing and views ----------------------------------------------------------------------------


def test_a_clip_is_a_window_or_the_whole_recording_and_padding():
    pretext = build()
    for seed in range(50):
        draw = pretext.draw(timeline(60), np.random.default_rng(seed))["series"]
        assert (np.diff(draw.clips[0]) == 1).all()
        assert 0 <= draw.clips[0, 0] <= 12
    (clip,) = pretext.draw(timeline(7), np.random.default_rng(0))["series"].clips
    assert clip.tolist() == [*range(7), *[-1] * 41]
    assert pretext.needs("series") == 2
    assert find("ts_tcc") is TsTcc


def units(samples: torch.Tensor) -> torch.Tensor:
    mean = samples.nanmean(1, keepdim=True)
    return (samples - mean) / (samples - mean).square().nanmean(1, keepdim=True).sqrt()


def test_the_weak_view_multiplies_each_time_step_by_n_2_11():
    samples = torch.randn(40, 100, 3, generator=dice(1))
    everywhere = torch.ones(40, 100, dtype=torch.bool)
    weak, _ = build().views(samples * 1000 + 7, everywhere, dice())
    factor = ((weak - 7) / 1000 - samples.mean(1, keepdim=True)) / (
        samples - samples.mean(1, keepdim=True)
    )
    firm = (samples.abs() > 0.5).all(-1)
    torch.testing.assert_close(
        factor[firm], factor[firm][:, :1].expand(-1, 3), atol=0.05, rtol=0.05
    )
    assert float(factor[firm].mean()) == pytest.approx(2, abs=0.1)
    assert float(factor[firm].std()) == pytest.approx(1.1, abs=0.1)
    weak, _ = build(scaled="channel").views(samples, everywhere, dice())
    ratio = (weak - samples.mean(1, keepdim=True)) / (samples - samples.mean(1, keepdim=True))
    assert float((ratio - ratio.median(1, keepdim=True).values).abs().median()) < 1e-4


def test_the_strong_view_moves_whole_steps_and_adds_noise():
    samples = torch.randn(300, 50, 2, generator=dice(1)) * torch.tensor([1000.0, 0.01])
    everywhere = torch.ones(300, 50, dtype=torch.bool)
    _, moved = build(jitter=0).views(samples, everywhere, dice())
    torch.testing.assert_close(moved.sort(1).values, samples.sort(1).values, rtol=1e-4, atol=1e-4)
    where = (moved[:, :, None, 0] - samples[:, None, :, 0]).abs().argmin(2)
    want = samples[:, :, 1].gather(1, where)
    torch.testing.assert_close(moved[:, :, 1], want, rtol=1e-3, atol=1e-5)
    _, noisy = build(segments=1).views(samples, everywhere, dice())
    added = (noisy - samples) / samples.std(1, keepdim=True, correction=0)
    assert float(added.mean()) == pytest.approx(0, abs=0.03)
    assert float(added.std()) == pytest.approx(0.8, abs=0.03)


def test_views_are_fresh_and_keep_what_is_missing():
    samples = torch.randn(5, 30, 2, generator=dice(1)).masked_fill(
        torch.rand(5, 30, 2, generator=dice(2)) < 0.3, torch.nan
    )
    present = torch.arange(30) < torch.tensor([[30], [20], [9], [2], [0]])
    for view in build().views(samples, present, dice()):
        here = view.isnan().masked_fill(~present[:, :, None], False)
        want = samples.isnan().masked_fill(~present[:, :, None], False)
        assert torch.equal(here.sum(1), want.sum(1))
    assert torch.equal(build().views(samples, present, dice())[0].isnan()[0], samples.isnan()[0])
    generator = dice()
    first, second = (build().views(samples, present, generator)[1] for _ in range(2))
    assert not torch.equal(first.nan_to_num(), second.nan_to_num())


# -- arithmetic -----------------------------------------------------------------------------------


def test_averages_are_over_nearly_equal_stretches_of_what_is_there():
    tokens = torch.randn(4, 20, 3)
    there = torch.arange(20) < torch.tensor([[20], [7], [3], [0]])
    means, count = averaged(tokens, there, 6)
    assert count.tolist() == [6, 6, 3, 0]
    assert means.shape == (4, 6, 3)
    for i, length in enumerate((20, 7, 3, 0)):
        for j in range(6):
            rows = [t for t in range(length) if t * int(count[i]) // length == j]
            want = tokens[i, rows].mean(0) if rows else torch.zeros(3)
            torch.testing.assert_close(means[i, j], want)
    few, count = averaged(tokens[:, :4], there[:, :4], 6)
    torch.testing.assert_close(few[0], tokens[0, :4])
    assert count.tolist() == [4, 4, 3, 0]


def test_telling_the_future_equals_a_slow_float64_reference():
    torch.manual_seed(0)
    foretold, true = torch.randn(2, 6, 2, 4, 5).unbind(0)
    there = torch.rand(6, 4) < 0.8
    there[:5, 3] = False  # four steps ahead is one recording alone
    there[5, 3] = True
    recording = torch.tensor([3, 4, 5, 3, 6, 7])
    terms, right, luck = [], [], []
    for view in range(2):
        for k in range(4):
            for i in range(6):
                rivals = [j for j in range(6) if recording[j] != recording[i] and there[j, k]]
                if not there[i, k] or not rivals:
                    continue
                guess = foretold[i, view, k].double()
                own = float(guess @ true[i, view, k].double())
                others = [float(guess @ true[j, view, k].double()) for j in rivals]
                total = sum(math.exp(score) for score in [own, *others])
                terms.append(math.log(total) - own)
                right.append(all(own > other for other in others))
                luck.append(1 / (1 + len(rivals)))
    got = tell_the_future(foretold, true, there, recording)
    assert float(got.loss) == pytest.approx(2 * np.mean(terms), rel=1e-5)  # both directions, added
    assert float(got.accuracy) == pytest.approx(np.mean(right))
    assert got.chance == pytest.approx(np.mean(luck))
    assert got.asked == len(terms)


def test_contexts_foretell_the_other_view_and_meet_by_nt_xent():
    pretext, size = build(steps=2, temporal=0.5, contextual=2.0), 5
    torch.manual_seed(1)
    features = {
        "context": torch.randn(size, 2, 12),
        "future": torch.randn(size, 2, 2, 16),
        "there": torch.ones(size, 2, dtype=torch.bool),
        "projection": torch.randn(size, 2, 6),
        "embedding": torch.randn(size, 16),
    }
    recording = torch.arange(size)
    outcome = pretext.ask(features, Batch({}, recording, dice()))
    foretold = pretext.foretell(features["context"]).unflatten(-1, (2, 16))
    crossed = torch.stack([features["future"][:, 1], features["future"][:, 0]], 1)
    temporal = tell_the_future(foretold, crossed, features["there"], recording).loss
    torch.testing.assert_close(outcome.metrics["temporal"], temporal.detach())
    both, twice = features["projection"].transpose(0, 1).flatten(0, 1), recording.repeat(2)
    simclr = contrast(both, agreement(twice, {}, {}), all_but_self(twice), 0.2).loss
    torch.testing.assert_close(outcome.metrics["contextual"], simclr)
    torch.testing.assert_close(outcome.loss, 0.5 * temporal + 2 * simclr)
    assert outcome.answers["context"].chance == pytest.approx(1 / 9)
    assert outcome.answers["future"].chance == pytest.approx(1 / 5)


def test_a_context_knows_its_past_alone():
    pretext = build()
    grid, cut = torch.randn(6, 18, 16), torch.tensor([0, 3, 7, 11, 16, 17])
    later = torch.where((torch.arange(18) > cut[:, None])[:, :, None], 9.0, grid)
    torch.testing.assert_close(pretext.context(later, cut), pretext.context(grid, cut))
    inside = grid.clone()
    inside[torch.arange(6), cut] += 1
    changed = (pretext.context(inside, cut) - pretext.context(grid, cut)).abs().amax(1)
    assert (changed > 1e-4).all()
    alone = [pretext.context(grid[i : i + 1, : cut[i] + 1], cut[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(torch.cat(alone), pretext.context(grid, cut), atol=1e-5, rtol=1e-4)


def test_the_embedding_is_that_of_the_weak_view():
    pretext, encoder = build(scaling_mean=1.0, scaling=0.0), small()
    batch = read(pretext, noise([48, 30, 9]), [0, 1, 2])
    embedding = pretext.encode({"series": encoder}, batch)["embedding"]
    torch.testing.assert_close(embedding, encoder(*batch["series"].flat()), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_future_follows_the_cut_within_the_recording(seed):
    pretext, encoder = build(grid=12, steps=3, **STILL), small()
    batch = read(pretext, noise([48, 30, 9, 3, 2]), list(range(5)), seed)
    share = float(torch.rand(1, generator=torch.Generator().manual_seed(seed)))
    got = pretext.encode({"series": encoder}, batch)
    samples, present = batch["series"].flat()
    tokens = encoder.tokens(samples, present)
    for i, length in enumerate((48, 30, 9, 3, 2)):
        count = min(12, length)
        grid, _ = averaged(tokens[i : i + 1, :length], present[i : i + 1, :length], 12)
        grid = grid / grid.square().sum(-1, keepdim=True).sqrt()
        cut = int(share * max(1, count - 3))
        past = pretext.context(grid, torch.tensor([cut]))[0]
        torch.testing.assert_close(got["context"][i], past.expand(2, -1), atol=1e-5, rtol=1e-4)
        for k in range(3):
            assert bool(got["there"][i, k]) == (cut + k + 1 < count)
            for view in range(2):
                if cut + k + 1 < count:
                    torch.testing.assert_close(got["future"][i, view, k], grid[0, cut + k + 1])


def test_where_the_past_ends_tells_no_recording_apart():
    pretext, encoder = build(grid=12, steps=3, **STILL), small()
    samples = torch.full((6, 1, 48, 1), 3.0)
    ends = set()
    for seed in range(12):
        views = Views(samples, torch.ones(6, 1, 48, dtype=torch.bool), {})
        batch = Batch({"series": views}, torch.arange(6), dice(), dice(seed))
        got = pretext.encode({"series": encoder}, batch)
        for name in ("context", "future"):
            torch.testing.assert_close(got[name], got[name][:1].expand_as(got[name]))
        ends.add(round(float(got["context"].detach()[0, 0, 0]), 5))
    assert len(ends) > 3


def test_vectors_without_meaning_are_right_by_chance_and_collapsed_ones_never():
    there, recording = torch.ones(20, 3, dtype=torch.bool), torch.arange(20)
    accuracy = [
        float(tell_the_future(*torch.randn(2, 20, 2, 3, 8).unbind(0), there, recording).accuracy)
        for _ in range(20)
    ]
    assert np.mean(accuracy) == pytest.approx(1 / 20, abs=0.02)
    same = torch.randn(1, 1, 1, 8).expand(20, 2, 3, 8)
    got = tell_the_future(torch.randn(20, 2, 3, 8), same.contiguous(), there, recording)
    assert float(got.accuracy) == 0


# -- what takes no part ---------------------------------------------------------------------------


def test_padding_and_what_lies_in_it_change_nothing():
    encoder, world = small(), noise([30, 17, 24, 9])
    outcomes = []
    for length, filling in ((30, 0.0), (47, 0.0), (47, 1e9)):
        pretext = build(length, **STILL)
        batch = read(pretext, world, list(range(4)))
        batch["series"].samples[~batch["series"].present] = filling
        outcomes.append(pretext({"series": encoder}, batch).loss.detach())
    torch.testing.assert_close(outcomes[0], outcomes[1])
    assert torch.equal(outcomes[1], outcomes[2])


@pytest.mark.parametrize("world", [noise([40] * 3, missing=1.0), noise([2] * 3), noise([1] * 3)])
def test_hardly_anything_observed_leaves_finite_gradients(world):
    encoder, pretext = small(), build()
    outcome = pretext({"series": encoder}, read(pretext, world, [0, 1, 2]))
    outcome.loss.backward()
    weights = [*encoder.parameters(), *pretext.parameters()]
    assert outcome.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in weights if p.grad is not None)


def test_micro_batches_equal_the_whole_batch():
    pretext, encoders = build(**STILL), {"series": small(channels=2)}
    batch = read(pretext, noise([48, 30, 60, 11, 48, 20], 2, missing=0.2), list(range(6)))
    assert_parts_equal_the_whole(pretext, encoders, batch)


def test_other_encoders_serve():
    for encoder in (TinyEncoder(16), CpcSeries(1, 8, 16)):
        pretext = build()
        outcome = pretext({"series": encoder}, read(pretext, noise([48, 60, 50]), [0, 1, 2]))
        outcome.loss.backward()
        assert set(outcome.answers) == {"future", "context"}


def test_what_cannot_be_is_named():
    for setting, value in (("segments", 0), ("grid", 1), ("steps", 0), ("jitter", -1)):
        with pytest.raises(ConfigError, match=rf"{setting} is {value}; it must be at least"):
            build(**{setting: value})
    side_by_side = PatchTransformer(2, patch=4, dim=16, depth=1, pool="channels")
    batch = read(build(dim=32), noise([48, 50], channels=2), [0, 1])
    with pytest.raises(ConfigError, match="tokens of 16 numbers and embeddings of 32"):
        build(dim=32)({"series": side_by_side}, batch)
    with pytest.raises(ConfigError, match="temperature is 0"):
        build(temperature=0)
    with pytest.raises(ConfigError, match="hidden is 13, which 2 heads cannot share"):
        build(hidden=13)
    with pytest.raises(ConfigError, match=r"Unknown way to scale 'steps'\. Did you mean 'step'"):
        build(scaled="steps")
    with pytest.raises(ConfigError, match="TsTcc reads series, not audio"):
        TsTcc({"audio": ClipSpec(9)}, {"audio": 8}, 10, TsTccConfig())


# -- learning -------------------------------------------------------------------------------------


def swings(count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Each recording has a period and a roundness of its own; 60 to 100 steps, noise, gaps."""
    world = []
    for length in rng.integers(60, 101, count):
        period, phase, sharp = rng.uniform(4, 24), rng.uniform(), rng.uniform(0.3, 3)
        wave = np.sin(2 * np.pi * (np.arange(length)[:, None] / period + phase))
        wave = np.sign(wave) * np.abs(wave) ** sharp + rng.normal(0, 0.05, wave.shape)
        wave[rng.random(wave.shape) < 0.05] = np.nan
        world.append(wave)
    return world


def test_the_future_and_the_contexts_are_found():
    gentle = {"scaling_mean": 1.0, "scaling": 0.2, "segments": 1, "jitter": 0.1, "depth": 1}
    encoder = small(width=16, depth=4, dim=32)
    pretext = build(96, 32, hidden=32, projection=16, **gentle)
    rng = np.random.default_rng(0)
    world = swings(160, rng)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *pretext.parameters()], lr=1e-3)
    for step in range(180):
        rows = rng.choice(120, 24, replace=False).tolist()
        outcome = pretext({"series": encoder}, read(pretext, world, rows, step))
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
    batches = [read(pretext, world, list(range(120, 160)), seed) for seed in range(900, 906)]
    with torch.no_grad():
        held = [pretext({"series": encoder}, batch).answers for batch in batches]
    for name, times in (("future", 3), ("context", 20)):
        assert held[0][name].chance < 0.03
        accuracy = np.mean([float(answers[name].accuracy) for answers in held])
        assert accuracy > times * held[0][name].chance, (name, accuracy)

"""TLoss: its stretches, its arithmetic, what takes no part, and that recordings are told apart."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from tiny import TinyEncoder, assert_parts_equal_the_whole, timeline

from mainspring.clips import ClipSpec
from mainspring.encoders import catalog as encoders_known
from mainspring.encoders.dilated import Dilated
from mainspring.encoders.patch_transformer import PatchTransformer
from mainspring.errors import ConfigError
from mainspring.pretexts.catalog import find
from mainspring.pretexts.contrastive.t_loss import (
    CROPS,
    TLoss,
    TLossConfig,
    crops,
    logistic,
    scores,
    some_of,
)
from mainspring.pretexts.pretext import Batch, Views


def small(**settings) -> Dilated:
    torch.manual_seed(0)
    changes = {"width": 8, "depth": 4, "dim": 16, "causal": True, "pool": "max", **settings}
    return Dilated(**changes)


def build(length: int = 40, dim: int = 16, **settings) -> TLoss:
    return TLoss({"series": ClipSpec(length)}, {"series": dim}, 10, TLossConfig(**settings))


def read(pretext: TLoss, world: list[np.ndarray], rows, seed: int = 0) -> Batch:
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
        {k: torch.from_numpy(np.stack([d.factors[k] for d in draws])) for k in draws[0].factors},
    )
    return Batch({"series": views}, torch.tensor(rows), torch.Generator().manual_seed(seed))


def noise(lengths, channels: int = 1, missing: float = 0.0) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    world = [rng.normal(size=(length, channels)) for length in lengths]
    for series in world:
        series[rng.random(series.shape) < missing] = np.nan
    return world


# -- drawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("extent", [3, 40, 55])
def test_stretches_are_drawn_as_in_algorithm_1(extent):
    pretext = build()
    there = min(extent, 40)
    seen: dict[str, list[int]] = {}
    for seed in range(2000):
        draw = pretext.draw(timeline(extent), np.random.default_rng(seed))["series"]
        assert draw.clips.shape == (1, 40)
        real = draw.clips[0, :there]
        assert (np.diff(real) == 1).all()
        assert 0 <= real[0] <= extent - there
        assert (draw.clips[0, there:] == -1).all()
        at = {name: int(value.item()) for name, value in draw.factors.items()}
        end = {crop: at[f"{crop}_start"] + at[f"{crop}_length"] for crop in CROPS}
        assert at["anchor_start"] <= at["positive_start"] <= end["positive"] <= end["anchor"]
        assert min(at.values()) >= 0
        assert min(at[f"{crop}_length"] for crop in CROPS) >= 1
        assert max(end.values()) <= there
        for name, value in at.items():
            seen.setdefault(name, []).append(value)
    mean = {name: float(np.mean(values)) for name, values in seen.items()}
    spread = 4 * there / math.sqrt(2000)
    assert mean["positive_length"] == pytest.approx((there + 1) / 2, abs=spread)
    assert mean["negative_length"] == pytest.approx((there + 1) / 2, abs=spread)
    assert mean["anchor_length"] == pytest.approx((3 * there + 1) / 4, abs=spread)


def test_three_samples_give_every_stretch_its_paper_chance():
    # Positive of 3 samples: one way. Of 2: anchor of 2 (two places) or of 3 (two places in it).
    counts: Counter[tuple[int, ...]] = Counter()
    names = ("anchor_start", "anchor_length", "positive_start", "positive_length")
    for seed in range(6000):
        factors = build().draw(timeline(3), np.random.default_rng(seed))["series"].factors
        counts[tuple(int(factors[name].item()) for name in names)] += 1
    for case, chance in {
        (0, 3, 0, 3): 1 / 3,
        (0, 2, 0, 2): 1 / 12,
        (1, 2, 1, 2): 1 / 12,
        (0, 3, 1, 2): 1 / 12,
        (2, 1, 2, 1): 1 / 27,
        (1, 2, 2, 1): 1 / 36,
        (0, 3, 1, 1): 1 / 27,
    }.items():
        assert counts[case] / 6000 == pytest.approx(chance, abs=0.02)


def test_crops_are_cut_out_and_padded():
    series = torch.arange(24.0).view(2, 6, 2)
    starts, lengths = torch.tensor([[0, 4], [2, 5]]), torch.tensor([[3, 2], [1, 1]])
    cut, there = crops(series, starts, lengths)
    assert cut.shape == (2, 2, 3, 2)
    assert torch.equal(there, torch.arange(3) < lengths[:, :, None])
    for i in range(2):
        for c in range(2):
            a, n = int(starts[i, c]), int(lengths[i, c])
            assert torch.equal(cut[i, c, :n], series[i, a : a + n])
            assert not cut[i, c, n:].any()


def test_some_of_draws_uniformly_without_repetition():
    allowed = torch.tensor([[True] * 5 + [False], [False] * 5 + [True], [False] * 6])
    counts = torch.zeros(3, 6)
    for seed in range(500):
        chosen = some_of(allowed, 2, torch.Generator().manual_seed(seed))
        assert chosen.sum(1).tolist() == [2, 1, 0]
        counts += chosen
    torch.testing.assert_close(counts[0, :5] / 500, torch.full((5,), 0.4), atol=0.08, rtol=0)
    assert not counts[~allowed].any()


# -- arithmetic -----------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [1.0, 3.0])
def test_the_loss_equals_a_slow_float64_reference(penalty):
    torch.manual_seed(0)
    a, p, n = torch.randn(3, 7, 5).unbind(0)
    chosen = torch.rand(7, 7) < 0.5
    chosen[2] = False
    got = logistic(*scores(a, p, n), chosen, penalty)
    for i in range(7):
        sigmoid = [1 / (1 + math.exp(float(a[i].double() @ n[j].double()))) for j in range(7)]
        met = [-math.log(sigmoid[j]) for j in range(7) if chosen[i, j]]
        want = math.log(1 + math.exp(-float(a[i].double() @ p[i].double())))
        want += penalty * (sum(met) / len(met) if met else 0)
        assert float(got[i]) == pytest.approx(want, rel=1e-5)


def test_one_call_equals_each_stretch_encoded_alone():
    encoder, pretext = small(channels=2).eval(), build()
    world = noise([40, 60, 25, 3], channels=2, missing=0.3)
    batch = read(pretext, world, [0, 1, 2, 3])
    with torch.no_grad():
        got = pretext.encode({"series": encoder}, batch)
        samples, present = batch["series"].flat()
        factors = batch["series"].factors
        for i in range(4):
            prepared = encoder.prepare(samples[i : i + 1], present[i : i + 1])
            for c, crop in enumerate(CROPS):
                start, count = (int(factors[f"{crop}_{what}"][i]) for what in ("start", "length"))
                alone = encoder.embed(
                    encoder.trunk(encoder.stem(prepared[:, start : start + count]))
                )
                torch.testing.assert_close(got[crop][i], alone[0], atol=1e-5, rtol=1e-4)
                seen = ~samples[i, start : start + count].isnan().all()
                assert bool(got["known"][i, c]) == bool(seen)


def test_ask_takes_k_other_recordings_and_leaves_out_what_was_never_observed():
    torch.manual_seed(0)
    a, p, n = torch.randn(3, 6, 5).unbind(0)
    known = torch.ones(6, 3, dtype=torch.bool)
    known[0, 0] = known[1, 1] = known[2, 2] = False
    recording = torch.tensor([5, 6, 7, 8, 5, 9])  # the first stands in the batch twice
    features = {"anchor": a, "positive": p, "negative": n, "known": known}
    batch = Batch({}, recording, torch.Generator())
    got = build(negatives=10).ask(features, batch)
    losses, right, luck = [], [], []
    for i in range(2, 6):
        others = [j for j in range(6) if recording[j] != recording[i] and j != 2]
        true, false = float(a[i] @ p[i]), [float(a[i] @ n[j]) for j in others]
        losses.append(
            math.log(1 + math.exp(-true)) + np.mean([math.log(1 + math.exp(f)) for f in false])
        )
        right.append(all(true > f for f in false))
        luck.append(1 / (1 + len(false)))
    assert float(got.loss) == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert float(got.answers["nearest"].accuracy) == pytest.approx(np.mean(right))
    assert got.answers["nearest"].chance == pytest.approx(np.mean(luck))
    few = build(negatives=2).ask(features, batch)
    assert few.answers["nearest"].chance == pytest.approx(1 / 3)


def test_vectors_without_meaning_are_right_by_chance_and_collapsed_ones_never():
    known = torch.ones(400, 3, dtype=torch.bool)
    vectors = torch.randn(400, 3, 8, generator=torch.Generator().manual_seed(0)).unbind(1)
    batch = Batch({}, torch.arange(400), torch.Generator())
    features = dict(zip(CROPS, vectors, strict=True)) | {"known": known}
    answer = build(negatives=4).ask(features, batch).answers["nearest"]
    assert answer.chance == pytest.approx(0.2)
    assert float(answer.accuracy) == pytest.approx(0.2, abs=0.07)
    collapsed = {name: torch.randn(1, 8).expand(400, 8) for name in ("anchor",)}
    collapsed |= dict.fromkeys(("positive", "negative"), torch.randn(1, 8).expand(400, 8))
    answer = build(negatives=4).ask({**collapsed, "known": known}, batch).answers["nearest"]
    assert float(answer.accuracy) == 0


# -- what takes no part ---------------------------------------------------------------------------


def test_padding_and_what_lies_in_it_change_nothing():
    encoder, world = small(), noise([30, 17, 24, 9])
    plain = read(build(length=30), world, [0, 1, 2, 3])
    wide = read(build(length=47), world, [0, 1, 2, 3])
    loud = read(build(length=47), world, [0, 1, 2, 3])
    loud["series"].samples[~loud["series"].present] = 1e9
    losses = [build()({"series": encoder}, batch).loss.detach() for batch in (plain, wide, loud)]
    torch.testing.assert_close(losses[0], losses[1])
    assert torch.equal(losses[1], losses[2])


def test_units_do_not_matter():
    encoder, world = small(), noise([30, 17, 24, 9])
    moved = [1000 * series + 50 for series in world]
    losses = [
        build()({"series": encoder}, read(build(), w, [0, 1, 2, 3])).loss.detach()
        for w in (world, moved)
    ]
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("world", [noise([40] * 3, missing=1.0), noise([2] * 3)])
def test_hardly_anything_observed_leaves_finite_gradients(world):
    encoder, pretext = small(), build()
    outcome = pretext({"series": encoder}, read(pretext, world, [0, 1, 2]))
    outcome.loss.backward()
    assert outcome.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


def test_micro_batches_equal_the_whole_batch():
    encoders, pretext = {"series": small()}, build(negatives=3)
    batch = read(pretext, noise([48, 30, 60, 11, 48, 20], missing=0.2), list(range(6)))
    assert_parts_equal_the_whole(pretext, encoders, batch)


def test_the_recipe_builds_the_papers_encoder():
    assert find("t_loss") is TLoss
    (name,) = TLoss.recipe["encoder"]
    encoder = encoders_known.find(name)(**TLoss.recipe["architecture"]["series"])
    assert (encoder.dim, encoder.pool, len(encoder.blocks)) == (320, "max", 11)


def test_what_cannot_be_is_named():
    with pytest.raises(ConfigError, match="TinyEncoder has no `stem`"):
        build().attach({"series": TinyEncoder()})
    batch = read(build(), noise([40, 50]), [0, 1])
    with pytest.raises(ConfigError, match="single steps, and PatchTransformer makes of 40 steps"):
        build()({"series": PatchTransformer(1, dim=16, depth=1)}, batch)
    with pytest.raises(ConfigError, match="negatives is 0"):
        build(negatives=0)
    with pytest.raises(ConfigError, match="penalty is -1"):
        build(penalty=-1)
    for shortest in (0, 41):
        with pytest.raises(ConfigError, match=rf"shortest is {shortest}; .* the 40 samples"):
            build(shortest=shortest)
    with pytest.raises(ConfigError, match="TLoss reads series, not audio"):
        TLoss({"audio": ClipSpec(9)}, {"audio": 8}, 10, TLossConfig())


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


def test_stretches_find_their_recording():
    encoder, pretext = small(width=16, depth=5, dim=32), build(length=96, dim=32)
    pretext.attach({"series": encoder})
    rng = np.random.default_rng(0)
    world = swings(140, rng)
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=3e-3)

    def held_out() -> float:
        batches = [read(pretext, world, list(range(100, 140)), seed) for seed in range(900, 906)]
        with torch.no_grad():
            outcomes = [pretext({"series": encoder}, batch) for batch in batches]
        answers = [outcome.answers["nearest"] for outcome in outcomes]
        assert all(answer.chance < 0.1 for answer in answers)
        return float(np.mean([float(answer.accuracy) for answer in answers]))

    before = held_out()
    for step in range(70):
        rows = rng.choice(100, 16, replace=False).tolist()
        outcome = pretext({"series": encoder}, read(pretext, world, rows, step))
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
    after = held_out()
    assert after > 0.3
    assert after > before

from collections import Counter

import numpy as np
import pytest
import torch

from mainspring.clips import ClipSpec, Extent, Timeline
from mainspring.encoders.dilated import Dilated
from mainspring.errors import ConfigError
from mainspring.losses.hierarchical import hierarchical
from mainspring.pretexts.batch import Batch, Views
from mainspring.pretexts.contrastive.ts2vec import TS2Vec, TS2VecConfig
from mainspring.training.settings import settle
from tests.pretexts.tiny import TinyEncoder


def encoder(channels=1, seed=0, **settings) -> Dilated:
    torch.manual_seed(seed)
    paper = {"normalise": "none", "pool": "max", "missing": "channel"}
    return Dilated(channels, width=8, depth=3, dim=6, **(paper | settings))


def pretext(length=20, recordings=4, **settings) -> TS2Vec:
    return TS2Vec({"series": ClipSpec(length)}, {"series": 6}, recordings, TS2VecConfig(**settings))


def batch(samples: torch.Tensor, present: torch.Tensor | None = None, seed: int = 0) -> Batch:
    if present is None:
        present = torch.ones(samples.shape[:2], dtype=torch.bool)
    made = Batch(
        {"series": Views(samples[:, None], present[:, None], {})},
        torch.arange(len(samples)),
        torch.Generator().manual_seed(seed),
    )
    made.common.manual_seed(seed)
    return made


def series(n=4, time=20, channels=1, seed=0):
    return torch.randn(n, time, channels, generator=torch.Generator().manual_seed(seed))


def test_a_recording_holds_two_steps_at_any_stride():
    strided = TS2Vec({"series": ClipSpec(20, stride=4)}, {"series": 6}, 4, TS2VecConfig())
    assert strided.needs("series") == 5
    clip = strided.draw(Timeline({"series": Extent(5, 1.0)}), np.random.default_rng(0))["series"]
    assert (clip.clips >= 0).sum() == 2


# -- crops ----------------------------------------------------------------------------------------


def paper_crop(length, shortest, rng):
    """The released code's draws, in its order."""
    shared = rng.integers(shortest, length + 1)
    left = rng.integers(length - shared + 1)
    right = left + shared
    a1 = rng.integers(left + 1)
    b2 = rng.integers(right, length + 1)
    return a1, left, right, b2


def test_crops_have_the_distribution_of_the_released_code():
    rng, common, made = np.random.default_rng(0), torch.Generator().manual_seed(0), pretext(4)
    mine, theirs, draws = Counter(), Counter(), 20_000
    for _ in range(draws):
        crop, low, high = made.crop(4, common)
        mine[crop] += 1
        a1, a2, b1, b2 = crop
        assert 0 <= a1 <= a2 < b1 <= b2 <= 4
        assert b1 - a2 >= 2
        assert a1 + low == 0
        assert b2 + high == 4
        theirs[paper_crop(4, 2, rng)] += 1
    assert set(mine) == set(theirs)
    for crop in mine:
        assert mine[crop] / draws == pytest.approx(theirs[crop] / draws, abs=0.015)


def test_with_nothing_hidden_the_shared_steps_are_those_of_each_crop_by_itself():
    samples, made, net = series(time=40), pretext(40, hide=0.0), encoder().eval()
    for seed in range(12):
        drawn = batch(samples, seed=seed)
        features = made.encode({"series": net}, drawn)
        again = batch(samples, seed=seed)
        (a1, a2, b1, b2), low, high = made.crop(40, again.common)
        offsets = torch.randint(low, high + 1, (4, 1), generator=again.generator)[:, 0].tolist()
        for i, offset in enumerate(offsets):
            first = net.tokens(samples[i : i + 1, offset + a1 : offset + b1])[0, a2 - a1 :]
            second = net.tokens(samples[i : i + 1, offset + a2 : offset + b2])[0, : b1 - a2]
            torch.testing.assert_close(features["pairs"][i, 0], first, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(features["pairs"][i, 1], second, atol=1e-5, rtol=1e-4)
        assert features["present"].all()


def test_parts_of_a_batch_share_the_crop_and_not_the_offsets():
    samples, made, net = series(), pretext(), encoder().eval()
    parts = batch(samples).split(2)
    for index, part in enumerate(parts):
        part.common.manual_seed(7)
        part.generator.manual_seed(index)
    lengths = {made.encode({"series": net}, part)["pairs"].shape[2] for part in parts}
    assert len(lengths) == 1


def test_hidden_steps_are_drawn_for_each_crop_and_enter_as_zero():
    made, net = pretext(2000), encoder()
    view = series(2, 2000)
    there = torch.ones(2, 2000, dtype=torch.bool)
    hidden = made.hide(net, view, there, torch.Generator().manual_seed(0))
    gone = ~hidden.any(1)
    assert 0.45 < float(gone.float().mean()) < 0.55
    assert not torch.equal(gone[0], gone[1])
    plain = net.stem(net.prepare(view, there))
    kept = ~gone[:, None].expand_as(plain)
    assert torch.equal(hidden[kept], plain[kept])


# -- missing values, padding, lengths -------------------------------------------------------------


def test_a_missing_channel_keeps_its_step_unless_asked_the_papers_way():
    samples = series(1, 10, channels=2)
    samples[0, 4, 0] = torch.nan
    other = samples.clone()
    other[0, 4, 1] += 1.0
    for missing, same in (("channel", False), ("fill", False), ("step", True)):
        net = encoder(channels=2, missing=missing).eval()
        assert torch.equal(net.tokens(samples), net.tokens(other)) == same
    with_hole = encoder(missing="step").eval()
    one = series(1, 10)
    one[0, 4] = torch.nan
    assert not with_hole.stem(with_hole.prepare(one))[0, :, 4].any()


def test_what_lies_in_padding_has_no_influence():
    present = torch.arange(20) < torch.tensor([20, 7, 12, 20])[:, None]
    samples, net = series(), encoder().eval()
    loud = torch.where(present[:, :, None], samples, 1e3)
    outcomes = []
    for values in (samples, loud):
        made = batch(values, present, seed=3)
        outcomes.append(pretext()({"series": net}, made).loss)
    assert torch.equal(*outcomes)
    assert outcomes[0].isfinite()


@pytest.mark.parametrize("length", [2, 3, 5])
def test_any_length_from_two_steps_up(length):
    for unit in (0, 3):
        made, net = pretext(length, temporal_unit=unit), encoder()
        for seed in range(5):
            outcome = made({"series": net}, batch(series(3, length), seed=seed))
            outcome.loss.backward()
            assert outcome.loss.isfinite()


def test_a_short_series_ends_in_padding_and_a_long_one_is_cut_to_a_window():
    made, rng = pretext(20), np.random.default_rng(0)
    short = made.draw(Timeline({"series": Extent(7, 1.0)}), rng)["series"].clips[0]
    assert short.tolist() == [*range(7), *[-1] * 13]
    starts = set()
    for _ in range(50):
        long = made.draw(Timeline({"series": Extent(50, 1.0)}), rng)["series"].clips[0]
        assert (np.diff(long) == 1).all()
        assert long[0] >= 0
        assert long[-1] < 50
        starts.add(int(long[0]))
    assert len(starts) > 10


def test_the_steps_that_are_asked_about_are_those_before_the_padding():
    made, net = pretext(40), encoder().eval()
    present = torch.arange(40) < torch.tensor([40, 11, 25, 33])[:, None]
    for seed in range(8):
        features = made.encode({"series": net}, batch(series(time=40), present, seed))
        again = batch(series(time=40), present, seed)
        (_, a2, b1, _), low, high = made.crop(40, again.common)
        offsets = torch.randint(low, high + 1, (4, 1), generator=again.generator)[:, 0].tolist()
        for i, offset in enumerate(offsets):
            assert torch.equal(features["present"][i], present[i, offset + a2 : offset + b1])


def test_the_loss_has_the_weights_that_were_set():
    pairs, present = torch.randn(4, 2, 20, 6), torch.ones(4, 20, dtype=torch.bool)
    for instance, unit in ((0.5, 0), (0.2, 0), (0.2, 2)):
        made = pretext(instance=instance, temporal_unit=unit)
        got = made.ask({"pairs": pairs, "present": present}, batch(series())).loss
        torch.testing.assert_close(got, hierarchical(pairs, None, instance, unit))


def test_a_series_with_nothing_but_padding_in_its_crops_is_not_asked_about():
    pairs = torch.nn.functional.one_hot(torch.arange(5)).float()[:, None, None].repeat(1, 2, 6, 1)
    present = torch.ones(5, 6, dtype=torch.bool)
    present[1:3] = False
    present[4, 1:] = False
    pairs[1:3] = pairs[4, :, 1:] = 9.0  # in padding
    outcome = pretext().ask({"pairs": pairs, "present": present}, batch(series(5)))
    assert float(outcome.answers["series"].accuracy) == 1
    assert outcome.answers["series"].chance == pytest.approx(1 / 3)
    assert torch.equal(outcome.embedding, torch.eye(5)[[0, 3, 4]])
    present[:4] = False
    assert not pretext().ask({"pairs": pairs, "present": present}, batch(series(5))).answers


# -- the question ---------------------------------------------------------------------------------


def test_it_learns_to_tell_series_apart():
    torch.manual_seed(0)
    t = torch.arange(40)
    rng = np.random.default_rng(0)
    period = torch.from_numpy(rng.uniform(4, 16, (32, 1)).astype(np.float32))
    phase = torch.from_numpy(rng.uniform(0, 6, (32, 1)).astype(np.float32))
    world = torch.sin(2 * torch.pi * t / period + phase)[:, :, None]
    made, net = pretext(40), encoder()
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    scores, losses = [], []
    for step in range(150):
        rows = torch.from_numpy(rng.choice(32, 8, replace=False))
        outcome = made({"series": net}, batch(world[rows], seed=step))
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
        losses.append(float(outcome.loss.detach()))
        scores.append(float(outcome.answers["series"].accuracy))
        assert outcome.answers["series"].chance == 1 / 8
    assert np.mean(losses[-30:]) < 0.9 * np.mean(losses[:30])
    assert np.mean(scores[-30:]) > 2.4 / 8


def test_the_recipe_is_the_papers_and_gives_way_to_the_user():
    settings = settle({"data": "x", "pretext": "ts2vec"})
    assert settings.batch == 8
    assert settings.optimiser.mean
    assert settings.optimiser.schedule == "constant"
    assert settings.encoder == ("dilated",)
    assert settings.architecture["series"]["dropout"] == 0.1
    mine = settle(
        {"data": "x", "pretext": "ts2vec", "batch": 16, "optimiser": {"lr": 1e-4}, "steps": None}
    )
    assert mine.batch == 16
    assert mine.optimiser.lr == 1e-4
    assert mine.optimiser.mean
    named = settle({"data": "x", "pretext": "ts2vec", "encoder": ["dilated"]})
    assert named.architecture == {}


def test_settings_and_encoders_that_do_not_fit_are_named():
    for wrong in ({"hide": 1.0}, {"instance": 2.0}, {"temporal_unit": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            TS2VecConfig(**wrong)
    with pytest.raises(ConfigError, match=r"TinyEncoder gives no token for each; use encoder dil"):
        pretext().attach({"series": TinyEncoder()})

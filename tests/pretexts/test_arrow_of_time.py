"""Arrow of time: its draws, its arithmetic, and that it is learnt."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import TinyEncoder, assert_parts_equal_the_whole, decays, read, timeline, train

from mainspring.clips import ClipSpec
from mainspring.errors import ConfigError
from mainspring.pretexts.ordering.arrow_of_time import ArrowOfTime, ArrowOfTimeConfig
from mainspring.pretexts.pretext import Batch, Views

SPEC = ClipSpec(length=32, stride=2)


def build(stream: str = "series", spec: ClipSpec = SPEC, **settings) -> ArrowOfTime:
    torch.manual_seed(0)
    return ArrowOfTime({stream: spec}, {stream: 32}, 10, ArrowOfTimeConfig(**settings))


@pytest.mark.parametrize("both", [True, False])
def test_direction_can_be_read_from_the_positions(both):
    pretext, seen = build(both=both), []
    for seed in range(50):
        draw = pretext.draw(timeline(100), np.random.default_rng(seed))["series"]
        step = np.diff(draw.clips, axis=1)
        assert (np.abs(step) == SPEC.stride).all()
        assert ((step < 0).all(1) == draw.factors["direction"]).all()
        assert draw.clips.min() >= 0
        assert draw.clips.max() < 100
        seen.extend(draw.factors["direction"])
    assert 0.3 < np.mean(seen) < 0.7


def test_both_directions_show_the_same_window():
    clips = build().draw(timeline(100), np.random.default_rng(0))["series"].clips
    assert (clips[0] == clips[1][::-1]).all()


def test_loss_is_the_mean_cross_entropy_of_all_views():
    pretext, encoder = build(), TinyEncoder()
    batch = read(
        pretext, decays(5, np.random.default_rng(0)), np.arange(5), np.random.default_rng()
    )
    outcome = pretext({"series": encoder}, batch)
    views, total, right = batch["series"], 0.0, 0
    for b in range(5):
        for v in range(2):
            logits = pretext.head(encoder(views.samples[b, v][None]))[0].double()
            truth = int(views.factors["direction"][b, v])
            total -= (logits[truth] - logits.exp().sum().log()).item()
            right += int(logits.argmax()) == truth
    assert outcome.loss.item() == pytest.approx(total / 10, rel=1e-5)
    assert outcome.answers["direction"].accuracy.item() == pytest.approx(right / 10)
    assert outcome.answers["direction"].chance == 0.5


def test_micro_batches_equal_the_whole_batch():
    pretext, encoders = build(), {"series": TinyEncoder()}
    batch = read(
        pretext, decays(6, np.random.default_rng(0)), np.arange(6), np.random.default_rng()
    )
    assert_parts_equal_the_whole(pretext, encoders, batch)


def test_missing_values_leave_a_finite_loss():
    pretext = build()
    world = decays(4, np.random.default_rng(0))
    world[:, 50:90] = np.nan
    batch = read(pretext, world, np.arange(4), np.random.default_rng(0))
    assert pretext({"series": TinyEncoder()}, batch).loss.isfinite()


@pytest.mark.parametrize(("stream", "shape"), [("audio", (32,)), ("video", (32, 12, 12, 3))])
def test_the_same_file_asks_it_of_sound_and_video(stream, shape):
    pretext = build(stream, ClipSpec(length=32, size=12, crop=8 if stream == "video" else 0))
    draws = [pretext.draw(timeline(60, stream), np.random.default_rng(s))[stream] for s in range(3)]
    direction = torch.from_numpy(np.stack([d.factors["direction"] for d in draws]))
    samples = torch.rand(3, 2, *shape)
    if stream == "video":
        samples = (samples * 255).to(torch.uint8)
    views = Views(samples, torch.ones(3, 2, 32, dtype=torch.bool), {"direction": direction})
    encoder = TinyEncoder(channels=8 * 8 * 3 if stream == "video" else 1)
    batch = Batch({stream: views}, torch.arange(3), torch.Generator())
    outcome = pretext({stream: encoder}, batch)
    outcome.loss.backward()
    assert outcome.loss.isfinite()
    assert F.one_hot(direction).sum((0, 1)).tolist() == [3, 3]


def test_flips_and_jitter_reach_the_encoder_and_all_views_the_monitors():
    seen = []

    class Watcher(TinyEncoder):
        def tokens(self, samples, present=None):
            seen.append(samples)
            return super().tokens(samples, present)

    encoder = Watcher(channels=8 * 8 * 3)
    frames = torch.randint(256, (3, 2, 32, 8, 8, 3), dtype=torch.uint8)
    views = Views(
        frames, torch.ones(3, 2, 32, dtype=torch.bool), {"direction": torch.arange(2).repeat(3, 1)}
    )
    for settings in ({"flip": 0.0}, {"flip": 1.0}, {"flip": 0.0, "jitter": 0.8}):
        pretext = build("video", ClipSpec(length=32, size=8), **settings)
        batch = Batch({"video": views}, torch.arange(3), torch.Generator().manual_seed(0))
        outcome = pretext({"video": encoder}, batch)
    assert torch.equal(seen[0], frames.flatten(0, 1))
    assert torch.equal(seen[1], frames.flatten(0, 1).flip(3))
    assert not torch.equal(seen[2], seen[0])
    torch.testing.assert_close(outcome.embedding, encoder(seen[2]).detach())


def test_text_has_no_direction_to_name():
    with pytest.raises(ConfigError, match="reads video, audio, series, not text"):
        build("text")


def test_direction_is_learnt_where_time_has_one():
    world = decays(200, np.random.default_rng(1))
    accuracy = train(build(spec=ClipSpec(length=32)), TinyEncoder(), world, 150)
    assert accuracy["direction"] > 0.8


def test_direction_stays_at_chance_where_time_has_none():
    world = np.random.default_rng(1).normal(size=(200, 200, 1)).astype(np.float32)
    accuracy = train(build(spec=ClipSpec(length=32)), TinyEncoder(), world, 100)
    assert abs(accuracy["direction"] - 0.5) < 0.06

"""Streams bound to one anchor find each other, though they were never compared."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_clip_pretext import DIM, SPECS, encoders_for, learn, read, recall, vectors, world
from tiny import gradients, part

from mainspring.clips import NOTHING, Extent, Timeline
from mainspring.errors import ConfigError
from mainspring.pretexts.catalog import find
from mainspring.pretexts.crossmodal.imagebind import Imagebind, ImagebindConfig
from mainspring.pretexts.pretext import Batch

ALL = ("video", "audio", "series", "text")


def build(*streams: str, **settings) -> Imagebind:
    torch.manual_seed(0)
    clips = {stream: SPECS[stream] for stream in streams or ALL}
    settings.setdefault("flip", 0.0)
    return Imagebind(clips, dict.fromkeys(clips, DIM), 50, ImagebindConfig(**settings))


def without(recordings: list[dict], lacking: dict[int, tuple[str, ...]]) -> list[dict]:
    """The recordings, some without some of their streams."""
    return [
        {stream: values for stream, values in made.items() if stream not in lacking.get(i, ())}
        for i, made in enumerate(recordings)
    ]


LACKING = {1: ("audio",), 2: ("video",), 3: ("audio", "series"), 5: ("text",)}


def batch_for(pretext, count: int = 8, lacking=LACKING, seed: int = 0) -> Batch:
    made = without(world(count), lacking)
    return read(pretext, made, np.arange(count), np.random.default_rng(seed))


def eq_1(query: torch.Tensor, key: torch.Tensor, tau: float = 0.07) -> float:
    """By loops in float64, the mean over i."""
    unit_q, unit_k = (F.normalize(v.detach().double(), dim=1) for v in (query, key))
    total = 0.0
    for i in range(len(query)):
        right = torch.exp(unit_q[i] @ unit_k[i] / tau)
        wrong = sum(torch.exp(unit_q[i] @ unit_k[j] / tau) for j in range(len(query)) if j != i)
        total -= float(torch.log(right / (right + wrong)))
    return total / len(query)


def test_the_loss_is_equation_1_over_the_recordings_that_have_both():
    pretext = build()
    encoders, batch = encoders_for(pretext), batch_for(pretext)
    outcome = pretext(encoders, batch)
    have = {"audio": [0, 4, 5, 6, 7], "series": [0, 1, 4, 5, 6, 7], "text": [0, 1, 3, 4, 6, 7]}
    want = 0.0
    for stream, rows in have.items():
        pair = []
        for name in ("video", stream):
            views = batch[name]
            embedding = encoders[name](views.samples[rows, 0], views.present[rows, 0])
            pair.append(pretext.heads[name](embedding))
        want += (eq_1(pair[0], pair[1]) + eq_1(pair[1], pair[0])) / 2
        assert outcome.metrics[f"paired {stream}"] == pytest.approx(len(rows) / 8)
        assert float(outcome.metrics[f"temperature {stream}"]) == pytest.approx(0.07)
        chance = pytest.approx(1 / len(rows))
        assert outcome.answers[f"video to {stream}"].chance == chance
        assert outcome.answers[f"{stream} to video"].chance == chance
    assert outcome.loss.item() == pytest.approx(want, rel=1e-5)
    assert set(outcome.answers) == {f"video to {s}" for s in have} | {f"{s} to video" for s in have}


def test_each_direction_of_a_retrieval_has_its_own_answer():
    pretext = build("video", "audio")
    features = {
        "video": torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]),
        "audio": torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]]),
        "there.video": torch.ones(3, dtype=torch.bool),
        "there.audio": torch.ones(3, dtype=torch.bool),
        "embedding": torch.zeros(3, DIM),
    }
    answers = pretext.ask(features, Batch({}, torch.arange(3), torch.Generator())).answers
    # Nearest to the clips are sounds 0, 2 and 2; nearest to the sounds are clips 0, 0 and 1.
    assert float(answers["video to audio"].accuracy) == pytest.approx(2 / 3)
    assert float(answers["audio to video"].accuracy) == pytest.approx(1 / 3)


def test_absent_and_silent_clips_have_no_influence():
    pretext = build()
    encoders, batch = encoders_for(pretext), batch_for(pretext)
    batch["audio"].samples[6] = 0
    assert not batch["video"].present[2].any()
    before = pretext(encoders, batch)
    assert before.metrics["silent"] == 1 / 8
    assert before.metrics["paired audio"] == 4 / 8
    batch["video"].samples[2] = 200  # what stands where nothing is
    batch["audio"].samples[1] = torch.randn(64)
    batch["series"].samples[3] = 5.0
    after = pretext(encoders, batch)
    assert torch.equal(after.loss, before.loss)
    after.loss.backward()
    whole = gradients(pretext, *encoders.values())
    kept = torch.tensor([0, 1, 3, 4, 5, 6, 7])  # recording 2 lacks the anchor
    fewer = pretext(encoders, batch.map(lambda value: value[kept]))
    torch.testing.assert_close(fewer.loss, before.loss)
    fewer.loss.backward()
    for mine, theirs in zip(gradients(pretext, *encoders.values()), whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_a_silent_anchor_binds_nothing():
    pretext = build("video", "audio", anchor="audio")
    encoders, batch = encoders_for(pretext), batch_for(pretext, lacking={})
    batch["audio"].samples[[2, 6]] = 0
    whole = pretext(encoders, batch)
    assert whole.metrics["paired video"] == 6 / 8
    heard = torch.tensor([0, 1, 3, 4, 5, 7])
    fewer = pretext(encoders, batch.map(lambda value: value[heard]))
    torch.testing.assert_close(whole.loss, fewer.loss)
    assert len(whole.embedding) == 6


def test_batch_statistics_are_those_of_what_is_there():
    pretext = build("video", "series")
    encoders = encoders_for(pretext)
    encoders["series"].layers.insert(1, torch.nn.BatchNorm1d(DIM))
    norm = encoders["series"].layers[1]
    pretext.encode(encoders, batch_for(pretext))
    mean = norm.running_mean.clone()
    norm.reset_running_stats()
    batch = batch_for(pretext)
    there = batch["series"].present[:, 0, 0]
    encoders["series"](batch["series"].samples[there, 0])
    torch.testing.assert_close(norm.running_mean, mean)


def test_a_stream_that_a_batch_lacks_is_left_out():
    pretext = build("video", "audio", "series")
    encoders = encoders_for(pretext)
    batch = batch_for(pretext, lacking=dict.fromkeys(range(8), ("audio",)))
    outcome = pretext(encoders, batch)
    assert set(outcome.answers) == {"video to series", "series to video"}
    outcome.loss.backward()
    assert all(weight.grad is None for weight in encoders["audio"].parameters())
    batch = batch_for(pretext, lacking=dict.fromkeys(range(8), ("video",)))
    outcome = pretext(encoders, batch)
    assert outcome.loss == 0
    assert outcome.answers == {}
    outcome.loss.backward()


def test_micro_batches_equal_the_whole_batch():
    pretext = build()
    encoders, batch = encoders_for(pretext), batch_for(pretext)

    def ask(parts: list[slice]) -> torch.Tensor:
        features = [pretext.encode(encoders, part(batch, rows)) for rows in parts]
        joined = {k: torch.cat([f[k] for f in features]) for k in features[0]}
        return pretext.ask(joined, batch.without_samples()).loss

    whole = ask([slice(0, 8)])
    whole.backward()
    expected = gradients(pretext, *encoders.values())
    joined = ask([slice(0, 2), slice(2, 3), slice(3, 8)])  # one of them without an anchor
    joined.backward()
    torch.testing.assert_close(joined, whole)
    for mine, theirs in zip(gradients(pretext, *encoders.values()), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_all_streams_are_drawn_at_the_same_time():
    pretext, rng = build(), np.random.default_rng(0)
    timeline = Timeline(
        {
            "video": Extent(64, 8.0),
            "audio": Extent(512, 64.0),
            "series": Extent(128, 16.0),
            "text": Extent(24, 3.0),
        }
    )
    for _ in range(100):
        draws = pretext.draw(timeline, rng)
        moment = (draws["video"].clips[0, 0] + 3.5) / 8
        audio, series = draws["audio"].clips[0], draws["series"].clips[0]
        if 0.5 < moment < 7.5:
            assert (audio[0] + 32) / 64 == pytest.approx(moment, abs=1 / 64)
            assert (series[0] + 8) / 16 == pytest.approx(moment, abs=1 / 16)
        assert draws["text"].clips[0, 0] // 6 == min(3, int(moment // 2))
    light = pretext.light().draw(timeline, np.random.default_rng(1))
    whole = pretext.draw(timeline, np.random.default_rng(1))
    assert all(np.array_equal(light[s].clips, whole[s].clips) for s in ALL)


def test_nothing_is_read_where_the_anchor_is_missing_or_too_short():
    pretext, rng = build(), np.random.default_rng(0)
    rest = {"audio": Extent(512, 64.0), "series": Extent(10, 16.0), "text": Extent(24, 3.0)}
    for timeline in (Timeline(rest), Timeline({**rest, "video": Extent(5, 8.0)})):
        draws = pretext.draw(timeline, rng)
        assert all((draw.clips == NOTHING).all() for draw in draws.values())
    draws = pretext.draw(Timeline({**rest, "video": Extent(64, 8.0)}), rng)
    assert (draws["series"].clips == NOTHING).all()  # shorter than a clip
    assert all((draws[stream].clips != NOTHING).all() for stream in ("video", "audio", "text"))
    assert {s: d.clips.shape for s, d in draws.items()} == {s: (1, SPECS[s].length) for s in ALL}


def test_streams_that_were_never_compared_are_aligned():
    """Emergent alignment: half the recordings have video and sound, the others video and series."""
    pretext = build("video", "audio", "series")
    encoders = encoders_for(pretext)
    lacking = {i: ("audio",) if i % 2 else ("series",) for i in range(400)}
    unseen = world(64, seed=77)
    before = vectors(pretext, encoders, unseen)
    losses = learn(pretext, encoders, without(world(400), lacking), steps=120, size=64)
    after = vectors(pretext, encoders, unseen)
    assert np.mean(losses[-20:]) < np.mean(losses[:20])
    for query, key in (("audio", "series"), ("series", "audio")):
        assert recall(before[query], before[key]) < 0.06
        assert recall(after[query], after[key]) > 5 / 64
        ranks = (after[query] @ after[key].T).argsort(1, descending=True)
        place = (ranks == torch.arange(64)[:, None]).nonzero()[:, 1].float()
        assert place.median() < 10  # chance is 32


def test_another_stream_can_be_the_anchor():
    pretext = build("video", "audio", "series", anchor="audio")
    assert pretext.bound == ["video", "series"]
    outcome = pretext(encoders_for(pretext), batch_for(pretext, lacking={}))
    assert set(outcome.answers) >= {"audio to video", "series to audio"}
    assert outcome.embedding.shape == (8, DIM)


def test_temperatures_are_learnt_each_by_itself_or_not_at_all():
    pretext = build()
    pretext(encoders_for(pretext), batch_for(pretext)).loss.backward()
    grads = [scale.grad.item() for scale in pretext.scales.values()]
    assert len(set(grads)) == 3
    with torch.no_grad():
        pretext.scales["audio"].fill_(9.0)
    pretext.after_step({}, batch_for(pretext), {})
    assert pretext.scales["audio"].exp().item() == pytest.approx(100)
    assert pretext.scales["text"].exp().item() == pytest.approx(1 / 0.07)
    assert not any(scale.requires_grad for scale in build(learned=False).scales.values())


def test_it_wants_the_anchor_and_all_else_and_takes_recordings_with_less():
    def wants(*there: str, **settings) -> list[str]:
        return Imagebind.wants(ImagebindConfig(**settings), dict.fromkeys(there, 10))

    assert find("imagebind") is Imagebind
    assert Imagebind.partial
    assert wants("audio", "video", "text") == ["video", "audio", "text"]
    assert wants("audio", "video", anchor="audio") == ["audio", "video"]
    assert wants("audio", "series") == []
    assert wants("video") == []
    with pytest.raises(ConfigError, match="Did you mean 'video'"):
        wants("video", anchor="vidio")
    assert set(build("video", "text").joint()) == {"video", "text"}


def test_settings_that_contradict_each_other_are_named():
    with pytest.raises(ConfigError, match="binds streams to video"):
        build("audio", "series")
    with pytest.raises(ConfigError, match="needs it and another one"):
        build("video")
    with pytest.raises(ConfigError, match=r"at least 0\.01"):
        build(temperature=0.0)

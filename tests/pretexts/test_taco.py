"""TaCo equals its equations, its arms are settings, and its questions are learnt."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import TinyEncoder, decays, gradients, part, read, timeline, train

from mainspring.clips import ClipSpec, span
from mainspring.errors import ConfigError, RunError
from mainspring.pretexts.contrastive import taco
from mainspring.pretexts.contrastive.taco import Taco, TacoConfig
from mainspring.pretexts.pretext import Batch, Features, Views

SPEC = ClipSpec(length=32)
ROWS = np.arange(6)


def build(stream: str = "series", spec: ClipSpec = SPEC, dim: int = 32, **settings) -> Taco:
    torch.manual_seed(0)
    settings.setdefault("transformations", ("reverse", "speed", "shuffle"))
    return Taco({stream: spec}, {stream: dim}, 200, TacoConfig(**settings))


def batch_for(pretext: Taco, rows: np.ndarray = ROWS, seed: int = 0) -> Batch:
    return read(pretext, decays(10, np.random.default_rng(5)), rows, np.random.default_rng(seed))


def nce(queries: torch.Tensor, keys: torch.Tensor, tau: float = 0.07) -> float:
    """Eq. 1, averaged over the batch, by loops in float64."""
    queries, keys = queries.detach(), keys.detach()
    unit_q, unit_k = F.normalize(queries.double(), dim=1), F.normalize(keys.double(), dim=1)
    total = 0.0
    for i in range(len(queries)):
        exponents = [math.exp(float(unit_q[i] @ unit_k[j]) / tau) for j in range(len(keys))]
        total -= math.log(exponents[i] / sum(exponents))
    return total / len(queries)


def test_loss_is_equations_1_to_4():
    pretext, encoder = build(tasks=7.0, contrast=0.5), TinyEncoder()
    batch = batch_for(pretext)
    outcome = pretext({"series": encoder}, batch)
    views = batch["series"]
    h = torch.stack([encoder(views.samples[i]) for i in range(6)])
    factors = views.factors
    plain, reverse, speed, shuffle = h[:, 0], h[:, 1], h[:, 2], h[:, 3:]
    odd = [int(row.argmax()) for row in factors["odd"][:, 3:]]
    g, t = pretext.projections, pretext.tasks
    key = g["plain"](plain)
    shuffled = torch.stack([shuffle[i, k] for i, k in enumerate(odd)])
    contrast = (
        nce(g["reverse"](reverse), key)
        + nce(g["speed"](speed), key)
        + nce(g["shuffle"](shuffled), key)
    )
    fused = {"speed": 0.0, "shuffle": 0.0}
    for name, clips in {"speed": [plain, speed], "shuffle": list(shuffle.unbind(1))}.items():
        layer = [t[name].each(clip) for clip in clips]
        for i in range(len(clips)):
            for j in range(i + 1, len(clips)):
                fused[name] = fused[name] + layer[i] - layer[j]
    logits = {
        "reverse": t["reverse"].layers(reverse),
        "speed": t["speed"].fused(fused["speed"]),
        "shuffle": t["shuffle"].fused(fused["shuffle"]),
    }
    truth = {
        "reverse": factors["direction"][:, 1].tolist(),
        "speed": factors["speed"][:, 2].tolist(),
        "shuffle": odd,
    }
    task = sum(
        -logits[name][i].double().log_softmax(0)[truth[name][i]].item() / 6
        for name in logits
        for i in range(6)
    )
    assert outcome.loss.item() == pytest.approx(0.5 * contrast + 7 * task, rel=1e-5)
    assert outcome.metrics["contrast_loss"].item() == pytest.approx(contrast, rel=1e-5)


def test_answers_stand_beside_their_chance():
    pretext = build(odd_clips=6, speeds=(1, 2))
    answers = pretext({"series": TinyEncoder()}, batch_for(pretext)).answers
    chance = {name: answer.chance for name, answer in answers.items()}
    assert chance == pytest.approx(
        {"contrast": 1 / 6, "reverse": 1 / 2, "speed": 1 / 2, "shuffle": 1 / 6}
    )


def test_random_weights_answer_at_chance():
    pretext, encoder = build(), TinyEncoder()
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(1000, 200, 1)).astype(np.float32)
    batch = read(pretext, noise, np.arange(1000), rng)
    with torch.no_grad():
        answers = pretext({"series": encoder}, batch).answers
    for name in ("reverse", "speed", "shuffle"):
        assert abs(answers[name].accuracy.item() - answers[name].chance) < 0.05, name


@pytest.mark.parametrize("negatives", ["batch", "queue", "bank"])
def test_micro_batches_equal_the_whole_batch(negatives):
    pretext, encoder = build(negatives=negatives, queue=64), TinyEncoder()
    encoders = {"series": encoder}
    pretext.attach(encoders)
    pretext.negatives.remember(torch.randn(8, 128), torch.arange(8))
    batch = batch_for(pretext)

    def loss(parts: list[slice]) -> torch.Tensor:
        features = [pretext.encode(encoders, part(batch, rows)) for rows in parts]
        joined: Features = {k: torch.cat([f[k] for f in features]) for k in features[0]}
        batch.generator.manual_seed(3)
        return pretext.ask(joined, batch.without_samples()).loss

    whole = loss([slice(0, 6)])
    whole.backward()
    expected = gradients(encoder, pretext)
    joined = loss([slice(0, 4), slice(4, 6)])
    joined.backward()
    torch.testing.assert_close(joined, whole)
    for mine, theirs in zip(gradients(encoder, pretext), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("negatives", ["batch", "queue", "bank"])
@pytest.mark.parametrize(
    ("settings", "views", "answers"),
    [
        ({"transformations": ()}, 2, {"contrast"}),
        ({"tasks": 0.0}, 4, {"contrast"}),
        ({"contrast": 0.0}, 7, {"reverse", "speed", "shuffle"}),
        ({}, 7, {"contrast", "reverse", "speed", "shuffle"}),
    ],
)
def test_arms_are_settings_and_leave_no_weight_idle(settings, views, answers, negatives):
    pretext, encoder = build(**settings, negatives=negatives, queue=64), TinyEncoder()
    encoders = {"series": encoder}
    pretext.attach(encoders)
    for seed in range(2):  # a queue or bank has nothing to compare with at first
        batch = batch_for(pretext, seed=seed)
        features = pretext.encode(encoders, batch)
        outcome = pretext.ask(features, batch.without_samples())
        outcome.loss.backward()
        pretext.after_step(
            encoders, batch.without_samples(), {k: v.detach() for k, v in features.items()}
        )
    assert batch["series"].samples.shape[1] == views
    assert set(outcome.answers) == answers
    assert outcome.embedding.shape == (6, 32)
    assert not outcome.embedding.requires_grad
    for module in (encoder, pretext):
        for name, weight in module.named_parameters():
            idle = weight.grad is None or not weight.grad.any()
            assert idle != weight.requires_grad, name


def test_gradient_reaches_the_plain_clip_and_the_transformed_one():
    pretext, encoder = build(transformations=("reverse",), tasks=0.0), TinyEncoder()
    batch = batch_for(pretext)
    views = batch["series"]
    views.samples.requires_grad_()
    pretext({"series": encoder}, batch).loss.backward()
    assert (views.samples.grad.abs().sum((2, 3)) > 0).all()


def test_factors_describe_every_view():
    pretext = build()
    draw = pretext.draw(timeline(200), np.random.default_rng(1))["series"]
    assert draw.clips.shape == (7, 32)
    assert draw.factors["transformation"].tolist() == [0, 2, 4, 3, 3, 3, 3]
    steps = np.diff(draw.clips, axis=1)
    assert (steps[0] == 1).all()
    assert (steps[1] == (-1 if draw.factors["direction"][1] else 1)).all()
    assert (steps[2] == (1, 2, 4)[draw.factors["speed"][2]]).all()
    assert ((steps < 0).any(1) == draw.factors["odd"].astype(bool))[3:].all()
    elsewhere = {"direction": [1], "speed": [2], "odd": [3, 4, 5, 6]}
    for name, rows in elsewhere.items():
        assert not np.delete(draw.factors[name], rows).any()


def test_every_clip_keeps_the_stride_of_its_stream():
    pretext = build(spec=ClipSpec(length=32, stride=2), transformations=("reverse", "speed"))
    draw = pretext.draw(timeline(400), np.random.default_rng(1))["series"]
    speed = (1, 2, 4)[draw.factors["speed"][2]]
    assert np.abs(np.diff(draw.clips)).tolist() == [[2] * 31, [2] * 31, [2 * speed] * 31]


def test_sounds_and_series_are_shuffled_in_eight_pieces_unless_told_otherwise():
    for stream, pieces, breaks in (("series", 0, 7), ("audio", 0, 7), ("series", 4, 3)):
        pretext = build(stream, pieces=pieces, transformations=("shuffle",))
        clips = pretext.draw(timeline(400, stream), np.random.default_rng(0))[stream].clips[1:]
        within = np.diff(clips.reshape(len(clips), breaks + 1, -1), axis=2)
        assert (within == 1).all()
    frames = build("video", ClipSpec(32, size=8, crop=8), transformations=("shuffle",))
    clips = frames.draw(timeline(400, "video"), np.random.default_rng(0))["video"].clips[1:]
    assert (np.diff(clips.reshape(4, 8, 4), axis=2) != 1).any()


def test_a_worker_can_draw_without_the_weights():
    pretext = build()
    drawn = pretext.light().draw(timeline(200), np.random.default_rng(1))["series"]
    expected = pretext.draw(timeline(200), np.random.default_rng(1))["series"]
    assert (drawn.clips == expected.clips).all()


def test_needs_the_fastest_clip_or_the_window_of_shuffle():
    assert build(transformations=("speed",)).needs("series") == span(32, 4)
    assert build(transformations=("shuffle",)).needs("series") == 48
    assert build(transformations=()).needs("series") == 32
    pretext = build()
    pretext.draw(timeline(pretext.needs("series")), np.random.default_rng(0))


def test_keys_of_a_queue_come_from_the_slow_encoder():
    pretext, encoder = build(negatives="queue", queue=64, momentum=0.9), TinyEncoder()
    encoders = {"series": encoder}
    batch = batch_for(pretext)
    with pytest.raises(RunError, match="attach"):
        pretext.encode(encoders, batch)
    pretext.attach(encoders)
    with torch.no_grad():
        for weight in [*encoder.parameters(), *pretext.projections["plain"].parameters()]:
            weight.mul_(1.5)
    before = encoder.layers[0].weight / 1.5
    features = pretext.encode(encoders, batch)
    assert not features["key"].requires_grad
    pretext.after_step(encoders, batch.without_samples(), features)
    slow = pretext.key_encoder.network.layers[0].weight
    torch.testing.assert_close(slow, 0.9 * before + 0.1 * encoder.layers[0].weight)
    fast = pretext.projections["plain"][0].weight
    slow = pretext.key_projection.network[0].weight
    torch.testing.assert_close(slow, (0.9 / 1.5 + 0.1) * fast)
    torch.testing.assert_close(pretext.negatives.keys[:6], F.normalize(features["key"], dim=1))
    assert pretext.negatives.owner[:6].tolist() == ROWS.tolist()


def test_settings_of_queue_and_bank_reach_them():
    queue = build(negatives="queue", queue=12, sampled=7).negatives
    bank = build(negatives="bank", sampled=7, bank_momentum=0.25, momentum=0.9).negatives
    assert queue.keys.shape == (12, 128)
    assert (bank.vectors.shape, bank.sampled, bank.momentum) == ((200, 128), 7, 0.25)
    bank.remember(torch.ones(1, 128), torch.tensor([3]))
    assert bank.seen.nonzero().tolist() == [[3]]


def test_the_plain_clip_is_trained_on_its_own_key_but_not_counted():
    pretext = build(negatives="queue", queue=4, transformations=("reverse",), tasks=0.0)
    rows = np.array([9, 4, 6, 2, 7, 3])
    pretext.negatives.remember(stored := torch.randn(4, 128), torch.tensor([50, 4, 51, 0]))
    key = torch.randn(6, 128)
    features = {"plain": key, "key": key, "query.plain": key, "query.reverse": -key}
    outcome = pretext.ask(features, batch_for(pretext, rows))
    assert float(outcome.answers["contrast"].accuracy) == 0  # of "reverse" alone
    keys, owners = torch.cat([key, stored]), [*rows, 50, 4, 51, 0]
    expected = 0.0
    for i in range(6):
        others = keys[[j for j in range(10) if owners[j] != rows[i]]]
        for query in (key[i : i + 1], -key[i : i + 1]):
            expected += nce(query, torch.cat([key[i : i + 1], others])) / 6
    assert float(outcome.loss) == pytest.approx(expected, rel=1e-5)


def test_the_papers_numbers_are_the_defaults():
    paper = TacoConfig()
    assert (paper.tasks, paper.temperature, paper.sampled) == (10, 0.07, 16384)
    assert (paper.transformations, paper.projection) == (("speed", "shuffle"), "linear")


@pytest.mark.parametrize("negatives", ["queue", "bank"])
def test_a_resumed_run_is_the_run_never_stopped(negatives):
    def start() -> tuple[Taco, TinyEncoder]:
        pretext, encoder = build(negatives=negatives, queue=16, sampled=5), TinyEncoder()
        pretext.attach({"series": encoder})
        return pretext, encoder

    def steps(pretext: Taco, encoder: TinyEncoder, numbers: range) -> list[float]:
        losses, encoders = [], {"series": encoder}
        for number in numbers:
            batch = batch_for(pretext, seed=number)
            features = pretext.encode(encoders, batch)
            outcome = pretext.ask(features, batch.without_samples())
            outcome.loss.backward()
            with torch.no_grad():
                for module in (encoder, pretext):
                    for weight in module.parameters():
                        if weight.grad is not None:
                            weight -= 0.01 * weight.grad
                            weight.grad = None
            detached = {k: v.detach() for k, v in features.items()}
            pretext.after_step(encoders, batch.without_samples(), detached)
            losses.append(outcome.loss.item())
        return losses

    one = start()
    steps(*one, range(4))
    other = start()
    for mine, theirs in zip(other, one, strict=True):
        mine.load_state_dict(theirs.state_dict())
    assert steps(*other, range(4, 7)) == steps(*one, range(4, 7))


class Upright(TinyEncoder):
    """Mean brightness of the four sides of the picture."""

    def __init__(self) -> None:
        super().__init__(dim=4)

    def tokens(self, samples, present=None):
        grey = samples.float().mean(-1)
        sides = [grey[..., 0, :], grey[..., :, 0], grey[..., -1, :], grey[..., :, -1]]
        return torch.stack([side.mean(-1) for side in sides], -1)


def pictures(pretext: Taco, count: int, top: int) -> Batch:
    """Clips of dark pictures with a bright top."""
    rng = np.random.default_rng(0)
    draws = [pretext.draw(timeline(40, "video"), rng)["video"] for _ in range(count)]
    samples = torch.zeros(count, 2, 8, 10, 10, 3, dtype=torch.uint8)
    samples[:, :, :, :top] = 255
    factors = {
        k: torch.from_numpy(np.stack([d.factors[k] for d in draws])) for k in draws[0].factors
    }
    views = Views(samples, torch.ones(count, 2, 8, dtype=torch.bool), factors)
    return Batch({"video": views}, torch.arange(count), torch.Generator().manual_seed(0))


def test_rotation_turns_its_own_view_and_flips_do_not_hide_it():
    spec = ClipSpec(length=8, size=10, crop=8)
    pretext = build("video", spec, 4, transformations=("rotation",), jitter=0.0, tasks=0.0)
    pretext.projections["rotation"] = pretext.projections["plain"] = torch.nn.Identity()
    features = pretext.encode({"video": Upright()}, batch := pictures(pretext, 64, top=6))
    assert (features["plain"].argmax(1) == 0).all()
    quarter = batch["video"].factors["rotation"][:, 1]
    assert len(quarter.unique()) == 4
    assert (features["query.rotation"].argmax(1) == quarter).all()


def test_each_frame_is_turned_up_to_three_degrees_either_way(monkeypatch):
    turned = []

    def rotate(samples, quarter, degrees):
        turned.append(degrees)
        return samples

    monkeypatch.setattr(taco, "rotate", rotate)
    spec = ClipSpec(length=8, size=10, crop=8)
    pretext = build("video", spec, 4, transformations=("rotation",), tasks=0.0)
    pretext.encode({"video": Upright()}, pictures(pretext, 64, top=6))
    (degrees,) = turned
    assert degrees.shape == (64, 8)
    assert -3 <= degrees.min() < -2.5
    assert 2.5 < degrees.max() <= 3
    assert degrees.std(1).min() > 0.5  # each frame by itself


def test_a_momentum_encoder_sees_the_plain_clip_changed_anew():
    seen = []

    class Watcher(Upright):
        def tokens(self, samples, present=None):
            seen.append(samples)
            return super().tokens(samples, present)

    settings = {"negatives": "queue", "queue": 8, "transformations": ("rotation",)}
    pretext = build("video", ClipSpec(8, size=10, crop=8), 4, **settings)
    encoders = {"video": Watcher()}
    pretext.attach(encoders)
    batch = pictures(pretext, 6, top=6)
    batch["video"].samples.random_(generator=torch.Generator().manual_seed(0))
    pretext.encode(encoders, batch)
    query, key = seen[0].unflatten(0, (6, 2))[:, 0], seen[1]
    assert key.shape == query.shape
    assert not any(torch.equal(*clips) for clips in zip(query, key, strict=True))


def test_settings_that_contradict_each_other_are_named():
    with pytest.raises(ConfigError, match="nothing is asked"):
        build(tasks=0.0, contrast=0.0)
    with pytest.raises(ConfigError, match="nothing to name"):
        build(transformations=(), contrast=0.0)
    with pytest.raises(ConfigError, match="twice"):
        build(transformations=("speed", "speed"))
    with pytest.raises(ConfigError, match="Did you mean 'shuffle'"):
        build(transformations=("shufle",))
    with pytest.raises(ConfigError, match="rotation turns pictures; series has none"):
        build(transformations=("rotation",))
    with pytest.raises(ConfigError, match="Did you mean 'queue'"):
        build(negatives="que")
    with pytest.raises(ConfigError, match=r"tasks is -1.0, .* must not be negative"):
        build(tasks=-1.0)
    with pytest.raises(ConfigError, match="width 0"):
        build(width=0)
    with pytest.raises(ConfigError, match="even number"):
        build(odd_clips=3)
    with pytest.raises(ConfigError, match=r"temperature must be positive, not 0\.0"):
        build(temperature=0.0)


@pytest.mark.parametrize(
    ("negatives", "candidates"), [("batch", 32), ("queue", 256 + 32), ("bank", 200)]
)
def test_all_questions_are_learnt(negatives, candidates):
    pretext = build(negatives=negatives, queue=256, speeds=(1, 2), odd_clips=2, momentum=0.99)
    accuracy = train(pretext, TinyEncoder(), decays(200, np.random.default_rng(1)), 150)
    assert accuracy["reverse"] > 0.8
    assert accuracy["speed"] > 0.8
    assert accuracy["shuffle"] > 0.8
    assert accuracy["contrast"] > 2.5 / candidates

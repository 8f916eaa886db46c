"""Losses over bags equal their equations, forget what is not there, and reward the right bag."""

import math

import pytest
import torch
import torch.nn.functional as F

from mainspring.losses.multiple import (
    Mined,
    compare,
    cpd,
    found,
    mil_nce,
    noise_level,
    pair_nce,
)

SCALE = torch.tensor(1 / 0.3, dtype=torch.float64)
LEVEL = torch.tensor([0.4, -0.2], dtype=torch.float64)
LOSSES = {"pair": pair_nce, "mil": mil_nce, "cpd": lambda scores: cpd(scores, LEVEL)}


def world(n: int = 6, k: int = 3, dim: int = 5, seed: int = 0):
    """Unit vectors, some sentences and one whole recording missing, two clips of one recording."""
    g = torch.Generator().manual_seed(seed)
    first = F.normalize(torch.randn(n, dim, generator=g, dtype=torch.float64), dim=-1)
    second = F.normalize(torch.randn(n, k, dim, generator=g, dtype=torch.float64), dim=-1)
    there = torch.rand(n, k, generator=g) > 0.3
    there[0], there[2] = True, False
    recording = torch.arange(n)
    recording[-1] = 0
    return first, second, there, recording


def extra(n: int = 6, h: int = 2, dim: int = 5) -> Mined:
    g = torch.Generator().manual_seed(9)
    vectors = F.normalize(torch.randn(2, n, h, dim, generator=g, dtype=torch.float64), dim=-1)
    allowed = torch.tensor([[True, True], [True, False], [False, False]] * 2)
    return Mined(vectors[0], vectors[1], allowed)


def parts(first, second, there, recording, mined=None):
    """For each pair (i, k): its score, those of the wrong sentences, those of the wrong clips."""
    score = lambda a, b: float(a @ b) * float(SCALE)  # noqa: E731
    asked = there.any(1)
    for i in range(len(first)):
        for k in range(there.shape[1]):
            if not there[i, k]:
                continue
            others = [j for j in range(len(first)) if recording[j] != recording[i]]
            sentences = [
                score(first[i], second[j, m])
                for j in others
                for m in range(there.shape[1])
                if there[j, m]
            ]
            clips = [score(first[j], second[i, k]) for j in others if asked[j]]
            for h in range(mined.allowed.shape[1]) if mined else []:
                if mined.allowed[i, h]:
                    sentences.append(score(first[i], mined.second[i, h]))
                    clips.append(score(second[i, k], mined.first[i, h]))
            yield i, score(first[i], second[i, k]), sentences, clips


def slow_pair(*facts) -> float:
    """Radford et al., Figure 3; with one sentence also Eq. 1 of Girdhar et al., both ways."""
    losses = []
    for _, right, sentences, clips in parts(*facts):
        for wrong in (sentences, clips):
            total = math.exp(right) + sum(math.exp(s) for s in wrong)
            losses.append(-math.log(math.exp(right) / total))
    return sum(losses) / len(losses)


def slow_mil(*facts) -> float:
    """Miech et al., Eq. 1."""
    bags: dict[int, list] = {}
    for i, right, sentences, clips in parts(*facts):
        bags.setdefault(i, []).append((right, sentences, clips))
    losses = []
    for bag in bags.values():
        positives = sum(math.exp(right) for right, _, _ in bag)
        negatives = sum(math.exp(s) for s in bag[0][1])
        negatives += sum(math.exp(s) for _, _, clips in bag for s in clips)
        losses.append(-math.log(positives / (positives + negatives)))
    return sum(losses) / len(losses)


def slow_cpd(*facts, recordings: int = 1000) -> float:
    """Wu et al., Eq. 5 to 7, with Z = N mean e^s and noise spread evenly over N recordings."""
    losses = []
    for _, right, sentences, clips in parts(*facts):
        for wrong, level in zip((sentences, clips), LEVEL.tolist(), strict=True):
            z, m = recordings * math.exp(level), len(wrong)

            def h(s: float, z: float = z, m: int = m) -> float:
                return (math.exp(s) / z) / (math.exp(s) / z + m / recordings)

            losses.append(-math.log(h(right)) - sum(math.log(1 - h(s)) for s in wrong))
    return sum(losses) / (len(losses) / 2) / 2


SLOW = {"pair": slow_pair, "mil": slow_mil, "cpd": slow_cpd}


@pytest.mark.parametrize("hard", [None, extra()])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_equal_their_equations_in_float64_loops(name, hard):
    facts = world()
    got = LOSSES[name](compare(*facts, SCALE, hard))
    assert got.item() == pytest.approx(SLOW[name](*facts, hard), rel=1e-10)


def test_a_bag_of_one_is_clips_cross_entropy_both_ways():
    first, second, _, _ = world(k=1)
    logits = SCALE * first @ second[:, 0].T
    truth = torch.arange(6)
    want = (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2
    there = torch.ones(6, 1, dtype=torch.bool)
    torch.testing.assert_close(pair_nce(compare(first, second, there, truth, SCALE)), want)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name):
    first, second, there, recording = world(n=6, k=2)
    there[3] = torch.tensor([True, False])
    hard = extra()

    def loss(first, second, scale):
        return LOSSES[name](compare(first, second, there, recording, scale, hard))

    inputs = [v.clone().requires_grad_() for v in (first, second, SCALE)]
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_not_there_changes_nothing(name):
    first, second, there, recording = world()
    whole = LOSSES[name](compare(first, second, there, recording, SCALE, extra()))
    changed, moved = second.clone(), first.clone().requires_grad_()
    changed[~there] = torch.randn_like(changed[~there]) * 10
    changed.requires_grad_()
    hard = extra()
    hard.first[~hard.allowed] = 7.0
    hard.second[~hard.allowed] = 7.0
    again = LOSSES[name](compare(moved, changed, there, recording, SCALE, hard))
    torch.testing.assert_close(again, whole)
    again.backward()
    assert not changed.grad[~there].any()
    assert not moved.grad[2].any()
    kept = [0, 1, 3, 4, 5]  # recording 2 has no sentence
    hard = Mined(*(v[kept] for v in extra()))
    fewer = compare(first[kept], second[kept], there[kept], recording[kept], SCALE, hard)
    torch.testing.assert_close(LOSSES[name](fewer), whole)


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_to_compare_is_a_loss_of_zero_with_a_gradient_of_zero(name):
    for n, there in ((3, torch.zeros(3, 2, dtype=torch.bool)), (1, torch.ones(1, 2).bool())):
        first, second, _, recording = world(n=6, k=2)
        first = first[:n].requires_grad_()
        scores = compare(first, second[:n], there, recording[:n], SCALE)
        loss = LOSSES[name](scores)
        loss.backward()
        assert first.grad.isfinite().all()
        if name != "cpd" or not there.any():
            assert loss.item() == 0
            assert not first.grad.any()
    none = torch.zeros(3, 2, dtype=torch.bool)
    assert found(compare(*world(n=6, k=2)[:2], none.repeat(2, 1), torch.arange(6), SCALE)) is None


def test_one_right_sentence_satisfies_mil_nce_but_not_the_pairs():
    first = torch.eye(4, 8, dtype=torch.float64)
    second = torch.zeros(4, 3, 8, dtype=torch.float64)
    second[:, 0] = first
    second[:, 1:, 7] = 1  # says nothing of any clip
    there = torch.ones(4, 3, dtype=torch.bool)
    scores = compare(first, second, there, torch.arange(4), torch.tensor(30.0).double())
    assert mil_nce(scores) < 1e-6
    assert pair_nce(scores) > 0.8
    to_second, to_first = found(scores)
    assert to_second.accuracy == 1
    assert to_first.accuracy.item() == pytest.approx(1 / 3)  # ties count as wrong


@pytest.mark.parametrize("hard", [None, extra()])
def test_the_level_is_the_mean_of_the_exponentials(hard):
    facts = world()
    facts[2][1] = False  # something was mined for it, but nothing is asked of it
    scores = compare(*facts, SCALE, hard)
    pairs = list(parts(*facts, hard))
    rights = [right for _, right, _, _ in pairs]
    wrong = {i: sentences for i, _, sentences, _ in pairs}
    every = rights + [s for sentences in wrong.values() for s in sentences]
    want = math.log(sum(math.exp(s) for s in every) / len(every))
    level = noise_level(scores._replace(right=scores.right.requires_grad_()))
    assert not level.requires_grad
    assert level[0].item() == pytest.approx(want, rel=1e-10)
    every = rights + [s for _, _, _, clips in pairs for s in clips]
    want = math.log(sum(math.exp(s) for s in every) / len(every))
    assert level[1].item() == pytest.approx(want, rel=1e-10)


def test_noise_contrast_holds_right_ones_up_and_wrong_ones_down():
    scores = compare(*world(), SCALE)
    level = noise_level(scores)
    level_now = cpd(scores, level)
    assert cpd(scores._replace(right=scores.right + 1), level) < level_now
    assert cpd(scores._replace(from_first=scores.from_first + 1), level) > level_now
    assert cpd(scores._replace(from_second=scores.from_second + 1), level) > level_now


def test_what_was_mined_does_not_change_how_often_the_right_one_is_nearest():
    for seed in range(5):
        facts = world(seed=seed)
        assert found(compare(*facts, SCALE, extra())) == found(compare(*facts, SCALE))


def test_vectors_without_meaning_are_right_at_chance():
    hits, chances = torch.zeros(2), torch.zeros(2)
    for seed in range(200):
        both = found(compare(*world(seed=seed), SCALE, extra()))
        for way, answer in enumerate(both):
            hits[way] += answer.accuracy / 200
            chances[way] += answer.chance / 200
    torch.testing.assert_close(hits, chances, atol=0.04, rtol=0)
    same = torch.ones(4, 1, 3)
    there = torch.ones(4, 1, dtype=torch.bool)
    collapsed = found(compare(same[:, 0], same, there, torch.arange(4), torch.tensor(1.0)))
    assert [way.accuracy.item() for way in collapsed] == [0, 0]
    assert [way.chance for way in collapsed] == [0.25, 0.25]


def test_autocast_rounds_nothing():
    first, second, there, recording = world()
    first, second = first.float(), second.float()
    plain = pair_nce(compare(first, second, there, recording, SCALE.float()))
    with torch.autocast("cpu", torch.bfloat16):
        under = pair_nce(compare(first, second, there, recording, SCALE.float()))
    assert torch.equal(under, plain)

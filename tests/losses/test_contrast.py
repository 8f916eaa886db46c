"""The contrast equals double loops written from the papers' equations."""

import math

import pytest
import torch

from mainspring.errors import ConfigError
from mainspring.losses.contrast import (
    agreement,
    all_but_self,
    contrast,
    cross_stream,
    info_nce,
)

TAU = 0.07


def views(seed: int = 0) -> dict[str, torch.Tensor]:
    """GDT's hierarchy: 3 recordings, 2 shifts, 2 streams, 2 directions."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*(torch.arange(k) for k in (3, 2, 2, 2)))
    names = ("recording", "shift", "stream", "direction")
    embeddings = torch.randn(len(grid), 5, dtype=torch.float64, generator=generator)
    return {**dict(zip(names, grid.T, strict=True)), "embeddings": embeddings}


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return dot / math.sqrt(sum(x * x for x in a.tolist()) * sum(y * y for y in b.tolist()))


def gdt_equation_1(embeddings, c, w, rho, extra=()):
    """The sum of Eq. 1 and the number of its terms, by loops."""
    total, terms = 0.0, 0
    for i, t in enumerate(embeddings):
        below = sum(
            math.exp(cosine(t, other) / rho) for k, other in enumerate(embeddings) if w(i, k)
        ) + sum(math.exp(cosine(t, other) / rho) for other in extra)
        for j, other in enumerate(embeddings):
            if c(i, j) and w(i, j):
                total -= math.log(math.exp(cosine(t, other) / rho) / below)
                terms += 1
    return total, terms


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize(
    "questions",
    [
        {},
        {"shift": "ignore", "direction": "ignore"},
        {"shift": "tell_apart", "direction": "ignore"},
        {"shift": "tell_apart", "direction": "tell_apart"},
    ],
)
def test_contrast_is_equation_1_of_gdt(questions, cross):
    v = views()
    told = [factor for factor, question in questions.items() if question == "tell_apart"]

    def c(i, j):
        return all(bool(v[factor][i] == v[factor][j]) for factor in ["recording", *told])

    def w(i, j):
        return bool(v["stream"][i] != v["stream"][j]) if cross else i != j

    total, terms = gdt_equation_1(v["embeddings"], c, w, TAU)
    factors = {"shift": v["shift"], "direction": v["direction"]}
    weights = cross_stream(v["stream"]) if cross else all_but_self(v["recording"])
    loss = contrast(v["embeddings"], agreement(v["recording"], factors, questions), weights, TAU)
    assert loss.item() == pytest.approx(total / terms, rel=1e-12)


def test_more_negatives_join_the_denominator_only():
    v = views()
    bank = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    same = agreement(v["recording"], {}, {})
    total, terms = gdt_equation_1(
        v["embeddings"], lambda i, j: bool(same[i, j]), lambda i, j: i != j, TAU, bank
    )
    loss = contrast(v["embeddings"], same, all_but_self(v["recording"]), TAU, bank)
    assert loss.item() == pytest.approx(total / terms, rel=1e-12)


def test_views_without_a_partner_cost_nothing_and_break_no_gradient():
    embeddings = torch.randn(4, 3, requires_grad=True)
    recording = torch.tensor([0, 0, 1, 2])
    stream = torch.tensor([0, 1, 0, 0])
    same = agreement(recording, {}, {})
    contrast(embeddings, same, cross_stream(stream), TAU).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    alone = contrast(embeddings, same, cross_stream(torch.zeros(4, dtype=torch.int64)), TAU)
    assert alone.item() == 0


def test_loss_ignores_the_order_and_length_of_views():
    v = views()
    same, w = agreement(v["recording"], {}, {}), all_but_self(v["recording"])
    order = torch.randperm(len(w), generator=torch.Generator().manual_seed(2))
    loss = contrast(v["embeddings"], same, w, TAU)
    scale = torch.linspace(0.1, 10, len(w), dtype=torch.float64)[:, None]
    moved = contrast(
        (scale * v["embeddings"])[order], same[order][:, order], w[order][:, order], TAU
    )
    torch.testing.assert_close(moved, loss)


def test_extreme_similarities_stay_finite():
    embeddings = torch.eye(4).repeat(2, 1)
    recording = torch.arange(4).repeat(2)
    same = agreement(recording, {}, {})
    loss = contrast(embeddings, same, all_but_self(recording), 1e-4)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_unknown_factors_and_questions_are_named():
    v = views()
    with pytest.raises(ConfigError, match="Did you mean 'shift'"):
        agreement(v["recording"], {"shift": v["shift"]}, {"shfit": "ignore"})
    with pytest.raises(ConfigError, match="Did you mean 'tell_apart'"):
        agreement(v["recording"], {"shift": v["shift"]}, {"shift": "tell apart"})


def test_info_nce_is_equation_1_of_taco():
    generator = torch.Generator().manual_seed(3)
    z_t, z = torch.randn(2, 6, 5, dtype=torch.float64, generator=generator)
    total = 0.0
    for i in range(6):
        below = sum(math.exp(cosine(z_t[i], z[j]) / TAU) for j in range(6))
        total -= math.log(math.exp(cosine(z_t[i], z[i]) / TAU) / below)
    nearest = [max(range(6), key=lambda j: cosine(z_t[i], z[j])) == i for i in range(6)]
    result = info_nce(z_t, z, z, ~torch.eye(6, dtype=torch.bool), TAU)
    assert result.loss.item() == pytest.approx(total / 6, rel=1e-12)
    assert result.accuracy.item() == pytest.approx(sum(nearest) / 6)
    assert result.chance == pytest.approx(1 / 6)


def test_info_nce_is_the_general_contrast_of_queries_with_keys():
    generator = torch.Generator().manual_seed(4)
    queries, keys = torch.randn(2, 5, 8, dtype=torch.float64, generator=generator)
    recording = torch.arange(5).repeat(2)
    is_query = torch.arange(10) < 5
    w = is_query[:, None] & ~is_query[None, :]
    general = contrast(torch.cat([queries, keys]), agreement(recording, {}, {}), w, TAU)
    special = info_nce(queries, keys, keys, ~torch.eye(5, dtype=torch.bool), TAU)
    torch.testing.assert_close(special.loss, general)


def test_collapsed_embeddings_score_nothing():
    same = torch.ones(8, 4)
    result = info_nce(same, same, same, ~torch.eye(8, dtype=torch.bool), TAU)
    assert result.accuracy == 0
    assert result.loss.item() == pytest.approx(math.log(8), rel=1e-5)


def test_without_negatives_there_is_nothing_to_learn():
    query = torch.randn(3, 4, requires_grad=True)
    result = info_nce(query, torch.randn(3, 4), torch.zeros(2, 4), torch.zeros(3, 2).bool(), TAU)
    assert result.loss == 0
    assert result.chance == 1


def test_autocast_does_not_round_the_contrast():
    generator = torch.Generator().manual_seed(5)
    queries, keys = torch.randn(2, 6, 16, generator=generator)
    allowed = ~torch.eye(6, dtype=torch.bool)
    exact = info_nce(queries, keys, keys, allowed, TAU).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = info_nce(queries, keys, keys, allowed, TAU).loss
        half = info_nce(queries.bfloat16(), keys.bfloat16(), keys, allowed, TAU).loss
    assert cast.dtype == half.dtype == torch.float32
    torch.testing.assert_close(cast, exact, rtol=0, atol=0)


@pytest.mark.parametrize("temperature", [0, -0.1])
def test_a_temperature_is_positive(temperature):
    query = torch.randn(2, 3)
    with pytest.raises(ConfigError, match="positive"):
        info_nce(query, query, query, torch.ones(2, 2).bool(), temperature)
    with pytest.raises(ConfigError, match="positive"):
        contrast(query, torch.ones(2, 2).bool(), torch.ones(2, 2).bool(), temperature)

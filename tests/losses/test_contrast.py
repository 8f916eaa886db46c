"""The contrast equals double loops written from the papers' equations."""

import itertools
import math

import pytest
import torch

from mainspring.errors import ConfigError
from mainspring.losses.contrast import (
    Stored,
    agreement,
    all_but_self,
    contrast,
    cross_stream,
    info_nce,
)
from mainspring.losses.square import Facts, Square

TAU = 0.07
# GDT, Table 1 and Table 2: questions of time reversal and time shift ("" where there is one value),
# streams, and augmentations.
ROWS = {
    "a": ("", "", 1, 2),
    "b": ("ignore", "", 1, 2),
    "c": ("", "ignore", 1, 2),
    "d": ("ignore", "ignore", 1, 2),
    "e": ("", "", 2, 1),
    "f": ("ignore", "", 2, 1),
    "g": ("", "ignore", 2, 1),
    "h": ("ignore", "ignore", 2, 1),
    "i": ("tell_apart", "", 2, 1),
    "j": ("", "tell_apart", 2, 1),
    "k": ("tell_apart", "ignore", 2, 1),
    "l": ("ignore", "tell_apart", 2, 1),
    "m": ("tell_apart", "tell_apart", 2, 1),
    "vt-a": ("", "", 1, 2),
    "vt-b": ("", "", 2, 1),
    "vt-c": ("tell_apart", "", 2, 1),
    "vt-d": ("", "tell_apart", 2, 1),
    "vt-e": ("tell_apart", "ignore", 2, 1),
    "vt-f": ("ignore", "tell_apart", 2, 1),
    "vt-g": ("tell_apart", "tell_apart", 2, 1),
}
FACTORS = ("recording", "shift", "stream", "direction", "augmentation")


def hierarchy(*counts: int, seed: int = 0, dim: int = 5) -> dict[str, torch.Tensor]:
    """All values of each factor with all of the others, in an order that means nothing."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*(torch.arange(count) for count in counts))
    grid = grid[torch.randperm(len(grid), generator=generator)]
    embeddings = torch.randn(len(grid), dim, dtype=torch.float64, generator=generator)
    return {**dict(zip(FACTORS, grid.T, strict=True)), "embeddings": embeddings}


def views(seed: int = 0) -> dict[str, torch.Tensor]:
    """GDT's hierarchy: 3 recordings, 2 shifts, 2 streams, 2 directions."""
    return hierarchy(3, 2, 2, 2, 1, seed=seed)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return dot / math.sqrt(sum(x * x for x in a.tolist()) * sum(y * y for y in b.tolist()))


def equation_1(embeddings, c, w, rho, stored=(), v=lambda i, k: True):
    """The sum of Eq. 1, the number of its terms, and how many of the views that are asked find a
    positive first, by loops."""
    total, terms, right, asked, chance = 0.0, 0, 0, 0, 0.0
    for i, t in enumerate(embeddings):
        keys = {j: cosine(t, other) / rho for j, other in enumerate(embeddings) if w(i, j)}
        more = [cosine(t, other) / rho for k, other in enumerate(stored) if v(i, k)]
        below = sum(math.exp(each) for each in [*keys.values(), *more])
        positives = [j for j in keys if c(i, j)]
        for j in positives:
            total -= math.log(math.exp(keys[j]) / below)
            terms += 1
        if positives:
            asked += 1
            wrong = [keys[j] for j in keys if j not in positives] + more
            right += max(keys[j] for j in positives) > max(wrong, default=-math.inf)
            chance += len(positives) / (len(keys) + len(more))
    return total, terms, right / max(asked, 1), chance / max(asked, 1)


def dense(embeddings, label, rule, temperature):
    """Eq. 1 over the whole square at once, for gradients."""
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    everything = slice(0, len(unit))
    w = rule.block(everything, everything)
    c = (label[:, None] == label) & w
    logits = unit @ unit.T / temperature
    asked = c.any(1)
    total = logits[asked].masked_fill(~w[asked], -torch.inf).logsumexp(1, keepdim=True)
    return ((total - logits[asked]) * c[asked]).sum() / c.sum()


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("side", [0, 5])
def test_contrast_is_equation_1_for_every_row_of_tables_1_and_2(row, side):
    direction, shift, streams, augmentations = ROWS[row]
    v = hierarchy(3, 1 + (shift != ""), streams, 1 + (direction != ""), augmentations)
    questions = {
        name: question
        for name, question in {"direction": direction, "shift": shift}.items()
        if question
    }
    told = ["recording", *(name for name, q in questions.items() if q == "tell_apart")]

    def c(i, j):
        return math.prod(int(v[factor][i] == v[factor][j]) for factor in told)

    def w(i, j):
        return v["stream"][i] != v["stream"][j] if streams == 2 else i != j

    total, terms, accuracy, chance = equation_1(v["embeddings"], c, w, TAU)
    rule = (
        cross_stream(v["recording"], v["stream"]) if streams == 2 else all_but_self(v["recording"])
    )
    found = contrast(v["embeddings"], agreement(v["recording"], v, questions), rule, TAU, side=side)
    assert terms > 0
    assert found.loss.item() == pytest.approx(total / terms, rel=1e-12)
    assert found.accuracy.item() == pytest.approx(accuracy)
    assert found.chance == pytest.approx(chance)


def every_rule(v):
    there = torch.arange(len(v["stream"])) % 5 != 1
    both = cross_stream(v["recording"], v["stream"])
    return {
        "all but self": all_but_self(v["recording"]),
        "cross": both,
        "three streams": cross_stream(v["recording"], (v["stream"] + v["shift"]) % 3),
        "some there": all_but_self(v["recording"]).among(there),
        "cross, some there": both.among(there),
        "edges": both.edges(v["shift"], v["direction"]),
        "edges, some there": all_but_self(v["recording"])
        .edges(v["shift"], v["direction"])
        .among(there),
    }


@pytest.mark.parametrize("name", every_rule(views()))
@pytest.mark.parametrize("temperature", [TAU, 0.001])
@pytest.mark.parametrize("kept", [0, 2**20])
@pytest.mark.parametrize("side", [2, 7, 64])
def test_gradient_in_blocks_is_the_dense_one(name, temperature, kept, side):
    v = hierarchy(5, 2, 2, 2, 1, seed=3)
    rule = every_rule(v)[name]
    label = agreement(v["recording"], v, {"shift": "tell_apart", "direction": "ignore"})
    one, other = (v["embeddings"].clone().requires_grad_() for _ in range(2))
    found = contrast(one, label, rule, temperature, kept=kept, side=side).loss
    expected = dense(other, label, rule, temperature)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (3 * found).backward()
    (3 * expected).backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-12, atol=1e-12 / temperature)


def test_gradient_in_single_precision():
    v = hierarchy(40, 2, 2, 2, 1, dim=32)
    rule, label = cross_stream(v["recording"], v["stream"]), agreement(v["recording"], {}, {})
    one, other = v["embeddings"].float().requires_grad_(), v["embeddings"].clone().requires_grad_()
    contrast(one, label, rule, TAU, side=64).loss.backward()
    dense(other, label, rule, TAU).backward()
    torch.testing.assert_close(one.grad, other.grad.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [TAU, 0.003])
@pytest.mark.parametrize("crossing", [False, True])
@pytest.mark.parametrize("side", [0, 3])
def test_stored_keys_join_the_denominator_only(crossing, side, temperature):
    v = views()
    keys = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    owner = torch.tensor([-1, 0, 1, 2, 9, 9, 8])
    stream = torch.tensor([0, 1, 0, 1, 0, 1, 1])
    rule = cross_stream(v["recording"], v["stream"]) if crossing else all_but_self(v["recording"])
    label = agreement(v["recording"], {}, {})

    def seen(i, k):
        elsewhere = not crossing or v["stream"][i] != stream[k]
        return owner[k] >= 0 and owner[k] != v["recording"][i] and elsewhere

    total, terms, accuracy, chance = equation_1(
        v["embeddings"],
        lambda i, j: v["recording"][i] == v["recording"][j],
        lambda i, j: v["stream"][i] != v["stream"][j] if crossing else i != j,
        temperature,
        keys,
        seen,
    )
    embeddings = v["embeddings"].requires_grad_()
    bank = keys.clone().requires_grad_()
    found = contrast(embeddings, label, rule, temperature, Stored(bank, owner, stream), side=side)
    assert found.loss.item() == pytest.approx(total / terms, rel=1e-12)
    assert found.accuracy.item() == pytest.approx(accuracy)
    assert found.chance == pytest.approx(chance)
    found.loss.backward()
    assert bank.grad is None
    eps = 1e-6
    for place in [(0, 0), (5, 3), (20, 4)]:
        moved = []
        for sign in (1, -1):
            other = embeddings.detach().clone()
            other[place] += sign * eps
            loss = contrast(other, label, rule, temperature, Stored(keys, owner, stream))
            moved.append(loss.loss.item())
        slope = (moved[0] - moved[1]) / (2 * eps)
        assert embeddings.grad[place].item() == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_few_views_meet_many_stored_keys():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    keys = torch.randn(2000, 5, dtype=torch.float64, generator=generator)
    recording = torch.tensor([0, 0, 1, 1])
    total, terms, *_ = equation_1(
        z, lambda i, j: recording[i] == recording[j], lambda i, j: i != j, TAU, keys
    )
    stored = Stored(keys, torch.full((2000,), 9))
    found = contrast(z.requires_grad_(), recording, all_but_self(recording), TAU, stored)
    assert found.loss.item() == pytest.approx(total / terms, rel=1e-12)
    found.loss.backward()


def test_streams_of_stored_keys_are_asked_for():
    v = views()
    with pytest.raises(ConfigError, match="without their streams"):
        contrast(
            v["embeddings"],
            v["recording"],
            cross_stream(v["recording"], v["stream"]),
            TAU,
            Stored(torch.randn(2, 5), torch.tensor([7, 8])),
        )


@pytest.mark.parametrize("kept", [0, 2**20])
def test_detached_keys_learn_as_queries_only(kept):
    v = hierarchy(4, 2, 2, 2, 1)
    rule = cross_stream(v["recording"], v["stream"]).edges(v["shift"], v["direction"])
    label = agreement(v["recording"], v, {"shift": "tell_apart"})
    one, other = (v["embeddings"].clone().requires_grad_() for _ in range(2))
    contrast(one, label, rule, TAU, keys_learn=False, kept=kept, side=6).loss.backward()
    everything = slice(0, len(other))
    unit = other / other.norm(dim=1, keepdim=True)
    w = rule.block(everything, everything)
    c = (label[:, None] == label) & w
    logits = unit @ unit.T.detach() / TAU
    total = logits.masked_fill(~w, -torch.inf).logsumexp(1, keepdim=True)
    (((total - logits) * c).sum() / c.sum()).backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-12, atol=1e-12)


def test_edges_are_the_square_of_shifts_and_directions_without_diagonals():
    grid = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    rule = all_but_self(torch.zeros(4, dtype=torch.int64)).edges(*grid.T)
    pairs = rule.block(slice(0, 4), slice(0, 4))
    for i, j in itertools.product(range(4), repeat=2):
        assert pairs[i, j] == ((grid[i] != grid[j]).sum() == 1)
    elsewhere = all_but_self(torch.arange(4)).edges(*grid.T).block(slice(0, 4), slice(0, 4))
    assert (elsewhere == ~torch.eye(4, dtype=torch.bool)).all()


def test_a_view_must_be_among_all_that_are_asked_for():
    first, second = torch.tensor([[True, True, False], [True, False, True]])
    rule = all_but_self(torch.zeros(3, dtype=torch.int64)).among(first).among(second)
    assert rule.there is not None
    assert rule.there.tolist() == [True, False, False]


def test_views_that_are_not_there_change_nothing():
    v = views()
    there = torch.rand(24, generator=torch.Generator().manual_seed(0)) < 0.7
    rule, label = cross_stream(v["recording"], v["stream"]), agreement(v["recording"], {}, {})
    embeddings = v["embeddings"].requires_grad_()
    found = contrast(embeddings, label, rule.among(there), TAU)
    rows = there.nonzero()[:, 0]
    alone = contrast(v["embeddings"][rows], label[rows], rule.take(rows), TAU)
    torch.testing.assert_close(found.loss, alone.loss)
    assert found.accuracy == alone.accuracy
    found.loss.backward()
    assert not embeddings.grad[~there].any()
    assert embeddings.grad[there].any(1).all()


def test_views_without_a_partner_cost_nothing_and_break_no_gradient():
    embeddings = torch.randn(4, 3, requires_grad=True)
    recording = torch.tensor([0, 0, 1, 2])
    rule = cross_stream(recording, torch.tensor([0, 1, 0, 0]))
    contrast(embeddings, recording, rule, TAU).loss.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    for nothing in (cross_stream(recording, torch.zeros(4).long()), rule.among(recording > 5)):
        alone = contrast(embeddings, recording, nothing, TAU)
        assert alone == (0, 0, 0)
        alone.loss.backward()


def test_loss_ignores_the_order_and_length_of_views():
    v = views()
    rule, label = all_but_self(v["recording"]), agreement(v["recording"], {}, {})
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(2))
    loss = contrast(v["embeddings"], label, rule, TAU).loss
    scale = torch.linspace(0.1, 10, len(label), dtype=torch.float64)[:, None]
    moved = contrast((scale * v["embeddings"])[order], label[order], rule.take(order), TAU).loss
    torch.testing.assert_close(moved, loss)


@pytest.mark.parametrize("temperature", [1e-4, 0.02, 0.03])
def test_extreme_similarities_stay_finite(temperature):
    embeddings = torch.eye(4).repeat(2, 1).requires_grad_()
    recording = torch.arange(4).repeat(2)
    found = contrast(embeddings, recording, all_but_self(recording), temperature)
    assert found.loss.item() == pytest.approx(0, abs=1e-6)
    assert found.accuracy == 1
    found.loss.backward()
    assert embeddings.grad.isfinite().all()
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    wrong = torch.tensor([0, 0, 1, 1])  # each at the far end from its positive
    far = contrast(opposite, wrong, all_but_self(wrong), temperature).loss
    assert far.item() == pytest.approx(2 / temperature, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.005, 0.0126, 0.03])
def test_many_stored_keys_nearer_than_any_view_stay_finite(temperature):
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    stored = Stored(torch.tensor([[1.0, 0.0]]).expand(20_000, -1), torch.full((20_000,), 9))
    recording = torch.zeros(2, dtype=torch.int64)
    loss = contrast(opposite, recording, all_but_self(recording), temperature, stored).loss
    near, far = 2 / temperature + math.log(20_000), math.log(20_001)
    assert loss.item() == pytest.approx((near + far) / 2, rel=1e-5)
    loss.backward()
    assert opposite.grad.isfinite().all()


def test_similarities_are_kept_up_to_so_many():
    recording = torch.arange(3).repeat(2)
    unit = torch.nn.functional.normalize(torch.randn(6, 4), dim=1)
    facts = Facts(recording, all_but_self(recording), None, TAU)
    assert Square(unit, facts, 26, 64).kept is None
    kept = Square(unit, facts, 27, 64).kept
    assert kept is not None
    assert kept.numel() == 27  # of 36, 9 are mirror images


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("keys_learn", [False, True])
@pytest.mark.parametrize("kept", [0, 2**20])
def test_pairs_that_do_not_take_part_may_be_nearer_than_all_that_do(edges, keys_learn, kept):
    v = hierarchy(4, 2, 1, 2, 1, dim=256)
    rule = all_but_self(v["recording"])
    if edges:
        rule = rule.edges(v["shift"], v["direction"])
        v["embeddings"][1:3] = v["embeddings"][:1]
    single = v["embeddings"].float().requires_grad_()
    double = v["embeddings"].requires_grad_()
    losses = [
        contrast(z, v["recording"], rule, 0.005, keys_learn=keys_learn, kept=kept, side=5).loss
        for z in (single, double)
    ]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-4)
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-3, atol=1e-4)


def test_simclr_is_a_special_case():
    """NT-Xent (Chen et al. 2020, Algorithm 1) by its own loop."""
    generator = torch.Generator().manual_seed(8)
    z = torch.randn(12, 4, dtype=torch.float64, generator=generator)  # views 2k and 2k + 1
    total = 0.0
    for i in range(12):
        below = sum(math.exp(cosine(z[i], z[k]) / 0.5) for k in range(12) if k != i)
        total -= math.log(math.exp(cosine(z[i], z[i ^ 1]) / 0.5) / below)
    recording = torch.arange(12) // 2
    found = contrast(z, agreement(recording, {}, {}), all_but_self(recording), 0.5)
    assert found.loss.item() == pytest.approx(total / 12, rel=1e-12)
    assert found.chance == pytest.approx(1 / 11)


def test_labels_are_equal_where_recording_and_told_factors_are():
    v = hierarchy(4, 3, 2, 2, 1)
    label = agreement(v["recording"], v, {"shift": "tell_apart", "direction": "ignore"})
    for i, j in itertools.product(range(len(label)), repeat=2):
        same = v["recording"][i] == v["recording"][j] and v["shift"][i] == v["shift"][j]
        assert (label[i] == label[j]) == same


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


def test_queries_may_have_unlike_numbers_of_negatives():
    generator = torch.Generator().manual_seed(3)
    query, right, wrong = torch.randn(3, 6, 5, dtype=torch.float64, generator=generator)
    total, first, chance = 0.0, 0, 0.0
    for i in range(6):
        near, others = cosine(query[i], right[i]), [cosine(query[i], wrong[j]) for j in range(i)]
        total += math.log(sum(math.exp(each / TAU) for each in [near, *others])) - near / TAU
        first += near > max(others, default=-1)
        chance += 1 / (1 + i)
    found = info_nce(query, right, wrong, torch.ones(6, 6).tril(-1).bool(), TAU)
    assert found.loss.item() == pytest.approx(total / 6, rel=1e-12)
    assert found.accuracy.item() == pytest.approx(first / 6)
    assert found.chance == pytest.approx(chance / 6)


def test_info_nce_is_the_general_contrast_of_queries_with_keys():
    generator = torch.Generator().manual_seed(4)
    queries, keys = torch.randn(2, 5, 8, dtype=torch.float64, generator=generator)
    recording, others = torch.arange(5).repeat(2), ~torch.eye(5, dtype=torch.bool)
    rule = cross_stream(recording, torch.arange(10) // 5)
    general = contrast(torch.cat([queries, keys]), recording, rule, TAU)
    both = info_nce(queries, keys, keys, others, TAU), info_nce(keys, queries, queries, others, TAU)
    torch.testing.assert_close((both[0].loss + both[1].loss) / 2, general.loss)
    torch.testing.assert_close((both[0].accuracy + both[1].accuracy) / 2, general.accuracy.float())
    assert both[0].chance == pytest.approx(general.chance)


def test_collapsed_embeddings_score_nothing():
    same = torch.ones(8, 4)
    result = info_nce(same, same, same, ~torch.eye(8, dtype=torch.bool), TAU)
    assert result.accuracy == 0
    assert result.loss.item() == pytest.approx(math.log(8), rel=1e-5)
    recording = torch.arange(4).repeat(2)
    general = contrast(same, recording, all_but_self(recording), TAU)
    assert general.accuracy == 0
    assert general.loss.item() == pytest.approx(math.log(7), rel=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5, 16, 33, 128])
def test_the_rounding_of_collapsed_embeddings_is_no_right_answer(count):
    same = torch.randn(1, 128, generator=torch.Generator().manual_seed(1)).expand(count, -1)
    assert info_nce(same, same, same, ~torch.eye(count, dtype=torch.bool), TAU).accuracy == 0
    views, recording = same.repeat(2, 1), torch.arange(count).repeat(2)
    stream = torch.arange(2 * count) // count
    for rule in (all_but_self(recording), cross_stream(recording, stream)):
        assert contrast(views, recording, rule, TAU).accuracy == 0


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
    rule = all_but_self(recording := torch.arange(3).repeat(2))
    exact = contrast(queries, recording, rule, TAU).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert contrast(queries, recording, rule, TAU).loss == exact
        assert contrast(queries.bfloat16(), recording, rule, TAU).loss.dtype == torch.float32


@pytest.mark.parametrize("temperature", [0, -0.1])
def test_a_temperature_is_positive(temperature):
    query = torch.randn(2, 3)
    with pytest.raises(ConfigError, match="positive"):
        info_nce(query, query, query, torch.ones(2, 2).bool(), temperature)
    with pytest.raises(ConfigError, match="positive"):
        contrast(query, torch.arange(2), all_but_self(torch.arange(2)), temperature)

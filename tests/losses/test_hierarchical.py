import math

import numpy as np
import pytest
import torch

from mainspring.errors import ConfigError
from mainspring.losses import hierarchical as module


def hierarchical(first, second, *options, **named):
    return module.hierarchical(torch.stack([first, second], 1), *options, **named)


def views(series=3, time=11, dim=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(series, time, dim, generator=generator, dtype=dtype).requires_grad_(),
        torch.randn(series, time, dim, generator=generator, dtype=dtype).requires_grad_(),
    )


def pair_loss(anchor, positive, negatives):
    """-log softmax of one dot product against the others, term by term."""
    right = float(np.dot(anchor, positive))
    every = [right, *(float(np.dot(anchor, other)) for other in negatives)]
    top = max(every)
    return top + math.log(sum(math.exp(value - top) for value in every)) - right


def slow(first, second, present=None, instance=0.5, unit=0):
    """Algorithm 1 with Eq. 1 and 2, loop by loop."""
    r = [first.detach().numpy(), second.detach().numpy()]
    there = np.ones(r[0].shape[:2], bool) if present is None else present.numpy()
    total, level = 0.0, 0
    while True:
        series, time = r[0].shape[:2]
        count = 2 * there.sum()
        instance_sum = temporal_sum = 0.0
        for i in range(series):
            for t in range(time):
                if not there[i, t]:
                    continue
                for v in (0, 1):
                    anchor, positive = r[v][i, t], r[1 - v][i, t]
                    others = [
                        r[u][j, t] for u in (0, 1) for j in range(series) if j != i and there[j, t]
                    ]
                    if series > 1:
                        instance_sum += pair_loss(anchor, positive, others)
                    others = [
                        r[u][i, s] for u in (0, 1) for s in range(time) if s != t and there[i, s]
                    ]
                    temporal_sum += pair_loss(anchor, positive, others)
        total += instance * instance_sum / count
        if time > 1 and level >= unit:
            total += (1 - instance) * temporal_sum / count
        level += 1
        if time == 1:
            return total / level
        half = time // 2
        pooled = []
        for view in r:
            below = np.where(there[:, :, None], view, -np.inf)
            high = np.maximum(below[:, : 2 * half : 2], below[:, 1 : 2 * half : 2])
            pooled.append(np.where(np.isfinite(high), high, 0.0))
        there = there[:, : 2 * half : 2] | there[:, 1 : 2 * half : 2]
        r = pooled


@pytest.mark.parametrize("time", [1, 2, 3, 8, 11])
@pytest.mark.parametrize("series", [1, 2, 4])
@pytest.mark.parametrize("unit", [0, 2])
def test_the_loss_is_algorithm_1(series, time, unit):
    first, second = views(series, time)
    want = slow(first, second, unit=unit)
    assert float(hierarchical(first, second, temporal_unit=unit).detach()) == pytest.approx(
        want, abs=1e-12
    )


@pytest.mark.parametrize("instance", [0.0, 0.25, 1.0])
def test_the_weight_of_instance_contrast(instance):
    first, second = views()
    want = slow(first, second, instance=instance)
    got = hierarchical(first, second, instance=instance)
    assert float(got.detach()) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("where", ["end", "start", "anywhere"])
def test_padding_is_neither_asked_nor_a_negative(where):
    first, second = views(series=4, time=9)
    present = torch.arange(9) < torch.tensor([9, 4, 1, 6])[:, None]
    if where == "start":
        present = present.flip(1)
    elif where == "anywhere":
        present = torch.rand(4, 9, generator=torch.Generator().manual_seed(3)) < 0.6
    want = slow(first, second, present)
    loss = hierarchical(first, second, present)
    assert float(loss.detach()) == pytest.approx(want, abs=1e-12)
    loss.backward()
    assert not first.grad[~present].any()
    with torch.no_grad():
        loud = torch.where(present[:, :, None], first, 1e6)
    assert float(hierarchical(loud, second, present).detach()) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("cells", [1, 40, 2**24])
@pytest.mark.parametrize("padded", [False, True])
def test_gradients_are_those_of_finite_differences_however_few_rows_at_a_time(cells, padded):
    first, second = views(series=3, time=5, dim=3)
    present = torch.arange(5) < torch.tensor([5, 2, 4])[:, None] if padded else None
    torch.autograd.gradcheck(lambda a, b: hierarchical(a, b, present, cells=cells), (first, second))


def test_rows_at_a_time_do_not_change_loss_or_gradient():
    grads = []
    for cells in (17, 2**24):
        first, second = views(series=4, time=13)
        hierarchical(first, second, cells=cells).backward()
        grads.append(torch.cat([first.grad, second.grad]))
    torch.testing.assert_close(*grads, atol=1e-14, rtol=1e-12)


def test_large_values_do_not_overflow():
    first, second = views(dtype=torch.float32)
    loss = hierarchical(first * 1e4, second * 1e4)
    loss.backward()
    assert loss.isfinite()
    assert first.grad.isfinite().all()


def test_collapsed_embeddings_score_chance():
    # All alike: each softmax is uniform over the 2n - 1 others.
    flat = torch.ones(4, 4, 3)
    want = 0.5 * math.log(7) * 3 + 0.5 * (math.log(7) + math.log(3))
    assert float(hierarchical(flat, flat)) == pytest.approx(want / 3, rel=1e-6)


def test_memory_grows_with_length_and_not_with_its_square(monkeypatch):
    largest = []
    plain = torch.bmm

    def watched(a, b):
        out = plain(a, b)
        largest.append(out.numel())
        return out

    monkeypatch.setattr(module.torch, "bmm", watched)
    first, second = views(series=2, time=300, dim=4, dtype=torch.float32)
    hierarchical(first, second, cells=10_000).backward()
    assert max(largest) <= 10_000


def test_a_weight_that_is_no_share_is_refused():
    with pytest.raises(ConfigError, match=r"weight of instance contrast is 2"):
        hierarchical(*views(), instance=2.0)


@pytest.mark.parametrize("cells", [2**22, 3000])
@pytest.mark.parametrize("time", [10, 32, 75])
def test_coarse_products_change_little(time, cells):
    exact = views(series=4, time=time, dim=32, dtype=torch.float32)
    rough = views(series=4, time=time, dim=32, dtype=torch.float32)
    first, second = hierarchical(*exact), hierarchical(*rough, coarse=True, cells=cells)
    first.backward()
    second.backward()
    assert float(second.detach()) == pytest.approx(float(first.detach()), rel=1e-2)
    a, b = (torch.cat([v.grad for v in both]).flatten() for both in (exact, rough))
    assert float(torch.cosine_similarity(a, b, 0)) > 0.99

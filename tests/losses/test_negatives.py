"""Queue, memory bank and momentum copy keep what their papers say they keep."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mainspring.errors import ConfigError
from mainspring.losses.contrast import info_nce
from mainspring.losses.negatives import InBatch, MemoryBank, MomentumCopy, Queue


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_other_recordings_of_the_batch_are_negatives():
    keys = torch.randn(4, 3)
    recording = torch.tensor([7, 8, 7, 9])
    given = InBatch().against(keys, recording, generator())
    assert given.positives is keys
    assert given.allowed.int().tolist() == [[0, 1, 0, 1], [1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]]


def test_queue_is_first_in_first_out():
    queue, kept = Queue(2, 5), []
    for step in range(7):
        keys = torch.tensor([[1.0, step], [2.0, -step]])
        recording = torch.tensor([2 * step, 2 * step + 1])
        queue.remember(keys, recording)
        kept = (kept + list(zip(recording.tolist(), F.normalize(keys), strict=True)))[-5:]
        held = {int(o): k for o, k in zip(queue.owner, queue.keys, strict=True) if o >= 0}
        assert set(held) == {owner for owner, _ in kept}
        for owner, key in kept:
            torch.testing.assert_close(held[owner], key)


def test_queue_keeps_the_last_of_more_keys_than_fit():
    queue = Queue(2, 3)
    queue.remember(torch.randn(8, 2), torch.arange(8))
    assert sorted(queue.owner.tolist()) == [5, 6, 7]
    queue.remember(torch.randn(1, 2), torch.tensor([8]))
    assert sorted(queue.owner.tolist()) == [6, 7, 8]  # the oldest of them went


def test_queue_offers_no_empty_slot_and_no_key_of_the_same_recording():
    queue = Queue(3, 4)
    queue.remember(torch.randn(2, 3), torch.tensor([5, 6]))
    given = queue.against(torch.randn(2, 3, requires_grad=True), torch.tensor([6, 1]), generator())
    assert given.allowed.int().tolist() == [[0, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 0]]
    assert not given.positives.requires_grad


def test_what_a_queue_lent_survives_the_next_step():
    queue = Queue(3, 2)
    queue.remember(torch.randn(2, 3), torch.arange(2))
    given = queue.against(torch.randn(1, 3), torch.tensor([9]), generator())
    before = given.negatives.clone()
    queue.remember(torch.randn(2, 3), torch.arange(2))
    torch.testing.assert_close(given.negatives, before)


def test_bank_averages_visits_and_keeps_length_one():
    bank = MemoryBank(4, 3, sampled=10)
    first, second = torch.randn(2, 1, 3)
    row = torch.tensor([2])
    bank.remember(first, row)
    torch.testing.assert_close(bank.vectors[2], F.normalize(first)[0])
    bank.remember(second, row)
    expected = F.normalize(0.5 * F.normalize(first) + 0.5 * F.normalize(second))
    torch.testing.assert_close(bank.vectors[2], expected[0])
    assert bank.seen.tolist() == [False, False, True, False]


def test_bank_takes_two_visits_in_a_batch_as_their_mean():
    bank = MemoryBank(4, 3, sampled=10)
    keys = F.normalize(torch.randn(2, 3))
    bank.remember(keys, torch.tensor([1, 1]))
    first = F.normalize(keys.mean(0), dim=0)
    torch.testing.assert_close(bank.vectors[1], first)
    later = F.normalize(torch.randn(2, 3))
    bank.remember(later, torch.tensor([1, 1]))  # the mean weighs no more than one visit
    second = F.normalize(later.mean(0), dim=0)
    torch.testing.assert_close(bank.vectors[1], F.normalize(0.5 * first + 0.5 * second, dim=0))


def test_bank_samples_distinct_seen_rows_but_never_the_own_one():
    bank = MemoryBank(50, 3, sampled=20)
    bank.remember(torch.randn(30, 3), torch.arange(30))
    for seed in range(20):
        rows = bank.sample(generator(seed))
        assert len(rows.unique()) == 20
        recording = torch.arange(30)
        given = bank.against(torch.randn(30, 3), recording, generator(seed))
        for query, count in enumerate(given.allowed.sum(1).tolist()):
            assert not given.allowed[query, :30].any()
            chosen = rows[given.allowed[query, 30:]]
            assert query not in chosen
            assert (chosen < 30).all()
            assert count == ((rows < 30) & (rows != query)).sum()


def test_bank_draws_are_a_function_of_the_generator_and_even():
    bank = MemoryBank(40, 2, sampled=10)
    assert bank.sample(generator(3)).tolist() == bank.sample(generator(3)).tolist()
    source = generator()
    counts = torch.zeros(40)
    for _ in range(2000):
        counts[bank.sample(source)] += 1
    assert counts.sub(500).abs().max() < 100  # five standard deviations


def test_a_small_bank_gives_all_its_rows():
    assert MemoryBank(5, 2, sampled=16384).sample(generator()).tolist() == [0, 1, 2, 3, 4]


def test_bank_positive_is_the_stored_row_or_on_a_first_visit_the_key():
    bank = MemoryBank(3, 2, sampled=5)
    bank.remember(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
    keys = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    given = bank.against(keys, torch.tensor([0, 1]), generator())
    assert given.positives.tolist() == [[1, 0], [0, 1]]
    assert not given.positives.requires_grad
    assert not given.negatives.requires_grad
    # The new key meets the other new key, the stored row meets stored rows (of which one is seen).
    assert given.allowed.int().tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]


@pytest.mark.parametrize("make", [lambda: Queue(2, 8), lambda: MemoryBank(9, 2, 9)])
def test_drift_alone_wins_nothing(make):
    """Keys that are the same for all recordings, but turn from step to step."""
    memory = make()
    for step in range(4):
        angle = torch.tensor(0.5 * step)
        keys = torch.stack([angle.cos(), angle.sin()]).repeat(2, 1)
        recording = torch.tensor([2 * step, 2 * step + 1])
        given = memory.against(keys, recording, generator())
        result = info_nce(keys, given.positives, given.negatives, given.allowed, 0.07)
        assert result.accuracy == 0
        assert result.loss >= 0.69
        memory.remember(keys, recording)


@pytest.mark.parametrize("make", [lambda: Queue(3, 4), lambda: MemoryBank(4, 3, 4)])
def test_recordings_held_back_are_strangers_to_the_memory(make):
    memory = make()
    memory.remember(torch.randn(4, 3), torch.arange(4))
    keys, recording = torch.randn(3, 3), torch.tensor([0, 5, 9])
    given = memory.eval().against(keys, recording, generator())
    expected = InBatch().against(keys, recording, generator())
    assert torch.equal(given.positives, keys)
    assert torch.equal(given.negatives, expected.negatives)
    assert torch.equal(given.allowed, expected.allowed)


@pytest.mark.parametrize("make", [lambda: Queue(3, 4), lambda: MemoryBank(6, 3, 4)])
def test_memory_is_part_of_the_state(make):
    one, other = make(), make()
    one.remember(torch.randn(3, 3), torch.tensor([0, 2, 4]))
    other.load_state_dict(one.state_dict())
    keys, recording = torch.randn(2, 3), torch.tensor([1, 2])
    one.remember(keys, recording)
    other.remember(keys, recording)
    for mine, theirs in zip(one.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_momentum_copy_follows_slowly_without_gradient():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    slow = MomentumCopy(network, 0.9)
    before = copy.deepcopy(slow.network)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(1)
    network(torch.randn(8, 3))
    slow.update(network)
    for old, new, target in zip(
        before.parameters(), slow.network.parameters(), network.parameters(), strict=True
    ):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * target)
        assert not new.requires_grad
    torch.testing.assert_close(slow.network[1].running_mean, network[1].running_mean)
    assert not slow(torch.randn(4, 3)).requires_grad


def test_sizes_out_of_range_are_named():
    with pytest.raises(ConfigError, match="at least 1 key, not 0"):
        Queue(3, 0)
    with pytest.raises(ConfigError, match="at least 2 recordings, not 1"):
        MemoryBank(1, 3, 5)
    with pytest.raises(ConfigError, match="at least 1 negative"):
        MemoryBank(4, 3, 0)
    with pytest.raises(ConfigError, match=r"\[0, 1\), not 1"):
        MemoryBank(4, 3, 5, momentum=1)
    with pytest.raises(ConfigError, match=r"\[0, 1\], not 2"):
        MomentumCopy(nn.Linear(1, 1), 2)

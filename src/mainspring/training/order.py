"""Which recording comes next: a pure function of (seed, samples seen).

Nothing is stored and nothing replayed, so a run resumes anywhere at once, and shuffling a catalogue
of any size costs O(1) memory. Each epoch is a permutation of the catalogue: a Feistel network on
the next power of four with cycle walking (Black & Rogaway 2002, "Ciphers with arbitrary finite
domains", Section 3), keyed by (seed, epoch).
"""

from __future__ import annotations

import numpy as np
import torch

_ROUNDS = 4


class Order:
    """The endless sequence of catalogue rows that training visits.

    `order[n]` is the row of the n-th sample; samples [k * count, (k + 1) * count) visit every row
    once, in an order of their own. With batches, epochs end with the last whole batch, so that none
    reaches into the next and holds a row twice; the rows that are left out are others each time.

    Args:
        count: Rows in the catalogue, at least 1.
        seed: Seed of the run.
        batch: Samples that follow each other, from a multiple of it on, and must be of different
            rows; at most `count`.
    """

    def __init__(self, count: int, seed: int, batch: int = 1) -> None:
        if not 1 <= batch <= count:
            raise ValueError(f"an order of batches of {batch} needs as many rows, not {count}")
        self.count = count
        self.visited = count - count % batch
        self.seed = seed
        self._half = max(1, (max(count - 1, 1).bit_length() + 1) // 2)
        self._mask = (1 << self._half) - 1
        self._epoch = -1
        self._keys: list[int] = []

    def __getitem__(self, sample: int) -> int:
        epoch, position = divmod(sample, self.visited)
        if epoch != self._epoch:
            self._keys = seeded(self.seed, epoch).integers(1 << 62, size=_ROUNDS).tolist()
            self._epoch = epoch
        row = self._encrypt(position)
        while row >= self.count:
            row = self._encrypt(row)
        return row

    def _encrypt(self, value: int) -> int:
        left, right = value >> self._half, value & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return (left << self._half) | right


def seeded(*key: int) -> np.random.Generator:
    """A generator whose draws depend on the key alone."""
    return np.random.default_rng(np.random.SeedSequence(key))


def torch_seed(*key: int) -> int:
    """A 63-bit seed for torch that depends on the key alone."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def _mix(value: int) -> int:
    """The finaliser of splitmix64: every input bit reaches every output bit."""
    value &= (1 << 64) - 1
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & ((1 << 64) - 1)
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & ((1 << 64) - 1)
    return value ^ (value >> 31)


def seed_torch(*key: int) -> None:
    """Seeds torch's own generators; `torch.manual_seed` without the millisecond it takes."""
    seed = torch_seed(*key)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)

"""The sampler draws the product of its levels and refuses batches that would teach nothing."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import ConfigError
from mainspring.losses.contrast import contrast
from mainspring.pretexts.hierarchy import EVERY, Hierarchy, Level, spaced

RECORDING = Level("recording", EVERY, "tell_apart")
ROW_L = [
    RECORDING,
    Level("shift", 2, "tell_apart"),
    Level("stream", 2, "ignore"),
    Level("direction", 2, "ignore"),
    Level("augmentation", 1, "ignore"),
]


def batch(hierarchy: Hierarchy, recordings: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Recording and factors of all views of a batch."""
    views = {name: torch.from_numpy(v).repeat(recordings) for name, v in hierarchy.views().items()}
    return torch.arange(recordings).repeat_interleave(hierarchy.size), views


def test_views_are_the_product_of_the_levels():
    hierarchy = Hierarchy(ROW_L, crossing="stream")
    views = hierarchy.views()
    assert hierarchy.size == 8
    rows = list(zip(*(views[level.factor].tolist() for level in hierarchy.levels), strict=True))
    assert set(rows) == set(itertools.product(range(2), range(2), range(2), range(1)))
    assert len(rows) == 8
    table = hierarchy.views(without="stream")
    assert set(table) == {"shift", "direction", "augmentation"}
    assert all(len(values) == 4 for values in table.values())


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_the_construction_is_balanced(counts):
    """As many views share a value as any other of its factor (Section 3.1)."""
    levels = [Level(f"factor {i}", count, "ignore") for i, count in enumerate(counts)]
    hierarchy = Hierarchy([RECORDING, *levels, Level("augmentation", 2, "ignore")])
    for level in hierarchy.levels:
        share = Counter(hierarchy.views()[level.factor].tolist())
        assert set(share.values()) == {hierarchy.size // level.count}
        assert set(share) == set(range(level.count))


@pytest.mark.parametrize("crossing", ["", "stream"])
@pytest.mark.parametrize(
    "asked", list(itertools.product(["ignore", "tell_apart"], ["ignore", "tell_apart"], [1, 2]))
)
def test_what_is_allowed_satisfies_the_requirements(crossing, asked):
    """For each view there is one that agrees with it and one that does not, and w lets both in."""
    shift, direction, shifts = asked
    levels = [
        RECORDING,
        Level("shift", shifts, shift),
        Level("stream", 2, "ignore"),
        Level("direction", 2, direction),
    ]
    hierarchy = Hierarchy(levels, crossing)
    recording, factors = batch(hierarchy, 2)
    label, rule = hierarchy.label(recording, factors), hierarchy.rule(recording, factors)
    w = rule.block(slice(0, len(label)), slice(0, len(label)))
    c = label[:, None] == label
    assert not w.diagonal().any()
    assert (c & w).any(1).all()
    assert (~c & w).any(1).all()


def test_simclr_is_a_special_case():
    hierarchy = Hierarchy([RECORDING, Level("augmentation", 2, "ignore")])
    recording, factors = batch(hierarchy, 6)
    assert recording.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    z = torch.randn(12, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = contrast(
        z, hierarchy.label(recording, factors), hierarchy.rule(recording, factors), 0.5
    )
    # NT-Xent, Eq. 1 of Chen et al. (ICML 2020): the positive of view 2k is 2k + 1.
    unit = z / z.norm(dim=1, keepdim=True)
    logits = (unit @ unit.T / 0.5).fill_diagonal_(-torch.inf)
    nt_xent = torch.nn.functional.cross_entropy(logits, torch.arange(12) ^ 1)
    torch.testing.assert_close(found.loss, nt_xent)


@pytest.mark.parametrize(
    ("levels", "crossing", "violated"),
    [
        ([RECORDING, Level("augmentation", 0, "ignore")], "", r"\(i\).*0 values of augmentation"),
        ([RECORDING], "", r"\(ii\).*no factor that is ignored takes two values"),
        ([RECORDING, Level("augmentation", 1, "ignore")], "", r"\(ii\).*Draw 2 augmentations"),
        ([RECORDING, Level("shift", 2, "tell_apart")], "", r"\(ii\).*2 shift: tell_apart"),
        (
            [RECORDING, Level("stream", 1, "ignore"), Level("shift", 2, "ignore")],
            "stream",
            r"\(ii\).*differ in stream are compared",
        ),
        (
            [RECORDING, Level("stream", 2, "tell_apart"), Level("shift", 2, "ignore")],
            "stream",
            r"\(ii\).*never agree",
        ),
        (
            [Level("recording", 1, "tell_apart"), Level("shift", 2, "ignore")],
            "",
            r"\(iii\).*Take 2 recordings",
        ),
    ],
)
def test_each_requirement_is_named_where_it_is_violated(levels, crossing, violated):
    with pytest.raises(ConfigError, match=violated):
        Hierarchy(levels, crossing)


def test_levels_that_make_no_sense_are_named():
    with pytest.raises(ConfigError, match="Did you mean 'tell_apart'"):
        Hierarchy([RECORDING, Level("shift", 2, "tell apart")])
    with pytest.raises(ConfigError, match="shift stands twice"):
        Hierarchy([RECORDING, Level("shift", 2, "ignore"), Level("shift", 2, "ignore")])
    with pytest.raises(ConfigError, match="must be the recording"):
        Hierarchy([Level("shift", 2, "ignore")])
    with pytest.raises(ConfigError, match="Did you mean 'stream'"):
        Hierarchy(ROW_L, crossing="steam")


@given(st.integers(1, 5), st.integers(1, 20), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_starts_keep_their_distance(count, gap, more, seed):
    room = (count - 1) * gap + more
    starts = spaced(room, count, gap, np.random.default_rng(seed))
    assert len(starts) == count
    assert starts.min() >= 0
    assert starts.max() <= room
    assert (np.diff(np.sort(starts)) >= gap).all()


def test_every_set_of_starts_is_as_likely():
    room, count, gap = 7, 3, 2
    sets = [
        chosen
        for chosen in itertools.permutations(range(room + 1), count)
        if min(abs(a - b) for a, b in itertools.combinations(chosen, 2)) >= gap
    ]
    rng = np.random.default_rng(0)
    draws = 200 * len(sets)
    seen = Counter(tuple(spaced(room, count, gap, rng).tolist()) for _ in range(draws))
    assert set(seen) == set(sets)
    chi_square = sum((seen[each] - 200) ** 2 / 200 for each in sets)
    free = len(sets) - 1
    assert chi_square < free + 4 * np.sqrt(2 * free)


def test_starts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        spaced(5, 3, 3, np.random.default_rng(0))
    with pytest.raises(ValueError, match="do not fit"):
        spaced(5, 2, 0, np.random.default_rng(0))

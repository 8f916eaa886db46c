import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.errors import DataError
from mainspring.evaluate.splits import grouped_folds, labels_per_class, rare_classes


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=2, max_size=60),
    st.integers(2, 6),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_each_row_is_tested_once_and_no_group_straddles(
    rows: list[tuple[int, int]], folds: int, seed: int
) -> None:
    groups = np.array([f"g{group}" for group, _ in rows], object)
    labels = np.array([f"c{label}" for _, label in rows], object)
    if len(set(groups)) < 2:
        with pytest.raises(DataError, match="at least 2 groups"):
            grouped_folds(labels, groups, folds, np.random.default_rng(seed))
        return
    found = grouped_folds(labels, groups, folds, np.random.default_rng(seed))
    assert 2 <= len(found) <= folds
    tested = np.concatenate([test for _, test in found])
    assert sorted(tested) == list(range(len(rows)))
    for train, test in found:
        assert not set(groups[train]) & set(groups[test])
        assert sorted([*train, *test]) == list(range(len(rows)))
    again = grouped_folds(labels, groups, folds, np.random.default_rng(seed))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(found, again, strict=True))


def test_classes_are_spread_evenly() -> None:
    labels = np.repeat(["a", "b"], [80, 20])
    groups = np.arange(100).astype(str)
    for _, test in grouped_folds(labels, groups, 5, np.random.default_rng(0)):
        assert (labels[test] == "b").sum() == 4


def test_rare_classes_are_named() -> None:
    labels = np.array(["a", "a", "b", "b", "b"], object)
    groups = np.array(["1", "2", "3", "3", "3"], object)
    usable, notes = rare_classes(labels, groups)
    assert usable.tolist() == [True, True, False, False, False]
    assert notes == [
        "class 'b' left out: its 3 rows are all of group '3', so it cannot be in train and test "
        "at once"
    ]


def test_labels_per_class_draws_k_of_each_without_repetition() -> None:
    labels = np.repeat(["a", "b", "c"], [10, 3, 7])
    rng = np.random.default_rng(0)
    counts = np.zeros(20)
    for _ in range(400):
        chosen = labels_per_class(labels, 5, rng)
        assert len(set(chosen)) == len(chosen)
        assert [(labels[chosen] == name).sum() for name in "abc"] == [5, 3, 5]
        counts[chosen] += 1
    assert (counts[10:13] == 400).all()
    np.testing.assert_allclose(counts[:10] / 400, 0.5, atol=0.1)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        labels_per_class(labels, 0, rng)

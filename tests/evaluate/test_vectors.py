import numpy as np
import pytest

from mainspring.errors import ConfigError
from mainspring.evaluate.vectors import Vectors, differences


def make(rows: list[int], uris: str, groups: list[str | None], labels: list[str | None]) -> Vectors:
    count = len(rows)
    return Vectors(
        matrix=np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32),
        uris=np.array(list(uris), object),
        starts=np.arange(count, dtype=np.float64),
        ends=np.arange(count, dtype=np.float64) + 2,
        rows=np.array(rows),
        groups=np.array(groups, object),
        labels=np.array(labels, object),
    )


ALL = make(
    rows=[5, 5, 2, 3, 2], uris="xxyyy", groups=["g", "g", None, "h", None],
    labels=["a", "a", "b", "c", "d"],
)  # fmt: skip


def test_pooled_is_the_mean_of_each_recording_in_order_of_appearance() -> None:
    pooled = ALL.pooled()
    assert pooled.rows.tolist() == [5, 2, 3]
    expected = [ALL.matrix[ALL.rows == row].astype(np.float64).mean(0) for row in (5, 2, 3)]
    np.testing.assert_allclose(pooled.matrix, expected, rtol=1e-6)
    assert pooled.starts.tolist() == [0, 2, 3]
    assert pooled.ends.tolist() == [3, 6, 5]
    assert pooled.uris.tolist() == ["x", "y", "y"]
    assert pooled.groups.tolist() == ["g", None, "h"]
    assert pooled.labels.tolist() == ["a", None, "c"], "windows of row 2 disagree"


def test_pooled_by_file_and_by_group() -> None:
    assert ALL.pooled(by="uri").uris.tolist() == ["x", "y"]
    assert ALL.pooled(by="uri").groups.tolist() == ["g", None]
    assert len(ALL.pooled(by="group")) == 3
    with pytest.raises(ConfigError, match="Did you mean 'group'"):
        ALL.pooled(by="groups")


def test_pooling_windows_that_are_recordings_changes_nothing() -> None:
    again = ALL.pooled().pooled()
    np.testing.assert_array_equal(again.matrix, ALL.pooled().matrix)


def test_sides_are_groups_or_files() -> None:
    assert ALL.sides.tolist() == ["g", "g", "y", "h", "y"]


def test_rows_are_picked_together() -> None:
    some = ALL[ALL.rows == 2]
    assert some.labels.tolist() == ["b", "d"]
    np.testing.assert_array_equal(some.matrix, ALL.matrix[[2, 4]])


def test_differences_name_nested_settings() -> None:
    old = {"encoder": {"step": 1, "name": "r3d"}, "version": "0.1"}
    new = {"encoder": {"step": 2, "name": "r3d"}, "reader": {"size": 128}, "version": "0.1"}
    assert differences(old, new) == "encoder.step: 1 → 2; reader.size: None → 128"

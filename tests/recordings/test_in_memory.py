import numpy as np
import pytest

from mainspring.errors import DataError
from mainspring.recordings.in_memory import read


def test_arrays_lists_and_rows_of_numbers_are_the_same_series():
    X = np.arange(24.0).reshape(3, 8)
    for form in (X, X.tolist(), list(X), X[:, :, None], [x[:, None] for x in X], X.astype(int)):
        series, time = read(form)
        assert time == (8 if isinstance(form, np.ndarray) else None)
        for values, row in zip(series, X, strict=True):
            assert values.dtype == np.float32
            np.testing.assert_array_equal(values[:, 0], row)


def test_an_object_array_of_unequal_series_is_a_list():
    X = np.empty(2, object)
    X[0], X[1] = np.zeros((4, 2)), np.ones((7, 2))
    series, time = read(X)
    assert time is None
    assert [len(values) for values in series] == [4, 7]


def test_what_is_missing_and_where_a_series_of_an_array_ends():
    X = np.ones((4, 5, 2))
    X[0, 3:] = np.nan  # ends after three steps
    X[1, 4, 0] = np.nan  # one channel is missing at the end
    X[2] = np.nan  # nothing is known
    X[3, 1, 1] = -np.inf
    series, time = read(X)
    assert time == 5
    assert [len(values) for values in series] == [3, 5, 5, 5]
    assert np.isnan(series[3][1, 1])
    assert not np.isnan(X[3]).any()  # the user's array stays as it was
    (kept,), _ = read([X[0]])
    assert len(kept) == 5  # a list says itself how long its series are


@pytest.mark.parametrize("kind", [int, float])
def test_what_an_array_masks_is_missing(kind):
    X = np.arange(24).reshape(3, 8).astype(kind)
    X[1, 2] = 999
    masked = np.ma.masked_equal(X, 999)
    for form in (masked, masked[:, :, None], list(masked)):
        series, _ = read(form)
        assert np.isnan(series[1][2, 0])
        assert sum(np.isnan(values).sum() for values in series) == 1


class Nullable:
    """A frame whose values are objects where one is missing, as pandas' nullable types are."""

    shape, ndim = (3, 1), 2

    def __len__(self) -> int:
        return 3

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array([[1.0], [Ellipsis], [3.0]], object)

    def astype(self, dtype) -> np.ndarray:
        return np.array([[1.0], [np.nan], [3.0]], dtype)


def test_none_and_a_frames_own_missing_values_are_missing():
    want = np.array([1, np.nan, 3], np.float32)[:, None]
    forms = ([1.0, None, 3.0], [[1], [None], [3]], np.array([1, None, 3], object), Nullable())
    for form in forms:
        (values,), _ = read([form])
        np.testing.assert_array_equal(values, want)


class Column:
    """A column of arrays, counted from 7 as in a part of a frame."""

    dtype, ndim = np.dtype(object), 1

    def __len__(self) -> int:
        return 2

    def __iter__(self):
        return iter([np.zeros((4, 2)), np.ones((7, 2))])

    def __getitem__(self, key):
        raise KeyError(key)


def test_a_column_of_series_is_a_list():
    series, time = read(Column())
    assert time is None
    assert [len(values) for values in series] == [4, 7]


def test_other_things_are_named():
    with pytest.raises(DataError, match="type datetime64"):
        read(np.zeros((3, 4), "M8[s]"))
    with pytest.raises(DataError, match="X is empty"):
        read([])
    with pytest.raises(DataError, match=r"Series 1 of the list .* \(2, 2, 2\)"):
        read([np.zeros(3), np.zeros((2, 2, 2))])
    with pytest.raises(DataError, match=r"Series 0 of the list .* type <U1"):
        read([["a", "b"]])
    with pytest.raises(DataError, match=r"X has shape \(2, 0, 3\)"):
        read(np.zeros((2, 0, 3)))
    with pytest.raises(ValueError, match="Expected 2D array"):
        read([1.0, 2.0])
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        read(np.zeros((3, 1)), least_steps=2)

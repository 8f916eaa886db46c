import numpy as np
import pytest

from mainspring.errors import DataError
from mainspring.evaluate.gaps import filled, scaled

NAN = np.nan


def test_gaps_are_straight_lines_and_the_end_is_cut() -> None:
    found = filled([np.array([NAN, 1, NAN, NAN, 4, NAN]), np.array([5.0, NAN, 7])])
    assert found.lengths.tolist() == [5, 3]
    np.testing.assert_array_equal(found.values[..., 0], [[1, 1, 2, 3, 4], [5, 6, 7, 0, 0]])
    assert not found.equal


def test_channels_are_filled_alone_and_share_their_end() -> None:
    series = np.array([[[0, NAN], [NAN, NAN], [2, NAN], [NAN, 8], [NAN, NAN]]])
    found = filled(series)
    assert found.lengths.tolist() == [4]
    np.testing.assert_array_equal(found.values[0], [[0, 8], [1, 8], [2, 8], [2, 8]])
    assert np.isnan(series).sum() == 7, "what came is left alone"


def test_nothing_known_is_one_step_of_zero() -> None:
    found = filled(np.full((2, 3), NAN))
    assert found.lengths.tolist() == [1, 1]
    assert not found.values.any()


def test_whole_series_pass_unchanged() -> None:
    series = np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32)
    found = filled(series)
    np.testing.assert_array_equal(found.values, series)
    assert found.equal


def test_scaled_leaves_padding_out() -> None:
    short, long = np.array([1.0, 3, 8]), np.array([[0.1, 0.1, 0.1, 0.1, 0.1]]).T
    found = scaled(filled([short[:, None] + [0], long * 3]))
    np.testing.assert_allclose(found.values[0, :3, 0], (short - 4) / short.std())
    assert not found.values[0, 3:].any()
    assert not found.values[1].any(), "a constant is zero"


def test_what_is_no_series() -> None:
    with pytest.raises(DataError, match="same channels"):
        filled([np.zeros((3, 1)), np.zeros((3, 2))])
    with pytest.raises(DataError, match="1 of 2 series hold infinity"):
        filled(np.array([[0, np.inf], [1, 2]]))

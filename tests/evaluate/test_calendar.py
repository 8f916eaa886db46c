from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import DataError
from mainspring.evaluate.calendar import FEATURES, calendar_features


@given(st.lists(st.datetimes(datetime(1950, 1, 1), datetime(2150, 1, 1)), min_size=1, max_size=20))
def test_equals_the_standard_library(moments: list[datetime]) -> None:
    found = calendar_features(np.array(moments, "datetime64[us]"))
    expected = [
        [m.minute, m.hour, m.weekday(), m.day, m.timetuple().tm_yday, m.month, m.isocalendar()[1]]
        for m in moments
    ]
    assert len(FEATURES) == 7
    np.testing.assert_array_equal(found, expected)


def test_strings_and_standardising_by_train() -> None:
    hours = [datetime(2016, 7, 1) + timedelta(hours=h) for h in range(2000)]
    found = calendar_features(np.array([str(h) for h in hours]), slice(0, 1200))
    np.testing.assert_allclose(found[:1200].mean(axis=0), 0, atol=1e-12)
    assert not found[:, 0].any(), "the minute never changes"
    np.testing.assert_allclose(found[:1200, 1:].std(axis=0), 1)
    plain = calendar_features(np.array([str(h) for h in hours]))
    expected = (plain[:, 1] - plain[:1200, 1].mean()) / plain[:1200, 1].std()
    np.testing.assert_allclose(found[:, 1], expected)


def test_what_is_no_moment() -> None:
    with pytest.raises(DataError, match="datetime64 or strings"):
        calendar_features(np.array(["yesterday"]))
    with pytest.raises(DataError, match="1 of 2 timestamps"):
        calendar_features(np.array(["2020-01-01", "NaT"], "datetime64[s]"))

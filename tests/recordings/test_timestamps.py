"""Irregular times: what was observed keeps its place, and nothing is made up."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.errors import ConfigError, DataError
from mainspring.recordings import dates
from mainspring.recordings.daylight import unset
from mainspring.recordings.series import layout_of, moments, probe_series, read_at, read_series
from mainspring.recordings.timestamps import HOLES, SET, SETTING, UNKNOWN, UNSURE, averaged, layout


def slow_resample(values: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Step by step: the mean of what was observed nearest to each step of the usual distance."""
    rows = sorted(zip(seconds, range(len(seconds)), strict=True))
    stamps = sorted(set(seconds))
    usual = float(np.median(np.diff(stamps)))
    end = int(np.floor((stamps[-1] - stamps[0]) / usual + 0.5))
    out = np.full((end + 1, values.shape[1]), np.nan)
    for step in range(end + 1):
        for channel in range(values.shape[1]):
            seen = [
                values[row, channel]
                for t, row in rows
                if np.floor((t - stamps[0]) / usual + 0.5) == step
                and not np.isnan(values[row, channel])
            ]
            if seen:
                out[step, channel] = np.mean(seen)
    return out


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), rows=st.integers(4, 40), shuffled=st.booleans())
def test_resampling_equals_the_slow_way(seed: int, rows: int, shuffled: bool) -> None:
    rng = np.random.default_rng(seed)
    # Eighths of a second, so that no stamp lies half way by rounding; always irregular.
    seconds = np.cumsum(rng.integers(3, 14, rows)) / 8
    seconds[rows // 2 :] += 7.3
    values = rng.normal(size=(rows, 2))
    values[rng.random(values.shape) < 0.2] = np.nan
    if shuffled:
        order = rng.permutation(rows)
        seconds, values = seconds[order], values[order]
    found = layout(seconds, "a test")
    if found.notes[-1] != "resampled to a regular grid":
        return
    np.testing.assert_allclose(found.lay(values), slow_resample(values, seconds), rtol=1e-12)
    assert found.rate == pytest.approx(1 / np.median(np.diff(np.sort(seconds))))


def test_steps_of_which_none_is_usual_are_resampled() -> None:
    seconds = np.array([0.0, 1, 2, 11, 20])  # the median step, 5 s, occurs nowhere
    found = layout(seconds, "a test")
    assert found.notes == ("resampled to a regular grid",)
    assert found.rate == pytest.approx(1 / 5)
    values = np.arange(5.0)[:, None]
    np.testing.assert_allclose(found.lay(values), slow_resample(values, seconds))


def test_nothing_is_interpolated_across_a_gap() -> None:
    seconds = np.array([0, 1, 2.2, 3.1, 20.4, 21.6, 22.5])
    found = layout(seconds, "a test")
    values, rate = found.lay(np.arange(7.0)[:, None]), found.rate
    known = np.flatnonzero(~np.isnan(values[:, 0]))
    apart = np.abs(known[:, None] / rate - seconds)
    assert apart.min(axis=1).max() <= 0.5 / rate  # what is known was observed there
    assert apart.min(axis=0).max() <= 0.5 / rate  # and what was observed is known
    assert len(known) < len(values) / 2


def test_rows_out_of_order_are_sorted_and_stamps_met_twice_averaged() -> None:
    seconds = np.arange(40.0)
    values = seconds[:, None].copy()
    seconds[[5, 9]] = seconds[[9, 5]]
    values[[5, 9]] = values[[9, 5]]
    found = layout(seconds, "a test")
    np.testing.assert_array_equal(found.lay(values)[:, 0], np.arange(40))
    assert found.notes == ("sorted by time",)
    seconds[20] = 19
    found = layout(seconds, "a test")
    laid = found.lay(values)[:, 0]
    assert laid[19] == 19.5
    assert np.isnan(laid[20])  # nothing was observed at the twentieth second
    assert "averaged where rows have one stamp" in found.notes


def test_several_series_in_one_table_are_still_refused() -> None:
    with pytest.raises(DataError, match="write one file a series"):
        layout(np.tile(np.arange(10.0), 2), "a test")


def test_jitter_is_no_irregularity() -> None:
    seconds = np.arange(50.0) + np.random.default_rng(0).uniform(-0.2, 0.2, 50)
    found = layout(seconds, "a test")
    assert found.notes == ()
    assert found.places is None


def test_pauses_do_not_fill_the_memory() -> None:
    seconds = np.concatenate([np.arange(50.0), 1e9 + np.arange(50.0)])
    found = layout(seconds, "a test")
    assert found.length <= 10 * 100 + 1
    laid = found.lay(np.ones((100, 1)))
    assert np.nansum(laid) == 2


def test_gaps_as_a_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "gap")
    path = tmp_path / "a.csv"
    path.write_text("time,x\n0,1\n2,2\n4,3\n12,4\n14,\n")
    values = read_series(str(path))
    np.testing.assert_allclose(values[:, 0], [1, 2, 3, 4, np.nan])
    np.testing.assert_allclose(values[:, 1], np.log([1, 1, 1, 4, 1]), rtol=1e-6)
    assert probe_series(path).infos[0].channels == 2
    assert probe_series(path).infos[0].rate == 0.5
    # A regular table has the same channels, so that both can be learnt from together.
    path.write_text("time,x\n0,1\n2,2\n4,3\n")
    np.testing.assert_array_equal(read_series(str(path))[:, 1], [0, 0, 0])
    monkeypatch.setenv(SETTING, "resampel")
    with pytest.raises(ConfigError, match="Did you mean 'resample'"):
        read_series(str(path))


def test_a_changed_setting_is_no_stale_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,x\n0,1\n2,2\n4,3\n12,4\n14,5\n")
    assert read_series(str(path)).shape == (8, 1)
    monkeypatch.setenv(SETTING, "gap")
    assert read_series(str(path)).shape == (5, 2)


@pytest.mark.parametrize(
    ("head", "stamps"),
    [
        ("date", [f"2020-01-{day:02}" for day in [*range(1, 25), 26, 25, 27]]),
        ("date", [f"{day:02}/01/2020" for day in [*range(1, 25), 26, 25, 27]]),
        ("time", [str(day) for day in [*range(1, 25), 26, 25, 27]]),
        ("timestamp", [str(1_600_000_000 + day) for day in [*range(1, 25), 26, 25, 27]]),
    ],
)
def test_clocks_out_of_order_are_clocks(tmp_path: Path, head: str, stamps: list[str]) -> None:
    path = tmp_path / "a.csv"
    lines = [f"{stamp},{number}" for number, stamp in enumerate(stamps)]
    path.write_text(f"{head},x\n" + "\n".join(lines) + "\n")
    expected = [*range(24), 25, 24, 26]
    np.testing.assert_array_equal(read_series(str(path))[:, 0], expected)
    found = layout_of(str(path))
    assert found is not None
    assert found.notes == ("sorted by time",)


def test_a_cycle_is_no_clock(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = [f"{n % 12 + 1},{n}" for n in range(48)]
    path.write_text("month,x\n" + "\n".join(lines) + "\n")
    assert probe_series(path).infos[0].channels == 2
    assert layout_of(str(path)) is None


def test_means_leave_out_what_is_missing() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 2.0]])
    at, means = averaged(values, np.array([4, 4, 6]))
    np.testing.assert_array_equal(at, [4, 6])
    np.testing.assert_array_equal(means, [[2, np.nan], [5, 2]])


def test_single_steps_are_those_of_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,x\n0,1\n0.5,2\n1,3\n2.5,4\n3,\n3.5,6\n")
    whole = read_series(str(path), 0.5, 3.0)
    steps = np.array([4, 0, 2, 2, 60, 5])
    told = read_at(str(path), steps, 0.5, 3.0)
    expected = np.full((6, 1), np.nan, np.float32)
    there = steps < len(whole)
    expected[there] = whole[steps[there]]
    np.testing.assert_array_equal(told, expected)


BEGIN = datetime(2020, 1, 30, 9, 59, 58)


@pytest.mark.parametrize(
    ("form", "step"),
    [
        ("%m/%d/%Y %I:%M:%S %p", 60),
        ("%d/%m/%Y %I:%M %p", 60),
        ("%d.%m.%Y %H:%M:%S.%f", 0.1),
        ("%Y-%m-%dT%H:%M:%S,%f", 0.1),
        ("%Y-%m-%d %H:%M:%S.%fZ", 0.1),
        ("%Y/%m/%d %H:%M:%S+0130", 60),
        ("%d-%m-%y %H:%M", 60),
        ("%d-%b-%Y %H:%M:%S", 60),
        ("%a, %d %B %Y %H:%M:%S GMT", 60),
        ("%b %d, %Y %H:%M:%S", 60),
        ("%-m/%-d/%Y %-H:%M", 60),
        ("%Y%m%dT%H%M%S", 60),
        ("%Y%m%d%H%M%S", 60),
        ("%Y%m%d", 86400),
        ("%d/%m/%Y", 86400),
        ("%H:%M:%S.%f", 0.1),
        ("%H:%M:%S:%f", 0.1),
        ("%I:%M:%S %p", 60),
        ("%d.%m.%Y %H.%M.%S", 60),
        ("%d.%m.%Y %H.%M", 60),
        ("%m/%d/%Y %H.%M.%S", 60),
        ("%Y-%m-%d %H.%M.%S.%f", 0.1),
        ("%H.%M.%S", 60),
        ("%d/%b/%Y:%H:%M:%S", 60),
        ("[%d/%b/%Y:%H:%M:%S +0200]", 60),
        ("%a %b %e %H:%M:%S %Y", 60),
        ("%a %b %e %H:%M:%S CEST %Y", 60),
        ("%Y-%b-%d %H:%M:%S", 60),
    ],
)
def test_times_as_people_write_them(tmp_path: Path, form: str, step: float) -> None:
    stamps = [(BEGIN + timedelta(seconds=step * row)).strftime(form) for row in range(90)]
    path = tmp_path / "a.csv"
    path.write_text("time;x\n" + "".join(f"{stamp};{row}\n" for row, stamp in enumerate(stamps)))
    found = probe_series(path)
    assert found.infos[0].rate == pytest.approx(1 / step)
    assert found.columns == ("x",)
    np.testing.assert_array_equal(read_series(str(path))[:, 0], np.arange(90))


def test_written_dates_are_seconds_since_1970() -> None:
    texts = ["30.01.2020 12:05:07.25 AM", "31.01.2020 12:00:00.5 pm", None]
    want = [datetime(2020, 1, 30, 0, 5, 7), datetime(2020, 1, 31, 12)]
    exact = [day.replace(tzinfo=UTC).timestamp() for day in want]
    found = dates.seconds(pa.array(texts))
    np.testing.assert_allclose(found, [exact[0] + 0.25, exact[1] + 0.5, np.nan])
    with_zone = dates.seconds(pa.array(["2020-01-30 01:30:00+01:30", "2020-01-30 00:00:01 UTC"]))
    np.testing.assert_allclose(with_zone, np.array([0, 1]) + 1580342400)
    # Years of two digits as POSIX has them.
    for text, year in (("30.01.68", 2068), ("30.01.69", 1969)):
        wanted = datetime(year, 1, 30, tzinfo=UTC).timestamp()
        assert dates.seconds(pa.array([text])) == wanted
    # Days over midnight, and hours beyond a day.
    np.testing.assert_allclose(dates.seconds(pa.array(["23:59:59", "0:00:01"])), [86399, 86401])
    np.testing.assert_allclose(dates.seconds(pa.array(["99:59:59", "100:00:01"])), [359999, 360001])
    np.testing.assert_allclose(dates.seconds(pa.array(["59:59.5", "60:00.25"])), [3599.5, 3600.25])


@pytest.mark.parametrize(
    "texts",
    [
        ["step1", "step2"],
        ["31.02.2020", "01.03.2020"],
        ["2020-13-01", "2020-13-02"],
        ["10:61", "10:62"],
        ["13:00 PM", "13:01 PM"],
        ["2020-01-01", "02.01.2020"],
        ["30-Foo-2020", "31-Foo-2020"],
        ["Foo 2020", "Jan 2020"],
        ["Tue Jan 32 08:00:00 2020", "Tue Jan 31 08:00:00 2020"],
        ["08.60.00", "08.61.00"],
        ["10:05:75", "10:05:76"],
        ["10:60", "10:59"],
    ],
)
def test_what_is_no_date_is_none(texts: list[str]) -> None:
    assert dates.seconds(pa.array(texts)) is None


def test_numbers_that_are_dates_and_numbers_that_are_not() -> None:
    assert dates.compact(np.array([20200131.0, 20200201.0])) is not None
    assert dates.compact(np.array([20200131.0, 20200132.0])) is None
    assert dates.compact(np.array([1_580_342_400.0, 1_580_342_401.0])) is None  # Unix stamps
    assert dates.compact(np.array([20200131.5, 20200201.5])) is None


def test_seconds_of_years_are_no_dates(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,x\n" + "".join(f"{row * 864000},{row}\n" for row in range(50)))
    with pytest.raises(DataError, match="no column of dates"):
        moments(str(path))
    path.write_text("date,x\n20200131,1\n20200201,2\n20200202,3\n")
    assert moments(str(path))[1] == np.datetime64("2020-02-01T00:00:00")


def test_times_in_no_known_way_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,x\n" + "".join(f"step {row},{row}\n" for row in range(9)))
    found = layout_of(str(path))
    assert found is not None
    assert found.notes == (UNKNOWN,)
    assert found.rate == 1


@pytest.mark.parametrize(
    "written",
    ["{0.month}/{0.day}/{0.year}", "{0.day}/{0.month}/{0.year}", "{0:%y}-{0.month}-{0.day}"],
)
def test_days_before_the_thirteenth_are_told_from_months_by_even_steps(written: str) -> None:
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    moments = [begin + timedelta(hours=n) for n in range(24 * 12)]
    texts = [f"{written.format(t)} {t:%H:%M}" for t in moments]
    found = dates.seconds(pa.array(texts))
    np.testing.assert_array_equal(found, [t.timestamp() for t in moments])


def test_a_day_may_end_at_24_o_clock() -> None:
    found = dates.seconds(pa.array(["30.01.2020 23:00", "30.01.2020 24:00", "31.01.2020 01:00"]))
    assert found is not None
    np.testing.assert_array_equal(np.diff(found), 3600)
    found = dates.seconds(pa.array(["23:00:00", "24:00:00", "01:00:00"]))
    assert found is not None
    np.testing.assert_array_equal(np.diff(found), [3600, 3600])
    assert dates.seconds(pa.array(["30.01.2020 23:00", "30.01.2020 24:30"])) is None


@pytest.mark.parametrize("head", ["Date;Time;power", "power;Time;Date", "Date;power;Time"])
@pytest.mark.parametrize("forms", [("%d/%m/%Y", "%H:%M:%S"), ("%Y-%m-%d", "%I:%M:%S %p")])
def test_days_and_times_in_columns_of_their_own(
    tmp_path: Path, head: str, forms: tuple[str, str]
) -> None:
    path = tmp_path / "a.csv"
    lines = [head]
    for row in range(300):
        moment = BEGIN + timedelta(minutes=10 * row)
        cells = {"Date": moment.strftime(forms[0]), "Time": moment.strftime(forms[1])}
        lines.append(";".join({**cells, "power": str(row)}[name] for name in head.split(";")))
    path.write_text("\n".join(lines) + "\n")
    found = probe_series(path)
    assert found.columns == ("power",)
    assert found.infos[0].rate == pytest.approx(1 / 600)
    np.testing.assert_array_equal(read_series(str(path))[:, 0], np.arange(300))
    assert moments(str(path))[-1] == np.datetime64(BEGIN + timedelta(minutes=2990))


@pytest.mark.parametrize("form", ["{n} {y}", "{n}-{y}", "{m}/{y}", "{y}-{m}"])
def test_months_without_days(form: str) -> None:
    begin = [
        datetime(year, month, 1, tzinfo=UTC) for year in (2000, 2001) for month in range(1, 13)
    ]
    texts = [form.format(n=f"{t:%b}", m=f"{t:%m}", y=t.year) for t in begin]
    np.testing.assert_array_equal(dates.seconds(pa.array(texts)), [t.timestamp() for t in begin])


def test_what_is_written_keeps_its_moment() -> None:
    exact = datetime(2024, 7, 2, 8, 30, 5, tzinfo=UTC).timestamp()
    for text in (
        "02.07.2024 08.30.05", "[02/Jul/2024:10:30:05 +0200]", "Tue Jul  2 08:30:05 2024",
        "Tue Jul 2 08:30:05 UTC 2024", "2024-Jul-02 08:30:05", "2024-07-02 08.30.05",
    ):  # fmt: skip
        assert dates.seconds(pa.array([text])) == exact, text


def read(texts: list[str]) -> dates.Stamps:
    found = dates.stamps(pa.array(texts))
    assert found is not None
    return found


def days(stamps: dates.Stamps) -> list[str]:
    return stamps.seconds.astype(np.int64).astype("datetime64[s]").astype(str).tolist()


@pytest.mark.parametrize(
    ("form", "first"),
    [
        ("07/{:02}/2024", "2024-07-02T00:00:00"),  # not the seventh of nine months
        ("{:02}/07/2024", "2024-07-02T00:00:00"),
        ("24-01-{:02}", "2024-01-02T00:00:00"),  # not the 24th of January of nine years
        ("{:02}.07.24", "2024-07-02T00:00:00"),
    ],
)
def test_a_few_days_are_no_months(form: str, first: str) -> None:
    found = read([form.format(day) for day in range(2, 11)])
    assert days(found)[0] == first
    np.testing.assert_array_equal(np.diff(found.seconds), 86400)
    assert not found.unsure


def test_the_first_of_months_may_be_days_of_january() -> None:
    found = read([f"01/{number:02}/2024" for number in range(1, 13)])
    assert days(found)[1] == "2024-02-01T00:00:00"
    assert found.unsure
    assert read([f"07/02/2024 {hour:02}:00" for hour in range(5)]).unsure
    # Points come after days, and thirteen days are no months.
    assert not read([f"01.{number:02}.2024" for number in range(1, 13)]).unsure
    assert not read([f"01/{number:02}/2024" for number in range(1, 14)]).unsure
    assert not read(["2024-01-02", "2024-01-03"]).unsure
    # Months that go on for years are even, days of each January are not.
    years = [f"07/{month:02}/{year}" for year in (2020, 2021) for month in range(1, 13)]
    assert days(read(years))[1] == "2020-02-07T00:00:00"
    assert not read(years).unsure


def test_days_that_may_be_months_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("date,x\n" + "".join(f"01/{day:02}/2024,{day}\n" for day in range(1, 11)))
    found = layout_of(str(path))
    assert found is not None
    assert found.notes == (UNSURE,)


ZONES = {
    "Europe/Berlin": ("2024-03-31", "2024-10-27"),
    "Europe/London": ("2024-03-31", "2024-10-27"),
    "America/New_York": ("2024-03-10", "2024-11-03"),
    "Australia/Sydney": ("2024-10-06", "2024-04-07"),
}


@pytest.mark.parametrize("zone", list(ZONES))
@pytest.mark.parametrize("step", [60, 600, 900, 3600])
@pytest.mark.parametrize("backwards", [False, True])
def test_local_times_go_on_where_clocks_are_set(
    tmp_path: Path, zone: str, step: int, backwards: bool
) -> None:
    for day in ZONES[zone]:
        begin = datetime.fromisoformat(f"{day} 00:30").replace(tzinfo=ZoneInfo(zone))
        count = 4 * 3600 // step + 4
        moments = [begin.timestamp() + step * row for row in range(count)]
        local = [datetime.fromtimestamp(one, ZoneInfo(zone)) for one in moments]
        lines = [f"{one:%Y-%m-%d %H:%M:%S},{row}\n" for row, one in enumerate(local)]
        path = tmp_path / "a.csv"
        path.write_text("time,x\n" + "".join(lines[::-1] if backwards else lines))
        np.testing.assert_array_equal(read_series(str(path))[:, 0], np.arange(count))
        found = layout_of(str(path))
        assert found is not None
        assert found.rate == pytest.approx(1 / step)
        assert found.notes == (SET,)
        german = [f"{one:%d.%m.%Y %H:%M:%S};{row}\n" for row, one in enumerate(local)]
        path.write_text("time;x\n" + "".join(german))
        np.testing.assert_array_equal(read_series(str(path))[:, 0], np.arange(count))


def test_a_calendar_keeps_the_hours_that_were_written(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    hours = [f"2024-10-27 0{hour}:00:00" for hour in (0, 1, 2, 2, 3, 4)]
    path.write_text("time,x\n" + "".join(f"{hour},1\n" for hour in hours))
    assert moments(str(path)).astype(str).tolist() == [hour.replace(" ", "T") for hour in hours]


@pytest.mark.parametrize(
    "hours",
    [
        ["2024-10-26T01", "2024-10-26T02", "2024-10-26T02", "2024-10-26T03"],  # a Saturday
        ["2024-10-20T01", "2024-10-20T02", "2024-10-20T02", "2024-10-20T03"],  # a week early
        ["2024-10-27T11", "2024-10-27T12", "2024-10-27T12", "2024-10-27T13"],  # at noon
        ["2024-03-31T10", "2024-03-31T11", "2024-03-31T13", "2024-03-31T14"],
        ["2024-03-31T00", "2024-03-31T01", "2024-03-31T04", "2024-03-31T05"],  # two hours
        ["2024-03-24T00", "2024-03-24T01", "2024-03-24T03", "2024-03-24T04"],
        ["2024-10-27T00", "2024-10-27T01", "2024-10-27T03", "2024-10-27T04"],  # the other way
        ["2024-03-31T01", "2024-03-31T02", "2024-03-31T02", "2024-03-31T03"],
    ],
)
def test_other_hours_that_are_absent_or_twice_are_no_set_clocks(hours: list[str]) -> None:
    stamps = np.array(hours, dtype="datetime64[s]").astype(np.float64)
    assert unset(stamps) is None


def test_times_with_a_zone_are_left_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for zone in ("Z", "+00:00"):
        lines = [f"31.03.2024 0{hour}:00{zone},{hour}\n" for hour in (0, 1, 3, 4)]
        path.write_text("time,x\n" + "".join(lines))
        np.testing.assert_array_equal(read_series(str(path))[:, 0], [0, 1, np.nan, 3, 4])
        path.write_text("time,x\n" + "".join(lines).replace("31.03.2024 ", "2024-03-31T"))
        np.testing.assert_array_equal(read_series(str(path))[:, 0], [0, 1, np.nan, 3, 4])


def test_a_clock_is_unset_over_years() -> None:
    zone = ZoneInfo("Europe/Berlin")
    utc = np.arange(1_600_000_000 // 3600 * 3600, 1_700_000_000, 3600)
    apart = [datetime.fromtimestamp(one, zone).utcoffset().total_seconds() for one in utc]  # type: ignore[union-attr]
    found = unset((utc + np.array(apart)).astype(np.float64))
    assert found is not None
    np.testing.assert_array_equal(np.diff(found), 3600)


@pytest.mark.parametrize(
    ("head", "step", "seconds"),
    [
        ("time_us", 10_000, 0.01), ("Time (us)", 10_000, 0.01), ("Time [µs]", 10_000, 0.01),
        ("time_ns", 1000, 1e-6), ("time_ms", 10, 0.01), ("Elapsed Time (s)", 2, 2),
        ("time_min", 5, 300), ("Time (h)", 1, 3600), ("day", 1, 86400), ("week", 1, 604800),
    ],
)  # fmt: skip
@pytest.mark.parametrize("begin", [0, 2 * 10**8])
def test_a_unit_in_the_name_counts(
    tmp_path: Path, head: str, step: int, seconds: float, begin: int
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{head},x\n" + "".join(f"{begin + row * step},{row}\n" for row in range(9)))
    assert probe_series(path).columns == ("x",)
    assert 1 / probe_series(path).infos[0].rate == pytest.approx(seconds)


def test_unix_stamps_in_every_unit(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for unit in (1, 10**3, 10**6, 10**9):
        stamps = [1_719_907_200 * unit + row * unit // 4 for row in range(40)]
        path.write_text("x,timestamp\n" + "".join(f"{n},{t}\n" for n, t in enumerate(stamps)))
        assert probe_series(path).columns == ("x",)
        # Whole seconds are those of four rows each.
        wanted = 1.0 if unit == 1 else 4.0
        assert probe_series(path).infos[0].rate == pytest.approx(wanted)


def test_days_as_spreadsheets_count_them(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("date,x\n" + "".join(f"{45475 + row / 24:.6f},{row}\n" for row in range(9)))
    assert probe_series(path).infos[0].rate == pytest.approx(1 / 3600, rel=1e-5)


def test_row_numbers_beside_a_clock_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for head, stamp in (
        (",date", "2024-07-02 08:{:02}:00"), ("index,timestamp", "17199072{:02}000"),
        ("Unnamed: 0,Date,Time", "2024-07-02,08:{:02}:00"), (",time", "{}.0"),
    ):  # fmt: skip
        lines = [f"{row},{stamp.format(row)},{row}.5\n" for row in range(9)]
        path.write_text(f"{head},x\n" + "".join(lines))
        assert probe_series(path).columns == ("x",), head
        step = 60 if "08" in stamp else 1
        assert probe_series(path).infos[0].rate == pytest.approx(1 / step)


def test_dates_below_no_name_are_a_clock_for_check_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("".join(f"2024-07-02 0{hour}:00:00,{hour}\n" for hour in (1, 2, 3, 6)))
    found = layout_of(str(path))
    assert found is not None
    assert found.notes == (HOLES,)
    assert moments(str(path))[0] == np.datetime64("2024-07-02T01:00:00")


def test_a_short_table_in_which_an_hour_comes_twice_is_still_of_dates() -> None:
    texts = [f"27.10.2024 02:{minute}" for minute in (0, 30)]
    texts = ["27.10.2024 01:30", "27.10.2024 02:00", "27.10.2024 02:30", *texts]
    texts = [text.replace(":0", ":00") if text.endswith(":0") else text for text in texts]
    found = dates.seconds(pa.array(texts))
    assert found is not None
    np.testing.assert_array_equal(np.diff(found), [1800, 1800, -1800, 1800])

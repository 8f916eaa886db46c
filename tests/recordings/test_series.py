"""Series files: what they hold comes back exactly, true lengths and gaps kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.errors import DataError
from mainspring.recordings.catalogue import open_catalogue
from mainspring.recordings.series import layout_of, probe_series, read_series
from mainspring.recordings.series_file import split_uri
from mainspring.recordings.survey import survey


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def same(rows: np.ndarray, expected: object) -> None:
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, np.array(expected, dtype=np.float32))


def test_csv_with_header_keeps_empty_cells_as_missing(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "x,y\n1,2.5\n,NaN\n3,\n")
    probe = probe_series(path)
    assert (probe.columns, probe.infos[0].channels, probe.infos[0].rate) == (("x", "y"), 2, 1.0)
    same(read_series(path), [[1, 2.5], [np.nan, np.nan], [3, np.nan]])


def test_csv_without_header_keeps_its_first_row(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "1,2\n3,4\n")
    assert probe_series(path).columns == ()
    same(read_series(path), [[1, 2], [3, 4]])


@pytest.mark.parametrize("delimiter", [",", " ", "\t", ";"])
def test_names_in_a_comment_as_numpy_writes_them(tmp_path: Path, delimiter: str) -> None:
    path = str(tmp_path / "a.csv")
    time = np.arange(40) / 50
    table = np.stack([time, np.sin(time), time**2], axis=1)
    names = delimiter.join(["time", "x", "y"])
    np.savetxt(path, table, delimiter=delimiter, header=f"made by hand, 2 of 3\n{names}")
    probe = probe_series(path)
    assert (probe.columns, probe.infos[0].rate) == (("x", "y"), 50.0)
    same(read_series(path), table[:, 1:])


@pytest.mark.parametrize("comment", ["# one, two, three", "# 2021, 7", "#", "# a sentence"])
def test_comments_that_hold_no_name_for_each_column_name_none(tmp_path: Path, comment: str) -> None:
    path = written(tmp_path / "a.csv", f"{comment}\n1,2\n3,4\n")
    assert probe_series(path).columns == ()
    same(read_series(path), [[1, 2], [3, 4]])


def test_the_line_of_a_word_below_commented_names_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "# x,y\n1,2\n3,4\n5,6\n7,oops\n")
    with pytest.raises(DataError, match="line 5 holds 'oops'"):
        read_series(path)


@pytest.mark.parametrize("head", [",0,1\n0,", "0,1\n"])
def test_columns_that_pandas_numbered_are_a_header(tmp_path: Path, head: str) -> None:
    second = "1," if head.startswith(",") else ""
    path = written(tmp_path / "a.csv", f"{head}0.5,2.5\n{second}1.5,3.5\n")
    assert probe_series(path).columns == ("0", "1")
    same(read_series(path), [[0.5, 2.5], [1.5, 3.5]])


def test_whole_numbers_from_zero_may_be_data(tmp_path: Path) -> None:
    for text in ("0,1\n1,1\n", "0,1\n1,0.5\n"):
        assert len(read_series(written(tmp_path / "a.csv", text))) == 2


def test_one_column_of_numbers_is_one_variable(tmp_path: Path) -> None:
    same(read_series(written(tmp_path / "a.csv", "value\n1\n2\n3\n")), [[1], [2], [3]])


@pytest.mark.parametrize(
    ("head", "stamps", "rate"),
    [
        ("date", ["2016-07-01 00:00:00", "2016-07-01 01:00:00", "2016-07-01 02:00:00"], 1 / 3600),
        ("when", ["2016-07-01", "2016-07-02", "2016-07-03"], 1 / 86400),
        ("Time", ["0.0", "0.04", "0.08"], 25.0),
        ("time_ms", ["0", "40", "80"], 25.0),
        ("Time (s)", ["0.0", "0.04", "0.08"], 25.0),
        ("t [ms]", ["0", "40", "80"], 25.0),
        ("reading", ["1500000000", "1500000060", "1500000120"], 1 / 60),
        ("timestamp", ["1500000000000", "1500000000500", "1500000001000"], 2.0),
        ("Datum Zeit", ["23:59:59", "00:00:00", "00:00:01"], 1.0),
        ("date", ["31.12.2020 23:00", "01.01.2021 00:00", "01.01.2021 01:00"], 1 / 3600),
        ("", ["0", "1", "2"], 1.0),
        ("Unnamed: 0", ["0", "1", "2"], 1.0),
    ],
)
def test_time_column_gives_the_rate_and_is_dropped(
    tmp_path: Path, head: str, stamps: list[str], rate: float
) -> None:
    lines = [f"{head},x", *(f"{stamp},{n}" for n, stamp in enumerate(stamps))]
    path = written(tmp_path / "a.csv", "\n".join(lines))
    info = probe_series(path).infos[0]
    assert info.rate == pytest.approx(rate)
    assert info.seconds == pytest.approx(3 / rate)
    same(read_series(path), [[0], [1], [2]])


def test_an_increasing_variable_is_no_time_column(tmp_path: Path) -> None:
    same(read_series(written(tmp_path / "a.csv", "x,y\n1,5\n2,4\n4,3\n")), [[1, 5], [2, 4], [4, 3]])


def test_rows_absent_from_a_regular_grid_are_missing(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "time,x\n0,1\n1,2\n2,3\n5,6\n6,7\n")
    same(read_series(path), [[1], [2], [3], [np.nan], [np.nan], [6], [7]])
    assert probe_series(path).infos[0].rate == 1.0


def test_rows_from_newest_to_oldest_are_turned_round(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "date,x\n2020-01-03,3\n2020-01-02,2\n2020-01-01,1\n")
    same(read_series(path), [[1], [2], [3]])


def test_time_that_goes_back_and_forth_is_an_error(tmp_path: Path) -> None:
    text = "date,x\n2020-01-01,3\n2020-01-02,2\n2020-01-01,1\n2020-01-02,1\n"
    with pytest.raises(DataError, match=r"'date' goes back in time at row 3"):
        probe_series(written(tmp_path / "a.csv", text))


def test_decimal_commas(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "zeit;x;y\n1;1,5;2\n2;-2,25;\n")
    same(read_series(path), [[1, 1.5, 2], [2, -2.25, np.nan]])


def test_column_that_is_not_numeric_is_named_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "# made by hand\nx,mood\n1,2\n\n3,good\n")
    with pytest.raises(DataError, match=r"column 'mood' is not numeric: line 5 holds 'good'"):
        probe_series(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Dear all,\nthis is a letter, not a table, alas.\n", "no table of numbers"),
        (b"\x00\x01\x02\x03,\x05\n", "binary data"),
        (b"\n\n", "no line of data"),
        (b"", "is empty"),
        (b"x,y\n", "0 rows"),
    ],
)
def test_what_is_no_table_says_so(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        probe_series(path)


def test_numbers_that_turn_fractional_late_in_a_long_file(tmp_path: Path) -> None:
    values = [*range(300_000), 0.5]
    path = written(tmp_path / "a.csv", "x\n" + "\n".join(map(str, values)))
    same(read_series(path), np.array(values)[:, None])


def test_columns_aligned_by_blanks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = "".join(f"{row:8.3f} {2 * row:12.4f} {-row:7.1f}\n" for row in range(20))
    path.write_text("# made by a logger\n    time        left   right\n" + rows)
    probe = probe_series(path)
    assert probe.columns == ("left", "right")
    want = np.arange(20.0)[:, None] * [2, -1]
    np.testing.assert_allclose(read_series(str(path)), want)
    path.write_text(rows)
    assert probe_series(path).infos[0].channels == 2  # the first counts rows
    path.write_text("a  b\n1  2\n1  2\n1  2\n3  x\n")
    with pytest.raises(DataError, match="line 5 holds 'x'"):
        probe_series(path)


def test_a_line_of_units_is_no_data(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("# logger\ntime,speed,\nms,m/s,V\n0,1,2\n500,2,\n1000,3,4\n")
    np.testing.assert_array_equal(read_series(str(path)), [[1, 2], [2, np.nan], [3, 4]])
    assert probe_series(path).infos[0].rate == 1 / 500
    path.write_text("time,speed\ns,m/s\n0,1\n1,x\n")
    with pytest.raises(DataError, match="line 4 holds 'x'"):
        read_series(str(path))
    path.write_text("time,what\n0,run\n1,2\n")
    with pytest.raises(DataError, match="line 2 holds 'run'"):
        read_series(str(path))


def test_the_time_column_is_read_as_the_table_is(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time;x\n0,0;1\n0,5;2\n1,0;3\n5,0;3\n")
    layout = layout_of(str(path))
    assert layout is not None
    assert layout.notes == ("laid on a regular grid, with absent rows missing",)
    path.write_text("a,a,time\n1,2,0\n3,4,1\n3,4,2\n3,4,5\n")
    twice = layout_of(str(path))
    assert twice is not None
    assert twice.length == 6
    with pytest.raises(DataError, match="cannot be read"):
        layout_of(str(tmp_path / "none.csv"))
    path.write_text("x" * 200_000 + "\n1\n2\n")
    with pytest.raises(DataError, match="field larger than"):
        layout_of(str(path))


def test_lines_longer_than_what_is_looked_at_first(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    names = [f"channel number {number}" for number in range(8000)]
    row = ",".join(f"{number / 7:.9f}" for number in range(8000))
    path.write_text(f"{','.join(names)}\n{row}\n{row}\n")
    assert probe_series(path).columns == tuple(names)
    path.write_text(f"{row},{row}\n" * 3)
    assert probe_series(path).infos[0].channels == 16000
    path.write_text("# " + "long comment " * 10_000 + "\na,b\n1,2\n3,4\n")
    np.testing.assert_array_equal(read_series(str(path)), [[1, 2], [3, 4]])


def test_parquet_like_csv(tmp_path: Path) -> None:
    stamps = np.array(["2020-01-01", "2020-01-02", "2020-01-03"], dtype="datetime64[s]")
    table = pa.table({"when": stamps, "x": [1, None, 3], "y": [0.5, 1.5, 2.5]})
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table, path)
    same(read_series(str(path)), [[1, 0.5], [np.nan, 1.5], [3, 2.5]])
    assert probe_series(path).infos[0].rate == pytest.approx(1 / 86400)
    pyarrow.parquet.write_table(pa.table({"x": [1], "who": ["me"]}), path)
    with pytest.raises(DataError, match="column 'who' is not numeric: it is of type string"):
        probe_series(path)


def test_npy_by_number_of_axes(tmp_path: Path, rng: np.random.Generator) -> None:
    path = str(tmp_path / "a.npy")
    whole = rng.normal(size=(4, 5, 3))
    for values in (whole[0, :, 0], whole[0]):
        np.save(path, values)
        assert len(probe_series(path)) == 1
        same(read_series(path), values.reshape(5, -1))
    np.save(path, np.asfortranarray(whole))
    assert probe_series(path).keys == ("0", "1", "2", "3")
    same(read_series(f"{path}#2"), whole[2])
    with pytest.raises(DataError, match="holds 4 series: write"):
        read_series(path)
    with pytest.raises(DataError, match="no series '7': it has 4"):
        read_series(f"{path}#7")


def test_missing_end_of_a_row_of_an_array_is_padding(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float64).reshape(2, 4, 3)
    values[1, 2:] = np.nan
    values[0, 1] = np.nan
    path = str(tmp_path / "a.npy")
    np.save(path, values)
    assert [info.length for info in probe_series(path).infos] == [4, 2]
    same(read_series(f"{path}#0"), values[0])
    same(read_series(f"{path}#1"), values[1, :2])


def test_npz_one_array_a_series(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npz")
    np.savez(path, left=np.ones((3, 2)), right=np.zeros((5, 2)))
    assert sorted(probe_series(path).keys) == ["left", "right"]
    same(read_series(f"{path}#right"), np.zeros((5, 2)))
    np.savez(path, x=np.ones((3, 4, 2)), y=np.ones(3))
    with pytest.raises(DataError, match=r"x \(3, 4, 2\), y \(3,\).*save the series alone"):
        probe_series(path)


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="no array of numbers"):
        probe_series(path)


def test_ucr_rows_with_classes_and_true_lengths(tmp_path: Path) -> None:
    path = written(tmp_path / "A_TRAIN.tsv", "1\t0.5\t1.5\tNaN\n-1\t2\tNaN\t3\n 2.0e+00\t1\t1\t1\n")
    probe = probe_series(path)
    assert probe.labels == ("1", "-1", "2")
    assert [info.length for info in probe.infos] == [2, 3, 3]
    same(read_series(f"{path}#0"), [[0.5], [1.5]])
    same(read_series(f"{path}#1"), [[2], [np.nan], [3]])


def test_tsv_with_a_header_is_a_table(tmp_path: Path) -> None:
    same(read_series(written(tmp_path / "a.tsv", "x\ty\n1\t2\n3\t4\n")), [[1, 2], [3, 4]])


def test_ts_multivariate_unequal_missing(tmp_path: Path) -> None:
    text = (
        "# comment\n@problemName Two\n@timeStamps false\n@univariate false\n"
        "@classLabel true walk run\n@data\n1,2,3:4,?,6:walk\n7,8:9,10:run\n"
    )
    path = written(tmp_path / "a.ts", text)
    assert probe_series(path).labels == ("walk", "run")
    same(read_series(f"{path}#0"), [[1, 4], [2, np.nan], [3, 6]])
    same(read_series(f"{path}#1"), [[7, 9], [8, 10]])


def test_ts_errors_name_the_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3 holds 'five', where a number was expected"):
        probe_series(written(tmp_path / "a.ts", "@classLabel false\n@data\n1,five,3\n"))
    with pytest.raises(DataError, match="line 1 holds 'hello"):
        probe_series(written(tmp_path / "b.ts", "hello\n"))


def test_times_are_seconds_at_the_files_rate(tmp_path: Path) -> None:
    text = "time,x\n" + "\n".join(f"{n / 20},{n}" for n in range(100))
    path = written(tmp_path / "a.csv", text)
    same(read_series(path, 1.0, 2.0), np.arange(20, 40)[:, None])
    same(read_series(path, 4.5, 99.0), np.arange(90, 100)[:, None])
    assert read_series(path, 7.0, 8.0).shape == (0, 1)


def test_infinite_values_count_as_missing(tmp_path: Path) -> None:
    same(read_series(written(tmp_path / "a.csv", "x\ninf\n1e300\n2\n")), [[np.nan], [np.nan], [2]])


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "x\n1\n2\n")
    same(read_series(path), [[1], [2]])
    written(tmp_path / "a.csv", "x\n1\n2\n3\n")
    same(read_series(path), [[1], [2], [3]])


def test_a_series_without_any_value_is_a_problem(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "x,y\n,\nNaN,\n")
    assert probe_series(path).problems == ("Every value of the series is missing.",)
    path = written(tmp_path / "a.csv", "x\ninf\n-inf\n")
    assert probe_series(path).problems == ("Every value of the series is missing.",)
    path = written(tmp_path / "a.tsv", "1\t2\t3\n1\tNaN\tNaN\n")
    assert probe_series(path).problems[0] is None
    assert probe_series(path).problems[1] is not None


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv cannot be read: No such file"):
        read_series(str(tmp_path / "a.csv"))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9
        ),
        min_size=2,
        max_size=6,
    )
)
def test_ucr_round_trip(tmp_path_factory: pytest.TempPathFactory, series: list) -> None:
    path = tmp_path_factory.mktemp("ucr") / "a.tsv"
    longest = max(map(len, series))
    padded = [[*map(repr, one), *["NaN"] * (longest - len(one))] for one in series]
    path.write_text("\n".join("\t".join(["0", *one]) for one in padded))
    for row, one in enumerate(series):
        same(read_series(f"{path}#{row}"), np.array(one)[:, None])


def test_only_formats_of_many_series_have_rows() -> None:
    assert split_uri("a/b.npz#left/x") == ("a/b.npz", "left/x")
    assert split_uri("a #1/b.csv") == ("a #1/b.csv", None)
    assert split_uri("take#3.mp4") == ("take#3.mp4", None)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_units_may_hold_a_dash(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "time,x,y\ns,-,degC\n0,1,2\n0.5,3,4\n")
    assert probe_series(path).infos[0].rate == 2.0
    same(read_series(path), [[1, 2], [3, 4]])


@pytest.mark.parametrize("row", ["1,2\n", "1   2\n"])
def test_a_late_character_of_another_encoding_is_an_error_that_shows_its_line(
    tmp_path: Path, row: str
) -> None:
    path = tmp_path / "a.csv"
    text = row.replace("1", "x").replace("2", "y") + row * 20_000 + row.replace("2", "zwölf")
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="line 20002 holds 'zw"):
        probe_series(str(path))


def test_an_empty_array_in_an_archive_is_one_bad_series(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npz")
    np.savez(path, good=np.ones((5, 2)), none=np.ones((0, 2)))
    assert probe_series(path).problems == (None, "Every value of the series is missing.")
    same(read_series(f"{path}#good"), np.ones((5, 2)))


def test_an_odd_file_does_not_hide_the_others(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(5), y=np.ones(5))
    (tmp_path / "a.npz").rename(tmp_path / "odd.npy")
    np.save(tmp_path / "good.npy", np.ones((7, 1)))
    found = {Path(one.uri).name: one.problem for one in survey(open_catalogue(tmp_path))}
    assert found["good.npy"] is None
    assert found["odd.npy"] is not None
    assert "rename it to end in .npz" in found["odd.npy"]


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(500.0), y=np.arange(500.0))
    content = bytearray(path.read_bytes())
    content[60:300] = b"\xff" * 240
    path.write_bytes(content)
    with pytest.raises(DataError, match="no archive of arrays"):
        probe_series(str(path))


def test_ts_header_may_use_tabs_and_ucr_begin_with_a_blank_line(tmp_path: Path) -> None:
    text = "@problemName\tx\n@classLabel\ttrue a b\n@data\n1,2:a\n3,4:b\n"
    assert probe_series(written(tmp_path / "a.ts", text)).labels == ("a", "b")
    probe = probe_series(written(tmp_path / "a.tsv", "\n1\t0.5\t0.6\n2\t0.7\t0.8\n"))
    assert probe.labels == ("1", "2")


ISO = [f"2024-07-02 08:{minute:02}:00" for minute in range(12)]


def told(
    tmp_path: Path, content: str | bytes, name: str = "a.csv"
) -> tuple[tuple[str, ...], float]:
    """Names of the variables of a table, and seconds of a row."""
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    probe = probe_series(path)
    return probe.columns, round(1 / probe.infos[0].rate, 6)


def column(tmp_path: Path, number: int = 0) -> list[float]:
    return read_series(str(tmp_path / "a.csv"))[:, number].tolist()


def rows(*cells: str, end: str = "\n", mark: str = ",") -> str:
    """A line a stamp; {n} in a cell is its number."""
    lines = ([stamp, *(cell.format(n=n) for cell in cells)] for n, stamp in enumerate(ISO))
    return "".join(mark.join(line) + end for line in lines)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n"])
def test_encodings_and_ends_of_lines(tmp_path: Path, encoding: str, end: str) -> None:
    text = f"time;x °C{end}" + rows("{n},5", end=end, mark=";") + end
    assert told(tmp_path, text.encode(encoding)) == (("x °C",), 60)
    assert column(tmp_path) == [n + 0.5 for n in range(12)]


def test_mixed_ends_of_lines(tmp_path: Path) -> None:
    text = rows("{n}").replace("5\n", "5\r\n")
    assert told(tmp_path, "time,x\r\n" + text) == (("x",), 60)
    assert column(tmp_path) == [*range(12)]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["", "end"])
def test_a_delimiter_at_the_end_separates_nothing(tmp_path: Path, mark: str, end: str) -> None:
    head = f"time{mark}x{mark if end else ''}\n"
    assert told(tmp_path, head + rows("{n}", "", mark=mark)) == (("x",), 60)
    assert column(tmp_path) == [*range(12)]


def test_a_last_column_of_which_nothing_is_known_yet_is_one(tmp_path: Path) -> None:
    assert told(tmp_path, "time,x,y\n" + rows("{n}", ""))[0] == ("x", "y")
    assert told(tmp_path, "time,x,\n" + rows("{n}", "{n}"))[0] == ("x", "")


def test_lines_above_a_table_are_passed_over(tmp_path: Path) -> None:
    head = "Logger 12\nSerial: 3\nStart: 2024-07-02, 8:00, UTC, 7\n\n"
    table = "time,x,y\n" + rows("{n}", "{n}.5")
    assert told(tmp_path, head + table) == (("x", "y"), 60)
    assert column(tmp_path, 1) == [n + 0.5 for n in range(12)]
    assert told(tmp_path, "% made\n% by hand\n" + table) == (("x", "y"), 60)
    assert told(tmp_path, head + table.replace("y\n", "y\n,V,A\n"))[0] == ("x", "y")
    with pytest.raises(DataError, match="line 10 holds 'oops'"):
        told(tmp_path, head + table.replace("4.5", "oops"))


@pytest.mark.parametrize("late", ["3,4,5\n", "3\n", "Pump 7\n", "x,y\n1,2\nPump 7\nx,y\n1,2\n"])
def test_rows_are_never_taken_for_lines_above_a_table(tmp_path: Path, late: str) -> None:
    with pytest.raises(DataError, match=r"Expected 2 columns|not numeric"):
        told(tmp_path, "x,y\n" + "1,2\n" * 9 + late + "1,2\n" * 9)


def test_a_line_that_names_the_delimiter(tmp_path: Path) -> None:
    assert told(tmp_path, "sep=;\ntime;x\n" + rows("{n},5", mark=";")) == (("x",), 60)
    assert told(tmp_path, '"sep=,"\r\ntime,x\n' + rows("{n}")) == (("x",), 60)


def test_blank_lines_around_units(tmp_path: Path) -> None:
    for head in ("time,x\n\nms,V\n", "time,x\nms,V\n\n", "\ntime,x\n\n\nms,V\n\n\n"):
        told(tmp_path, head + "0,1\n500,2\n1000,3\n")
        assert column(tmp_path) == [1, 2, 3], head
    with pytest.raises(DataError, match="line 5 holds 'oops'"):
        told(tmp_path, "time,x\n\nms,V\n0,1\n500,oops\n")


def test_thousands_set_apart(tmp_path: Path) -> None:
    for cells, wanted in (
        ('"1.234,5";"0,5";12.345.678', [1234.5, 0.5, 12345678]),
        ("-1.234;0,5;999", [-1234, 0.5, 999]),
        ("1'234.5;12 345.25;3", [1234.5, 12345.25, 3]),
        ("1 234,5;0,25;3", [1234.5, 0.25, 3]),
    ):
        told(tmp_path, "time;x;y;z\n" + rows(*cells.split(";"), mark=";"))
        assert [column(tmp_path, number)[0] for number in range(3)] == wanted, cells
    told(tmp_path, "time,x,y\n" + rows('"1,2{n:02}"', '"1,234.5"').replace('"1,200"', "900"))
    assert column(tmp_path)[:2] == [900, 1201]
    assert column(tmp_path, 1)[0] == 1234.5


def test_a_decimal_comma_may_come_late_or_in_one_column_alone(tmp_path: Path) -> None:
    lines = rows("{n}", "{n}.5", mark=";").replace(";7;", ";7,5;")
    told(tmp_path, "time;x;y\n" + lines)
    assert column(tmp_path) == [*range(7), 7.5, *range(8, 12)]
    assert column(tmp_path, 1) == [n + 0.5 for n in range(12)]


def test_a_number_that_may_be_either_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2 holds '1,234'"):
        told(tmp_path, "time,x\n" + rows('"1,234"'))
    with pytest.raises(DataError, match="line 9 holds 'oops'"):
        told(tmp_path, "time;x\n" + rows("1.234,{n:02}", mark=";").replace("1.234,07", "oops"))


def test_signs_of_absence(tmp_path: Path) -> None:
    signs = ["NaN", "null", "-", "#N/A", "?", "n/a", "NULL", "nan", "--", "N/A", "#DIV/0!", "<NA>"]
    lines = "".join(f"{stamp},{sign}\n" for stamp, sign in zip(ISO, signs, strict=True))
    told(tmp_path, "time,x,\n" + lines.replace("\n", ",\n") + "2024-07-02 08:12:00,3,\n")
    assert np.isnan(column(tmp_path)[:12]).all()
    assert column(tmp_path)[12] == 3


def test_switches_are_numbers(tmp_path: Path) -> None:
    for off, on in (("OFF", "ON"), ("off", "on"), ("No", "Yes"), ("False", "True")):
        lines = "".join(f"{stamp},{on if n % 3 else off}\n" for n, stamp in enumerate(ISO))
        told(tmp_path, "time,pump\n" + lines + "2024-07-02 08:12:00,\n")
        assert column(tmp_path)[:4] == [0, 1, 1, 0]
        assert np.isnan(column(tmp_path)[12])
    with pytest.raises(DataError, match="line 2 holds 'idle'"):
        told(tmp_path, "time,pump\n" + rows("idle"))


def test_empty_rows_at_the_end_are_none(tmp_path: Path) -> None:
    assert told(tmp_path, "time,x,y\n" + rows("{n}", "1") + ",,\n,,\n")[1] == 60
    assert column(tmp_path) == [*range(12)]
    # A row that has a time is a step, and so is one of a table without times.
    assert told(tmp_path, "time,x\n" + rows("{n}") + "2024-07-02 08:12:00,\n")[1] == 60
    assert len(column(tmp_path)) == 13
    told(tmp_path, "x,y\n1,2\n,\n")
    assert len(column(tmp_path)) == 2


def test_a_clock_may_have_any_name_and_stand_anywhere(tmp_path: Path) -> None:
    stamps = [f"{n:02}.07.2024 08:00" for n in range(1, 10)]
    for head, line in (("Zeit;x", "{0};{1}"), ("x;Datum/Uhrzeit", "{1};{0}")):
        text = "".join(line.format(stamp, n) + "\n" for n, stamp in enumerate(stamps))
        assert told(tmp_path, f"{head}\n{text}") == (("x",), 86400)
        assert column(tmp_path) == [*range(9)]


def test_columns_of_one_name_stay_apart(tmp_path: Path) -> None:
    assert told(tmp_path, "time,x,x\n" + rows("{n}", "-{n}"))[0] == ("x", "x")
    assert (column(tmp_path)[3], column(tmp_path, 1)[3]) == (3, -3)


def test_first_rows_with_months_by_name_are_rows(tmp_path: Path) -> None:
    for stamp in ("Jan {}", "02/Jul/{}:08:00:00", "Tue Jul  2 08:00:00 {}"):
        text = "".join(f"{stamp.format(year)},{year}\n" for year in (2000, 2001, 2002))
        told(tmp_path, text)
        assert len(column(tmp_path)) == 3, stamp


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x1f\x8b\x08\0\0", "binary data.*seems to be compressed by gzip: unpack it"),
        (b"PK\x03\x04\x14\0\0", "workbook of a spreadsheet.*save it as CSV"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"<!doctype html>\n<p>Sorry, no\n", "a web page"),
    ],
)
def test_what_stands_in_for_a_table_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        told(tmp_path, content)

"""Data larger than memory: windows are read, files are not."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mainspring import api
from mainspring.clips import NOTHING, ClipSpec
from mainspring.recordings import report, series
from mainspring.recordings.reader import Reader
from mainspring.recordings.recording import Recording
from mainspring.recordings.series import probe_series, read_at, read_series
from mainspring.recordings.series_file import RowGroups, SeriesFile
from mainspring.recordings.timestamps import SETTING

GROUP = 1000  # rows


@pytest.fixture
def by_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "LARGE", 0)


def table(rows: int, seed: int = 0, irregular: bool = False) -> pa.Table:
    rng = np.random.default_rng(seed)
    step = rng.integers(1, 4, rows) if irregular else np.ones(rows, int)
    if irregular:
        step[rng.random(rows) < 0.05] = 0
        step[rows // 3] = 40
    stamps = np.datetime64("2020-01-01T00:00:00") + np.cumsum(step).astype("timedelta64[s]")
    x = rng.normal(size=rows)
    x[rng.random(rows) < 0.1] = np.nan
    return pa.table({
        "time": stamps,
        "x": pa.array(x, from_pandas=True),
        "n": pa.array(rng.integers(0, 9, rows)),
        "on": pa.array(rng.random(rows) < 0.5),
    })  # fmt: skip


@pytest.mark.parametrize("irregular", [False, True])
@pytest.mark.parametrize("way", ["resample", "gap"])
def test_by_row_groups_equals_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, irregular: bool, way: str
) -> None:
    monkeypatch.setenv(SETTING, way)
    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(table(5500, irregular=irregular), path, row_group_size=GROUP)
    whole, facts = read_series(path), probe_series(path)
    series._RECENT.__setstate__(series._RECENT.limit)
    monkeypatch.setattr(series, "LARGE", 0)
    assert isinstance(series._opened(path).values, RowGroups)
    assert probe_series(path).infos == facts.infos
    np.testing.assert_allclose(read_series(path), whole, rtol=1e-6)
    steps = np.random.default_rng(1).integers(0, len(whole), 300)
    np.testing.assert_allclose(read_at(path, steps), whole[steps], rtol=1e-6)
    begin, end = 1200.0, 2600.0
    np.testing.assert_allclose(
        read_at(path, np.arange(50), begin, end), read_series(path, begin, end)[:50], rtol=1e-6
    )


def test_a_window_of_parquet_reads_its_row_groups_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_groups: None
) -> None:
    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(table(50 * GROUP), path, row_group_size=GROUP)
    asked: list[int] = []
    inner = pyarrow.parquet.ParquetFile.read_row_group

    def counted(self, group, *args, **settings):
        asked.append(group)
        return inner(self, group, *args, **settings)

    def refused(*args, **settings):
        raise AssertionError("the whole file was read")

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "read_row_group", counted)
    monkeypatch.setattr(pyarrow.parquet, "read_table", refused)
    assert probe_series(path).infos[0].length == 50 * GROUP
    assert len(asked) < 10  # whether anything is known is seen at the beginning
    asked.clear()
    rows = read_series(path, 17_990, 18_020)
    assert rows.shape == (30, 3)
    assert asked == [17, 18]
    read_series(path, 18_100, 18_120)
    assert asked == [17, 18]  # kept


def test_a_large_table_out_of_order_or_with_text_is_read_as_before(
    tmp_path: Path, by_groups: None
) -> None:
    path = str(tmp_path / "a.parquet")
    plain = table(100)
    order = np.arange(100)
    order[[3, 4]] = [4, 3]
    pyarrow.parquet.write_table(plain, path)
    whole = read_series(path)
    pyarrow.parquet.write_table(plain.take(pa.array(order)), path)
    np.testing.assert_array_equal(read_series(path), whole)
    text = pa.table({"x": [1.0], "who": ["me"]})
    pyarrow.parquet.write_table(text, path)
    with pytest.raises(series.DataError, match="column 'who' is not numeric"):
        read_series(path)


WINDOW_OF_NPY = """
import resource, sys
import numpy as np
from mainspring.recordings.series import probe_series, read_at, read_series
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
info = probe_series(sys.argv[1]).infos[0]
assert info.length == 1 << 28, info
window = read_series(sys.argv[1], 2e8, 2e8 + 500)
assert window.shape == (500, 1) and window[3, 0] == 7, window
steps = np.random.default_rng(0).integers(0, 1 << 28, 200)
assert read_at(sys.argv[1], np.append(steps, 200_000_003))[-1, 0] == 7
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_window_of_two_gigabytes_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.npy"
    values = np.lib.format.open_memmap(path, "w+", np.float64, (1 << 28, 1))  # sparse on disk
    values[0], values[200_000_003] = 1, 7
    values.flush()
    del values
    assert path.stat().st_size > 2e9
    found = subprocess.run(
        [sys.executable, "-c", WINDOW_OF_NPY, str(path)], capture_output=True, text=True, check=True
    )
    assert int(found.stdout) < 60_000  # kilobytes, of two million


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_training_visits_long_series_by_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_groups: None, kind: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "long"
    folder.mkdir()
    rows = 400 * GROUP
    for name in ("a", "b"):
        values = np.random.default_rng(ord(name)).normal(size=(rows, 1)).astype(np.float32)
        if kind == "npy":
            np.save(folder / f"{name}.npy", values)
        else:
            pyarrow.parquet.write_table(
                pa.table({"x": values[:, 0]}), folder / f"{name}.parquet", row_group_size=GROUP
            )
    api.catalogue(folder)
    monkeypatch.setattr(report, "_SERIES_ROWS", 2 * GROUP)  # of a sample that `check` looks at
    read: list[int] = []
    for name in ("rows", "at"):
        inner = getattr(SeriesFile, name)

        def counted(*given, inner=inner):
            found = inner(*given)
            read.append(len(found))
            return found

        monkeypatch.setattr(SeriesFile, name, counted)
    monkeypatch.setattr(pyarrow.parquet, "read_table", None)
    api.pretrain(
        folder, "forecast", out=tmp_path / "run", steps=3, batch=2, verdict=False, report=False,
        architecture={"series": {"width": 4, "depth": 2, "dim": 8}},
        clip={"series": {"length": 64}},
    )  # fmt: skip
    assert read
    assert max(read) <= rows / 20


def test_a_reader_reads_its_positions_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).normal(size=(5000, 2)).astype(np.float32)
    path = tmp_path / "a.npy"
    np.save(path, values)
    positions = np.array([[4000, 4002, 4004], [4998, 4999, NOTHING]])
    reader = Reader({"series": ClipSpec(length=3)})
    recording = Recording(str(path))
    reader.timeline(recording)
    monkeypatch.setattr(SeriesFile, "rows", None)
    told = reader.read(recording, {"series": positions})["series"]
    expected = values[positions]
    expected[1, 2] = np.nan
    np.testing.assert_array_equal(told, expected)


def test_another_way_with_times_is_another_fact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.csv").write_text("time,x\n0,1\n2,2\n4,3\n12,4\n14,5\n")
    for way, channels in (("resample", 1), ("gap", 2), ("resample", 1)):
        monkeypatch.setenv(SETTING, way)
        found = api.catalogue(tmp_path / "a.csv")
        assert found[0].streams["series"].channels == channels

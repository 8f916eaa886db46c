"""Manifests: the three formats agree, no file is touched, errors name the column meant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mainspring.errors import DataError
from mainspring.recordings.catalogue import open_catalogue
from mainspring.recordings.manifest import is_manifest, read_manifest

ROWS = [
    {"uri": "a.mp4", "start": 0.0, "end": 4.5, "group": "lab", "label": "007", "caption": "x, y"},
    {"uri": "/far/b.wav", "start": 2.0, "end": None, "group": None, "label": None, "caption": None},
]


def write(path: Path) -> Path:
    if path.suffix == ".csv":
        text = 'uri,start,end,group,label,caption\na.mp4,0,4.5,lab,007,"x, y"\n/far/b.wav,2,,,,\n'
        path.write_text(text)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS))
    else:
        pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_formats_agree(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    assert is_manifest(str(path))
    catalogue = open_catalogue(path)
    first, second = catalogue
    assert (first.uri, first.start, first.end) == (str(tmp_path / "a.mp4"), 0.0, 4.5)
    assert (first.group, first.label, first.caption) == ("lab", "007", "x, y")
    assert (second.uri, second.start, second.end) == ("/far/b.wav", 2.0, None)
    assert (second.group, second.label, second.caption, second.problem) == (None,) * 4


def test_only_uri_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("uri\nx.wav\n")
    assert (open_catalogue(path)[0].start, open_catalogue(path)[0].end) == (0.0, None)


def test_relative_to_a_manifest_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.csv").write_text("uri\nx.wav\n")
    assert open_catalogue("m.csv")[0].uri == "x.wav"


@pytest.mark.parametrize(
    ("header", "near"), [("path,label", "path"), ("URI,start", "URI"), ("url,label", "url")]
)
def test_missing_uri_column_suggests_the_nearest(tmp_path: Path, header: str, near: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"{header}\nx.wav,1\n")
    with pytest.raises(DataError, match=f"no column 'uri'.* Did you mean '{near}'. Rename it"):
        open_catalogue(path)


def test_json_lines_without_uri(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"filename": "x.wav"}\n')
    with pytest.raises(DataError, match="Did you mean 'filename'"):
        open_catalogue(path)


def test_a_csv_without_uri_or_the_like_is_a_series(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("x,y\n1,2\n3,4\n")
    assert not is_manifest(str(path))
    assert open_catalogue(path)[0].uri == str(path)


def test_a_row_without_uri_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("uri,label\nx.wav,a\n,b\n")
    with pytest.raises(DataError, match="row 2 has no uri"):
        open_catalogue(path)


def test_start_that_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("uri,start\nx.wav,0:10\n")
    with pytest.raises(DataError, match=r"(?s)cannot be read.*0:10.*start and end are seconds"):
        open_catalogue(path)


def test_impossible_spans_are_problems_not_errors(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("uri,start,end\nx.wav,5,2\nx.wav,-1,2\nx.wav,0,2\n")
    problems = open_catalogue(path).column("problem")
    assert "ends before it starts" in problems[0]
    assert "below 0" in problems[1]
    assert problems[2] is None


def test_other_columns_are_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("uri,lable\nx.wav,3\n")
    note = "left out columns of the manifest: lable (did you mean label?)"
    assert open_catalogue(path).notes == (note,)
    path.write_text("uri,serie_uri,audio_ury,audio_uri,colour\nx.wav,3,,,\n")
    note = (
        "left out columns of the manifest: serie_uri (did you mean series_uri?), audio_ury, colour"
    )
    assert open_catalogue(path).notes == (note,)


def test_empty_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("uri,label\n")
    with pytest.raises(DataError, match="header but no rows"):
        open_catalogue(path)


def test_a_saved_catalogue_is_a_manifest(tmp_path: Path) -> None:
    catalogue = open_catalogue(write(tmp_path / "m.csv"))
    catalogue.save(tmp_path / "c.parquet")
    again = open_catalogue(tmp_path / "c.parquet")
    assert list(again) == list(catalogue)
    table, _ = read_manifest(str(tmp_path / "c.parquet"))
    np.testing.assert_array_equal(table.column("start").to_numpy(), [0.0, 2.0])


def test_captions_of_several_lines_in_a_long_csv(tmp_path: Path) -> None:
    rows = [
        f'a{n}.mp4,"{"A ball falls. " * 9}\nIt bounces, {n} times.\nIt lies."' for n in range(9000)
    ]
    (tmp_path / "m.csv").write_text("uri,caption\n" + "\n".join(rows))
    catalogue = open_catalogue(tmp_path / "m.csv")  # more than one block of a megabyte
    assert len(catalogue) == 9000
    assert catalogue[8999].caption == "A ball falls. " * 9 + "\nIt bounces, 8999 times.\nIt lies."


@pytest.mark.parametrize(
    "header", ["uri;start;end;label", "uri\tstart\tend\tlabel", "uri, start, end, label"]
)
def test_other_separators_and_blanks_after_them(tmp_path: Path, header: str) -> None:
    mark = header[3]
    (tmp_path / "m.csv").write_text(f"{header}\n{mark.join(['a.mp4', '1.5', '2', '007'])}\n")
    recording = open_catalogue(tmp_path / "m.csv")[0]
    assert (recording.uri, recording.start, recording.end) == (str(tmp_path / "a.mp4"), 1.5, 2.0)
    assert recording.label == "007"


def test_nan_is_no_time(tmp_path: Path) -> None:
    table = pa.table({"uri": ["a.mp4", "b.mp4"], "start": [np.nan, 1], "end": [np.nan, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
    first, second = open_catalogue(tmp_path / "m.parquet")
    assert (first.start, first.end) == (0.0, None)
    assert (second.start, second.end) == (1.0, 2.0)


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,label,label\na.mp4,x,y\n")
    with pytest.raises(DataError, match="the column 'label' more than once"):
        open_catalogue(tmp_path / "m.csv")


def test_a_table_of_numbers_is_no_manifest_whatever_its_columns(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("time,dur,audio\n0,1,2\n1,3,4\n")
    assert open_catalogue(tmp_path / "s.csv")[0].uri == str(tmp_path / "s.csv")
    (tmp_path / "m.csv").write_text("urj,start\na.mp4,0\n")
    with pytest.raises(DataError, match="Did you mean 'urj'"):
        open_catalogue(tmp_path / "m.csv")

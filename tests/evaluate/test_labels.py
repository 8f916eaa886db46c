from pathlib import Path

import numpy as np
import pytest

from mainspring.errors import DataError
from mainspring.evaluate.labels import read_labels
from mainspring.evaluate.vectors import Vectors


def vectors(*uris: str, starts: tuple[float, ...] | None = None) -> Vectors:
    count = len(uris)
    at = np.array(starts or (0.0,) * count)
    return Vectors(
        matrix=np.zeros((count, 2), np.float32),
        uris=np.array(uris, object),
        starts=at,
        ends=at + 2,
        rows=np.arange(count),
        groups=np.full(count, None, object),
        labels=np.full(count, None, object),
    )


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "labels.csv"
        path.write_text(text)
        return path

    return write


def test_relative_and_whole_paths(write, tmp_path: Path) -> None:
    path = write("uri,label\nsub/a.mp4,run\n../b.mp4,walk\n/else/c.mp4,sit\nd.mp4,none\n")
    found = read_labels(
        path,
        vectors(f"{tmp_path}/sub/a.mp4", f"{tmp_path.parent}/b.mp4", "/else/c.mp4", "/x/q.mp4"),
    )
    assert found.values.tolist() == ["run", "walk", "sit", None]
    assert (found.matched, found.missing, found.unused) == (3, 1, 1)
    assert str(found) == "3 of 4 rows labelled, 1 lines of the labels unused"


def test_names_and_stems_where_they_stand_for_one_recording(write) -> None:
    path = write("uri;label\na.mp4;run\nb;walk\ntwice;sit\n")
    found = read_labels(path, vectors("/v/a.mp4", "/v/a.mp4", "/v/b.mp4", "/1/twice", "/2/twice"))
    assert found.values.tolist() == ["run", "run", "walk", None, None]


def test_a_name_that_stands_for_two_files_of_the_labels_is_not_taken(write) -> None:
    path = write("uri,label\n1/a.mp4,run\n2/a.mp4,walk\n1/b.mp4,sit\n")
    found = read_labels(path, vectors("/v/a.mp4", "/v/b.mp4"))
    assert found.values.tolist() == [None, "sit"]
    assert found.unused == 2


def test_a_whole_path_wins_over_a_name(write, tmp_path: Path) -> None:
    path = write("uri,label\n1/a.wav,one\n2/a.wav,two\n")
    found = read_labels(path, vectors(f"{tmp_path}/2/a.wav", f"{tmp_path}/1/a.wav"))
    assert found.values.tolist() == ["two", "one"]


def test_rows_of_one_file(write) -> None:
    path = write("uri,label\nGun.tsv#0,a\nGun.tsv#1,b\nGun#2,c\n")
    found = read_labels(path, vectors("/d/Gun.tsv#1", "/d/Gun.tsv#0", "/d/Gun.tsv#2"))
    assert found.values.tolist() == ["b", "a", "c"]


def test_spans_label_windows_by_their_middle(write) -> None:
    path = write("uri,label,start,end\na.mp4,run,0,4\na.mp4,walk,4,\n")
    found = read_labels(path, vectors(*["/v/a.mp4"] * 4, starts=(0.0, 2.9, 3.0, 9.0)))
    assert found.values.tolist() == ["run", "run", "walk", "walk"]


def test_a_spreadsheets_file(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_bytes('﻿uri , label\r\n"a, b.mp4", run \r\n,\r\n'.encode())
    assert read_labels(path, vectors("/v/a, b.mp4")).values.tolist() == ["run"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na,b\n", "no column 'uri'; its columns are file, label. Rename 'file'"),
        ("uri,Class\na,b\n", "no column 'label'.*Rename 'Class' to 'label'"),
        ("uri,lable\na,b\n", "Rename 'lable' to 'label'"),
        ("", "its columns are none"),
        ("uri,label\n", "no line with both"),
        ("uri,label\nzzz.mp4,x\n", "names, for example, 'zzz.mp4'; embedded were.*'/v/a.mp4'"),
        ("uri,label\na.mp4,x\na.mp4,y\n", "lines 2 and 3: '/v/a.mp4' is both 'x' and 'y'"),
        ("uri,label,start\na.mp4,x,soon\n", "line 2: start and end are seconds, not 'soon'"),
    ],
)
def test_what_is_wrong_is_told(write, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_labels(write(text), vectors("/v/a.mp4"))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read the labels.*No such file"):
        read_labels(tmp_path / "no.csv", vectors("a"))


def test_the_same_label_twice_is_no_contradiction(write) -> None:
    found = read_labels(write("uri,label\na.mp4,x\na.mp4,x\n"), vectors("/v/a.mp4"))
    assert found.values.tolist() == ["x"]


def test_one_file_with_several_labels(write) -> None:
    path = write("uri,motion,appearance\na.mp4,spin,red\n")
    assert read_labels(path, vectors("/v/a.mp4"), "appearance").values.tolist() == ["red"]
    with pytest.raises(DataError, match="no column 'label'; its columns are uri, motion, appear"):
        read_labels(path, vectors("/v/a.mp4"))
    with pytest.raises(DataError, match=r"no column 'motoin'.*'motion'"):
        read_labels(path, vectors("/v/a.mp4"), "motoin")

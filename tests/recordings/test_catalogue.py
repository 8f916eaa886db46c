"""Catalogues: whatever data is given becomes rows, which travel, window and stamp themselves."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mainspring.clips import ClipSpec
from mainspring.errors import ConfigError, DataError
from mainspring.recordings.catalogue import Catalogue, open_catalogue, windowed
from mainspring.recordings.reader import Reader
from mainspring.recordings.series import read_series
from mainspring.recordings.survey import survey


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def names(catalogue: Catalogue, folder: Path) -> list[str]:
    return [os.path.relpath(uri, folder) for uri in catalogue.column("uri")]


def test_folder_is_searched_sorted_and_sifted(tmp_path: Path) -> None:
    data = touch(
        tmp_path, "b/2.mp4", "b/10.MKV", "a.wav", ".hidden.mp4", ".git/x.mp4", "labels.csv",
        "about.txt", "x.json", "y.json", "thumb.jpg",
    )  # fmt: skip
    (data / "m.csv").write_text("uri\na.wav\n")
    catalogue = open_catalogue(data)
    assert names(catalogue, data) == ["a.wav", "b/10.MKV", "b/2.mp4"]
    said = " | ".join(catalogue.notes)
    assert "ignored 3 files (.json 2, .txt 1)" in said
    assert "images beside recordings" in said
    assert "labels.csv: it describes recordings" in said
    assert "m.csv: it describes recordings" in said


def test_a_name_that_is_no_text_costs_its_file_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    (tmp_path / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"x")
    catalogue = open_catalogue(tmp_path)
    assert names(catalogue, tmp_path) == ["a.wav"]
    assert r"not UTF-8 (1, such as" in catalogue.notes[0]
    assert r"caf\xe9.wav" in catalogue.notes[0]


def test_a_folder_of_images_is_of_one_frame_videos(tmp_path: Path) -> None:
    assert len(open_catalogue(touch(tmp_path, "a.jpg", "b.png"))) == 2


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    data = touch(tmp_path, "a/x.wav")
    (data / "a" / "again").symlink_to(data)
    assert len(open_catalogue(data)) == 1


def test_streams_choose_files(tmp_path: Path) -> None:
    data = touch(tmp_path, "a.wav", "b.mp4", "c.csv")
    assert names(open_catalogue(data, ["audio"]), data) == ["a.wav", "b.mp4"]
    assert names(open_catalogue(data, ["video"]), data) == ["b.mp4"]
    assert names(open_catalogue(data, ["series"]), data) == ["c.csv"]
    with pytest.raises(ConfigError, match=r"Unknown stream 'vidoe'. Did you mean 'video'"):
        open_catalogue(data, ["vidoe"])


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is empty. Expected files of video .*, sound .*manifest"):
        open_catalogue(tmp_path)


def test_folder_of_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no recording .*\.docx 2.*Expected files of video"):
        open_catalogue(touch(tmp_path, "a.docx", "b.docx"))


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = touch(tmp_path, "in/a.wav", "closed/b.wav")
    listed = os.scandir

    def guarded(path: str) -> Any:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", guarded)
    catalogue = open_catalogue(data)
    assert catalogue.column("problem").tolist() == [None, "no permission to read this folder"]
    with pytest.raises(DataError, match=r"closed cannot be read: no permission"):
        open_catalogue(data / "closed")


def test_no_such_path(tmp_path: Path) -> None:
    touch(tmp_path, "videos/a.mp4", "videos/b.mp4")
    with pytest.raises(DataError, match=r"There is no .*vidoes\..*Did you mean .*videos"):
        open_catalogue(tmp_path / "vidoes")


def test_glob(tmp_path: Path) -> None:
    data = touch(tmp_path, "a/1.mp4", "a/2.avi", "b/3.mp4", "b/readme.md")
    assert names(open_catalogue(f"{data}/*/*.mp4"), data) == ["a/1.mp4", "b/3.mp4"]
    assert names(open_catalogue(f"{data}/[b]*"), data) == ["b/3.mp4"]
    with pytest.raises(DataError, match=r"No file matches '.*/b/\*\.avi'.*holds \.mp4 1, \.md 1"):
        open_catalogue(f"{data}/b/*.avi")
    with pytest.raises(DataError, match=r"holds no recording \(ignored 1 file \(\.md 1\)"):
        open_catalogue(f"{data}/b/*.md")


def test_brackets_in_the_name_of_a_file_are_no_glob(tmp_path: Path) -> None:
    path = touch(tmp_path, "take [1].wav") / "take [1].wav"
    assert open_catalogue(path)[0].uri == str(path)


def test_rows_of_ucr_files_are_recordings_with_classes(tmp_path: Path) -> None:
    (tmp_path / "A_TRAIN.tsv").write_text("1\t2\t3\n2\t4\t5\n")
    (tmp_path / "A_TEST.tsv").write_text("1\t6\t7\n")
    catalogue = open_catalogue(tmp_path)
    assert names(catalogue, tmp_path) == ["A_TEST.tsv", "A_TRAIN.tsv#0", "A_TRAIN.tsv#1"]
    assert catalogue.column("label").tolist() == ["1", "1", "2"]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_array(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    catalogue = open_catalogue(values)
    assert len(catalogue) == 5
    for row, recording in enumerate(catalogue):
        expected = values[row].reshape(7, -1).astype(np.float32)
        np.testing.assert_array_equal(read_series(recording.uri), expected)


def test_list_of_arrays_of_unequal_length() -> None:
    given = [np.arange(n * 2, dtype=float).reshape(n, 2) for n in (4, 1, 6)]
    found = survey(open_catalogue(given))
    assert found.column("series.length").tolist() == [4, 1, 6]
    for recording, values in zip(found, given, strict=True):
        np.testing.assert_array_equal(read_series(recording.uri), values.astype(np.float32))


def test_arrays_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shape \(4,\).*values\[None\]"):
        open_catalogue(np.zeros(4))
    with pytest.raises(DataError, match=r"Array 1 of the list has 3 variables.*first has 2"):
        open_catalogue([np.zeros((4, 2)), np.zeros((4, 3))])
    with pytest.raises(DataError, match=r"list of 0 \(nothing\)"):
        open_catalogue([])
    with pytest.raises(DataError, match="complex"):
        open_catalogue(np.zeros((2, 3), dtype=complex))


def test_what_an_array_in_memory_masks_is_missing() -> None:
    plain = np.arange(12.0).reshape(2, 3, 2)
    masked = np.ma.masked_equal(plain, 7)
    for data in (masked, [masked[0], masked[1]]):
        catalogue = open_catalogue(data)
        rows = [read_series(catalogue[row].uri) for row in range(2)]
        np.testing.assert_array_equal(np.stack(rows), np.where(plain == 7, np.nan, plain))


def test_arrays_leave_with_their_catalogue() -> None:
    catalogue = open_catalogue(np.zeros((3, 4)))
    part = catalogue.select([1])
    uri = part[0].uri
    del catalogue
    assert read_series(uri).shape == (4, 1)
    del part
    with pytest.raises(DataError):
        read_series(uri)


def test_frame() -> None:
    class Frame:
        """A data frame as seen from outside."""

        columns = ("when", "x")

        def to_numpy(self) -> np.ndarray:
            raise AssertionError("would mix times with numbers")

        def __getitem__(self, name: str) -> np.ndarray:
            days = np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[s]")
            return {"when": days, "x": np.array([1.5, np.nan])}[name]

    found = survey(open_catalogue(Frame()))
    assert found[0].streams["series"].rate == pytest.approx(1 / 86400)
    np.testing.assert_array_equal(
        read_series(found[0].uri), np.array([[1.5], [np.nan]], dtype=np.float32)
    )


def test_list_of_paths_keeps_its_order(tmp_path: Path) -> None:
    data = touch(tmp_path, "b.wav", "a.wav")
    assert names(open_catalogue([data / "b.wav", str(data / "a.wav")]), data) == ["b.wav", "a.wav"]


def table() -> Catalogue:
    facts = {"length": 50, "rate": 25.0, "seconds": 2.0, "width": 32, "height": 24}
    none: dict[str, Any] = {"channels": 0, "codec": "h264"}
    return Catalogue(
        {
            "uri": ["a.mp4", "b.mp4", "c.mp4"],
            "start": [0.0, 1.0, 0.0],
            "end": [None, 3.0, None],
            "label": ["x", None, "y"],
            "problem": [None, None, "broken"],
            "video": [facts | none, {**facts, **none, "seconds": 9.0}, None],
        },
        notes=["a note"],
    )


def test_columns_rows_and_selection() -> None:
    catalogue = table()
    assert catalogue.column("label").tolist() == ["x", None, "y"]
    assert catalogue.column("group").tolist() == [None] * 3
    np.testing.assert_array_equal(catalogue.column("end"), [np.nan, 3, np.nan])
    np.testing.assert_array_equal(catalogue.column("video.seconds"), [2, 9, np.nan])
    np.testing.assert_array_equal(catalogue.column("audio.seconds"), [np.nan] * 3)
    np.testing.assert_array_equal(catalogue.column("seconds"), [2, 2, np.nan])
    assert catalogue[-1].problem == "broken"
    assert catalogue[0].streams["video"].width == 32
    assert [r.uri for r in catalogue.select([2, 0])] == ["c.mp4", "a.mp4"]
    assert [r.uri for r in catalogue.usable()] == ["a.mp4", "b.mp4"]
    assert len(catalogue.select([])) == 0
    with pytest.raises(IndexError):
        catalogue[3]
    with pytest.raises(ConfigError, match=r"Unknown column 'lable'. Did you mean 'label'"):
        catalogue.column("lable")


def test_saved_frozen_and_pickled_catalogues_are_the_same(tmp_path: Path) -> None:
    catalogue = table()
    catalogue.save(tmp_path / "c.parquet")
    anchored = [replace(one, uri=os.path.abspath(one.uri)) for one in catalogue]
    assert list(Catalogue.load(tmp_path / "c.parquet")) == anchored
    assert Catalogue.load(tmp_path / "c.parquet").notes == ("a note",)
    assert list(pickle.loads(pickle.dumps(catalogue))) == list(catalogue)
    frozen = table().freeze(tmp_path)
    message = pickle.dumps(frozen)
    assert len(message) < 400
    assert list(pickle.loads(message)) == list(catalogue)
    # A selection is another table: it must not travel as the file of the whole.
    assert list(pickle.loads(pickle.dumps(frozen.select([1])))) == [catalogue[1]]


def test_a_saved_catalogue_is_read_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("data", "elsewhere"):
        (tmp_path / name).mkdir()
    for name in ("a.csv", "arm.csv"):
        (tmp_path / "data" / name).write_text("x\n1\n2\n")
    (tmp_path / "m.csv").write_text("uri,series_uri\ndata/a.csv,\ndata/a.csv,data/arm.csv\n")
    monkeypatch.chdir(tmp_path)
    survey(open_catalogue("m.csv")).save("elsewhere/c.parquet")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for found in (Catalogue.load("c.parquet"), open_catalogue("c.parquet")):
        assert [one.problem for one in survey(found)] == [None, None]
        reader = Reader({"series": ClipSpec(length=2)})
        rows = [reader.read(one, {"series": np.array([[0, 1]])})["series"] for one in found]
        assert [row.ravel().tolist() for row in rows] == [[1, 2], [1, 2]]
    assert Catalogue.load("c.parquet")[1].source("series") == str(tmp_path / "data" / "arm.csv")


def test_two_frozen_catalogues_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, part = table().freeze(tmp_path), table().select([0]).freeze(tmp_path)
    assert len(pickle.loads(pickle.dumps(whole))) == 3
    assert len(pickle.loads(pickle.dumps(part))) == 1


def test_loading_something_else(tmp_path: Path) -> None:
    (tmp_path / "c.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match="not a catalogue that Mainspring saved"):
        Catalogue.load(tmp_path / "c.parquet")


def test_fingerprint_follows_rows_and_files(tmp_path: Path) -> None:
    data = touch(tmp_path, "a.wav", "b.wav")
    before = open_catalogue(data).fingerprint()
    assert open_catalogue(data).fingerprint() == before
    assert open_catalogue(data).select([1, 0]).fingerprint() != before
    (data / "b.wav").write_bytes(b"longer")
    assert open_catalogue(data).fingerprint() != before


def test_fingerprint_of_arrays_follows_their_content() -> None:
    values = np.arange(12.0).reshape(3, 4)
    assert open_catalogue(values).fingerprint() == open_catalogue(values.copy()).fingerprint()
    assert open_catalogue(values).fingerprint() != open_catalogue(values + 1).fingerprint()
    ragged = [np.arange(3.0), np.arange(5.0)]
    assert open_catalogue(ragged).fingerprint() == open_catalogue(ragged).fingerprint()


def test_windows_cover_recordings_and_none_lies_over_another() -> None:
    lengths = [25.0, 19.0, 40.0, 3.0]
    found = survey(open_catalogue([np.arange(length) for length in lengths]))
    cut = windowed(found, seconds=10.0)
    spans = [(r.uri[-1], r.start, r.end) for r in cut]
    assert spans == [
        ("0", 0.0, 12.5), ("0", 12.5, 25.0), ("1", 0.0, None),
        *(("2", at, at + 10) for at in (0.0, 10.0, 20.0, 30.0)), ("3", 0.0, None),
    ]  # fmt: skip
    np.testing.assert_array_equal(cut.column("seconds"), [12.5, 12.5, 19, *[10] * 4, 3])


def test_seconds_that_are_no_round_numbers_cut_as_often_as_they_go() -> None:
    hourly = survey(open_catalogue(np.zeros((1, 2160))))
    assert [len(windowed(hourly, 2160 / count)) for count in (3, 7, 11, 13)] == [3, 7, 11, 13]


def test_windows_of_a_window_stay_within_it() -> None:
    cut = windowed(table(), seconds=1.0)
    assert [(r.uri[0], r.start, r.end) for r in cut] == [
        ("a", 0.0, 1.0), ("a", 1.0, 2.0), ("b", 1.0, 2.0), ("b", 2.0, 3.0), ("c", 0.0, None),
    ]  # fmt: skip
    assert cut[-1].problem == "broken"


def test_windows_need_lengths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.wav is unknown: survey"):
        windowed(open_catalogue(touch(tmp_path, "a.wav")), 1.0)


def test_a_glob_takes_a_file_once_though_links_go_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    np.save(tmp_path / "a" / "b" / "s.npy", np.ones((5, 1)))
    (tmp_path / "a" / "b" / "up").symlink_to("..")
    found = open_catalogue(f"{tmp_path}/**/*.npy")
    assert found.column("uri").tolist() == [str(tmp_path / "a" / "b" / "s.npy")]

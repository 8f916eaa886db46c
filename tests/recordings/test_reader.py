from __future__ import annotations

import json
import multiprocessing
import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media import noise, pictures, write_sounds, write_video

from mainspring.clips import ClipSpec
from mainspring.errors import ConfigError, DataError, RunError
from mainspring.recordings import video
from mainspring.recordings.audio import read_sound
from mainspring.recordings.cache import Cache
from mainspring.recordings.guard import within
from mainspring.recordings.reader import Reader
from mainspring.recordings.recording import Recording
from mainspring.recordings.video import probe_media, read_frames

CLIPS = {
    "video": ClipSpec(length=8, rate=10, size=32),
    "audio": ClipSpec(length=1000, rate=8000),
}


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three seconds with sound."""
    folder = tmp_path_factory.mktemp("film")
    options = {"bf": "3", "g": "20"}
    sound = noise(3, 16_000)
    return str(write_video(folder / "film.mp4", pictures(75), options=options, sound=sound))


@pytest.fixture(params=["streamed", "cached"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Reader:
    cache = Cache(tmp_path / "cache", 1 << 30) if request.param == "cached" else None
    return Reader(CLIPS, cache)


def test_timeline_counts_the_grid_of_the_clips(film: str) -> None:
    timeline = Reader(CLIPS).timeline(Recording(film))
    assert (timeline["video"].length, timeline["video"].rate) == (30, 10)
    assert timeline["audio"].length == pytest.approx(24_000, abs=1000)
    native = Reader({"video": ClipSpec(8, size=32)}).timeline(Recording(film))
    assert (native["video"].length, native["video"].rate) == (75, 25)
    assert "audio" not in native


def test_timeline_of_a_span(film: str) -> None:
    reader = Reader(CLIPS)
    assert reader.timeline(Recording(film, start=1.0, end=2.5))["video"].length == 15
    assert reader.timeline(Recording(film, start=1.0, end=99))["video"].length == 20
    with pytest.raises(DataError, match="begins after the end"):
        reader.timeline(Recording(film, start=50))


def test_timeline_opens_nothing_where_the_streams_are_known(film: str) -> None:
    recording = Recording("/nowhere/gone.mp4", streams=probe_media(film))
    assert Reader(CLIPS).timeline(recording)["video"].length == 30


def test_one_frame_has_one_position(tmp_path: Path) -> None:
    path = write_video(tmp_path / "one.mp4", pictures(1))
    for rate in (None, 1, 10):
        reader = Reader({"video": ClipSpec(1, rate=rate, size=32)})
        assert reader.timeline(Recording(str(path)))["video"].length == 1


@pytest.mark.parametrize("start", [0.0, 0.73])
def test_samples_are_those_of_their_times(reader: Reader, film: str, start: float) -> None:
    recording = Recording(film, start=start)
    frames = np.array([[0, 3, 6, 9], [9, 6, 3, 0], [12, 12, 2, 20]])
    sound = np.array([np.arange(500), np.arange(3000, 3500), np.arange(500)[::-1]])
    got = reader.read(recording, {"video": frames, "audio": sound})
    expected = read_frames(film, start + frames.reshape(-1) / 10, 32).reshape(3, 4, 32, 32, 3)
    np.testing.assert_array_equal(got["video"], expected)
    whole = read_sound(film, 0, 3, 8000)
    first = round(start * 8000)
    np.testing.assert_allclose(got["audio"], whole[first + sound], atol=2e-5)
    assert got["video"].dtype == np.uint8
    assert got["audio"].dtype == np.float32


def test_padding_and_the_end(reader: Reader, film: str) -> None:
    frames = np.array([[-1, 0, 500], [-1, -1, -1]])
    sound = np.array([[-1, 0, 400_000], [-1, -1, -1]])
    got = reader.read(Recording(film), {"video": frames, "audio": sound})
    assert not got["video"][0, 0].any()
    assert not got["video"][1].any()
    last = read_frames(film, np.array([2.99]), 32)[0]
    np.testing.assert_array_equal(got["video"][0, 2], last)
    assert not got["audio"][:, [0, 2]].any()


def test_long_recordings_cross_stretches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainspring.recordings.cache.CHUNK_SECONDS", 0.7)
    film = str(write_video(tmp_path / "f.mp4", pictures(75), sound=noise(3, 16_000)))
    streamed, cached = Reader(CLIPS), Reader(CLIPS, Cache(tmp_path / "c", 1 << 30))
    rng = np.random.default_rng(0)
    for _ in range(5):
        asked = {
            "video": rng.integers(-1, 30, (3, 7)),
            "audio": rng.integers(-1, 24_000, (2, 1)) + np.arange(50),
        }
        a, b = streamed.read(Recording(film), asked), cached.read(Recording(film), asked)
        np.testing.assert_array_equal(a["video"], b["video"])
        np.testing.assert_allclose(a["audio"], b["audio"], atol=2e-5)


def test_far_apart_sounds_are_read_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write_sounds(tmp_path / "s.m4a", [noise(20, 16_000)], 16_000))
    from mainspring.recordings import audio

    counts, plain = [], audio.read_samples
    monkeypatch.setattr(
        audio, "read_samples", lambda p, f, n, r: (counts.append(n), plain(p, f, n, r))[1]
    )
    positions = np.array([[100_000], [0], [500], [100_500], [-500_000]]) + np.arange(800)
    positions = np.where(positions < 0, -1, positions)
    got = Reader(CLIPS).read(Recording(path), {"audio": positions})["audio"]
    assert sorted(counts) == [1300, 1300]
    whole = read_sound(path, 0, 20, 8000)
    np.testing.assert_allclose(got[:4], whole[positions[:4]], atol=1e-3)
    assert not got[4].any()


def test_views_share_one_pass(film: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, plain = [], video.read_frames

    def counted(path: str, seconds: np.ndarray, *rest: object) -> np.ndarray:
        calls.append(seconds)
        return plain(path, seconds, *rest)

    monkeypatch.setattr(video, "read_frames", counted)
    views = np.array([[0, 3, 6, 9], [9, 6, 3, 0], [0, 3, 6, 9]])
    Reader(CLIPS).read(Recording(film), {"video": views})
    assert len(calls) == 1
    assert len(calls[0]) == 4


def test_series_rows_and_what_is_missing(tmp_path: Path) -> None:
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    values[4, 1] = np.nan
    path = str(tmp_path / "s.npy")
    np.save(path, values)
    reader = Reader({"series": ClipSpec(4)})
    recording = Recording(path)
    assert reader.timeline(recording)["series"].length == 10
    got = reader.read(recording, {"series": np.array([[0, 4, 9, -1], [12, 1, 1, 0]])})["series"]
    assert got.shape == (2, 4, 2)
    np.testing.assert_array_equal(got[0, :3], values[[0, 4, 9]])
    np.testing.assert_array_equal(got[1, 1:], values[[1, 1, 0]])
    assert np.isnan(got[0, 3]).all()
    assert np.isnan(got[1, 0]).all()
    half = Reader({"series": ClipSpec(4, rate=0.5)})
    assert half.timeline(recording)["series"].length == 5
    slow = half.read(recording, {"series": np.array([[0, 1, 2]])})["series"]
    np.testing.assert_array_equal(slow[0], values[[0, 2, 4]])


def test_what_a_recording_lacks_is_said(film: str, tmp_path: Path) -> None:
    silent = str(write_video(tmp_path / "v.mp4", pictures(3)))
    reader = Reader(CLIPS)
    assert "audio" not in reader.timeline(Recording(silent))
    with pytest.raises(DataError, match="has no audio, only video"):
        reader.read(Recording(silent), {"audio": np.zeros((1, 2), np.int64)})
    with pytest.raises(ConfigError, match="made for video, audio"):
        reader.read(Recording(film), {"series": np.zeros((1, 2), np.int64)})
    with pytest.raises(ConfigError, match="not 'vidoe'"):
        Reader({"vidoe": ClipSpec(8)})
    with pytest.raises(ConfigError, match="need a size"):
        Reader({"video": ClipSpec(8)})


def test_broken_files_are_data_errors(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("no film at all\n" * 20)
    good = write_video(tmp_path / "good.mp4", pictures(20)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(good[: len(good) // 2])
    streams = probe_media(str(tmp_path / "good.mp4"))
    for name in ("zero", "text", "cut", "missing"):
        for known in ({}, streams):
            recording = Recording(str(tmp_path / f"{name}.mp4"), streams=known)
            with pytest.raises(DataError, match=name):
                reader.read(recording, {"video": np.zeros((1, 2), np.int64)})


def test_a_reader_travels_to_other_processes(reader: Reader, film: str) -> None:
    asked = {"video": np.array([[0, 5]]), "audio": np.arange(100)[None]}
    here = reader.read(Recording(film), asked)
    copy = pickle.loads(pickle.dumps(reader))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(copy.read, (Recording(film), asked))
    for stream in here:
        np.testing.assert_array_equal(here[stream], there[stream])


def test_threads_share_a_reader(reader: Reader, film: str) -> None:
    rng = np.random.default_rng(0)
    asked = [rng.integers(0, 30, (2, 4)) for _ in range(8)]
    expected = [reader.read(Recording(film), {"video": p})["video"] for p in asked]
    got: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        got[number] = reader.read(Recording(film), {"video": asked[number]})["video"]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, frames in got.items():
        np.testing.assert_array_equal(frames, expected[number])
    assert len(got) == 8


def test_a_decoder_that_hangs_is_given_up(film: str, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(video, "read_frames", lambda *_: over.wait(20))
    reader = Reader(CLIPS, timeout_seconds=0.2)
    began = time.monotonic()
    with pytest.raises(DataError, match=r"film\.mp4 took more than 0\.2 seconds"):
        reader.read(Recording(film, streams=probe_media(film)), {"video": np.array([[0]])})
    assert time.monotonic() - began < 5
    over.set()


def test_the_guard_hands_on_results_and_errors() -> None:
    assert within(5, divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        within(5, divmod, 7, 0)


def test_the_stamp_is_plain_json(film: str) -> None:
    stamp = Reader(CLIPS).stamp()
    assert json.loads(json.dumps(stamp)) == stamp
    assert "libavcodec" in stamp["video"]
    assert soundfile.__version__ in stamp["audio"]
    assert stamp["clips"]["video"] == {"rate": 10, "size": 32}


def test_reading_goes_on_when_the_cache_cannot_be_written(
    film: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path, 1 << 30)
    monkeypatch.setattr(cache._store, "put", lambda *_: (_ for _ in ()).throw(RunError("Full.")))
    reader = Reader(CLIPS, cache)
    asked = {"video": np.array([[0, 5]])}
    with pytest.warns(UserWarning, match=r"Full\. Reading goes on without"):
        got = reader.read(Recording(film), asked)
    np.testing.assert_array_equal(got["video"], Reader(CLIPS).read(Recording(film), asked)["video"])


def test_on_a_finer_grid_the_last_row_of_a_series_stands_to_its_end(tmp_path: Path) -> None:
    values = np.arange(10, dtype=np.float32)[:, None]
    path = str(tmp_path / "s.npy")
    np.save(path, values)
    reader = Reader({"series": ClipSpec(4, rate=10.0)})
    for recording, last in ((Recording(path), 9), (Recording(path, start=2, end=6), 5)):
        length = reader.timeline(recording)["series"].length
        got = reader.read(recording, {"series": np.array([[0, length - 6, length - 1, length]])})
        first = recording.start
        np.testing.assert_array_equal(got["series"][0, :, 0], [first, last, last, np.nan])

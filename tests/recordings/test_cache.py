from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media import noise, pictures, write_video

from mainspring.clips import ClipSpec
from mainspring.errors import RunError
from mainspring.recordings import cache as module
from mainspring.recordings.audio import read_samples
from mainspring.recordings.cache import Cache
from mainspring.recordings.reader import Reader
from mainspring.recordings.recording import Recording
from mainspring.recordings.store import Store
from mainspring.recordings.video import probe_media, read_frames

CLIPS = {"video": ClipSpec(4, rate=10, size=24), "audio": ClipSpec(100, rate=8000)}
BUDGET = 1 << 30


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    folder = tmp_path_factory.mktemp("films")
    paths = [
        write_video(folder / f"{n}.mp4", pictures(30, seed=n), sound=noise(1.2, 16_000, n))
        for n in range(3)
    ]
    return [Recording(str(path), streams=probe_media(str(path))) for path in paths]


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.arrays"))


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.part"))


def test_frames_and_samples_come_back(films: list[Recording], tmp_path: Path) -> None:
    cache, uri = Cache(tmp_path, BUDGET), films[0].uri
    entry = cache.video(uri, 0, 24)
    assert entry is not None
    np.testing.assert_array_equal(entry.data, read_frames(uri, np.arange(30) / 25, 24))
    np.testing.assert_allclose(entry.facts, np.arange(30) / 25, atol=1e-3)
    sound = cache.audio(uri, 0, 8000)
    assert sound is not None
    plain = read_samples(uri, 0, len(sound.data), 8000)
    worst = np.abs(plain).max() / 65534
    np.testing.assert_allclose(sound.data * sound.facts[0], plain, atol=worst * 1.01)


def test_what_is_kept_is_not_decoded_again(
    films: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cache(tmp_path, BUDGET).video(films[0].uri, 0, 24)
    monkeypatch.setattr(Cache, "_frames", lambda *_: pytest.fail("decoded again"))
    assert Cache(tmp_path, BUDGET).video(films[0].uri, 0, 24) is not None


def test_another_size_rate_content_or_decoder_is_another_entry(
    films: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(Path(films[0].uri).read_bytes())
    folder = tmp_path / "cache"
    cache = Cache(folder, BUDGET)
    for size in (16, 24):
        cache.video(str(film), 0, size)
    for rate in (8000, 16_000):
        cache.audio(str(film), 0, rate)
    assert len(entries(folder)) == 4
    film.write_bytes(Path(films[1].uri).read_bytes())
    changed = cache.video(str(film), 0, 24)
    assert changed is not None
    np.testing.assert_array_equal(changed.data, read_frames(films[1].uri, np.arange(30) / 25, 24))
    assert len(entries(folder)) == 5
    monkeypatch.setattr("mainspring.recordings.container.version", lambda: "another decoder")
    Cache(folder, BUDGET).video(str(film), 0, 24)
    assert len(entries(folder)) == 6


def test_fits_estimates_what_is_written(films: list[Recording], tmp_path: Path) -> None:
    cache = Cache(tmp_path, BUDGET)
    fits, size = cache.fits(films, CLIPS)
    assert fits
    assert cache.build(films, CLIPS) == {}
    written = sum(path.stat().st_size for path in entries(tmp_path))
    assert written == pytest.approx(size, rel=0.1)
    assert Cache(tmp_path, size // 2).fits(films, CLIPS) == (False, size)
    unopened = [Recording(film.uri) for film in films]
    assert cache.fits(unopened, CLIPS)[1] == size


def test_windows_of_one_file_share_its_stretches(
    films: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_SECONDS", 0.4)
    uri, streams = films[0].uri, films[0].streams
    windows = [Recording(uri, start, start + 0.3, streams) for start in (0.0, 0.1, 0.2, 0.3)]
    cache = Cache(tmp_path, BUDGET)
    cache.build(windows, {"video": CLIPS["video"]})
    assert len(entries(tmp_path)) == 2  # of three; [0.8, 1.2) is in no window


def test_build_reports_and_goes_on_past_bad_files(films: list[Recording], tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"\x00" * 500)
    missing = str(tmp_path / "missing.mp4")
    told = [Recording(str(bad), streams=films[0].streams)]
    told.append(Recording(missing, streams=films[0].streams))
    seen: list[tuple[int, int]] = []
    cache = Cache(tmp_path / "c", BUDGET)
    problems = cache.build([*films, *told], CLIPS, progress=lambda *now: seen.append(now))
    assert set(problems) == {str(bad), missing}
    assert "does not exist" in problems[missing]
    assert seen[-1][1] == 10
    assert len(entries(tmp_path / "c")) == 6
    seen.clear()
    assert cache.build(films, CLIPS, progress=lambda *now: seen.append(now)) == {}
    assert seen == []


def test_processes_build_together(films: list[Recording], tmp_path: Path) -> None:
    alone, together = Cache(tmp_path / "a", BUDGET), Cache(tmp_path / "b", BUDGET)
    alone.build(films, CLIPS)
    assert together.build(films, CLIPS, workers=2) == {}
    names = [path.name for path in entries(tmp_path / "a")]
    assert names == [path.name for path in entries(tmp_path / "b")]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_two_processes_building_one_entry_both_succeed(
    films: list[Recording], tmp_path: Path
) -> None:
    cache = Cache(tmp_path, BUDGET)
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(2) as pool:
        jobs = [pool.apply_async(cache.build, (films, CLIPS)) for _ in range(2)]
        assert [job.get(60) for job in jobs] == [{}, {}]
    assert len(entries(tmp_path)) == 6
    assert parts(tmp_path) == []
    reader, plain = Reader(CLIPS, Cache(tmp_path, BUDGET)), Reader(CLIPS)
    asked = {"video": np.array([[0, 3, 7]])}
    for film in films:
        np.testing.assert_array_equal(
            reader.read(film, asked)["video"], plain.read(film, asked)["video"]
        )


def test_killed_while_caching(films: list[Recording], tmp_path: Path) -> None:
    """SIGKILL in mid-write leaves a part that nobody reads and the next cache clears away."""
    code = textwrap.dedent(
        """
        import sys, time
        from mainspring.recordings import store
        from mainspring.recordings.cache import Cache

        def slow(self, part, facts, data):
            with open(part, "wb") as file:
                file.write(b"half an entry")
                file.flush()
                time.sleep(60)

        folder, uri = sys.argv[1:]
        cache = Cache(folder, 1 << 30)
        cache.video(uri, 0, 24)
        store.Store._write = slow
        cache.audio(uri, 0, 8000)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), films[0].uri])
    deadline = time.monotonic() + 30
    while not (parts(tmp_path) and entries(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert len(entries(tmp_path)) == 1
    assert len(parts(tmp_path)) == 1
    cache = Cache(tmp_path, BUDGET)
    assert parts(tmp_path) == []
    sound = cache.audio(films[0].uri, 0, 8000)
    assert sound is not None
    assert len(sound.data) > 8000
    assert len(entries(tmp_path)) == 2


def test_parts_of_the_living_are_left_alone(tmp_path: Path) -> None:
    import socket

    mine = tmp_path / f"key.{socket.gethostname()}.{os.getpid()}.abc.part"
    elsewhere = tmp_path / "key.some.host.1.abc.part"
    for path in (mine, elsewhere):
        path.write_bytes(b"half")
    Store(tmp_path, BUDGET)
    assert mine.exists()
    assert elsewhere.exists()
    long_ago = time.time() - 100_000
    os.utime(elsewhere, (long_ago, long_ago))
    Store(tmp_path, BUDGET)
    assert not elsewhere.exists()


def test_disk_full_leaves_no_part_and_reading_goes_on(
    films: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Store, part: Path, facts: np.ndarray, data: np.ndarray) -> None:
        part.write_bytes(b"half an entry")
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = Cache(tmp_path, BUDGET)
    monkeypatch.setattr(Store, "_write", full)
    with pytest.raises(RunError, match=r"disk of the cache folder .* is full"):
        cache.video(films[0].uri, 0, 24)
    assert parts(tmp_path) == entries(tmp_path) == []
    reader = Reader(CLIPS, cache)
    asked = {"video": np.array([[0, 3, 7]])}
    with pytest.warns(UserWarning, match="is full"):
        got = reader.read(films[0], asked)["video"]
    np.testing.assert_array_equal(got, Reader(CLIPS).read(films[0], asked)["video"])
    np.testing.assert_array_equal(reader.read(films[0], asked)["video"], got)


def test_past_the_budget_nothing_is_written(films: list[Recording], tmp_path: Path) -> None:
    cache = Cache(tmp_path, 60_000)  # one film of 30 frames at 24 x 24 takes 52 kB
    asked = {"video": np.array([[0, 3, 7]])}
    reader, plain = Reader(CLIPS, cache), Reader(CLIPS)
    for film in films:
        np.testing.assert_array_equal(
            reader.read(film, asked)["video"], plain.read(film, asked)["video"]
        )
    assert len(entries(tmp_path)) == 1


def test_building_makes_room_by_what_is_oldest(films: list[Recording], tmp_path: Path) -> None:
    clips = {"video": CLIPS["video"]}
    cache = Cache(tmp_path, 130_000)
    cache.build(films[:2], clips)
    oldest = min(entries(tmp_path), key=lambda path: path.stat().st_mtime_ns)
    os.utime(oldest, (1, 1))
    assert Cache(tmp_path, 130_000).build(films[2:], clips) == {}
    assert len(entries(tmp_path)) == 2
    assert not oldest.exists()


def test_a_damaged_entry_is_made_again(films: list[Recording], tmp_path: Path) -> None:
    uri = films[0].uri
    expected = Cache(tmp_path, BUDGET).video(uri, 0, 24)
    assert expected is not None
    whole = entries(tmp_path)[0].read_bytes()
    unclosed, longer = whole.replace(b"}", b" ", 1), whole + b"more"
    for damaged in (b"", b"rubbish" * 100, whole[:300], unclosed, longer):
        entries(tmp_path)[0].unlink()
        (tmp_path / "kept.txt").touch()
        name = tmp_path / Cache(tmp_path, BUDGET)._key(module.Chunk(uri, "video", 0, 24))
        name.with_suffix(".arrays").write_bytes(damaged)
        entry = Cache(tmp_path, BUDGET).video(uri, 0, 24)
        assert entry is not None
        np.testing.assert_array_equal(entry.data, expected.data)


def test_silence_is_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "s.wav")
    soundfile.write(path, np.zeros(8000), 8000)
    reader = Reader(CLIPS, Cache(tmp_path / "c", BUDGET))
    assert not reader.read(Recording(path), {"audio": np.arange(50)[None]})["audio"].any()
    assert not reader.read(Recording(path), {"audio": np.arange(50)[None]})["audio"].any()


def test_a_cache_travels(films: list[Recording], tmp_path: Path) -> None:
    cache = pickle.loads(pickle.dumps(Cache(tmp_path, BUDGET)))
    assert cache.video(films[0].uri, 0, 24) is not None
    assert (cache.folder, cache.budget_bytes) == (str(tmp_path), BUDGET)


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be made"):
        Cache(tmp_path / "file" / "cache", BUDGET)


def _fill_and_count(folder: Path, films: list[Recording]) -> int:
    cache = Cache(folder, BUDGET)
    assert cache.build(films, CLIPS, workers=2) == {}
    return len(entries(folder))


def test_a_process_that_may_start_no_others_fills_the_cache_by_itself(
    films: list[Recording], tmp_path: Path
) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        alone = pool.apply(_fill_and_count, (tmp_path / "alone", films))
    assert alone == _fill_and_count(tmp_path / "others", films) > 0

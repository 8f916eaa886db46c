"""Recordings whose streams lie in several files, and streams that a recording does not have."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile
from media import noise, pictures, write_video

from mainspring.clips import NOTHING, ClipSpec
from mainspring.errors import DataError
from mainspring.recordings import audio, video
from mainspring.recordings import reader as reader_module
from mainspring.recordings.audio import read_sound
from mainspring.recordings.cache import Cache
from mainspring.recordings.catalogue import Catalogue, open_catalogue, windowed
from mainspring.recordings.catalogue_table import FACTS
from mainspring.recordings.reader import Reader
from mainspring.recordings.recording import Recording
from mainspring.recordings.survey import render, report, survey
from mainspring.recordings.video import read_frames

CLIPS = {
    "video": ClipSpec(8, rate=10, size=16),
    "audio": ClipSpec(1000, rate=8000),
    "series": ClipSpec(10),
}
ROWS_A_SECOND = 40


def write_series(path: Path, seconds: float, channels: int = 2, offset: float = 0.0) -> Path:
    """Row r holds r / 40 in every channel, so that a value is its own time in seconds."""
    lines = ["time," + ",".join(f"x{n}" for n in range(channels))]
    for row in range(round(seconds * ROWS_A_SECOND)):
        moment = row / ROWS_A_SECOND
        lines.append(",".join([f"{moment:.4f}", *[f"{moment + offset:.4f}"] * channels]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films with and without sound, series as long and shorter, sound alone, and broken files."""
    root = tmp_path_factory.mktemp("several")
    (root / "films").mkdir()
    (root / "beside").mkdir()
    write_video(root / "films" / "loud.mp4", pictures(75), sound=noise(3, 16_000))
    write_video(root / "films" / "mute.mp4", pictures(75, seed=1))
    soundfile.write(root / "beside" / "sound.wav", noise(3, 8000, seed=2), 8000)
    write_series(root / "beside" / "whole.csv", 3)
    write_series(root / "beside" / "short.csv", 1)
    write_series(root / "beside" / "wide.csv", 3, channels=5)
    for name in "bcd":
        write_series(root / "beside" / f"{name}.csv", 3, offset=1.0)
    (root / "beside" / "broken.csv").write_text("Dear all\nthis is, a letter\n")
    np.save(root / "beside" / "many.npy", np.ones((4, 50, 2), np.float32))
    return root


def manifest(folder: Path, text: str) -> Catalogue:
    path = folder / "m.csv"
    path.write_text(text)
    return open_catalogue(path)


def test_one_recording_of_picture_sound_and_series(folder: Path) -> None:
    found = survey(manifest(folder, "uri,series_uri\nfilms/loud.mp4,beside/whole.csv\n"))
    recording = found[0]
    assert (set(recording.streams), recording.problem) == ({"video", "audio", "series"}, None)
    series = str(folder / "beside" / "whole.csv")
    assert recording.companions == {"series": series}
    assert [recording.streams[s].uri for s in ("video", "audio", "series")] == ["", "", series]
    assert recording.source("series") == series
    assert recording.source("video") == recording.source("audio") == recording.uri
    assert recording.streams["series"].rate == ROWS_A_SECOND
    assert found.column("series.uri").tolist() == [series]
    assert found.notes == ()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("start", [0.0, 1.0])
@pytest.mark.parametrize("cached", [True, False])
def test_positions_meet_in_seconds(
    folder: Path, tmp_path: Path, known: bool, start: float, cached: bool
) -> None:
    named = manifest(
        folder,
        "uri,start,end,series_uri,audio_uri\n"
        f"films/mute.mp4,{start},2.5,beside/whole.csv,beside/sound.wav\n",
    )
    recording = (survey(named) if known else named)[0]
    reader = Reader(CLIPS, Cache(tmp_path, 1 << 30) if cached else None)
    timeline = reader.timeline(recording)
    assert {s: timeline[s].seconds for s in CLIPS} == dict.fromkeys(CLIPS, 2.5 - start)
    frames = np.array([[0, 5, 10]])
    at = {stream: timeline.meet(frames, "video", stream) for stream in CLIPS}
    got = reader.read(recording, at)
    moments = start + frames[0] / 10
    np.testing.assert_allclose(got["series"][0], np.stack([moments, moments], 1), atol=1e-6)
    expected = read_frames(recording.uri, moments, 16)
    np.testing.assert_array_equal(got["video"][0], expected)
    whole = read_sound(str(folder / "beside" / "sound.wav"), 0, 3, 8000)
    sound = whole[np.round(moments * 8000).astype(int)]
    np.testing.assert_allclose(got["audio"][0], sound, atol=2e-5)


def test_a_file_named_for_a_stream_goes_before_the_recordings_own(folder: Path) -> None:
    found = survey(manifest(folder, "uri,audio_uri\nfilms/loud.mp4,beside/sound.wav\n"))
    sound = str(folder / "beside" / "sound.wav")
    assert found[0].streams["audio"].uri == sound
    got = Reader(CLIPS).read(found[0], {"audio": np.arange(500)[None]})["audio"]
    np.testing.assert_allclose(got[0], read_sound(sound, 0, 3, 8000)[:500], atol=1e-6)
    # A film for a table works the same way round.
    turned = survey(manifest(folder, "uri,video_uri\nbeside/whole.csv,films/loud.mp4\n"))[0]
    assert set(turned.streams) == {"series", "video"}
    assert Reader(CLIPS).read(turned, {"video": np.array([[3]])})["video"].any()


BAD = {
    "gone.csv": "There is no such file.",
    "broken.csv": "is no table of numbers",
    "wide.csv": "It has 5 variables where most have 2",
    "many.npy": "The file holds 4 series: name one, as in #0.",
    "many.npy#7": "The file has no series '7'; it holds 4.",
    "sound.wav": "The file has no series (audio only).",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_companion_costs_its_stream_and_not_the_recording(folder: Path, name: str) -> None:
    rows = "".join(f"films/loud.mp4,beside/{n}.csv\n" for n in "bcd")
    text = f"uri,series_uri\n{rows}films/loud.mp4,beside/{name}\n"
    found = survey(manifest(folder, text))
    assert [set(r.streams) for r in found] == [{"video", "audio", "series"}] * 3 + [
        {"video", "audio"}
    ]
    assert all(r.problem is None for r in found)
    assert len(found.notes) == 1
    assert found.notes[0].startswith(f"left out series of 1 recording ({folder}/beside/{name}): ")
    assert BAD[name] in found.notes[0]
    told = report(found, deep=False)
    assert told["notes"] == list(found.notes)
    assert told["streams"]["series"]["recordings"] == 3
    assert "left out series of 1 recording" in render(told)
    # What was left out is padding to the reader.
    reader = Reader(CLIPS, channels=2)
    assert "series" not in reader.timeline(found[3])
    got = reader.read(found[3], {"series": np.full((1, 4), NOTHING), "video": np.array([[0]])})
    assert got["series"].shape == (1, 4, 2)


def test_notes_count_rows_and_group_reasons(folder: Path) -> None:
    rows = "films/loud.mp4,beside/gone.csv\nfilms/mute.mp4,beside/gone.csv\n"
    found = survey(manifest(folder, f"uri,series_uri\n{rows}films/mute.mp4,beside/lost.csv\n"))
    assert found.notes == (
        f"left out series of 3 recordings ({folder}/beside/gone.csv, {folder}/beside/lost.csv): "
        "There is no such file.",
    )
    again = survey(found)
    assert again.notes == found.notes
    assert list(again) == list(found)


def test_a_stream_that_is_not_asked_for_is_not_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    from mainspring.recordings import facts

    probe = facts.probe
    monkeypatch.setattr(
        "mainspring.recordings.survey.probe",
        lambda path: (opened.append(os.path.basename(path)), probe(path))[1],
    )
    named = "uri,series_uri\nfilms/loud.mp4,beside/broken.csv\n"
    manifest(folder, named)
    found = survey(open_catalogue(folder / "m.csv", ["video"]))
    assert (opened, found.notes, set(found[0].streams)) == (["loud.mp4"], (), {"video"})
    assert survey(open_catalogue(folder / "m.csv", ["series"])).column("problem").tolist() == [
        "The file has no series (video and audio only)."
    ]


def test_a_broken_recording_stays_a_problem(folder: Path) -> None:
    found = survey(manifest(folder, "uri,series_uri\nfilms/gone.mp4,beside/whole.csv\n"))
    assert (found[0].problem, found[0].streams) == ("There is no such file.", {})
    assert found.notes == ()


def test_a_shorter_companion_ends_earlier(folder: Path) -> None:
    text = "uri,start,end,series_uri\nfilms/mute.mp4,0,,beside/short.csv\n"
    found = survey(manifest(folder, f"{text}films/mute.mp4,2,3,beside/short.csv\n"))
    assert found.column("problem").tolist() == [None, None]
    np.testing.assert_allclose(found.column("seconds"), [3, 1])
    reader = Reader(CLIPS)
    assert reader.timeline(found[0])["series"].length == ROWS_A_SECOND
    got = reader.read(found[0], {"series": np.array([[39, 40, 100]])})["series"][0, :, 0]
    np.testing.assert_array_equal(np.isnan(got), [False, True, True])
    # Where only the film goes on, there is nothing of the series, and no error.
    timeline = reader.timeline(found[1])
    assert (timeline["video"].length, timeline["series"].length) == (10, 0)
    with pytest.raises(DataError, match="begins after the end of its series at 1 seconds"):
        Reader({"series": ClipSpec(4)}).timeline(found[1])


def test_windows_keep_their_companions(folder: Path) -> None:
    found = survey(manifest(folder, "uri,series_uri\nfilms/mute.mp4,beside/whole.csv\n"))
    cut = windowed(found, 1.0)
    assert len(cut) == 3
    reader = Reader(CLIPS)
    for number, window in enumerate(cut):
        got = reader.read(window, {"series": np.array([[0, 39]])})["series"][0, :, 0]
        np.testing.assert_allclose(got, [number, number + 39 / 40], atol=1e-6)


def test_a_series_of_a_file_of_many(folder: Path) -> None:
    values = np.arange(4 * 50 * 2, dtype=np.float32).reshape(4, 50, 2)
    np.save(folder / "beside" / "four.npy", values)
    recording = survey(manifest(folder, "uri,series_uri\nfilms/mute.mp4,beside/four.npy#2\n"))[0]
    assert recording.streams["series"].length == 50
    got = Reader(CLIPS).read(recording, {"series": np.array([[0, 49]])})["series"]
    np.testing.assert_array_equal(got[0], values[2][[0, 49]])


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_manifests_of_every_format(folder: Path, kind: str) -> None:
    rows = [
        {"uri": "films/loud.mp4", "series_uri": "beside/whole.csv", "audio_uri": None},
        {"uri": "films/mute.mp4", "series_uri": "", "audio_uri": str(folder / "beside/sound.wav")},
    ]
    path = folder / f"same.{kind}"
    table = pa.Table.from_pylist(rows)
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    elif kind == "csv":
        path.write_text(
            "uri,series_uri,audio_uri\nfilms/loud.mp4,beside/whole.csv,\n"
            f"films/mute.mp4,,{folder}/beside/sound.wav\n"
        )
    else:
        path.write_text(
            '{"uri": "films/loud.mp4", "series_uri": "beside/whole.csv"}\n'
            f'{{"uri": "films/mute.mp4", "audio_uri": "{folder}/beside/sound.wav"}}\n'
        )
    opened = open_catalogue(path)
    assert [r.companions for r in opened] == [
        {"series": str(folder / "beside/whole.csv")},
        {"audio": str(folder / "beside/sound.wav")},
    ]
    assert opened.notes == ()
    assert [set(r.streams) for r in survey(opened)] == [
        {"video", "audio", "series"},
        {"video", "audio"},
    ]


def test_a_manifest_without_uri_is_told_from_a_series(folder: Path) -> None:
    with pytest.raises(DataError, match=r"Did you mean 'video_uri'\? Rename it to uri"):
        manifest(folder, "video_uri,series_uri\nfilms/loud.mp4,beside/whole.csv\n")


def test_saved_loaded_frozen_and_of_old(folder: Path, tmp_path: Path) -> None:
    found = survey(manifest(folder, "uri,series_uri\nfilms/loud.mp4,beside/whole.csv\n"))
    found.save(tmp_path / "c.parquet")
    assert list(Catalogue.load(tmp_path / "c.parquet")) == list(found)
    assert open_catalogue(tmp_path / "c.parquet")[0].companions == found[0].companions
    expected = list(found)
    assert list(found.freeze(tmp_path)) == expected
    # Catalogues that were saved before streams could have files of their own.
    old = pa.struct([field for field in FACTS if field.name != "uri"])
    facts = found[0].streams["video"].facts()
    del facts["uri"]
    table = pa.table({"uri": ["films/loud.mp4"], "video": pa.array([facts], old)})
    assert Catalogue(table)[0].streams["video"] == found[0].streams["video"]


def test_the_stamp_knows_the_companions(folder: Path) -> None:
    def stamp(text: str) -> str:
        return manifest(folder, text).fingerprint()

    target = folder / "beside" / "copy.csv"
    shutil.copyfile(folder / "beside" / "whole.csv", target)
    alone = stamp("uri\nfilms/loud.mp4\n")
    assert stamp("uri,series_uri\nfilms/loud.mp4,\n") == alone
    both = stamp("uri,series_uri\nfilms/loud.mp4,beside/copy.csv\n")
    assert len({alone, both, stamp("uri,audio_uri\nfilms/loud.mp4,beside/copy.csv\n")}) == 3
    write_series(target, 2)
    assert stamp("uri,series_uri\nfilms/loud.mp4,beside/copy.csv\n") != both


def test_the_cache_keeps_the_files_that_hold_the_streams(folder: Path, tmp_path: Path) -> None:
    clips = {stream: CLIPS[stream] for stream in ("video", "audio")}
    named = manifest(folder, "uri,audio_uri\nfilms/mute.mp4,beside/sound.wav\n")
    found = survey(named)
    cache = Cache(tmp_path, 1 << 30)
    fits, size = cache.fits(found, clips)
    assert fits
    assert cache.fits(named, clips) == (fits, size)
    picture = cache.fits(found, {"video": clips["video"]})[1]
    assert size - picture == 3 * 8000 * 2
    assert cache.build(found, clips) == {}
    kept = sorted(tmp_path.glob("*.arrays"))
    assert len(kept) == 2
    Reader(clips, cache).read(found[0], {"audio": np.arange(9)[None], "video": np.array([[0]])})
    assert sorted(tmp_path.glob("*.arrays")) == kept


def test_deep_reports_look_into_companions(folder: Path) -> None:
    found = survey(
        manifest(
            folder, "uri,series_uri,audio_uri\nfilms/mute.mp4,beside/whole.csv,beside/sound.wav\n"
        )
    )
    told = report(found)
    assert told["content"]["series"]["sampled"] == told["content"]["audio"]["sampled"] == 1
    assert told["content"]["series"]["failed"] == told["content"]["audio"]["failed"] == []
    assert told["files"] == 3
    names = ("films/mute.mp4", "beside/whole.csv", "beside/sound.wav")
    assert told["bytes"] == sum((folder / name).stat().st_size for name in names)


def test_unsurveyed_companions_that_lack_their_stream_are_errors(folder: Path) -> None:
    bad = manifest(folder, "uri,series_uri\nfilms/mute.mp4,beside/sound.wav\n")[0]
    with pytest.raises(DataError, match=r"sound\.wav is no file of series"):
        Reader(CLIPS).timeline(bad)
    assert "video" in Reader({"video": CLIPS["video"]}).timeline(bad)
    bad = manifest(folder, "uri,audio_uri\nfilms/loud.mp4,films/mute.mp4\n")[0]
    with pytest.raises(DataError, match=r"mute\.mp4 has no audio \(video only\)"):
        Reader(CLIPS).timeline(bad)


@pytest.mark.parametrize("cached", [True, False])
def test_padding_opens_no_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    found = survey(manifest(folder, "uri,series_uri\nfilms/loud.mp4,beside/whole.csv\n"))
    full = Recording("gone.mp4", streams=found[0].streams, caption="a ball")
    bare = Recording("gone.mp4", streams={"video": found[0].streams["video"]})
    clips = CLIPS | {"text": ClipSpec(6)}
    reader = Reader(clips, Cache(tmp_path, 1 << 30) if cached else None, channels=2)
    for module, name in ((video, "read_frames"), (audio, "read_samples")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("a file was opened"))
    monkeypatch.setattr(reader_module, "read_at", lambda *_: pytest.fail("a file was opened"))
    asked = {stream: np.full((2, 3), NOTHING) for stream in clips}
    for recording in (full, bare):
        got = reader.read(recording, asked)
        shapes = {stream: (one.shape, str(one.dtype)) for stream, one in got.items()}
        assert shapes == {
            "video": ((2, 3, 16, 16, 3), "uint8"),
            "audio": ((2, 3), "float32"),
            "series": ((2, 3, 2), "float32"),
            "text": ((2, 3), "int64"),
        }
        assert np.isnan(got["series"]).all()
        assert not any(got[stream].any() for stream in ("video", "audio", "text"))
    assert Reader(clips).read(bare, asked)["series"].shape == (2, 3, 0)
    assert Reader(clips).read(full, asked)["series"].shape == (2, 3, 2)
    for stream in ("audio", "series", "text"):
        with pytest.raises(DataError, match=f"has no {stream}, only video"):
            reader.read(bare, {stream: np.array([[NOTHING, 0]])})


def test_padding_among_samples_does_not_read_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, plain = [], video.read_frames
    monkeypatch.setattr(
        video, "read_frames", lambda p, s, *r: (asked.append(s.tolist()), plain(p, s, *r))[1]
    )
    recording = Recording(str(folder / "films" / "loud.mp4"))
    places = np.array([[NOTHING, NOTHING], [20, 21]])
    got = Reader(CLIPS).read(recording, {"video": places})["video"]
    assert asked == [[2.0, 2.1]]
    assert not got[0].any()
    np.testing.assert_array_equal(got[1], read_frames(recording.uri, np.array([2.0, 2.1]), 16))

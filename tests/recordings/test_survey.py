"""The survey: facts, or the reason why not; the report finds what was planted."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from media import pictures, write_video

from mainspring.clips import ClipSpec, Extent, Timeline
from mainspring.errors import DataError
from mainspring.recordings import facts as facts_module
from mainspring.recordings import survey as survey_module
from mainspring.recordings.catalogue import open_catalogue
from mainspring.recordings.guard import Overdue
from mainspring.recordings.recording import Recording, StreamInfo
from mainspring.recordings.survey import render, report, survey


def table(path: Path, columns: dict[str, list[float]]) -> None:
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]))


def problems(data: Any, **settings: Any) -> dict[str, str | None]:
    found = survey(open_catalogue(data), **settings)
    return {os.path.basename(r.uri): r.problem for r in found}


def test_facts_of_series_and_their_windows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,x\n" + "\n".join(f"{n / 10},{n}" for n in range(50)))
    (tmp_path / "m.csv").write_text("uri,start,end\na.csv,0,2\na.csv,4,9\na.csv,5,9\n")
    found = survey(open_catalogue(tmp_path / "m.csv"))
    info = found[0].streams["series"]
    assert (info.length, info.channels, info.codec) == (50, 1, "csv")
    assert info.rate == pytest.approx(10.0)
    np.testing.assert_allclose(found.column("seconds"), [2, 1, 0])
    assert found.column("problem").tolist()[:2] == [None, None]
    assert found.column("problem")[2] == "It starts at 5 s, where its file has ended."


def test_lengths_in_the_report_are_of_spans_and_not_of_their_files(tmp_path: Path) -> None:
    rows = [f"{n / 10},{n}" for n in range(100)]
    (tmp_path / "a.csv").write_text("\n".join(["time,x", *rows]))
    soundfile.write(tmp_path / "a.wav", np.ones(300, np.float32), 100)
    (tmp_path / "m.csv").write_text(
        "uri,audio_uri,start,end\na.csv,a.wav,0,0.7\na.csv,a.wav,2,4\na.csv,a.wav,,\n"
    )
    streams = report(survey(open_catalogue(tmp_path / "m.csv")))["streams"]
    series, audio = streams["series"], streams["audio"]
    assert [series["length"][at] for at in ("min", "50%", "max")] == [7, 20, 100]
    # The sound ends one second after the second span begins.
    assert [audio["length"][at] for at in ("min", "50%", "max")] == [70, 100, 300]
    assert audio["seconds"]["50%"] == pytest.approx(1)
    assert audio["hours"] == pytest.approx((0.7 + 1 + 3) / 3600)


def test_unusable_files_have_reasons_and_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path / "good.csv", {"x": [1, 2, 3]})
    table(tmp_path / "closed.csv", {"x": [1, 2, 3]})
    (tmp_path / "zero.csv").write_bytes(b"")
    (tmp_path / "prose.csv").write_text("Dear all\nthis is, a letter\n")
    (tmp_path / "text.mp4").write_text("not a film")
    (tmp_path / "m.csv").write_text(
        "uri\ngood.csv\ngone.csv\nzero.csv\nclosed.csv\nprose.csv\ntext.mp4\nhttp://x.org/a.mp4\n"
    )
    allowed = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: "closed" not in str(path) and allowed(path, mode)
    )
    found = problems(tmp_path / "m.csv")
    assert found["good.csv"] is None
    assert found["gone.csv"] == "There is no such file."
    assert found["zero.csv"] == "The file is empty (0 bytes). Copy or download it again."
    assert found["closed.csv"] == "There is no permission to read the file."
    assert "is no table of numbers" in str(found["prose.csv"])
    assert str(tmp_path) not in str(found["prose.csv"])
    assert found["text.mp4"] is not None
    assert "network address" in str(found["a.mp4"])


def test_csv_with_a_missing_column(tmp_path: Path) -> None:
    for name in "abc":
        table(tmp_path / f"{name}.csv", {"x": [1, 2], "y": [3, 4], "z": [5, 6]})
    table(tmp_path / "lacks.csv", {"x": [1, 2], "z": [5, 6]})
    table(tmp_path / "more.csv", {"x": [1, 2], "y": [1, 2], "z": [5, 6], "w": [0, 1]})
    table(tmp_path / "turned.csv", {"z": [1, 2], "y": [3, 4], "x": [5, 6]})
    found = problems(tmp_path)
    assert [found[f"{name}.csv"] for name in "abc"] == [None] * 3
    assert found["lacks.csv"] == "It has 2 variables where most have 3: lacks 'y'."
    assert found["more.csv"] == "It has 4 variables where most have 3: has 'w' besides."
    assert "another order (z, y, x" in str(found["turned.csv"])


def test_missing_values_and_constants(tmp_path: Path) -> None:
    table(tmp_path / "constant.csv", {"x": [2, 2, 2, 2]})
    table(tmp_path / "half.csv", {"x": [1, float("nan"), 3, float("nan")]})
    table(tmp_path / "none.csv", {"x": [float("nan")] * 4})
    found = survey(open_catalogue(tmp_path))
    assert [r.problem is None for r in found] == [True, True, False]
    seen = report(found)["content"]["series"]
    assert seen == {"sampled": 2, "constant": 0.5, "missing": 0.25, "failed": []}


def test_a_manifest_row_of_many_series_becomes_as_many_rows(tmp_path: Path) -> None:
    (tmp_path / "A_TRAIN.tsv").write_text("1\t2\t3\n2\t4\t5\n")
    (tmp_path / "m.csv").write_text(
        "uri,group,label\nA_TRAIN.tsv,g,\nA_TRAIN.tsv#1,h,mine\nA_TRAIN.tsv#9,h,\n"
    )
    found = survey(open_catalogue(tmp_path / "m.csv"))
    assert [os.path.basename(r.uri) for r in found] == [
        "A_TRAIN.tsv#0", "A_TRAIN.tsv#1", "A_TRAIN.tsv#1", "A_TRAIN.tsv#9",
    ]  # fmt: skip
    assert found.column("group").tolist() == ["g", "g", "h", "h"]
    assert found.column("label").tolist() == ["1", "2", "mine", None]
    assert found.column("problem")[3] == "The file has no series '9'; it holds 2."


def test_streams_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = StreamInfo("video", 50, 25.0, 2.0, 32, 24, 0, "h264")
    sound = StreamInfo("audio", 16000, 8000.0, 2.0, channels=1, codec="aac")
    monkeypatch.setattr(
        "mainspring.recordings.video.probe_media",
        lambda path: {"video": film} | ({"audio": sound} if "loud" in path else {}),
    )
    for name in ("loud.mp4", "mute.mp4"):
        (tmp_path / name).write_bytes(b"x")
    found = survey(open_catalogue(tmp_path, ["audio"]))
    assert found[0].streams == {"audio": sound}
    assert found[1].problem == "The file has no audio (video only)."
    assert survey(open_catalogue(tmp_path))[0].streams == {"video": film, "audio": sound}


def test_what_was_surveyed_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, store = tmp_path / "data", tmp_path / "store"
    data.mkdir()
    table(data / "a.csv", {"x": [1, 2]})
    table(data / "b.csv", {"x": [5, 6]})
    (data / "c.csv").write_text("Dear all\nthis is, a letter\n")
    first = list(survey(open_catalogue(data), store=store))
    with (store / "survey-5.jsonl").open("a") as file:
        file.write('{"path": "cut sho')  # killed in mid-write
    opened: list[str] = []
    probe = facts_module.probe

    def watched(path: str) -> Any:
        opened.append(os.path.basename(path))
        return probe(path)

    monkeypatch.setattr("mainspring.recordings.survey.probe", watched)
    assert list(survey(open_catalogue(data), store=store)) == first
    assert opened == []
    table(data / "a.csv", {"x": [1, 2, 3]})
    assert survey(open_catalogue(data), store=store)[0].streams["series"].length == 3
    assert opened == ["a.csv"]
    assert list(survey(open_catalogue(data), store=store)) == list(survey(open_catalogue(data)))


def test_files_that_go_with_the_catalogue_are_not_remembered(tmp_path):
    arrays = open_catalogue(np.zeros((3, 20, 1), np.float32))
    assert len(survey(arrays, store=tmp_path).usable()) == 3
    assert not list(tmp_path.iterdir())


def test_progress_counts_files(tmp_path: Path) -> None:
    for name in "abc":
        table(tmp_path / f"{name}.csv", {"x": [1, 2]})
    calls: list[tuple[int, int]] = []
    survey(open_catalogue(tmp_path), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


class FakeReader:
    """Delivers what the file's name promises."""

    def __init__(self, clips: dict[str, ClipSpec]) -> None:
        self.clips = clips

    def timeline(self, recording: Recording) -> Timeline:
        return Timeline({s: Extent(recording.streams[s].length, 100.0) for s in self.clips})

    def read(self, recording: Recording, clips: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if "broken" in recording.uri:
            raise DataError(f"{recording.uri} breaks off at 1 s.")
        ((stream, positions),) = clips.items()
        rng = np.random.default_rng(0)
        if stream == "audio":
            full = rng.normal(size=positions.shape).astype(np.float32)
            return {stream: full * (0.0001 if "silent" in recording.uri else 0.1)}
        frames = rng.integers(50, 200, size=(*positions.shape, 8, 8, 3)).astype(np.uint8)
        if "black" in recording.uri:
            frames = frames // 20
        if "frozen" in recording.uri:
            frames[:] = frames[:, :1]
        return {stream: frames}


def test_report_finds_what_was_planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("mainspring.recordings.reader")
    fake.Reader = FakeReader  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mainspring.recordings.reader", fake)
    film = StreamInfo("video", 50, 25.0, 2.0, 32, 24, 0, "h264")
    sound = StreamInfo("audio", 200, 100.0, 2.0, channels=1, codec="aac")
    monkeypatch.setattr(
        "mainspring.recordings.video.probe_media", lambda path: {"video": film, "audio": sound}
    )
    for name in ("black-silent", "frozen", "good", "broken"):
        (tmp_path / f"{name}.mp4").write_text(name)
    (tmp_path / "twin.mp4").write_text("good")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("x")
    found = report(survey(open_catalogue(tmp_path)))
    assert json.loads(json.dumps(found)) == found
    assert (found["recordings"], found["usable"], found["files"]) == (6, 5, 6)
    assert found["hours"] == pytest.approx(5 * 2 / 3600)
    video = found["streams"]["video"]
    assert (video["codecs"], video["sizes"], video["rates"]) == (
        {"h264": 5}, {"32x24": 5}, {"25": 5},
    )  # fmt: skip
    assert video["seconds"]["50%"] == 2.0
    seen = found["content"]["video"]
    assert (seen["sampled"], seen["black"], seen["frozen"]) == (5, 1 / 4, 1 / 4)
    assert seen["failed"][0]["reason"].endswith("breaks off at 1 s.")
    assert found["content"]["audio"]["silent"] == 1 / 4
    twins = found["duplicates"]
    assert (twins["groups"], twins["surplus"]) == (1, 1)
    assert [os.path.basename(path) for path in twins["examples"][0]] == ["good.mp4", "twin.mp4"]
    assert [(p["count"], p["reason"][:17]) for p in found["problems"]] == [(1, "The file is empty")]

    text = render(found)
    for words in (
        "5 of 6", "h264 (5)", "25 % black", "25 % silent", "good.mp4 = twin.mp4", "ignored 1 file",
        "empty.mp4", "length: 2 to 2 s",
    ):  # fmt: skip
        assert words in text
    assert max(map(len, text.splitlines())) < 250
    assert "content" not in report(survey(open_catalogue(tmp_path)), deep=False)


def test_a_file_of_the_same_size_that_changed_or_may_be_read_now_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, store = tmp_path / "a.csv", tmp_path / "store"
    data.write_text("x\n1\n2\n3\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        (closed,) = problems(data, store=store).values()
        assert closed == "There is no permission to read the file."
    assert survey(open_catalogue(data), store=store)[0].streams["series"].length == 3
    before = data.stat()
    data.write_text("x\n123\n4\n")
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    assert data.stat().st_size == before.st_size
    assert survey(open_catalogue(data), store=store)[0].streams["series"].length == 2


def test_facts_are_of_the_way_with_irregular_times_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, store = tmp_path / "a.csv", tmp_path / "store"
    table(data, {"time": [0, 1, 2.3, 3.5, 4.2, 9.9], "x": [1, 2, 3, 4, 5, 6]})
    for way, channels in (("resample", 1), ("gap", 2), ("resample", 1)):
        monkeypatch.setenv("MAINSPRING_IRREGULAR", way)
        (found,) = survey(open_catalogue(data), store=store)
        assert found.streams["series"].channels == channels


def test_a_text_lasts_as_long_as_the_longest_stream(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(2000, np.float32), 100)
    np.save(tmp_path / "a.npy", np.zeros((5, 1)))
    (tmp_path / "m.jsonl").write_text(
        '{"uri": "a.wav", "series_uri": "a.npy", "caption": "one\\ntwo\\nthree\\nfour"}\n'
        '{"uri": "a.wav", "series_uri": "a.npy", "end": 8, "caption": "one\\ntwo"}\n'
    )
    whole, span = (one.streams["text"] for one in survey(open_catalogue(tmp_path / "m.jsonl")))
    assert (whole.seconds, whole.rate) == (20, 4 / 20)
    assert (span.seconds, span.rate) == (8, 2 / 8)


def test_a_sound_that_cannot_be_used_is_not_replaced_by_that_of_the_film(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", pictures(25), sound=np.ones(16_000, np.float32))
    (tmp_path / "m.csv").write_text("uri,audio_uri\na.mp4,\na.mp4,gone.wav\n")
    found = survey(open_catalogue(tmp_path / "m.csv"))
    assert [set(one.streams) for one in found] == [{"video", "audio"}, {"video"}]
    assert "left out audio of 1 recording" in found.notes[-1]


def test_of_many_labels_the_rarer_are_counted_together(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((20, 1)))
    lines = [f"a.npy,{n},{n + 1},{min(n, 13)}" for n in range(20)]
    (tmp_path / "m.csv").write_text("\n".join(["uri,start,end,label", *lines]))
    labels = report(survey(open_catalogue(tmp_path / "m.csv")), deep=False)["labels"]
    assert (labels["13"], labels["other"], sum(labels.values())) == (7, 2, 20)


def contents(path: Path) -> dict[str, Any]:
    return report(survey(open_catalogue(path)))["content"]


def test_what_moves_or_is_bright_in_part_is_neither_frozen_nor_black(tmp_path: Path) -> None:
    moving = pictures(24)
    moving[:16] = moving[0]
    write_video(tmp_path / "late.mp4", moving)
    dark = np.zeros((24, 48, 64, 3), np.uint8)
    dark[:, :, 20:] = 200
    write_video(tmp_path / "half.mp4", dark)
    seen = contents(tmp_path)["video"]
    assert (seen["sampled"], seen["black"], seen["frozen"]) == (2, 0, 1 / 2)
    write_video(tmp_path / "night.mp4", 0 * dark)
    assert contents(tmp_path)["video"]["black"] == pytest.approx(1 / 3)


def test_a_long_sound_is_heard_to_its_end(tmp_path: Path) -> None:
    sound = np.zeros(3000, np.float32)
    soundfile.write(tmp_path / "silent.wav", sound, 100)
    sound[2500:] = -0.5
    soundfile.write(tmp_path / "late.wav", sound, 100)
    assert contents(tmp_path)["audio"]["silent"] == 1 / 2


def test_of_a_series_its_span_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainspring.recordings.report._SERIES_ROWS", 8)
    values = np.zeros((60, 2))
    values[20:25, 0] = np.arange(5)
    values[40:44] = np.nan
    np.save(tmp_path / "a.npy", values)
    (tmp_path / "m.csv").write_text("uri,start,end\na.npy,0,20\na.npy,20,26\na.npy,38,60\n")
    seen = contents(tmp_path / "m.csv")["series"]
    assert seen["sampled"] == 3
    assert seen["constant"] == pytest.approx(2 / 3)
    assert seen["missing"] == pytest.approx(4 / 8 / 3)


def test_a_stream_that_ends_before_its_span_is_not_looked_at(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5.0)[:, None])
    soundfile.write(tmp_path / "a.wav", np.ones(2000, np.float32), 100)
    (tmp_path / "m.csv").write_text(
        "uri,series_uri,start,end\na.wav,a.npy,0,4\na.wav,a.npy,10,14\n"
    )
    found = report(survey(open_catalogue(tmp_path / "m.csv")))
    assert found["content"]["series"] == {
        "sampled": 1, "constant": 0, "missing": 0, "failed": [],
    }  # fmt: skip
    assert found["streams"]["series"]["length"]["min"] == 0
    assert found["content"]["audio"]["sampled"] == 2


def test_labels_and_duplicates_are_of_usable_recordings_and_samples_are_spread(
    tmp_path: Path,
) -> None:
    lines = ["uri,label"]
    for number in range(9):
        values = np.arange(4.0) + number if number < 3 else np.full(4, number)
        np.save(tmp_path / f"{number}.npy", values[:, None])
        lines.append(f"{number}.npy,known")
    for name in ("cut", "off"):
        (tmp_path / f"{name}.npy").write_bytes(b"broken")
        lines.append(f"{name}.npy,lost")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    found = report(survey(open_catalogue(tmp_path / "m.csv")), sample=3)
    assert (found["recordings"], found["usable"], found["labels"]) == (11, 9, {"known": 9})
    assert found["duplicates"]["surplus"] == 0
    series = found["content"]["series"]  # the first, the middle one and the last
    assert (series["sampled"], series["constant"]) == (3, pytest.approx(2 / 3))


def test_report_of_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    found = report(survey(open_catalogue(tmp_path)))
    assert (found["usable"], found["streams"], found["content"]) == (0, {}, {})
    assert "usable      0 of 1" in render(found)


def test_a_transport_stream_is_a_film_though_it_ends_in_ts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = StreamInfo("video", 50, 25.0, 2.0, 32, 24, 0, "mpeg2video")
    monkeypatch.setattr("mainspring.recordings.video.probe_media", lambda path: {"video": film})
    (tmp_path / "film.ts").write_bytes((b"\x47" + bytes(187)) * 3)
    (tmp_path / "series.ts").write_text("@classLabel false\n@data\n1,2,3\n")
    found = survey(open_catalogue(tmp_path))
    assert [set(r.streams) for r in found] == [{"video"}, {"series"}]


def test_what_may_pass_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path / "a.csv", {"x": [1, 2, 3]})

    def slow(*_: Any) -> None:
        raise Overdue("Decoding took more than 120 seconds")

    def unanswered(*_: Any) -> None:
        raise DataError("The file cannot be read: I/O error.") from OSError(5, "I/O error")

    for failing in (slow, unanswered):
        with monkeypatch.context() as patch:
            patch.setattr(facts_module, "within", failing)
            found = survey(open_catalogue(tmp_path / "a.csv"), store=tmp_path / failing.__name__)
            assert found[0].problem is not None
        found = survey(open_catalogue(tmp_path / "a.csv"), store=tmp_path / failing.__name__)
        assert found[0].problem is None


def test_a_file_that_changes_during_the_survey_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    table(path, {"x": [1, 2, 3]})
    probe = facts_module.probe

    def probed(where: str) -> facts_module.FileFacts:
        found = probe(where)
        table(path, {"x": [1, 2, 3, 4, 5]})
        return found

    with monkeypatch.context() as patch:
        patch.setattr(survey_module, "probe", probed)
        survey(open_catalogue(path), store=tmp_path / "s")
    assert survey(open_catalogue(path), store=tmp_path / "s")[0].streams["series"].length == 5


def test_one_is_not_many(tmp_path: Path) -> None:
    table(tmp_path / "a.csv", {"x": [1, 2]})
    assert "recordings  1 in 1 file, " in render(report(survey(open_catalogue(tmp_path))))
    table(tmp_path / "b.csv", {"x": [1, 2]})
    text = render(report(survey(open_catalogue(tmp_path))))
    assert "2 in 2 files, " in text
    assert "series      2 recordings, csv (2)" in text
    assert "1 file repeats another, such as a.csv = b.csv" in text
    table(tmp_path / "c.csv", {"x": [1, 2]})
    assert "2 files repeat another" in render(report(survey(open_catalogue(tmp_path))))

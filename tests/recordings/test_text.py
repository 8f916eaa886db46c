"""Text: words of any script, sentences spread over a recording, and the same numbers anywhere."""

# ruff: noqa: RUF001 -- letters of many scripts are what is tested

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media import noise, pictures, write_video

from mainspring.clips import NOTHING, ClipSpec
from mainspring.errors import ConfigError, DataError
from mainspring.recordings import text
from mainspring.recordings.catalogue import Catalogue, open_catalogue, windowed
from mainspring.recordings.reader import Reader
from mainspring.recordings.recording import Recording
from mainspring.recordings.survey import render, report, survey
from mainspring.recordings.text import number, numbers, sentences, text_info, words
from mainspring.recordings.video import probe_media

LINES = ["Two red balls bounce.", "", "Один мяч падает!", "...", "跳ねる ボール"]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three seconds with sound."""
    path = tmp_path_factory.mktemp("text") / "film.mp4"
    return str(write_video(path, pictures(75), sound=noise(3, 16_000)))


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("A ball, a BALL; a ball-game!", ["a", "ball", "a", "ball", "a", "ball", "game"]),
        ("don't 'quote' DON’T rock ' n ' roll", ["don't", "quote", "don't", "rock", "n", "roll"]),
        ("3 of 10 at 12.5 px, x_1", ["3", "of", "10", "at", "12", "5", "px", "x", "1"]),
        ("Élan ÉLAN e\u0301lan", ["élan", "élan", "élan"]),
        ("ＦＵＬＬ ﬁne", ["full", "fine"]),
        ("Один МЯЧ — падает", ["один", "мяч", "падает"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("می\u200cخواهم كرة", ["میخواهم", "كرة"]),
        ("跳ねる ボール。", ["跳ねる", "ボール"]),
        ("⚽ → ... !?", []),
        ("", []),
    ],
)
def test_words_of_many_scripts(sentence: str, expected: list[str]) -> None:
    assert words(sentence) == expected


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=60))
def test_the_short_way_for_ascii_is_the_long_way(sentence: str) -> None:
    assert words(sentence) == [w for w in words(sentence + " é") if w != "é"]


@given(st.text(max_size=60))
def test_words_of_words_are_the_same_words(sentence: str) -> None:
    found = words(sentence)
    assert words(" ".join(found)) == found
    for word in found:
        assert 0 < number(word) < 2**62


def test_numbers_are_the_same_in_every_process() -> None:
    sentence = "Two balls: Один мяч"
    code = (
        f"from mainspring.recordings.text import numbers; print(numbers({sentence!r}, 6).tolist())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(numbers(sentence, 6).tolist())
    # Written down once: an encoder that was saved must meet the same numbers ten years on.
    assert number("ball") == 1067393316097802950
    assert len({number(f"w{n}") for n in range(20_000)}) == 20_000


def test_numbers_are_padded_and_cut() -> None:
    assert numbers("a ball", 4).tolist() == [number("a"), number("ball"), 0, 0]
    assert numbers("a BALL falls", 2).tolist() == numbers("a ball", 2).tolist()
    assert numbers("!", 3).tolist() == [0, 0, 0]


def test_sentences_are_lines_that_hold_a_word() -> None:
    assert sentences("\n".join(LINES)) == [LINES[0], LINES[2], LINES[4]]
    assert sentences(None) == sentences(" \r\n ...") == []
    info = text_info("\n".join(LINES), 2.0, 8.0)
    assert info is not None
    assert (info.kind, info.length, info.rate, info.seconds) == ("text", 3, 0.5, 8.0)
    assert text_info("", 0, 5) is None
    assert text_info("a", 5, 5) is None


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("span", [(0.0, None), (1.0, 2.5)])
def test_each_sentence_has_its_positions(film: str, known: bool, span: tuple) -> None:
    streams = probe_media(film) if known else {}
    recording = Recording(film, *span, streams=streams, caption="\n".join(LINES))
    reader = Reader({"text": ClipSpec(5)})
    extent = reader.timeline(recording)["text"]
    seconds = 1.5 if span[1] else probe_media(film)["audio"].seconds
    assert extent.length == 15
    assert extent.seconds == pytest.approx(seconds, abs=0.05)
    asked = np.array([[10, 11, 12, 13, 14], [0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
    got = reader.read(recording, {"text": asked})["text"]
    assert got.dtype == np.int64
    for row, line in zip(got, (4, 0, 2), strict=True):
        assert row.tolist() == numbers(LINES[line], 5).tolist()


def test_padding_the_end_and_long_sentences(film: str) -> None:
    recording = Recording(film, caption="one two three four five\nsix")
    reader = Reader({"text": ClipSpec(3)})
    got = reader.read(recording, {"text": np.array([[2, NOTHING, 3], [4, 6, 700]])})["text"]
    assert got.tolist() == [[number("three"), 0, number("six")], [0, 0, 0]]


def test_a_recording_without_words_has_no_text(film: str) -> None:
    reader = Reader({"text": ClipSpec(3)})
    for caption in (None, "", " \n...\n"):
        recording = Recording(film, caption=caption)
        assert "text" not in reader.timeline(recording)
        with pytest.raises(DataError, match="has no text, only video, audio"):
            reader.read(recording, {"text": np.array([[0]])})


def test_text_meets_other_streams_in_seconds(film: str) -> None:
    """Frame by frame, the sentence at a position of the video is the one spread over its time."""
    recording = Recording(film, caption="a\nb\nc", streams={"video": probe_media(film)["video"]})
    reader = Reader({"text": ClipSpec(20), "video": ClipSpec(1, rate=10, size=16)})
    timeline = reader.timeline(recording)
    met = timeline.meet(np.arange(30), "video", "text") // 20
    assert met.tolist() == [0] * 10 + [1] * 10 + [2] * 10


def test_settings_of_text_that_make_no_sense() -> None:
    for spec in (ClipSpec(0), ClipSpec(5, rate=2.0)):
        with pytest.raises(ConfigError, match="spread evenly"):
            Reader({"text": spec})
    assert "text" in Reader({"text": ClipSpec(5)}).stamp()
    assert "text" not in Reader({"audio": ClipSpec(5)}).stamp()


@pytest.fixture(scope="module")
def told(film: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of one film, four times: with two sentences, one, none, and broken."""
    manifest = tmp_path_factory.mktemp("told") / "m.csv"
    manifest.write_text(
        f'uri,start,end,caption\n{film},0,,"One ball.\nTwo balls."\n{film},1,2,Ein Ball\n'
        f"{film},0,,...\ngone.mp4,0,,A ball\n"
    )
    return manifest


def test_the_survey_counts_sentences(told: Path) -> None:
    found = survey(open_catalogue(told))
    np.testing.assert_array_equal(found.column("text.length"), [2, 1, np.nan, np.nan])
    longest = np.fmax(found.column("video.seconds"), found.column("audio.seconds"))
    np.testing.assert_array_equal(found.column("text.seconds")[:2], [longest[0], 2.0])
    rates = found.column("text.rate")[:2]
    np.testing.assert_allclose(rates, [2 / longest[0], 1.0])
    assert [bool(r.problem) for r in found] == [False, False, False, True]
    reader = Reader({"text": ClipSpec(4)})
    assert [reader.timeline(found[row])["text"].length for row in (0, 1)] == [8, 4]

    numbers = report(found, deep=False)
    assert [*numbers["streams"]] == ["video", "audio", "text"]
    assert numbers["streams"]["text"]["recordings"] == 2
    assert "1 to 2 sentences" in render(numbers)
    plain = report(survey(open_catalogue(told, ["video", "audio"])), deep=False)
    del numbers["streams"]["text"]
    assert plain == numbers  # text changes nothing else


def test_text_alone_can_be_asked_for(told: Path) -> None:
    found = survey(open_catalogue(told, ["text"]))
    assert [set(r.streams) for r in found] == [{"text"}, {"text"}, set(), set()]
    problems = found.column("problem").tolist()
    assert problems[:2] == [None, None]
    assert problems[2] == "The file has no text (video and audio only)."
    assert found.column("seconds")[0] == found.column("text.seconds")[0]


def test_captions_without_words_are_no_stream(told: Path, film: str) -> None:
    told.with_name("empty.csv").write_text(f"uri,caption\n{film},\n{film},-\n")
    found = survey(open_catalogue(told.with_name("empty.csv")))
    assert "text" not in found.table.column_names
    assert np.isnan(found.column("text.seconds")).all()
    assert "text" not in report(found, deep=False)["streams"]


def test_text_is_saved_and_frozen(told: Path, tmp_path: Path) -> None:
    found = survey(open_catalogue(told))
    found.save(tmp_path / "c.parquet")
    assert list(Catalogue.load(tmp_path / "c.parquet")) == list(found)
    assert list(found.freeze(tmp_path)) == list(Catalogue.load(tmp_path / "c.parquet"))


def test_windows_keep_the_sentences_about_them(told: Path, film: str) -> None:
    lines = "\n".join(f"sentence {n}" for n in range(6))
    told.with_name("w.csv").write_text(f'uri,start,end,caption\n{film},0,3,"{lines}"\n')
    found = survey(open_catalogue(told.with_name("w.csv")))
    cut = windowed(found, 1.0)
    assert [r.caption for r in cut] == [
        "sentence 0\nsentence 1",
        "sentence 2\nsentence 3",
        "sentence 4\nsentence 5",
    ]
    np.testing.assert_allclose(cut.column("text.length"), [2, 2, 2])
    np.testing.assert_allclose(cut.column("text.rate"), [2, 2, 2])
    np.testing.assert_allclose(cut.column("text.seconds"), [1, 2, 3])
    reader = Reader({"text": ClipSpec(3)})
    got = reader.read(cut[1], {"text": np.array([[0, 1, 2], [3, 4, 5]])})["text"]
    assert got.tolist() == [numbers(f"sentence {n}", 3).tolist() for n in (2, 3)]
    # Windows shorter than a sentence get the one they lie in.
    short = windowed(found, 0.3)
    assert [r.caption for r in short][:3] == ["sentence 0", "sentence 0", "sentence 1"]
    assert set(short.column("text.length")) == {1}
    whole = windowed(found, 10.0)
    assert list(whole) == list(found)


@given(
    st.integers(1, 12),
    st.floats(0.5, 50),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 1)), min_size=1, max_size=5),
)
def test_every_window_has_a_sentence_of_its_time(
    count: int, seconds: float, parts: list[tuple[float, float]]
) -> None:
    caption = "\n".join(f"s{n}" for n in range(count))
    spans = [(at * seconds, (at + length) * seconds) for at, length in parts]
    each = seconds / count
    for (start, stop), cut in zip(spans, text.cut(caption, seconds, spans), strict=True):
        told = [int(line[1:]) for line in cut.split("\n")]
        assert told == list(range(told[0], told[0] + len(told)))
        if stop <= seconds:
            assert all(start - each <= n * each and n * each <= stop for n in told)


def test_captions_count_in_the_stamp_only_where_asked(told: Path, film: str) -> None:
    one, two = (told.with_name(f"{n}.csv") for n in "ab")
    one.write_text(f"uri,caption\n{film},a ball\n")
    two.write_text(f"uri,caption\n{film},two balls\n")
    first, second = open_catalogue(one), open_catalogue(two)
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint(captions=True) != second.fingerprint(captions=True)

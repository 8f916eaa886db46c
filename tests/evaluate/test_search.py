import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from little_world import SERIES, MeanEncoder, SeriesReader, recordings

from mainspring.errors import DataError
from mainspring.evaluate.embed import embed
from mainspring.evaluate.search import Query, embed_query, parse_query, search
from mainspring.evaluate.vectors import Vectors
from mainspring.recordings.recording import Recording


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clip.mp4", ("clip.mp4", 0, None)),
        ("clip.mp4@2.0-4.0", ("clip.mp4", 2, 4)),
        ("clip.mp4@2-", ("clip.mp4", 2, None)),
        ("clip.mp4@-.5", ("clip.mp4", 0, 0.5)),
        (r"C:\clips\a b.mp4@1-2", (r"C:\clips\a b.mp4", 1, 2)),
        (r"C:\me@home\a.mp4", (r"C:\me@home\a.mp4", 0, None)),
        ("me@home/a.mp4", ("me@home/a.mp4", 0, None)),
        ("me@home.mp4", ("me@home.mp4", 0, None)),
        ("a@b.mp4@1-2", ("a@b.mp4", 1, 2)),
        ("series.tsv#3@1-2", ("series.tsv#3", 1, 2)),
    ],
)
def test_queries(text: str, expected: tuple[str, float, float | None]) -> None:
    assert parse_query(text) == expected


@pytest.mark.parametrize(
    "text", ["a.mp4@", "a.mp4@-", "a.mp4@4", "a.mp4@1-2-3", "a.mp4@-1-x", "@1-2"]
)
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(DataError, match=r"is not a span of seconds. Write .*@2.0-4.0"):
        parse_query(text)


def test_a_span_that_ends_before_it_starts() -> None:
    with pytest.raises(DataError, match="ends at 2 s, which is not after its start at 4 s"):
        parse_query("a.mp4@4-2")


def test_a_file_with_an_at_that_exists(tmp_path) -> None:
    path = tmp_path / "song@1-2"
    path.touch()
    assert parse_query(str(path)) == (str(path), 0, None)


@given(st.floats(0, 1e7), st.floats(1e-3, 1e7))
def test_names_of_recordings_are_queries(start: float, length: float) -> None:
    start, end = float(f"{start:g}"), float(f"{start + length:g}")
    if end > start:
        assert parse_query(Recording("x.mp4", start, end).name) == ("x.mp4", start, end)


def table(angles: list[float], uris: str, starts: list[float]) -> Vectors:
    turn = np.radians(angles)
    count = len(angles)
    return Vectors(
        matrix=np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32),
        uris=np.array(list(uris), object),
        starts=np.array(starts),
        ends=np.array(starts) + 2,
        rows=np.arange(count),
        groups=np.full(count, None, object),
        labels=np.full(count, None, object),
    )


QUERY = np.array([5, 0], np.float32)


def test_the_nearest_come_first_with_their_similarity() -> None:
    hits = search(table([50, 10, 30], "abc", [0.0, 4.0, 0.0]), QUERY, k=2)
    assert [(hit.uri, hit.start, hit.end) for hit in hits] == [("b", 4, 6), ("c", 0, 2)]
    np.testing.assert_allclose([h.score for h in hits], np.cos(np.radians([10, 30])), rtol=1e-6)


def test_overlapping_windows_are_one_hit() -> None:
    vectors = table([10, 20, 30, 40], "aaab", [0.0, 1.0, 2.0, 1.0])
    assert [(h.uri, h.start) for h in search(vectors, QUERY, 4)] == [("a", 0), ("a", 2), ("b", 1)]
    assert len(search(vectors, QUERY, 4, distinct=False)) == 4


def test_the_query_itself_is_no_hit() -> None:
    vectors = table([0, 5, 10, 20], "aaab", [0.0, 2.0, 4.0, 0.0])
    hits = search(vectors, QUERY, 4, exclude=Query("./a", 1.0, 4.0))
    assert [(hit.uri, hit.start) for hit in hits] == [("a", 4), ("b", 0)]
    assert [h.uri for h in search(vectors, QUERY, 4, exclude=Query("a", 0.0, None))] == ["b"]


def test_many_overlapping_windows_do_not_hide_the_others() -> None:
    count = 3000
    vectors = table([1.0] * count + [60, 70], "a" * count + "bc", [0.0] * (count + 2))
    assert [hit.uri for hit in search(vectors, QUERY, 3)] == ["a", "b", "c"]


def test_another_encoders_vector() -> None:
    with pytest.raises(DataError, match=r"3 numbers, the embeddings 2.*different encoders"):
        search(table([0], "a", [0.0]), np.zeros(3, np.float32))


def test_a_recording_finds_itself() -> None:
    reader = SeriesReader([8, 24, 16, 40])
    encoder = MeanEncoder()
    vectors = embed(encoder, SERIES, recordings(4), reader, None, stamps={})
    vector = embed_query(encoder, SERIES, reader, Query("data/1.csv", 0.0, None))
    np.testing.assert_allclose(vector, vectors[vectors.rows == 1].matrix.mean(axis=0), rtol=1e-6)


def test_a_query_beyond_the_end() -> None:
    with pytest.raises(DataError, match=r"data/0.csv@90-: its series stream is empty"):
        embed_query(MeanEncoder(), SERIES, SeriesReader([0]), Query("data/0.csv", 90.0, None))

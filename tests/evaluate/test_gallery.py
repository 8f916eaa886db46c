"""The gallery shows what a slow search finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from little_world import SeriesReader
from matplotlib.colors import to_rgba
from report_world import recordings, world

from mainspring.clips import Extent, Timeline
from mainspring.errors import ConfigError, DataError
from mainspring.evaluate.gallery import find, retrieval_gallery
from mainspring.recordings.recording import Recording


def test_gallery_finds_what_a_slow_search_finds() -> None:
    vectors = world()
    rows = find(vectors, 6, 3, np.random.default_rng(0))
    assert len({vectors.groups[row.query] for row in rows}) == 6
    assert {vectors.labels[row.query] for row in rows[:3]} == set(vectors.labels)
    unit = vectors.matrix / np.linalg.norm(vectors.matrix, axis=1, keepdims=True)
    for row in rows:
        near = np.argsort(-unit @ unit[row.query])
        expected: list[int] = []
        for other in near:
            taken = vectors.rows[expected]
            if vectors.groups[other] != vectors.groups[row.query] and (
                vectors.rows[other] not in taken
            ):
                expected.append(int(other))
        assert row.neighbours == expected[:3]
        np.testing.assert_allclose(row.scores, unit[row.neighbours] @ unit[row.query], atol=1e-6)


def test_gallery_frames_agreement_green_and_disagreement_red() -> None:
    vectors = world()
    figure = retrieval_gallery(vectors, SeriesReader([16] * 24), recordings(), queries=2, k=2)
    assert len(figure.axes) == 6
    heads = [axes.get_title(loc="left") for axes in figure.axes]
    good = sum("✓" in head for head in heads)
    assert good + sum("✗" in head for head in heads) == 4
    assert figure.get_suptitle().startswith(f"{good} of 4 neighbours share the query's label")
    for axes, head in zip(figure.axes, heads, strict=True):
        green = axes.spines["top"].get_edgecolor() == to_rgba("#009E73")
        assert green == ("✓" in head)


def test_gallery_draws_the_window_that_was_embedded() -> None:
    vectors, catalogue = world(), recordings()
    rows = find(vectors, 1, 1, np.random.default_rng(0))
    figure = retrieval_gallery(vectors, SeriesReader([16] * 24), catalogue, 1, 1)
    line = figure.axes[0].get_lines()[0]
    query = rows[0].query
    first = round((vectors.starts[query] - vectors.rows[query]) * 4)
    expected = 100 * vectors.rows[query] + first + np.arange(8)
    np.testing.assert_allclose(line.get_ydata(), expected)


class Pictures:
    """Video of 10 positions a second whose frame p is of grey p; sound that is silent."""

    def timeline(self, recording: Recording) -> Timeline:
        return Timeline({"video": Extent(40, 10.0), "audio": Extent(3000, 1000.0)})

    def read(self, recording: Recording, draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if "7.csv" in recording.uri:
            raise DataError("the disk was taken out")
        found = {}
        for stream, clips in draws.items():
            if stream == "video":
                grey = clips.astype(np.uint8)[..., None, None, None]
                found[stream] = np.broadcast_to(grey, (*clips.shape, 20, 20, 3)).copy()
            else:
                found[stream] = np.zeros(clips.shape, np.float32)
        return found

    def stamp(self) -> dict[str, str]:
        return {}


def test_gallery_shows_four_frames_in_reading_order() -> None:
    vectors = replace(world(), stream="video", starts=np.arange(48.0) // 2 + 0.3)
    vectors = replace(vectors, ends=vectors.starts + 2.8, rows=np.arange(48) // 2)
    figure = retrieval_gallery(vectors, Pictures(), recordings(), 1, 2)
    sheet = np.asarray(figure.axes[0].images[0].get_array())
    corners = sheet[[0, 0, -1, -1], [0, -1, 0, -1], 0]
    assert corners.tolist() == [3, 12, 21, 30]


def test_gallery_says_what_cannot_be_read_and_draws_silence() -> None:
    vectors = replace(world(), stream="audio", labels=np.full(48, None))
    figure = retrieval_gallery(vectors, Pictures(), recordings(), 12, 5)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts
    assert set(texts) == {"cannot be read: the disk was taken out"}
    assert figure.get_suptitle() == "12 windows and the nearest to each from other groups"


def test_gallery_refuses_what_it_cannot_show() -> None:
    with pytest.raises(ConfigError, match="Unknown stream for a gallery 'text'"):
        retrieval_gallery(replace(world(), stream="text"), Pictures(), recordings())
    alone = replace(world(), groups=np.full(48, "one", object))
    with pytest.raises(DataError, match="at least two groups"):
        retrieval_gallery(alone, Pictures(), recordings())

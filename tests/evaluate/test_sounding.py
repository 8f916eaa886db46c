"""Maps of where a sound comes from, asked of a generated world."""

import csv

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from mainspring.clips import ClipSpec
from mainspring.encoders.encoder import Encoder
from mainspring.errors import DataError
from mainspring.evaluate import balls, sounding
from mainspring.evaluate.balls import Moments
from mainspring.evaluate.sounding import Scene, attention, score, watch
from mainspring.pretexts.crossmodal.sound_source import SoundSource, SoundSourceConfig
from mainspring.recordings.demo import make_world
from mainspring.recordings.demo.picture import SIZE
from mainspring.recordings.reader import Reader
from mainspring.recordings.recording import Recording

CLIPS = {"video": ClipSpec(5, 20.0, size=48), "audio": ClipSpec(2000, 16000.0)}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), recordings=5, seconds=3.0, workers=1)


@pytest.fixture(scope="module")
def films(world):
    with (world / "labels.csv").open() as file:
        return [str(world / row["uri"]) for row in csv.DictReader(file)]


def moments(count, rng):
    """Discs that do not overlap, one in the left half of the picture and one in the right."""
    discs = rng.uniform([12, 12, 7], [34, 84, 10], (count, 3))
    other = rng.uniform([62, 12, 7], [84, 84, 10], (count, 3))
    names = np.array([f"film{i // 4}" for i in range(count)], object)
    return Moments(names, np.arange(count) * 1.0, discs, other)


def drawn(discs):
    """Maps that are high on discs, highest in their middle."""
    down, right = np.mgrid[0:SIZE, 0:SIZE]
    x, y, radius = discs.T[:, :, None, None]
    return (radius - np.hypot(right - x, down - y)).astype(np.float32)


def test_impacts_are_where_and_when_the_truth_says(world, films):
    truth = pq.read_table(world / "truth.parquet").to_pylist()
    found = balls.impacts(world, films, alone=False)
    assert len(found) == len(truth) > 20
    for i, row in enumerate(truth):
        assert found.films[i] == str(world / row["uri"])
        assert found.seconds[i] == row["time"]
        # Tracks have a place every 50 ms, between which a bounce cannot be seen.
        assert np.hypot(*(found.sounding[i, :2] - (row["x"], row["y"]))) < 8
        assert 7.4 < found.sounding[i, 2] < 10.6
    alone = balls.impacts(world, films)
    assert 0 < len(alone) < len(found)
    for film, second, disc in zip(alone.films, alone.seconds, alone.sounding, strict=True):
        near = [
            row for row in truth
            if str(world / row["uri"]) == film and abs(row["time"] - second) < balls.RINGS
        ]  # fmt: skip
        assert len({row["object"] for row in near}) == 1
        assert np.hypot(disc[0] - near[0]["x"], disc[1] - near[0]["y"]) < 25


def test_nothing_but_the_hum_is_heard_at_the_moments_of_humming(world, films):
    found = balls.hums(world, films)
    truth = pq.read_table(world / "truth.parquet").to_pylist()
    tracks = pq.read_table(world / "tracks.parquet").to_pylist()
    assert len(found) > 5
    for i, film in enumerate(found.films):
        times = [row["time"] for row in truth if str(world / row["uri"]) == film]
        assert min(abs(time - found.seconds[i]) for time in times) >= balls.RINGS
        (radius,) = {
            row["radius"] for row in tracks if str(world / row["uri"]) == film and row["sounding"]
        }
        assert found.sounding[i, 2] == radius != found.other[i, 2]


@pytest.mark.parametrize(("length", "stride"), [(5, 1), (4, 1), (3, 2)])
def test_clips_show_the_balls_where_they_are_said_to_be(world, films, length, stride):
    clips = {"video": ClipSpec(length, 20.0, stride, size=SIZE), "audio": CLIPS["audio"]}
    reader = Reader({"video": ClipSpec(60, 20.0, size=SIZE), "audio": CLIPS["audio"]})
    scene = watch(world, balls.hums(world, films), reader, clips)
    still = {
        film: np.median(reader.read(Recording(film), {"video": np.arange(60)[None]})["video"][0], 0)
        for film in films
    }
    background = np.stack([still[film] for film in scene.moments.films])
    changed = np.abs(scene.pictures[:, length // 2] - background).mean(-1).astype(np.float32)
    for discs in (scene.moments.sounding, scene.moments.other):
        on = drawn(discs) > 0
        assert np.median([c[m].mean() for c, m in zip(changed, on, strict=True)]) > 40
        shifted = drawn(discs + np.array([12.0, 0, 0])) > 0
        edge = [c[m].mean() for c, m in zip(changed, on, strict=True)]
        beside = [c[m].mean() for c, m in zip(changed, shifted, strict=True)]
        assert np.mean(np.array(edge) > np.array(beside)) > 0.85
    assert scene.sounds.shape == (len(scene.moments), 2000)
    assert np.abs(scene.sounds).max(1).min() > 1e-3


def test_clips_of_films_that_take_turns_stay_with_their_moments(world, films):
    asked = balls.impacts(world, films[:2])
    ends = np.array([0, len(asked) - 1, 1])
    assert len(set(asked.films[ends])) == 2
    mixed = Moments(asked.films[ends], asked.seconds[ends], asked.sounding[ends], asked.other[ends])
    reader = Reader(CLIPS)
    whole, some = watch(world, asked, reader, CLIPS), watch(world, mixed, reader, CLIPS)
    assert np.array_equal(some.pictures, whole.pictures[ends])
    assert np.array_equal(some.sounds, whole.sounds[ends])
    assert np.array_equal(some.moments.sounding, whole.moments.sounding[ends])


def test_pointing_and_overlap_of_the_truth_itself():
    asked = moments(40, np.random.default_rng(0))
    found = score(drawn(asked.sounding), asked)
    assert found.moments == 40
    assert found.ball.pointing.mean == found.either == found.which == 1
    assert found.ball.area.mean == 1
    area = np.pi * (asked.sounding[:, 2] ** 2).mean() / SIZE**2
    assert found.ball.pointing_chance == pytest.approx(area, rel=0.03)


def test_the_other_ball_is_a_miss():
    asked = moments(40, np.random.default_rng(0))
    found = score(drawn(asked.other), asked)
    assert (found.ball.pointing.mean, found.either, found.which, found.ball.area.mean) == (
        0,
        1,
        0,
        0,
    )
    both = np.maximum(drawn(asked.sounding), drawn(asked.other))
    assert score(both, asked).which == pytest.approx(
        (asked.sounding[:, 2] > asked.other[:, 2]).mean()
    )


def test_a_point_on_both_balls_says_nothing_of_which():
    asked = moments(4, np.random.default_rng(0))
    asked.sounding[:], asked.other[:] = (40.0, 40.0, 10.0), (48.0, 40.0, 10.0)
    places = np.array([[44.0, 40.0, 1.0], [33.0, 40.0, 1.0], [55.0, 40.0, 1.0], [5.0, 5.0, 1.0]])
    found = score(drawn(places), asked)
    assert (found.ball.pointing.mean, found.either, found.which) == (0.5, 0.75, 0.5)
    assert np.isnan(score(drawn(np.tile(places[:1], (4, 1))), asked).which)


def test_maps_of_noise_are_at_chance():
    rng = np.random.default_rng(1)
    asked = moments(800, rng)
    found = score(rng.random((800, SIZE, SIZE), np.float32), asked)
    assert found.ball.pointing.mean == pytest.approx(found.ball.pointing_chance, abs=0.02)
    assert found.ball.area.mean == pytest.approx(found.ball.area_chance, abs=0.001)
    assert found.which == pytest.approx(0.5, abs=0.25)


class Flat(Encoder):
    """Brightness of cells in one channel, and a constant in the other."""

    stream = "video"
    clip = CLIPS["video"]
    citation = "none"

    def __init__(self):
        super().__init__()
        self.dim, self.settings = 2, {}

    def tokens(self, samples, present=None):
        cells = samples.float().mean(-1).unfold(2, 8, 8).unfold(3, 8, 8).mean((4, 5)) / 255
        return torch.stack([cells, torch.full_like(cells, 0.1)], -1)


class Deaf(Encoder):
    """Says the same of every sound."""

    stream = "audio"
    clip = CLIPS["audio"]
    citation = "none"

    def __init__(self):
        super().__init__()
        self.dim, self.settings = 2, {}

    def tokens(self, samples, present=None):
        return torch.tensor([1.0, 0.0]).expand(len(samples), 1, 2)


def test_attention_is_the_map_of_the_middle_frame():
    config = SoundSourceConfig(width=2)
    pretext = SoundSource(CLIPS, {"video": 2, "audio": 2}, 3, config)
    for head in (pretext.places, pretext.sound):
        nn.init.eye_(head.layers[0].weight)
        nn.init.zeros_(head.layers[0].bias)
    pictures = np.zeros((3, 5, 48, 48, 3), np.uint8)
    pictures[:, 1, 40:, 40:] = 255  # lit in another frame
    for row in range(3):
        pictures[row, 2, 8 * row : 8 * row + 8, 16:24] = 255
    asked = moments(3, np.random.default_rng(0))
    encoders = {"video": Flat(), "audio": Deaf()}
    encoders["audio"].eval()
    scene = Scene(asked, pictures, np.zeros((3, 2000), np.float32))
    found = attention(encoders, pretext, scene, batch=2)
    assert found.shape == (3, SIZE, SIZE)
    for row in range(3):
        assert divmod(int(found[row].argmax()), SIZE) == (16 * row, 32)
    assert encoders["video"].training
    assert not encoders["audio"].training


def test_motion_points_at_what_moves_and_the_middle_at_the_middle():
    pictures = np.random.default_rng(0).integers(0, 9, (2, 5, 48, 48, 3)).astype(np.uint8)
    pictures[0, 3, 30:38, 6:14] += 200
    pictures[1, 0, 30:38, 6:14] += 200  # long before
    pictures[1, 1, 4:12, 30:38] += 200
    scene = Scene(moments(2, np.random.default_rng(0)), pictures, np.zeros((2, 9), np.float32))
    found = sounding.motion(scene)
    for row, (y, x) in enumerate([(68, 20), (16, 68)]):
        down, right = divmod(int(found[row].argmax()), SIZE)
        assert abs(down - y) < 5
        assert abs(right - x) < 5
    down, right = divmod(int(sounding.middle_of_picture(scene)[0].argmax()), SIZE)
    assert abs(down - 47.5) < 1 > abs(right - 47.5)


def test_sounds_of_others_are_never_of_the_same_film():
    asked = moments(12, np.random.default_rng(0))
    sounds = np.arange(12, dtype=np.float32)[:, None]
    pictures = np.zeros((12, 1, 4, 4, 3), np.uint8)
    taken = Scene(asked, pictures, sounds).with_sounds_of_others().sounds[:, 0].astype(int)
    assert (asked.films[taken] != asked.films).all()
    assert sorted(taken) == list(range(12))
    turns = Moments(
        np.array([*"abcacb"], object), asked.seconds[:6], asked.sounding[:6], asked.other[:6]
    )
    taken = Scene(turns, pictures[:6], sounds[:6]).with_sounds_of_others().sounds[:, 0].astype(int)
    assert (turns.films[taken] != turns.films).all()
    one = Moments(asked.films[:4], asked.seconds[:4], asked.sounding[:4], asked.other[:4])
    with pytest.raises(DataError, match="two films"):
        Scene(one, pictures[:4], sounds[:4]).with_sounds_of_others()


def test_what_is_no_world_is_refused(tmp_path, world):
    with pytest.raises(DataError, match="no generated world"):
        balls.hums(tmp_path, [])
    with pytest.raises(DataError, match=r"elsewhere\.mp4 is no film of the world"):
        balls.impacts(world, ["elsewhere.mp4"])
    with pytest.raises(DataError, match="no moments"):
        watch(world, balls.hums(world, []), Reader(CLIPS), CLIPS)

"""The demo world: its physics, its files, and what must not depend on what."""

import json
from pathlib import Path

import av
import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from mainspring.errors import DataError
from mainspring.recordings.catalogue import open_catalogue
from mainspring.recordings.demo import make_world, plan_world
from mainspring.recordings.demo.files import SERIES_RATE
from mainspring.recordings.demo.physics import STEPS, Motion, framed, simulate
from mainspring.recordings.demo.picture import APPEARANCES, FPS, SIZE
from mainspring.recordings.demo.plan import GROUP_SIZE
from mainspring.recordings.demo.programmes import PROGRAMMES
from mainspring.recordings.demo.sound import RATE
from mainspring.recordings.survey import survey

RECORDINGS = 8  # every programme and every appearance once


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("demo") / "world", RECORDINGS, seed=3, workers=1)


def read_csv(path: Path) -> list[dict]:
    return pyarrow.csv.read_csv(path).to_pylist()


def read_sound(path: Path) -> np.ndarray:
    """Samples from time 0 on."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    assert frames[0].pts == 0
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def read_video(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_label_appearance_and_group_are_independent() -> None:
    entries = plan_world(640, seed=1)
    pairs = {(entry.label, entry.appearance) for entry in entries}
    assert len(pairs) == len(PROGRAMMES) * len(APPEARANCES)
    labels = sorted(PROGRAMMES)
    looks = sorted(APPEARANCES)
    table = np.zeros((len(labels), len(looks)))
    for entry in entries:
        table[labels.index(entry.label), looks.index(entry.appearance)] += 1
    assert (table == 10).all()
    for start in range(0, 640 - GROUP_SIZE, GROUP_SIZE):
        group = entries[start : start + GROUP_SIZE]
        assert len({entry.group for entry in group}) == 1
        assert len({entry.label for entry in group}) >= 6


def test_larger_world_begins_with_smaller_and_seed_matters() -> None:
    assert plan_world(100, seed=2) == plan_world(600, seed=2)[:100]
    assert plan_world(100, seed=2) != plan_world(100, seed=3)


@pytest.fixture(scope="module", params=PROGRAMMES)
def motions(request: pytest.FixtureRequest) -> list[Motion]:
    """Three recordings' motion by one programme, in the picture."""
    rngs = [np.random.default_rng((7, seed)) for seed in range(3)]
    return [framed(simulate(request.param, 4.0, rng), SIZE - 1, 5.0, rng) for rng in rngs]


def test_energy_rises_only_at_launches(motions: list[Motion]) -> None:
    for motion in motions:
        # Balls that hit each other exchange energy, so only their sum is bound.
        energies = motion.energy.sum(axis=0, keepdims=True) if motion.paired else motion.energy
        for which, energy in enumerate(energies):
            free = ~motion.driven[which, :-1]
            free[-1] = False  # a launch at the very end is not listed
            for impact in motion.impacts:
                if impact.kind == "launch" and (motion.paired or impact.object == which):
                    free[max(0, round(impact.time * STEPS) - 1)] = False
            change = np.diff(energy)[free]
            scale = np.ptp(energy)
            assert change.max() < 0.005 * scale
            # And it is lost in earnest: direction is seen by that.
            assert -change[change < 0].sum() > 0.5 * scale


def test_both_balls_stay_in_sight_and_never_rest_for_long(motions: list[Motion]) -> None:
    for motion in motions:
        radius = np.array(motion.radii)[:, None, None]
        assert (motion.place - radius > 4.99).all()
        assert (motion.place + radius < SIZE - 1 - 4.99).all()
        for start in range(0, 3 * STEPS, STEPS // 4):
            assert motion.speed[:, start : start + STEPS].mean(axis=1).max() > 8  # px/s


def test_files_open_with_both_streams_of_the_right_length(world: Path) -> None:
    for path in sorted((world / "videos").glob("*.mp4")):
        with av.open(str(path)) as container:
            video, sound = container.streams.video[0], container.streams.audio[0]
            assert (video.width, video.height, video.codec_context.name) == (SIZE, SIZE, "h264")
            assert (sound.rate, sound.channels, sound.codec_context.name) == (RATE, 1, "aac")
            for stream in (video, sound):
                assert abs(float(stream.duration * stream.time_base) - 4.0) <= 1 / FPS
        assert len(read_video(path)) == 4 * FPS
        assert abs(len(read_sound(path)) / RATE - 4.0) <= 1 / FPS


def test_tables_name_the_files(world: Path) -> None:
    for name, folder in (("labels.csv", "videos"), ("series_labels.csv", "series")):
        rows = read_csv(world / name)
        assert {row["uri"] for row in rows} == {
            f"{folder}/{path.name}" for path in (world / folder).iterdir()
        }
        assert {row["label"] for row in rows} == set(PROGRAMMES)
        assert {row["appearance"] for row in rows} == set(APPEARANCES)
        assert all(row["group"] == "camera000" and row["caption"].endswith(".") for row in rows)
    table = pq.read_table(world / "tracks.parquet")
    assert table.num_rows == RECORDINGS * 4 * FPS * 2
    assert sum(table["sounding"].to_pylist()) == RECORDINGS * 4 * FPS


def test_one_table_names_all_streams_of_each_recording(world: Path) -> None:
    films, tables = read_csv(world / "labels.csv"), read_csv(world / "series_labels.csv")
    rows = read_csv(world / "streams.csv")
    assert [row.pop("series_uri") for row in rows] == [row["uri"] for row in tables]
    assert rows == films
    found = survey(open_catalogue(world / "streams.csv"))
    assert all(set(r.streams) == {"video", "audio", "series", "text"} for r in found)
    assert all(r.problem is None for r in found)
    for stream in ("video", "audio", "series", "text"):
        np.testing.assert_allclose(found.column(f"{stream}.seconds"), 4.0, atol=0.1)
    # The folder itself is what it was: films and series, each a recording.
    assert len(open_catalogue(world)) == 2 * RECORDINGS


def test_a_world_from_before_gets_the_table(tmp_path: Path) -> None:
    world = make_world(tmp_path, 2, seconds=0.5)
    table = world / "streams.csv"
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*") if path.is_file()}
    content = table.read_bytes()
    table.unlink()
    make_world(world, 2, seconds=0.5)
    assert table.read_bytes() == content
    after = {path: path.stat().st_mtime_ns for path in world.rglob("*") if path.is_file()}
    assert {path for path in before if after[path] != before[path]} <= {table}
    table.write_text("uri\nmine.mp4\n")
    make_world(world, 2, seconds=0.5)
    assert table.read_text() == "uri\nmine.mp4\n"  # what is there stays


def test_balls_are_where_the_tracks_say(world: Path) -> None:
    tracks = pq.read_table(world / "tracks.parquet").to_pylist()
    for uri in sorted({row["uri"] for row in tracks})[:3]:
        frames = read_video(world / uri).astype(float)
        still = np.median(frames, axis=0)
        moved = np.abs(frames - still).sum(axis=3)
        rows = [row for row in tracks if row["uri"] == uri]
        there = [moved[round(row["time"] * FPS), round(row["y"]), round(row["x"])] for row in rows]
        assert np.mean(there) > 5 * moved.mean()


def test_sound_rises_at_each_impact(world: Path) -> None:
    truth = pq.read_table(world / "truth.parquet").to_pylist()
    assert truth
    seen = 0
    for uri in sorted({row["uri"] for row in truth}):
        power = read_sound(world / uri) ** 2
        times = [row["time"] for row in truth if row["uri"] == uri]
        for row in truth:
            alone = all(abs(row["time"] - time) > 0.15 or time == row["time"] for time in times)
            if row["uri"] != uri or not alone or row["energy"] < 0.1 or row["time"] < 0.1:
                continue
            # Loudness over 10 ms, up to 30 ms before and after the impact.
            at = round(row["time"] * RATE)
            loud = [power[at + k : at + k + 160].mean() for k in range(-480, 480, 160)]
            if at + 640 < len(power):
                assert max(loud[2:]) > 2 * np.mean(loud[:2])
                seen += 1
    assert seen >= 10


def test_series_has_the_same_motion_and_missing_stretches(world: Path) -> None:
    tracks = pq.read_table(world / "tracks.parquet").to_pylist()
    missing = []
    for index in range(RECORDINGS):
        rows = read_csv(world / f"series/{index:04d}.csv")
        assert list(rows[0]) == ["time", "x0", "y0", "turn0", "x1", "y1", "turn1"]
        assert len(rows) == 4 * SERIES_RATE
        assert all(row["time"] is not None for row in rows)
        gaps = np.array([[row[name] is None for name in list(row)[1:]] for row in rows])
        missing.append(gaps)
        every = SERIES_RATE // FPS
        for row in (r for r in tracks if r["uri"] == f"videos/{index:04d}.mp4"):
            value = rows[round(row["time"] * FPS) * every][f"x{row['object']}"]
            assert value is None or abs(value - row["x"]) < 2
    share = np.mean(missing)
    assert 0.03 < share < 0.25
    assert any((gaps.any(axis=1) & ~gaps.all(axis=1)).any() for gaps in missing)  # by channel


def test_same_seed_gives_the_same_bytes(world: Path, tmp_path: Path) -> None:
    again = make_world(tmp_path, 3, seed=3)
    for name in ("videos/0002.mp4", "series/0002.csv"):
        assert (again / name).read_bytes() == (world / name).read_bytes()
    other = make_world(tmp_path / "other", 1, seed=4)
    assert (other / "videos/0000.mp4").read_bytes() != (world / "videos/0000.mp4").read_bytes()


@pytest.mark.slow
def test_workers_change_nothing(world: Path, tmp_path: Path) -> None:
    again = make_world(tmp_path, RECORDINGS, seed=3, workers=2)
    files = sorted(path.relative_to(world) for path in world.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    for name in files:
        assert (again / name).read_bytes() == (world / name).read_bytes(), name


def test_killed_generation_is_finished_by_the_same_call(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def die(done: int, total: int) -> None:
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        make_world(tmp_path, 3, seconds=0.5, progress=die)
    assert not (tmp_path / "world.json").exists()
    (tmp_path / "videos/.0002.mp4.77.partial").write_bytes(b"half a file")
    first = tmp_path / "videos/0000.mp4"
    before = first.stat().st_mtime_ns

    seen: list[tuple[int, int]] = []
    make_world(tmp_path, 3, seconds=0.5, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert first.stat().st_mtime_ns == before  # what was whole is kept
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == [
        "0000.mp4",
        "0001.mp4",
        "0002.mp4",
    ]
    assert json.loads((tmp_path / "world.json").read_text())["recordings"] == 3
    assert not (tmp_path / "world.partial.json").exists()

    def never(done: int, total: int) -> None:
        raise AssertionError("a finished world is not made again")

    make_world(tmp_path, 3, seconds=0.5, progress=never)
    with pytest.raises(DataError, match="recordings is 3 there and 4 here"):
        make_world(tmp_path, 4, seconds=0.5)


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    with pytest.raises(DataError, match="already holds videos"):
        make_world(tmp_path, 1)
    with pytest.raises(ValueError, match="recordings=0"):
        make_world(tmp_path / "new", 0)

"""`sync`: a slip is found with its sign, what is left out is listed, and errors say why."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import mainspring as ms
from mainspring.api import in_step
from mainspring.api.learnt import Learnt, learnt
from mainspring.api.training import pretrain
from mainspring.cli import main
from mainspring.clips import ClipSpec
from mainspring.errors import ConfigError, DataError, RunError
from mainspring.pretexts.crossmodal.av_sync import AvSync, AvSyncConfig
from mainspring.recordings.demo.files import encode
from mainspring.recordings.demo.world import make_world
from mainspring.training.run import Run

COLUMNS = ["uri", "start", "offset_seconds", "score", "score_in_step", "moments"]
FPS, RATE = 20, 16_000
SMALL = {
    "steps": 2,
    "batch": 4,
    "encoder": ("r2plus1d_tiny", "logmel"),
    "clip": {
        "video": {"length": 4, "rate": 10.0, "stride": 1, "size": 20, "crop": 16},
        "audio": {"length": 6400},
    },
    "question": {"gap": 0.2, "far": 1.0, "steps": 4, "width": 8},
}


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), 6, seconds=3.0, workers=1)


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "sync"
    pretrain(str(world / "videos"), "av_sync", out=out, verdict=False, report=False, **SMALL)
    return out


def table(run):
    with open(run / "sync.csv", newline="") as file:
        return list(csv.DictReader(file))


class Watcher(AvSync):
    """Knows the answer: how well brightness and loudness go together, frame by frame. All pairs are
    alike to it where `knows` is False."""

    knows = True

    def scores(self, encoders, batch):
        light = batch["video"].samples.double().mean((3, 4, 5))
        sound = batch["audio"].samples.double().unflatten(2, (-1, 2, RATE // FPS))[:, :, :, 0]
        loud = sound.square().mean(3).sqrt()
        silent = (loud == 0).all(2)
        light, loud = (x - x.mean(2, keepdim=True) for x in (light, loud))
        score = torch.nn.functional.cosine_similarity(light, loud, dim=2)
        return (score if self.knows else 0 * score).masked_fill(silent, torch.nan)


def watcher():
    clips = {
        "video": ClipSpec(length=16, rate=20.0, stride=2, size=32),
        "audio": ClipSpec(length=25600, rate=float(RATE)),
    }
    return Watcher(clips, {"video": 8, "audio": 8}, 2, AvSyncConfig()).eval()


def flickering(path, late=0.0, seconds=5.0, seed=0, silent=(0.0, 0.0)):
    """A film whose light changes with every frame and whose sound is as loud as it is bright, only
    `late` seconds after it."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.1, 1.0, round((seconds + 4) * FPS))  # from -2 s on
    picture = level[2 * FPS : 2 * FPS + round(seconds * FPS)]
    frames = np.broadcast_to(200 * picture[:, None, None, None], (len(picture), 32, 32, 3))
    time = np.arange(round(seconds * RATE)) / RATE
    loud = level[np.floor((time - late + 2) * FPS + 1e-6).astype(int)]
    loud[(time >= silent[0]) & (time < silent[1])] = 0
    sound = (0.3 * loud * rng.choice([-1, 1], len(time))).astype(np.float32)
    path.write_bytes(encode(frames.astype(np.uint8), sound))
    return path


@pytest.fixture
def knowing(tmp_path, monkeypatch):
    """A run folder, and `sync` that takes the watcher for what it has learnt."""
    place = tmp_path / "run"
    place.mkdir()
    (place / "config.toml").write_text('pretext = "av_sync"\ndata = "elsewhere"\n')
    pretext = watcher()
    monkeypatch.setattr(in_step, "learnt", lambda run, name: Learnt(pretext, {}))
    return place, pretext


def test_a_late_sound_is_positive_and_an_early_one_negative(knowing, tmp_path, capsys):
    place, _ = knowing
    films = tmp_path / "films"
    films.mkdir()
    slips = {"a": 0.5, "b": -0.5, "c": 0.0, "d": 0.25, "e": 0.0, "f": -1.0}
    for seed, (name, late) in enumerate(slips.items()):
        flickering(films / f"{name}.mp4", late, seed=seed)
    found = ms.sync(place, films)
    assert {Path(row["uri"]).stem: float(row["offset_seconds"]) for row in table(place)} == slips
    assert all(int(row["moments"]) == 3 for row in table(place))
    moved = found.out_of_step()
    assert {Path(slip.uri).stem for slip in moved} == {"a", "b", "d", "f"}
    assert [slip.gain for slip in moved] == sorted((slip.gain for slip in moved), reverse=True)
    assert all(slip.gain > 0.3 for slip in moved)
    # Two of six are in step: the pair in step is the best one of these alone.
    assert found.accuracy.best.mean == pytest.approx(1 / 3)
    main(["sync", str(place), str(films)])
    said = capsys.readouterr().out
    assert "4 of 6 recordings seem out of step" in said
    assert f"sound 0.5 s late (score higher by {moved_by(found, 'a'):.3g}): {films}/a.mp4" in said
    assert f"sound 1 s early (score higher by {moved_by(found, 'f'):.3g}): {films}/f.mp4" in said
    assert "c.mp4" not in said


def moved_by(found, name):
    return next(slip.gain for slip in found.slips if Path(slip.uri).stem == name)


def test_in_step_is_told_from_every_offset_beside_chance(knowing, tmp_path):
    place, pretext = knowing
    films = tmp_path / "films"
    films.mkdir()
    for seed in range(5):
        flickering(films / f"{seed}.mp4", seed=seed)
    told = ms.sync(place, films).to_dict()
    assert set(told["accuracy"]) == {"0.1", "0.25", "0.5", "0.75", "1"}
    for share in told["accuracy"].values():
        assert share == {"value": 1, "chance": 0.5, "interval": (1, 1)}
    assert told["best"]["value"] == 1
    assert told["best"]["chance"] == pytest.approx(1 / 11)
    assert (told["recordings"], told["groups"], told["moments"]) == (5, 5, 15)
    assert told["out_of_step"] == []
    # A score that knows nothing is at chance, and no recording seems out of step by it.
    pretext.knows = False
    told = ms.sync(place, films).to_dict()
    assert {share["value"] for share in told["accuracy"].values()} == {0.5}
    assert told["best"]["value"] == pytest.approx(told["best"]["chance"])
    assert told["out_of_step"] == []


def test_a_short_recording_is_asked_at_the_offsets_that_fit(knowing, tmp_path):
    place, _ = knowing
    films = tmp_path / "films"
    films.mkdir()
    flickering(films / "long.mp4", 0.5, seed=1)
    flickering(films / "short.mp4", 0.25, seconds=2.25, seed=2)  # a clip of 1.55 s and 0.7 s
    flickering(films / "shorter.mp4", seconds=1.7, seed=3)
    found = ms.sync(place, films)
    assert [Path(slip.uri).stem for slip in found.slips] == ["long", "short"]
    assert [slip.offset_seconds for slip in found.slips] == [0.5, 0.25]
    short = str(films / "shorter.mp4")
    assert list(found.problems) == [short]
    assert (
        "too short: the smallest offset, both ways, takes 1.75 s of video" in found.problems[short]
    )
    pairs = {size: tally.total.sum() for size, tally in found.accuracy.accuracy.items()}
    assert pairs == {0.1: 12, 0.25: 12, 0.5: 6, 0.75: 6, 1.0: 6}
    with pytest.raises(DataError, match=r"None of the 1 recordings can be asked about.*too short"):
        ms.sync(place, short)


def test_what_cannot_be_asked_about_is_listed_with_the_reason(knowing, tmp_path, capsys):
    place, _ = knowing
    films = tmp_path / "films"
    films.mkdir()
    flickering(films / "good.mp4", seed=1)
    flickering(films / "silent.mp4", seed=2, silent=(0.0, 9.0))
    whole = flickering(films / "other.mp4", seed=3).read_bytes()
    (films / "broken.mp4").write_bytes(whole[: len(whole) // 3])
    soundfile.write(films / "sound.wav", np.random.default_rng(0).normal(0, 0.1, RATE * 5), RATE)
    main(["sync", str(place), str(films), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["recordings"] == 2
    assert {Path(name).name for name in told["problems"]} == {
        "silent.mp4",
        "broken.mp4",
        "sound.wav",
    }
    assert "no video, only audio" in told["problems"][str(films / "sound.wav")]
    assert "nothing is heard at 3 moments" in told["problems"][str(films / "silent.mp4")]
    assert told["silent"] == 3
    assert "interval" not in str(told)
    main(["sync", str(place), str(films)])
    said = capsys.readouterr().out
    assert "3 recordings left out:" in said
    assert "No intervals: the recordings are of 2 group(s)" in said


def test_spans_of_a_file_are_told_apart_and_resampled_by_group(knowing, tmp_path):
    place, _ = knowing
    film = flickering(tmp_path / "film.mp4", -0.25, seconds=12.0)
    rows = ["uri,start,end,group", f"{film},0,6,a", f"{film},6,12,b"]
    (tmp_path / "spans.csv").write_text("\n".join(rows))
    found = ms.sync(place, tmp_path / "spans.csv", offsets=(0.25, 0.5), moments=2)
    assert [(row["start"], row["offset_seconds"]) for row in table(place)] == [
        ("0.0", "-0.25"),
        ("6.0", "-0.25"),
    ]
    assert found.accuracy.best.groups.tolist() == ["a", "b"]


def test_the_list_is_doubted_where_the_table_is_poor(knowing, tmp_path, capsys):
    place, pretext = knowing
    films = tmp_path / "films"
    films.mkdir()
    for seed, late in enumerate([0.5, 0.5, 0.0]):
        flickering(films / f"{seed}.mp4", late, seed=seed)
    main(["sync", str(place), str(films), "--offsets", "0.5", "1.0"])
    assert "But only 33.3% of moments fit best in step" in capsys.readouterr().out
    pretext.knows = False
    main(["sync", str(place), str(films), "--offsets", "0.5", "1.0"])
    assert "no offset is told from none better than by chance" in capsys.readouterr().out
    pretext.knows = True
    for seed in range(2):
        flickering(films / f"{seed}.mp4", seed=seed)
    main(["sync", str(place), str(films), "--offsets", "0.5", "1.0"])
    assert "But" not in capsys.readouterr().out


def test_an_offset_that_is_silent_at_most_moments_is_no_candidate():
    seconds = np.array([-0.5, 0.0, 0.5])
    recording = in_step.Recording("a.mp4", start=2.0)
    nan = np.nan
    found = in_step._slip(recording, np.array([[9.0, 0, 1], [nan, 4, 6], [nan, 2, nan]]), seconds)
    # Offset 0 is taken over the two moments at which the other is heard.
    assert found == in_step.Slip("a.mp4", 2.0, 0.5, 3.5, 2.0, 2)
    assert found.gain == 1.5


def test_a_run_of_a_few_steps(run, world):
    found = ms.sync(run, world / "videos", offsets=(0.5, 0.2), moments=4)
    rows = table(run)
    assert list(rows[0]) == COLUMNS
    assert len(rows) == len(found.slips) == 6
    assert {float(row["offset_seconds"]) for row in rows} <= {-0.5, -0.2, 0.0, 0.2, 0.5}
    for row in rows:
        if float(row["offset_seconds"]) == 0:
            assert row["score"] == row["score_in_step"]
        else:
            assert float(row["score"]) > float(row["score_in_step"])
    told = json.loads((run / "sync.json").read_text())
    assert told["moments"] == 24 - told["silent"]
    assert set(told["accuracy"]) == {"0.2", "0.5"}
    assert told["best"]["chance"] == pytest.approx(0.2, abs=0.02)
    assert told["seen"] is True
    assert ms.sync(run, world / "streams.csv", offsets=(0.5,)).seen is False


def test_what_was_heard_is_told_where_it_cannot_be_kept(run, world, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "sync.csv").unlink(missing_ok=True)
    (copy / "sync.csv").mkdir()
    main(["sync", str(copy), str(world / "videos"), "--json"])
    told = capsys.readouterr()
    assert "accuracy" in json.loads(told.out)
    assert "sync.json was left as it is. Cannot write" in told.err


def test_the_same_call_gives_the_same_result(run, world):
    ms.sync(run, world / "videos")
    first = [(run / name).read_bytes() for name in ("sync.csv", "sync.json")]
    ms.sync(run, world / "videos")
    assert first == [(run / name).read_bytes() for name in ("sync.csv", "sync.json")]


def test_moments_a_pass_change_nothing_but_memory(run, world, monkeypatch):
    whole = ms.sync(run, world / "videos", moments=5)
    monkeypatch.setattr(in_step, "SOUNDS", 1)
    single = ms.sync(run, world / "videos", moments=5)
    for one, other in zip(whole.slips, single.slips, strict=True):
        assert (one.uri, one.offset_seconds, one.moments) == (
            other.uri,
            other.offset_seconds,
            other.moments,
        )
        assert one.score == pytest.approx(other.score, abs=1e-5)


def test_the_pretext_is_the_one_that_was_trained(run):
    known = learnt(run, "av_sync")
    newest = sorted(Run(run).checkpoints.glob("step-*.pt"))[-1]
    weights = torch.load(newest, weights_only=True)["modules"]["pretext"]
    assert {name: value.shape for name, value in known.pretext.state_dict().items()} == {
        name: value.shape for name, value in weights.items()
    }
    for name, value in known.pretext.state_dict().items():
        torch.testing.assert_close(value, weights[name])
    assert known.pretext.config == AvSyncConfig(**SMALL["question"])
    assert not known.pretext.training
    assert not any(encoder.training for encoder in known.encoders.values())


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ((0.0, 0.5), "offsets are 0, 0.5; expected seconds of one frame or more"),
        ((-0.5,), "offsets are -0.5; expected"),
        ((0.09,), r"a frame of this run is 0.1 s"),
        ((float("nan"),), "offsets are nan; expected"),
        ((), "offsets are nothing; expected"),
        ((0.5, 0.52), "another whole number of frames"),
    ],
)
def test_offsets_that_say_nothing_are_refused(run, world, offsets, words):
    with pytest.raises(ConfigError, match=words):
        ms.sync(run, world / "videos", offsets=offsets)


def test_moments_are_at_least_one(run, world):
    with pytest.raises(ConfigError, match="moments is 0"):
        ms.sync(run, world / "videos", moments=0)


def test_runs_that_cannot_answer_say_what_to_do(run, world, tmp_path):
    with pytest.raises(RunError, match="no run folder"):
        ms.sync(tmp_path, world / "videos")
    other = tmp_path / "other"
    other.mkdir()
    config = (run / "config.toml").read_text()
    (other / "config.toml").write_text(config.replace('"av_sync"', '"gdt"'))
    with pytest.raises(RunError, match=r"has learnt gdt, .*--pretext av_sync --out OTHER"):
        ms.sync(other, world / "videos")
    (other / "config.toml").write_text(config)
    with pytest.raises(RunError, match=r"not finished\. Give its pretrain command again"):
        ms.sync(other, world / "videos")


def test_a_run_without_its_checkpoint_says_how_to_make_it_anew(world, tmp_path):
    out = tmp_path / "run"
    films = str(world / "videos")
    pretrain(films, "av_sync", out=out, verdict=False, report=False, **SMALL)
    before = ms.sync(out, films, offsets=(0.5,)).to_csv()
    for path in Run(out).checkpoints.glob("step-*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"step-00000002.pt cannot be read .*; remove it"):
        ms.sync(out, films)
    for path in Run(out).checkpoints.glob("step-*.pt"):
        path.unlink()
    with pytest.raises(RunError, match=r"holds no checkpoint.*Remove .*summary.json"):
        ms.sync(out, films)
    (out / "summary.json").unlink()
    pretrain(films, "av_sync", out=out, verdict=False, report=False, **SMALL)
    assert ms.sync(out, films, offsets=(0.5,)).to_csv() == before


def test_a_finished_run_says_what_is_next(world, tmp_path, capsys):
    config = tmp_path / "small.toml"
    config.write_text(
        "batch = 4\nquestion = {gap = 0.2, far = 1.0, steps = 4, width = 8}\n"
        "clip.video = {length = 4, rate = 10.0, stride = 1, size = 20, crop = 16}\n"
        "clip.audio = {length = 6400}\n"
    )
    out = str(tmp_path / "run")
    main(["pretrain", str(world / "videos"), "--pretext", "av_sync", "--out", out, "--steps", "1",
          "--config", str(config)])  # fmt: skip
    said = capsys.readouterr().out
    assert f"mainspring sync {out} DATA" in said
    main(["sync", out, str(world / "videos"), "--offsets", "0.5"])
    said = capsys.readouterr().out
    assert "in step or 0.5 s off" in said
    assert said.rstrip().endswith("unseen ones say more.")

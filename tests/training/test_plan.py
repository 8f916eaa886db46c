"""What a run is refused, or warned of, before it starts."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mainspring import api
from mainspring.clips import ClipSpec
from mainspring.errors import ConfigError, DataError, unknown
from mainspring.pretexts import catalog as pretext_catalog
from mainspring.recordings.store import default_cache
from mainspring.training import plan
from mainspring.training.settings import settle
from mainspring.training.streams import lacking


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds"
    folder.mkdir()
    for number in range(4):
        sound = np.random.default_rng(number).normal(0, 0.1, 19200)
        soundfile.write(folder / f"{number}.wav", sound.astype(np.float32), 16000)
    return folder


def planned(data: Path, pretext: str, **settings) -> plan.Plan:
    return plan.make_plan(
        settle({"data": str(data), "pretext": pretext} | settings), api.catalogue(data)
    )


def test_text_that_is_not_there_is_a_column_of_a_manifest(sounds):
    with pytest.raises(
        DataError, match=r"No recording has a stream 'text'.*column caption of a manifest"
    ):
        planned(sounds, "clip", stream=("audio", "text"))


def test_a_pretext_of_two_streams_says_so_on_one(sounds):
    with pytest.raises(DataError, match=r"clip needs two streams at least.*have audio in 4"):
        planned(sounds, "clip")
    with pytest.raises(DataError, match="forecast reads series, but the recordings have audio"):
        planned(sounds, "forecast")


def test_an_anchor_that_is_not_there_is_a_setting(sounds, tmp_path):
    rows = [f"{path},a word" for path in sorted(sounds.iterdir())]
    manifest = tmp_path / "said.csv"
    manifest.write_text("\n".join(["uri,caption", *rows]))
    with pytest.raises(DataError, match=r"imagebind needs other ones of .* \[question\]"):
        planned(manifest, "imagebind")


def test_shorter_clips_are_because_of_recordings_as_short_as_that(sounds):
    notes = planned(sounds, "gdt", stream=("audio",)).notes
    assert any("a tenth of the recordings last 1.2 s or less" in note for note in notes)


def test_recordings_that_are_too_short_are_told_what_to_shorten(sounds):
    many = {"shift": "tell_apart", "shifts": 9, "gap": 0.5}
    with pytest.raises(DataError, match=r"Of \d+ positions of audio a clip takes \d+: set shorter"):
        planned(sounds, "gdt", stream=("audio",), question=many)
    with pytest.raises(DataError, match=r"Set shorter clips \(clip.audio.length\)"):
        planned(
            sounds,
            "gdt",
            stream=("audio",),
            clip={"audio": {"length": 32000}},
            question={"shift": "", "augmentations": 2},
        )


def test_recordings_set_aside_lack_a_stream_or_all():
    assert lacking(["audio"], True) == "without audio"
    assert lacking(["audio", "text"], False) == "lacking audio or text"
    assert lacking(["audio", "text"], True) == "with neither audio nor text"
    assert lacking(["video", "audio", "text"], True) == "with none of video, audio, text"


def test_what_text_needs_is_counted_in_sentences():
    assert plan._need("text", 20, ClipSpec(length=20)) == "a sentence of text"
    assert plan._need("text", 41, ClipSpec(length=20)) == "3 sentences of text"


def test_presets_where_there_are_none():
    with pytest.raises(ConfigError, match="imagebind has no presets"):
        settle({"data": "x", "pretext": "imagebind", "preset": "l"})
    with pytest.raises(ConfigError, match="Did you mean 'avts'"):
        settle({"data": "x", "pretext": "av_sync", "preset": "avt"})


def test_an_empty_choice_is_shown():
    assert "Known: '', ignore." in str(unknown("question", "nothing", ["", "ignore"]))


def test_long_whole_recordings_are_encoded_in_parts():
    long = [np.zeros((9000, 1), np.float32) + i for i in range(8)]
    asked = settle({"data": "memory", "pretext": "ts2vec", "loading": {"holdout": 0.0}})
    assert plan.make_plan(asked, api.catalogue([part[:3000] for part in long])).settings.parts == 1
    wide = dataclasses.replace(asked, clip={"series": {"length": 9000}})
    several = settle({"data": "memory", "pretext": "ts_tcc", "loading": {"holdout": 0.0}})
    assert plan.make_plan(several, api.catalogue(long)).settings.parts == 1
    made = plan.make_plan(wide, api.catalogue(long))
    assert made.settings.parts == 3
    assert any("3 parts" in note for note in made.notes)


def test_an_average_that_is_asked_for_takes_the_place_of_the_recipe_s():
    asked = settle({"data": "memory", "pretext": "ts2vec", "optimiser": {"ema": 0.99}})
    assert (asked.optimiser.ema, asked.optimiser.mean, asked.optimiser.lr) == (0.99, False, 1e-3)
    assert settle({"data": "memory", "pretext": "ts2vec", "optimiser": {"lr": 1.0}}).optimiser.mean
    with pytest.raises(ConfigError, match="both set"):
        settle({"data": "memory", "pretext": "ts2vec", "optimiser": {"ema": 0.9, "mean": True}})


def test_a_single_recording_is_too_few_for_no_other_reason():
    with pytest.raises(DataError, match=r"Only 1 of 1 .* ts2vec needs at least 2\.$"):
        plan.make_plan(
            settle({"data": "memory", "pretext": "ts2vec"}),
            api.catalogue(np.arange(60, dtype=np.float32).reshape(1, 60, 1)),
        )


def test_series_need_no_cache(tmp_path):
    planned_series = settle({"data": "mem", "pretext": "ts2vec"})
    made = plan.make_plan(planned_series, api.catalogue(np.zeros((8, 30, 1), np.float32)))
    assert made.cached == (False, 0)
    assert not (tmp_path / "cache" / "mainspring" / "decoded").exists()


def test_a_cache_that_cannot_be_written_is_kept_among_temporary_files(
    sounds, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.warns(UserWarning, match=r"Nothing can be written to .*file/mainspring.*XDG_CACHE"):
        folder = default_cache()
    assert folder.parent == tmp_path
    with pytest.warns(UserWarning, match="XDG_CACHE_HOME"):
        made = planned(sounds, "arrow_of_time")
    assert made.cached[0]
    assert made.reader.cache is not None
    assert str(made.reader.cache.folder).startswith(str(folder))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", _homeless)
    with pytest.warns(UserWarning, match="~/.cache"):
        assert default_cache() == folder


def _homeless(path: Path) -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_what_has_no_effect_is_said_or_refused(sounds):
    said = " ".join(
        planned(
            sounds, "gdt", stream=("audio",), clip={"series": {"length": 8}},
            architecture={"text": {"context": 3}}, loading={"holdout": 0.9},
        ).notes
    )  # fmt: skip
    for part in ("clip.series has no effect", "architecture.text has no", "Nothing is kept back"):
        assert part in said
    with pytest.raises(ConfigError, match="A stream is named twice: audio, audio"):
        planned(sounds, "gdt", stream=("audio", "audio"))
    with pytest.raises(ConfigError, match="logmel and logmel both read audio"):
        planned(sounds, "gdt", encoder=("logmel", "logmel"))


@pytest.mark.parametrize("pretext", ["arrow_of_time", "taco"])
def test_a_second_stream_that_would_learn_nothing_is_refused(pretext):
    kind = pretext_catalog.find(pretext)
    clips = {"video": ClipSpec(8, 10.0, 1, 32, 32), "audio": ClipSpec(8000, 16000.0)}
    with pytest.raises(ConfigError, match="learns from one stream, not from video and audio"):
        kind(clips, {"video": 8, "audio": 8}, 4, kind.Config())

"""What a run is refused, or warned of, before it starts."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

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


def test_a_single_recording_is_too_short_to_be_cut():
    with pytest.raises(DataError, match=r"Only 1 of 1 .* ts2vec needs at least 2\.$"):
        plan.make_plan(
            settle({"data": "memory", "pretext": "ts2vec"}),
            api.catalogue(np.arange(3, dtype=np.float32).reshape(1, 3, 1)),
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


def series(folder: Path, lengths: list[int]) -> Path:
    folder.mkdir()
    for number, length in enumerate(lengths):
        values = np.random.default_rng(number).normal(size=(length, 1))
        np.save(folder / f"{number:03}.npy", values.astype(np.float32))
    return folder


def test_groups_are_kept_back_whole_and_others_with_another_seed(tmp_path):
    folder = series(tmp_path / "data", [60] * 40)
    rows = [f"{path},{number % 10}" for number, path in enumerate(sorted(folder.iterdir()))]
    manifest = tmp_path / "grouped.csv"
    manifest.write_text("\n".join(["uri,group", *rows]))
    back = set()
    for seed in range(3):
        made = planned(manifest, "forecast", seed=seed, loading={"holdout": 0.3})
        groups = {*made.held.column("group")}
        assert len(groups) == 3
        assert len(made.held) == 12
        assert not groups & {*made.catalogue.column("group")}
        assert len(made.catalogue) == 28
        back.add(frozenset(groups))
    assert len(back) > 1


def test_first_weights_depend_on_the_seed_alone(tmp_path):
    folder = series(tmp_path / "data", [60] * 8)

    def weights(seed: int, disorder: int) -> list[torch.Tensor]:
        torch.manual_seed(disorder)
        made = planned(folder, "forecast", seed=seed)
        return [*made.encoders["series"].parameters(), *made.pretext.parameters()]

    one, two, other = weights(1, 5), weights(1, 6), weights(2, 5)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    for a, b in ((one[0], other[0]), (one[-2], other[-2])):
        assert not torch.equal(a, b)


def test_clips_are_as_long_as_nine_tenths_of_the_recordings_let_them_be(sounds):
    made = planned(sounds, "gdt", stream=("audio",))
    room = 19200 * int(made.clips["audio"].rate) // 16000
    longer = {
        "audio": dataclasses.replace(made.clips["audio"], length=made.clips["audio"].length + 1)
    }
    kind, dims = type(made.pretext), {"audio": made.encoders["audio"].dim}
    assert made.pretext.needs("audio") <= room
    assert kind(longer, dims, 4, made.pretext.config).needs("audio") > room
    assert len(made.catalogue) + len(made.held) == 4


def test_spans_count_for_what_lies_within_them(tmp_path):
    folder = series(tmp_path / "data", [1000])
    path = folder / "000.npy"
    spans = [(0, 1000), (0, 500), (400, 900), (500, 1000), (990, 1000), (0, 8)]
    manifest = tmp_path / "spans.csv"
    manifest.write_text("\n".join(["uri,start,end", *(f"{path},{a},{b}" for a, b in spans)]))
    made = planned(manifest, "forecast", clip={"series": {"length": 100}}, loading={"window": 600})
    usable = [*made.catalogue, *made.held]
    assert sum(made.aside.values()) == 2
    assert all(r.end - r.start >= made.pretext.needs("series") for r in usable)
    assert sum(r.end - r.start for r in usable) >= 4 * 500


def test_long_recordings_are_windows_of_eight_times_what_is_needed_at_least(tmp_path):
    folder = series(tmp_path / "data", [8000] * 3)
    small = {"series": {"length": 50}}
    for asked, least in ((1.0, 0.0), (2000.0, 2000.0)):
        made = planned(folder, "forecast", clip=small, loading={"window": asked})
        needed = made.pretext.needs("series")
        seconds = [r.end - r.start for r in (*made.catalogue, *made.held)]
        assert min(seconds) >= max(8 * needed, least) - 1
        assert max(seconds) < 2 * max(8 * needed, least)
        assert sum(seconds) == 3 * 8000


def test_fewer_recordings_than_a_batch_are_cut_in_no_more_parts_than_they_are():
    made = plan.make_plan(
        settle({"data": "memory", "pretext": "ts2vec", "batch": 16, "parts": 12}),
        api.catalogue(np.random.default_rng(0).normal(size=(8, 60, 1)).astype(np.float32)),
    )
    assert (made.settings.batch, made.settings.parts) == (8, 8)


def test_a_rate_of_sound_is_the_encoder_s_too(sounds):
    made = planned(
        sounds,
        "arrow_of_time",
        clip={"audio": {"rate": 8000}},
        architecture={"audio": {"width": 4}},
    )
    assert made.clips["audio"].rate == 8000
    assert made.encoders["audio"].settings["rate"] == 8000


def test_masks_wider_than_the_spectrogram_are_refused_before_the_first_step(sounds):
    few = {"audio": {"mels": 8, "width": 4}}
    with pytest.raises(ConfigError, match=r"mask_bands is 10, more than the 8 bands .*mels"):
        planned(sounds, "gdt", stream=("audio",), architecture=few)
    planned(sounds, "gdt", stream=("audio",), architecture=few, question={"mask_bands": 8})


@pytest.mark.parametrize("length", [9, 60, 2160, 9001])
@pytest.mark.parametrize("pretext", ["ts2vec", "t_loss"])
def test_one_long_series_is_learnt_from_in_windows_of_it(tmp_path, pretext, length):
    made = planned(series(tmp_path / "data", [length]), pretext, loading={"holdout": 0.0})
    windows = [(row.start, row.end) for row in made.catalogue]
    assert len(windows) >= 2
    assert [start for start, _ in windows[1:]] == [end for _, end in windows[:-1]]
    assert (windows[0][0], windows[-1][1]) == (0, length)
    assert made.clips["series"].length == min(3000, length // 2)


def test_a_slightly_slower_clock_does_not_set_a_third_of_the_recordings_aside(tmp_path):
    for name, rate in (("even", 1.0), ("slow", 0.999)):
        rows = [f"{row / rate:.6f},{np.sin(row)}" for row in range(420)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["time,x", *rows]))
    spans = [("even", 20 * at) for at in range(20)] + [("slow", 20 * at) for at in range(10)]
    rows = [f"{name}.csv,{start},{start + 20}" for name, start in spans]
    (tmp_path / "spans.csv").write_text("\n".join(["uri,start,end", *rows]))
    made = planned(tmp_path / "spans.csv", "forecast", loading={"holdout": 0.0})
    assert len(made.catalogue) == 30


def test_recordings_too_short_for_any_clip_do_not_keep_clips_long(tmp_path):
    made = planned(series(tmp_path / "data", [*range(1, 121, 5)]), "forecast")
    assert len(made.catalogue) >= 12
    assert made.clips["series"].length < 128

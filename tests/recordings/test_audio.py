from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from media import clicks, noise, pictures, write_sounds, write_video
from scipy.signal import resample_poly

from mainspring.errors import DataError
from mainspring.recordings import audio
from mainspring.recordings.audio import read_samples, read_sound
from mainspring.recordings.container import opened
from mainspring.recordings.video import VideoFile, probe_media

SPANS = [(0.0, 0.3), (0.731, 1.4), (2.1, 2.1004), (1.95, 3.0), (2.9, 3.6)]


def write_plain(path: Path, sound: np.ndarray, rate: int) -> str:
    soundfile.write(str(path), sound, rate)
    return str(path)


def test_channels_are_averaged_and_nothing_else_is_changed(tmp_path: Path) -> None:
    stereo = np.stack([noise(1, 8000), noise(1, 8000, seed=1)], axis=1)
    path = write_plain(tmp_path / "s.flac", stereo, 8000)
    np.testing.assert_allclose(read_sound(path, 0, 1, 8000), stereo.mean(1), atol=1e-4)


def test_a_flac_from_a_pipe_states_no_length(tmp_path: Path) -> None:
    sound = noise(2, 16_000)
    path = write_plain(tmp_path / "s.flac", sound, 16_000)
    content = bytearray(Path(path).read_bytes())
    content[21] &= 0xF0  # the number of samples: 36 bits of the header
    content[22:26] = bytes(4)
    Path(path).write_bytes(content)
    info = probe_media(path)["audio"]
    assert (info.length, info.seconds) == (32_000, 2.0)
    np.testing.assert_allclose(read_sound(path, 0.5, 1, 16_000), sound[8000:16_000], atol=1e-4)


@pytest.mark.parametrize("name", ["s.flac", "s.mp3", "s.wav", "s.ogg"])
def test_a_file_cut_short_is_as_long_as_what_is_left(name: str, tmp_path: Path) -> None:
    path = write_plain(tmp_path / name, noise(4, 16_000), 16_000)
    whole = read_sound(path, 0, 4, 8000)
    Path(path).write_bytes(Path(path).read_bytes()[: Path(path).stat().st_size // 2])
    info = probe_media(path)["audio"]
    assert 1.1 < info.seconds < 2.3
    got = read_sound(path, 0, info.seconds - 0.05, 8000)
    np.testing.assert_allclose(got, whole[: len(got)], atol=2e-2)
    assert np.abs(got[-400:]).mean() > 0.01


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100, 7350.0, 11_025])
def test_resampling_equals_the_whole_file_resampled(rate: float, tmp_path: Path) -> None:
    sound = noise(3, 44_100)
    path = write_plain(tmp_path / "s.wav", sound, 44_100)
    stored, _ = soundfile.read(path, dtype="float64")
    ratio = {16_000: (160, 441), 24_000: (80, 147), 7350.0: (1, 6), 11_025: (1, 4)}
    up, down = ratio.get(rate, (1, 1))
    whole = resample_poly(stored, up, down)
    for start, stop in SPANS:
        got = read_sound(path, start, stop, rate)
        first = math.floor(start * rate + 0.5)
        assert got.dtype == np.float32
        assert len(got) == round((stop - start) * rate)
        expected = whole[first : first + len(got)]
        np.testing.assert_allclose(got[: len(expected)], expected, atol=1e-5)
        assert not got[len(expected) + 12 :].any()  # the filter rings for ten samples


@pytest.mark.parametrize("rate", [8000.0, 16_000.0, 22_050.0])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("s.m4a", "aac"),
        ("s.mkv", "aac"),
        ("s.webm", "libopus"),
        ("s.mp3", "mp3"),
        ("s.ogg", "soundfile"),
        ("s.ts", "aac"),
        ("s.aac", "aac"),
        ("s.mov", "pcm_s16le"),
    ],
)
def test_a_span_equals_the_same_span_of_the_whole(
    name: str, codec: str, rate: float, tmp_path: Path
) -> None:
    native = 48_000 if codec == "libopus" else 16_000
    if codec == "soundfile":
        path = write_plain(tmp_path / name, noise(4, native), native)
    else:
        path = str(write_sounds(tmp_path / name, [noise(4, native)], native, codec))
    whole = read_sound(path, 0, 4, rate)
    assert whole.std() > 0.05
    for start, stop in SPANS:
        first, count = math.floor(start * rate + 0.5), round((stop - start) * rate)
        expected = whole[first : first + count]
        np.testing.assert_allclose(read_sound(path, start, stop, rate), expected, atol=1e-3)


@pytest.mark.parametrize("late", [0.0, 0.5])
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
def test_sound_stays_with_its_time(name: str, late: float, tmp_path: Path) -> None:
    """Encoder delay and a late beginning: a click comes where it was put, to a millisecond."""
    sound = clicks(2, 16_000, [0.3, 1.2])
    path = str(write_video(tmp_path / name, pictures(60), sound=sound, sound_from=late))
    with opened(path) as container:
        shift = VideoFile(path, container).index.times[0]  # MPEG-TS does not tell of the delay
    heard = np.abs(read_sound(path, 0, 3, 16_000))
    late += max(0.0, shift)
    for expected in (0.3 + late, 1.2 + late):
        near = heard[round((expected - 0.1) * 16_000) : round((expected + 0.1) * 16_000)]
        peak = (near**2 @ np.arange(len(near))) / (near**2).sum() / 16_000
        assert peak - 0.1 == pytest.approx(0.001, abs=0.0015)
    quiet = heard[: round((0.3 + late - 0.05) * 16_000)]
    assert quiet.max() < 0.05
    near = read_sound(path, 1.1 + late, 1.3 + late, 16_000)
    np.testing.assert_allclose(
        np.abs(near), heard[round((1.1 + late) * 16_000) :][: len(near)], atol=1e-3
    )


def test_past_the_end_is_silence(tmp_path: Path) -> None:
    plain = write_plain(tmp_path / "s.wav", noise(1, 16_000), 16_000)
    coded = str(write_sounds(tmp_path / "s.m4a", [noise(1, 16_000)], 16_000))
    for path in (plain, coded):
        for rate in (8000, 16_000):
            got = read_sound(path, 0.5, 2.5, rate)
            assert len(got) == 2 * rate
            assert np.abs(got[: rate // 4]).max() > 0.1
            assert not got[rate * 2 // 3 :].any()
            assert not read_sound(path, 7, 8, rate).any()
            assert len(read_sound(path, 1, 1, rate)) == 0


def test_of_several_tracks_the_first_or_the_default_is_read(tmp_path: Path) -> None:
    quiet, loud = noise(1, 16_000) * 0.01, noise(1, 16_000, seed=1)
    path = tmp_path / "two.mkv"
    for default in (None, 0, 1):
        with av.open(str(path), "w") as container:
            tracks = [container.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in "ab"]
            for number, track in enumerate(tracks):
                flags = av.stream.Disposition.default if number == default else 0
                track.disposition = av.stream.Disposition(flags)
            from media import encoded

            for track, sound in zip(tracks, (quiet, loud), strict=True):
                container.mux(encoded(track, sound, 16_000))
        is_loud = np.abs(read_sound(str(path), 0, 1, 16_000)).max() > 0.1
        assert is_loud == (default == 1)
        assert set(probe_media(str(path))) == {"audio"}


def test_a_short_span_of_a_long_track_is_not_the_whole_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_sounds(tmp_path / "long.m4a", [noise(60, 16_000)], 16_000))
    blocks = []
    plain = audio.AudioTrack._blocks

    def counted(self: audio.AudioTrack):
        for block in plain(self):
            blocks.append(block.samples)
            yield block

    monkeypatch.setattr(audio.AudioTrack, "_blocks", counted)
    assert np.abs(read_samples(path, 50 * 16_000, 1600, 16_000)).max() > 0.1
    assert sum(blocks) < 16_000


def test_probe_of_sound_files(tmp_path: Path) -> None:
    stereo = np.zeros((4000, 2), dtype=np.float32)
    info = probe_media(write_plain(tmp_path / "s.flac", stereo, 8000))["audio"]
    assert (info.length, info.rate, info.seconds, info.channels) == (4000, 8000, 0.5, 2)
    assert "FLAC" in info.codec
    with pytest.raises(DataError, match="without a single sample"):
        probe_media(write_plain(tmp_path / "e.wav", stereo[:0], 8000))


def test_samples_that_are_no_numbers_are_silence(tmp_path: Path) -> None:
    sound = np.full(100, 0.5, dtype=np.float32)
    sound[10], sound[20] = np.nan, np.inf
    path = tmp_path / "n.wav"
    soundfile.write(str(path), sound, 8000, subtype="FLOAT")
    got = read_samples(str(path), 0, 100, 8000)
    assert got[10] == got[20] == 0
    assert got.sum() == 49


def test_a_file_without_sound_says_so(tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "v.mp4", pictures(3)))
    with pytest.raises(DataError, match="has no sound"):
        read_sound(path, 0, 1, 16_000)
    for reason, name in (("is empty", "zero.wav"), ("holds text", "text.wav")):
        (tmp_path / name).write_text("" if reason == "is empty" else "no sound " * 20)
        with pytest.raises(DataError, match=reason):
            read_sound(str(tmp_path / name), 0, 1, 16_000)


def test_the_length_of_sound_without_a_header_is_counted_not_guessed(tmp_path: Path) -> None:
    sound = np.concatenate([noise(2, 16_000), np.zeros(16_000 * 8, np.float32)])
    info = probe_media(str(write_sounds(tmp_path / "a.aac", [sound], 16_000)))["audio"]
    assert info.seconds == pytest.approx(10, abs=0.15)


def test_sound_of_a_matroska_file_that_was_cut_ends_where_it_was_cut(tmp_path: Path) -> None:
    path = write_sounds(tmp_path / "a.mka", [noise(10, 16_000)], 16_000)
    assert probe_media(str(path))["audio"].seconds == pytest.approx(10, abs=0.1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert probe_media(str(path))["audio"].seconds == pytest.approx(5, abs=1)

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
from media import RATE, noise, pictures, write_sounds, write_video

from mainspring.errors import DataError
from mainspring.recordings.container import choose, opened
from mainspring.recordings.picture import Picture, scaled
from mainspring.recordings.video import Pass, VideoFile, plan_passes, probe_media, read_frames
from mainspring.recordings.video_index import IndexStore, PacketIndex, index_packets

VFR = [0, 40, 60, 200, 210, 480, 900, 910, 1000, 1300, 1310, 1320, 2000, 2500, 2510, 2600]


def decode_all(path: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every frame of a file, decoded plainly, and its time from the first one."""
    frames, times = [], []
    with av.open(str(path)) as container:
        stream = choose(container, "video")
        picture = None
        for frame in container.decode(stream):
            picture = picture or Picture(size, frame, stream.sample_aspect_ratio)
            frames.append(picture.pixels(frame).copy())
            times.append(float(frame.pts * stream.time_base) if frame.pts is not None else np.nan)
    return np.stack(frames), np.array(times) - times[0]


def x264(**params: int) -> dict[str, str]:
    return {"x264-params": ":".join(f"{k.replace('_', '-')}={v}" for k, v in params.items())}


VARIANTS = {
    "closed.mp4": {"options": x264(keyint=12, bframes=3, b_adapt=0, scenecut=0)},
    "open.mp4": {"options": x264(keyint=12, bframes=3, b_adapt=0, open_gop=1, scenecut=0)},
    "open.mkv": {"options": x264(keyint=12, bframes=3, b_adapt=0, open_gop=1, scenecut=0)},
    "pyramid.ts": {"options": x264(keyint=16, bframes=5, b_adapt=0, b_pyramid=2)},
    "long.mp4": {"options": x264(keyint=1000, bframes=2, b_adapt=0)},
    "refresh.mp4": {"options": x264(keyint=20, intra_refresh=1, bframes=0)},
    "rotated.mov": {"options": x264(keyint=10, bframes=2, b_adapt=0), "rotation": 90},
    "simple.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "10"}},
    "reordered.avi": {"options": x264(keyint=12, bframes=2, b_adapt=0)},
    "old.mpg": {"codec": "mpeg2video", "options": {"bf": "2", "g": "10"}},
    "raw.h264": {"options": x264(keyint=12, bframes=2, b_adapt=0)},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "deadline": "realtime"}},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_frames_asked_for_equal_plain_decoding_bit_by_bit(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, pictures(50), **VARIANTS[name])
    plain, _ = decode_all(path, 32)
    with opened(str(path)) as container:
        times = VideoFile(str(path), container).index.times
    assert len(times) == len(plain) == 50
    rng = np.random.default_rng(0)
    store = IndexStore()
    for count in (1, 1, 2, 3, 7, 20, 50):
        wanted = rng.choice(50, count, replace=False)
        got = read_frames(str(path), times[wanted] + 1e-3, 32, store)
        np.testing.assert_array_equal(got, plain[wanted])


def test_variable_rate_shows_the_last_frame_begun(tmp_path: Path) -> None:
    options = x264(keyint=5, bframes=2, b_adapt=0)
    path = write_video(tmp_path / "v.mp4", pictures(len(VFR)), ticks=VFR, options=options)
    plain, times = decode_all(path, 24)
    np.testing.assert_allclose(times * 1000, VFR, atol=0.5)
    asked = np.random.default_rng(1).uniform(-0.5, 3.5, 40)
    slow = [max([i for i, t in enumerate(times) if t <= s], default=0) for s in asked]
    np.testing.assert_array_equal(read_frames(str(path), asked, 24), plain[slow])
    on_time = read_frames(str(path), np.array(VFR) / 1000, 24)
    np.testing.assert_array_equal(on_time, plain)


def test_a_clock_of_milliseconds_gives_every_frame_once(tmp_path: Path) -> None:
    frames = pictures(31)
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    plain, _ = decode_all(tmp_path / "v.mkv", 32)
    got = read_frames(str(tmp_path / "v.mkv"), np.arange(31) / 30, 32)
    np.testing.assert_array_equal(got, plain)


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (180, 2), (-90, 3)])
def test_rotation_is_honoured(degrees: int, quarters: int, tmp_path: Path) -> None:
    frames = pictures(3, 64, 64)
    upright = write_video(tmp_path / "u.mp4", frames)
    turned = write_video(tmp_path / "t.mp4", frames, rotation=degrees)
    at = np.array([0.0, 0.08])
    expected = np.rot90(read_frames(str(upright), at, 64), quarters, axes=(1, 2))
    np.testing.assert_array_equal(read_frames(str(turned), at, 64), expected)


def test_mirroring_is_honoured(tmp_path: Path) -> None:
    frames = pictures(2, 64, 64)
    plain = read_frames(str(write_video(tmp_path / "u.mp4", frames)), np.zeros(1), 64)
    mirrored = write_video(tmp_path / "m.mp4", frames, rotation=0, hflip=True)
    np.testing.assert_array_equal(read_frames(str(mirrored), np.zeros(1), 64), plain[:, :, ::-1])


def test_rotation_swaps_the_size(tmp_path: Path) -> None:
    info = probe_media(str(write_video(tmp_path / "r.mp4", pictures(5), rotation=90)))["video"]
    assert (info.width, info.height) == (48, 64)


def test_the_middle_is_kept_with_its_aspect(tmp_path: Path) -> None:
    wide = np.zeros((2, 32, 96, 3), dtype=np.uint8)
    wide[:, :, :32, 0], wide[:, :, 32:64, 1], wide[:, :, 64:, 2] = 255, 255, 255
    path = write_video(tmp_path / "w.mp4", wide, options={"crf": "1"})
    for size in (16, 31, 32, 50):
        middle = read_frames(str(path), np.zeros(1), size)[0, :, 3:-3].mean((0, 1))
        assert middle[1] > 230
        assert middle[0] < 25
        assert middle[2] < 25


def test_scaled_keeps_the_aspect_and_covers_the_square() -> None:
    assert scaled(640, 360, 112) == (199, 112)
    assert scaled(360, 640, 112) == (112, 199)
    assert scaled(113, 112, 112) == (113, 112)
    assert scaled(1, 1, 7) == (7, 7)


def index_of(pts: list[int], keys: list[int]) -> PacketIndex:
    values = np.array(pts, dtype=np.int64)
    key = np.isin(np.arange(len(pts)), keys)
    shown = np.ones(len(pts), dtype=bool)
    return PacketIndex(values, values, values, key, shown, 0.04, 0.0, len(pts) * 0.04, True)


def test_passes_jump_over_what_nobody_needs_and_join_what_touches() -> None:
    # Decoding order; the group at place 6 is open: its frames 4 and 5 lean on the group before.
    index = index_of([0, 3, 1, 2, 6, 4, 5, 9, 7, 8, 12, 10, 11], keys=[0, 4, 10])
    assert plan_passes(index, np.array([2])) == [Pass(0, 3, frozenset({2}))]
    assert plan_passes(index, np.array([5])) == [Pass(0, 6, frozenset({5}))]
    assert plan_passes(index, np.array([1, 12])) == [
        Pass(0, 2, frozenset({1})),
        Pass(10, 10, frozenset({12})),
    ]
    assert plan_passes(index, np.array([5, 7])) == [Pass(0, 8, frozenset({5, 7}))]


def test_each_frame_is_decoded_once_and_others_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = x264(keyint=1000, bframes=3, b_adapt=0, b_pyramid=0, scenecut=0)
    path = str(write_video(tmp_path / "b.mp4", pictures(80), options=options))
    scaled_frames, fed = [], []
    pixels, decoded = Picture.pixels, "mainspring.recordings.video._decoded"
    from mainspring.recordings import video as module

    plain = module._decoded
    monkeypatch.setattr(
        Picture, "pixels", lambda self, f: (scaled_frames.append(f.pts), pixels(self, f))[1]
    )
    monkeypatch.setattr(
        decoded, lambda s, p: (fed.append(((out := plain(s, p)) and len(out)) or 0), out)[1]
    )
    read_frames(path, np.array([0.4, 1.2, 0.4, 1.2, 0.41]), 32)
    assert len(scaled_frames) == 2
    assert sum(fed) < 20  # about 31 frames lie before, three in four of which nothing leans on


def test_indices_are_kept_and_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write_video(tmp_path / "v.mp4", pictures(30), options=x264(keyint=7)))
    monkeypatch.setattr("mainspring.recordings.video_index.STORED_PACKETS", 1)
    first = IndexStore(folder=tmp_path / "index")
    expected = read_frames(path, np.array([0.3, 0.9]), 32, first)
    monkeypatch.setattr(
        "mainspring.recordings.video_index.index_packets",
        lambda *_: pytest.fail("the packets were read again"),
    )
    for store in (first, IndexStore(folder=tmp_path / "index")):
        got = read_frames(path, np.array([0.3, 0.9]), 32, store)
        np.testing.assert_array_equal(got, expected)


def test_probe_states_the_facts(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", pictures(50), sound=noise(2, 16_000))
    found = probe_media(str(path))
    video, audio = found["video"], found["audio"]
    assert (video.kind, video.length, video.rate, video.codec) == ("video", 50, RATE, "h264")
    assert (video.width, video.height) == (64, 48)
    assert video.seconds == pytest.approx(2.0, abs=0.01)
    assert (audio.kind, audio.rate, audio.channels, audio.codec) == ("audio", 16_000, 1, "aac")
    assert audio.seconds == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("name", ["v.mkv", "v.ts", "v.h264", "v.mp4"])
def test_probe_finds_the_duration_wherever_it_is_stated_or_not(name: str, tmp_path: Path) -> None:
    info = probe_media(str(write_video(tmp_path / name, pictures(50))))["video"]
    assert info.seconds == pytest.approx(2.0, abs=0.05)
    assert info.length == pytest.approx(50, abs=1)


@pytest.mark.parametrize("name", ["v.mkv", "v.mp4"])
def test_a_clock_that_begins_late_lengthens_nothing(name: str, tmp_path: Path) -> None:
    ticks = [10_000 + 40 * number for number in range(50)]
    sound = {"sound": noise(2, 16_000), "sound_from": 10.0}
    for more in ({}, sound):
        path = write_video(tmp_path / name, pictures(50), ticks=ticks, **more)
        for info in probe_media(str(path)).values():
            assert info.seconds == pytest.approx(2.0, abs=0.15)


def test_a_stream_without_a_stated_duration_is_measured(tmp_path: Path) -> None:
    live = {"live": "1"}  # a Matroska file as streamed: no duration, no index
    path = write_video(tmp_path / "v.mkv", pictures(50), container_options=live)
    info = probe_media(str(path))["video"]
    assert info.seconds == pytest.approx(2.0, abs=0.05)
    plain, _ = decode_all(path, 32)
    np.testing.assert_array_equal(read_frames(str(path), np.arange(50) / 25, 32), plain)


def test_one_frame_and_pictures_are_videos(tmp_path: Path) -> None:
    film = write_video(tmp_path / "one.mp4", pictures(1))
    image = write_video(tmp_path / "one.png", pictures(1), codec="png")
    for path in (film, image):
        assert probe_media(str(path))["video"].length == 1
        frames = read_frames(str(path), np.array([-1.0, 0.0, 9.0]), 32)
        assert frames.std() > 10
        np.testing.assert_array_equal(frames[0], frames[2])


def test_sound_alone_has_no_video(tmp_path: Path) -> None:
    path = str(write_sounds(tmp_path / "s.m4a", [noise(1, 16_000)], 16_000))
    assert set(probe_media(path)) == {"audio"}
    with pytest.raises(DataError, match="has no video"):
        read_frames(path, np.zeros(1), 32)


def test_subtitles_beside_the_video_are_passed_over(tmp_path: Path) -> None:
    text = tmp_path / "t.srt"
    text.write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n\n")
    film = write_video(tmp_path / "v.mkv", pictures(25))
    both = str(tmp_path / "both.mkv")
    with av.open(str(film)) as a, av.open(str(text)) as b, av.open(both, "w") as out:
        subtitles = out.add_stream_from_template(b.streams[0])
        video = out.add_stream_from_template(a.streams[0])
        for source, target in ((b, subtitles), (a, video)):
            for packet in source.demux():
                if packet.dts is not None or packet.size:
                    packet.stream = target
                    out.mux(packet)
    with av.open(both) as container:
        assert [s.type for s in container.streams] == ["subtitle", "video"]
    assert set(probe_media(both)) == {"video"}
    at = np.array([0.5])
    np.testing.assert_array_equal(read_frames(both, at, 32), read_frames(str(film), at, 32))
    with pytest.raises(DataError, match=r"no video or sound .*subtitle"):
        probe_media(str(text))


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    cover = write_video(tmp_path / "c.png", pictures(1), codec="png")
    song = write_sounds(tmp_path / "s.m4a", [noise(1, 16_000)], 16_000)
    both = str(tmp_path / "both.m4a")
    with av.open(str(song)) as a, av.open(str(cover)) as b, av.open(both, "w", format="mp4") as out:
        sound = out.add_stream_from_template(a.streams[0])
        art = out.add_stream_from_template(b.streams[0])
        art.disposition = av.stream.Disposition.attached_pic
        for source, target in ((b, art), (a, sound)):
            for packet in source.demux():
                if packet.size:
                    packet.stream = target
                    out.mux(packet)
    assert set(probe_media(both)) == {"audio"}


def bad_files(folder: Path) -> dict[str, Path]:
    good = write_video(folder / "good.mp4", pictures(50)).read_bytes()
    files = {
        "is empty": folder / "zero.mp4",
        "cut-off MP4": folder / "cut.mp4",
        "holds text, not video": folder / "text.mp4",
        "holds text": folder / "art.txt",
        "cannot be read as video": folder / "noise.mp4",
        "does not exist": folder / "missing.mp4",
        "is a folder": folder / "folder.mp4",
    }
    files["is empty"].touch()
    files["cut-off MP4"].write_bytes(good[: len(good) * 2 // 3])
    files["holds text, not video"].write_text("Once upon a time\n" * 50)
    files["holds text"].write_text("Once upon a time\n" * 50)
    noise_bytes = np.random.default_rng(0).integers(128, 256, 5000, dtype=np.uint8)
    files["cannot be read as video"].write_bytes(noise_bytes.tobytes())
    files["is a folder"].mkdir()
    return files


def test_bad_files_give_their_reason(tmp_path: Path) -> None:
    for reason, path in bad_files(tmp_path).items():
        with pytest.raises(DataError, match=reason) as caught:
            probe_media(str(path))
        assert str(path) in str(caught.value)
        with pytest.raises(DataError, match=reason):
            read_frames(str(path), np.zeros(1), 32)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission_gives_its_reason(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", pictures(3))
    path.chmod(0)
    with pytest.raises(DataError, match="no permission"):
        probe_media(str(path))


def test_no_permission_gives_its_reason_whoever_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "v.mp4", pictures(3))
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(DataError, match="no permission"):
        probe_media(str(path))


def test_a_partial_copy_counts_as_long_as_what_arrived(tmp_path: Path) -> None:
    fast = {"movflags": "faststart"}
    frames = np.random.default_rng(0).integers(0, 255, (50, 48, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / "v.mp4", frames, container_options=fast)
    whole = probe_media(str(path))["video"]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    part = probe_media(str(path))["video"]
    assert 0.3 * whole.seconds < part.seconds < 0.8 * whole.seconds
    assert len(read_frames(str(path), np.array([0.0, 1.9]), 32)) == 2


def test_damaged_packets_are_stood_in_for(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", pictures(60), options=x264(keyint=10))
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(200, len(data) // 2, 40):
        data[place] = int(rng.integers(256))
    path.write_bytes(bytes(data))
    frames = read_frames(str(path), np.arange(60) / 25, 32)
    assert frames.shape == (60, 32, 32, 3)
    again = read_frames(str(path), np.arange(60) / 25, 32)
    np.testing.assert_array_equal(frames, again)


def test_names_that_look_like_addresses_or_patterns_are_plain_files(tmp_path: Path) -> None:
    for name in ("a:b.mp4", "http:x.mp4", "50% off.mp4"):
        path = write_video(tmp_path / name, pictures(3))
        assert probe_media(str(path))["video"].length == 3


def test_the_index_reads_no_other_stream(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", pictures(50), sound=noise(2, 16_000))
    with opened(str(path)) as container:
        index = index_packets(str(path), container, choose(container, "video"))
    assert len(index.pts) == 50
    assert index.end == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("name", ["a.mkv", "a.mpg"])
def test_a_film_ends_with_its_last_frame(tmp_path: Path, name: str) -> None:
    codec = "mpeg2video" if name == "a.mpg" else "libx264"
    options = {"bf": "2", "g": "12"} | ({"crf": "10"} if codec == "libx264" else {})
    path = write_video(tmp_path / name, pictures(90), codec, options)
    info = probe_media(str(path))["video"]
    assert (info.length, info.seconds) == (90, pytest.approx(90 / RATE))
    if name != "a.mpg":
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
        there = len(decode_all(path, 16)[0])
        assert there < 80
        assert probe_media(str(path))["video"].seconds == pytest.approx(there / RATE, abs=0.2)


def test_a_cut_flv_is_as_long_as_what_is_left(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (50, 48, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / "v.flv", frames, codec="flv1")
    assert probe_media(str(path))["video"].length == 50
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    left = probe_media(str(path))["video"]
    assert 10 <= left.length <= 40
    assert left.seconds == pytest.approx(left.length / 25, abs=0.05)


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.mp4", "a.wav", "a.avi"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Dear all, this is a letter.\nYours" * 9, "text that begins with 'Dear all, this"),
        (b"\n<!DOCTYPE html><html>404 Not Found</html>", "a web page.*download it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer.*git lfs pull"),
        (b"\x1f\x8b\x08\0" + bytes(range(256)), "compressed by gzip: unpack"),
        (b"%PDF-1.4\n\x80\x81\xff\0", "a PDF"),
    ],
)
def test_what_has_a_wrong_name_is_called_what_it_seems(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"it seems to be {words}"):
        probe_media(str(path))


def test_a_broken_file_is_not_said_to_have_a_wrong_name(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\xff" * 100)
    with pytest.raises(DataError) as caught:
        probe_media(str(path))
    assert "seems" not in str(caught.value)

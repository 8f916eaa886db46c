"""A sound asks among pictures, words among both: the user's path, on files and from the command
line. The run is made here: random encoders, whose heads are solved for a space in which pictures,
sounds and words of the same thing are one point."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from mainspring import api
from mainspring.cli import main
from mainspring.clips import ClipSpec
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.joint import JointHead
from mainspring.encoders.logmel import LogMel
from mainspring.encoders.r2plus1d import R2Plus1DTiny
from mainspring.encoders.saved import save_encoder, save_joint
from mainspring.encoders.words import Words
from mainspring.training.run import Run

HALF = 2.4  # seconds of each thing; a film shows two
RATE = 16000
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (30, 40, 220),
    "white": (240, 240, 240),
    "black": (10, 10, 10),
    "yellow": (220, 220, 30),
    "purple": (160, 30, 200),
    "teal": (20, 150, 150),
}
THINGS = list(COLOURS)
PITCHES = dict(zip(THINGS, 200 * 1.5 ** np.arange(8), strict=True))
FILMS = [tuple(THINGS[i : i + 2]) for i in range(0, 8, 2)]
CLIPS = {
    "video": ClipSpec(length=8, rate=12.5, stride=2, size=24),
    "audio": ClipSpec(length=19200, rate=RATE),
    "text": ClipSpec(length=4),
}


@dataclass
class World:
    """A run, its films, and a sound that no film holds."""

    run: Path
    data: Path
    manifest: Path
    plain: Path

    def film(self, thing: str) -> Path:
        return self.data / f"{next(i for i, film in enumerate(FILMS) if thing in film)}.mp4"


def write_film(path: Path, colours: list[tuple[int, int, int]], sound: np.ndarray | None) -> None:
    """Each colour for as long as a thing lasts, at 25 frames a second, with the sound beside it."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = None if sound is None else container.add_stream("aac", rate=RATE, layout="mono")
        for colour in colours:
            pixels = np.full((48, 64, 3), colour, np.uint8)
            for _ in range(round(HALF * 25)):
                container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(video.encode())
        if audio is None or sound is None:
            return
        for at in range(0, len(sound), 1024):
            block = av.AudioFrame.from_ndarray(sound[None, at : at + 1024].copy(), "fltp", "mono")
            block.sample_rate, block.pts = RATE, at
            container.mux(audio.encode(block))
        container.mux(audio.encode())


def tone(thing: str, seconds: float, phase: float = 0.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.4 * np.sin(2 * np.pi * PITCHES[thing] * time + phase)).astype(np.float32)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("among")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        data = root / "films"
        data.mkdir()
        rows = ["uri,caption"]
        for number, film in enumerate(FILMS):
            sound = np.concatenate([tone(thing, HALF) for thing in film])
            write_film(data / f"{number}.mp4", [COLOURS[thing] for thing in film], sound)
            rows.append(f'{data / f"{number}.mp4"},"a {film[0]} film\na {film[1]} film"')
        manifest = root / "films.csv"
        manifest.write_text("\n".join(rows))
        torch.manual_seed(0)
        encoders = {
            "video": R2Plus1DTiny(width=4).eval(),
            "audio": LogMel(width=4).eval(),
            "text": Words(buckets=4096, width=8, dim=24).eval(),
        }
        for name in ("run", "plain"):
            run = Run(root / name)
            run.begin({"data": str(data), "pretext": "clip" if name == "run" else "taco"})
            for stream, encoder in encoders.items():
                save_encoder(run.encoder(stream), encoder, CLIPS[stream])
        for stream, encoder in encoders.items():
            save_joint(Run(root / "run").encoder(stream), solved(root, manifest, stream, encoder))
        yield World(root / "run", data, manifest, root / "plain")


def solved(root: Path, manifest: Path, stream: str, encoder: Encoder) -> JointHead:
    """A linear head that sends every thing to its own point."""
    found = api.embed(root / "plain", manifest, stream=stream, out=root / f"plain-{stream}")
    points = np.random.default_rng(0).standard_normal((len(THINGS), 8))
    shown = [
        THINGS.index(FILMS[row][int((start + end) / 2 > HALF)])
        for row, start, end in zip(found.rows, found.starts, found.ends, strict=True)
    ]
    whole = (found.ends <= HALF + 0.05) | (found.starts >= HALF - 0.05)
    x = np.hstack([found.matrix, np.ones((len(found), 1))]).astype(np.float64)[whole]
    scale = 1e-6 * np.trace(x @ x.T) / len(x)
    weight = x.T @ np.linalg.solve(x @ x.T + scale * np.eye(len(x)), points[shown][whole])
    head = JointHead(encoder.dim, 8)
    with torch.no_grad():
        head.layers[0].weight.copy_(torch.from_numpy(weight[:-1].T))
        head.layers[0].bias.copy_(torch.from_numpy(weight[-1]))
    return head


def said(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    main([*map(str, words), "--json"])
    return json.loads(capsys.readouterr().out)


def fails(capsys: pytest.CaptureFixture[str], *words: object, code: int = 1) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == code
    return capsys.readouterr().err


def shows(hit: dict, thing: str, world: World) -> bool:
    film = world.film(thing)
    second = FILMS[int(film.stem)].index(thing)
    middle = (hit["start"] + hit["end"]) / 2
    return Path(hit["uri"]) == film and (middle > HALF) == bool(second)


def test_a_sound_that_no_film_holds_finds_its_picture(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for thing in ("blue", "purple"):
        soundfile.write(tmp_path / "s.wav", tone(thing, 1.3, phase=1.0), RATE)
        hits = said(capsys, "search", world.run, tmp_path / "s.wav", "--among", "video",
                    "--data", world.manifest, "--k", 3)["hits"]  # fmt: skip
        assert shows(hits[0], thing, world)
        assert hits[0]["score"] > 0.9 > hits[-1]["score"]


def test_without_embeddings_the_command_that_makes_them_is_named(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ("search", world.run, f"{world.film('red')}@0-2.4", "--among", "audio", "--k", 1)
    (world.run / "embeddings" / "index.json").unlink(missing_ok=True)
    message = fails(capsys, *ask)
    assert "No audio was embedded in the shared space" in message
    assert "--stream audio --joint`, or give --data" in message
    # Vectors of the encoder alone are no answer.
    said(capsys, "embed", world.run, world.manifest, "--stream", "audio")
    assert "No audio was embedded in the shared space" in fails(capsys, *ask)
    alone = ("search", world.run, world.film("red"), "--stream", "video")
    assert "No video was embedded of " in fails(capsys, *alone)
    said(capsys, "embed", world.run, world.manifest, "--stream", "video", "--joint")
    assert "No video was embedded without --joint of " in fails(capsys, *alone)
    joint = said(capsys, "embed", world.run, world.manifest, "--stream", "audio", "--joint")
    assert joint["dim"] == 8
    hits = said(capsys, *ask)["hits"]
    assert shows(hits[0], "red", world)
    # And the other way round they do not get mixed: the encoder's own are 32 wide.
    same = said(capsys, "search", world.run, world.film("red"), "--stream", "audio", "--k", 2)
    assert all(Path(hit["uri"]) != world.film("red") for hit in same["hits"])


def test_a_film_asks_with_the_stream_that_is_not_searched(world: World) -> None:
    film = str(world.film("teal"))
    hits = api.search(world.run, f"{film}@2.4-4.8", data=world.manifest, among="video", k=1)
    by_sound = api.search(
        world.run, f"{film}@2.4-4.8", data=world.manifest, among="video", stream="audio", k=1
    )
    assert hits == by_sound
    assert shows(vars(hits[0]), "teal", world)  # a stream's own recording is an answer
    seen = api.search(
        world.run, f"{film}@2.4-4.8", data=world.manifest, among="video", stream="video", k=1
    )
    assert Path(seen[0].uri) != Path(film) or seen[0].end <= 2.4  # but a span not of itself


def test_words_find_pictures_and_sounds(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for among in ("video", "audio"):
        for thing in ("green", "yellow"):
            hits = said(capsys, "search", world.run, f"A {thing.upper()} film!", "--stream", "text",
                        "--among", among, "--data", world.manifest)["hits"]  # fmt: skip
            assert shows(hits[0], thing, world)
    hits = said(capsys, "search", world.run, world.film("white"), "--among", "text", "--stream",
                "video", "--data", world.manifest, "--k", 2)["hits"]  # fmt: skip
    assert {Path(hit["uri"]) for hit in hits} >= {world.film("white")}


def test_sentences_that_are_found_are_said(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ("search", world.run, world.film("white"), "--among", "text", "--stream", "video",
           "--data", world.manifest, "--k", 8)  # fmt: skip
    for hit in said(capsys, *ask)["hits"]:
        film = FILMS[int(Path(hit["uri"]).stem)]
        assert hit["text"] == f"a {film[int(hit['start'] > 1)]} film"
    main([*map(str, ask[:-4]), "--k", "1"])
    assert capsys.readouterr().out.rstrip().endswith(" film")
    # A window that reaches over two sentences has both.
    vectors = api.embed(world.run, world.manifest, stream="text", joint=True, hop=HALF / 2)
    assert len(vectors) == 12
    hits = api.search(world.run, "red", stream="text", among="text", k=9)
    assert {hit.text for hit in hits if Path(hit.uri) == world.film("red")} <= {
        "a red film", "a green film", "a red film a green film"
    }  # fmt: skip


def test_the_stream_that_asks_is_said(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ("search", world.run, world.film("red"), "--among", "video", "--data", world.manifest)
    main([*map(str, ask)])
    assert "Asked by the audio of the file" in capsys.readouterr().err
    write_film(tmp_path / "mute.mp4", [(90, 90, 90)], None)
    message = fails(capsys, "search", world.run, tmp_path / "mute.mp4", "--stream", "audio",
                    "--among", "video", "--data", world.manifest)  # fmt: skip
    assert "no audio stream to embed; its streams: video" in message


def test_several_lines_of_words_are_searched_as_their_mean(world: World) -> None:
    one, other, both = (
        api.search(world.run, words, data=world.manifest, stream="text", among="video", k=99)
        for words in ("a red film", "a blue film", "a red film\n\na blue film\n")
    )
    assert {both[0].uri, both[1].uri} <= {one[0].uri, one[1].uri, other[0].uri, other[1].uri}


def test_words_without_the_flag_and_without_words(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, "search", world.run, "a red film", "--among", "video")
    assert "no file 'a red film'" in message
    assert "add --stream text" in message
    message = fails(capsys, "search", world.run, "!?", "--among", "video", "--stream", "text",
                    "--data", world.manifest)  # fmt: skip
    assert "no word to search for" in message


def test_a_run_without_a_shared_space_names_what_learns_one(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ("search", world.plain, world.film("red"), "--among", "audio"),
        ("embed", world.plain, world.data, "--stream", "video", "--joint"),
        ("across", world.plain, world.data),
    ):
        message = fails(capsys, *words)
        assert "no heads into a space that its streams share. Its pretext, taco, learns" in message
        assert "these do: " in message


def test_a_finished_run_without_heads_is_not_to_be_finished(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    run.begin({"data": str(world.data), "pretext": "av_match", "preset": "l3"})
    for stream, encoder in {"video": R2Plus1DTiny(width=4), "audio": LogMel(width=4)}.items():
        save_encoder(run.encoder(stream), encoder, CLIPS[stream])
    ask = ("across", run.folder, world.data)
    assert "Give its pretrain command again to finish it." in fails(capsys, *ask)
    run.write_json("summary.json", {"steps": 3})
    message = fails(capsys, *ask)
    assert "to finish it" not in message
    assert "av_match, learns none with --preset l3; with its defaults it does." in message
    save_joint(run.encoder("video"), JointHead(R2Plus1DTiny(width=4).dim, 8))
    assert "has learnt from video only, and retrieval is between two" in fails(capsys, *ask)
    assert "to compare it with audio, train on" in fails(capsys, *ask, "--streams", "audio")


def test_a_stream_outside_the_space(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, "search", world.run, world.film("red"), "--among", "series")
    assert "shares a space between video and audio and text, not with series" in message
    np.save(world.run.parent / "s.npy", np.zeros((50, 2)))
    message = fails(capsys, "search", world.run, world.run.parent / "s.npy", "--among", "video")
    assert "has series, but" in message


def test_embeddings_of_an_older_encoder_are_not_searched(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    run.begin({"data": str(world.data), "pretext": "clip"})
    for seed in (0, 1):
        torch.manual_seed(seed)
        for stream, encoder in {"video": R2Plus1DTiny(width=4), "audio": LogMel(width=4)}.items():
            save_encoder(run.encoder(stream), encoder, CLIPS[stream])
            save_joint(run.encoder(stream), JointHead(encoder.dim, 8))
        if seed == 0:
            api.embed(run.folder, world.data, stream="video", joint=True)
    message = fails(capsys, "search", run.folder, world.film("red"), "--among", "video")
    assert "it was trained on since. Delete the part-*.parquet there and embed again" in message


def test_across_says_what_was_found_beside_chance(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    result = said(capsys, "across", world.run, world.data)
    assert result["streams"] == ["video", "audio"]
    assert (result["recordings"], result["seen"], result["problems"]) == (4, True, {})
    for way in ("video to audio", "audio to video"):
        found = result["retrieval"][way]
        assert found["recall"]["1"]["value"] == 1
        assert found["recall"]["1"]["chance"] == 0.25
        assert list(found["recall"]) == ["1"]  # among the first five are all four
        assert (found["median_rank"], found["chance_rank"]) == (1, 2.5)
        # Ten moments, of which about half look and sound the same.
        seconds = result["seconds"][way]
        assert seconds["recall"]["value"] > seconds["recall"]["chance"] == pytest.approx(0.1)
        assert seconds["error_seconds"]["value"] < 0.8 * seconds["error_seconds"]["chance"]
    assert result["spread"]["video"]["within"]["value"] > 0
    assert json.loads((world.run / "across-video-audio.json").read_text()) == result
    main(["across", str(world.run), str(world.manifest), "--streams", "text", "audio"])
    text = capsys.readouterr().out
    assert re.search(r"text to audio, R@1 +100.0%", text)
    assert "unseen" not in text


def test_recordings_that_lack_a_stream_and_silence_are_counted(
    world: World, tmp_path: Path
) -> None:
    from mainspring.api.modalities import across

    for number in (0, 1):
        (tmp_path / f"{number}.mp4").write_bytes((world.data / f"{number}.mp4").read_bytes())
    write_film(tmp_path / "mute.mp4", [(90, 90, 90)], None)
    write_film(tmp_path / "still.mp4", [(90, 90, 90)], np.zeros(38400, np.float32))
    (tmp_path / "torn.mp4").write_bytes((world.data / "0.mp4").read_bytes()[:100])
    found = across(world.run, tmp_path)
    assert "cut-off" in found.problems.pop(str(tmp_path / "torn.mp4"))
    assert found.recordings == 2
    assert found.problems == {
        str(tmp_path / "mute.mp4"): "no audio, only video",
        str(tmp_path / "still.mp4"): "its sound is silent",
    }
    assert found.silent > 1


def test_captions_that_changed_are_embedded_anew(world: World, tmp_path: Path) -> None:
    manifest = tmp_path / "films.csv"
    text = world.manifest.read_text()
    for words, expected in (("red", "red"), ("teal", "black")):
        manifest.write_text(
            text if words == "red" else text.replace("red", "?").replace("black", "red")
        )
        hit = api.search(world.run, "red", stream="text", among="text", data=manifest, k=1)[0]
        assert Path(hit.uri) == world.film(expected)


def test_across_takes_two_streams(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, "across", world.run, world.data, "--streams", "audio", code=2)
    assert "Retrieval is between two streams, not 1 (audio)" in message
    message = fails(capsys, "across", world.run, world.data, "--streams", "audio", "vido", code=2)
    assert "Did you mean 'video'" in message
    message = fails(capsys, "across", world.run, world.data, "--streams", "video", "series")
    assert "shares a space between video and audio and text, not with series" in message


def test_captions_of_one_sentence_are_not_asked_which_moment(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "films.csv"
    films = [f"{world.data / f'{i}.mp4'},a {film[0]} film" for i, film in enumerate(FILMS)]
    manifest.write_text("\n".join(["uri,caption", *films]))
    ask = ("across", world.run, manifest, "--streams", "video", "text")
    result = said(capsys, *ask)
    assert (result["seconds"], list(result["spread"]), result["still"]) == ({}, ["video"], ["text"])
    main([*map(str, ask)])
    text = capsys.readouterr().out
    assert "Within a recording" not in text
    assert "vectors of text are the same all through each recording" in text
    # Four files, so nothing to resample.
    assert "No intervals: the recordings are of 4 group(s), and fewer than 5" in text
    assert "interval" not in json.dumps(result)

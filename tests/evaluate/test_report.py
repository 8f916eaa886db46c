"""The page needs nothing but itself and says what the run folder holds."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from little_world import SeriesReader
from report_world import EVIL, recordings, result, steps, world

from mainspring.errors import RunError
from mainspring.evaluate import page
from mainspring.evaluate.report import write_report
from mainspring.training.run import Run

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Checker(HTMLParser):
    """Every tag is closed in its turn; collects tags, their attributes and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def headings(self) -> list[str]:
        return [dict(attrs)["id"] for tag, attrs in self.tags if tag == "section"]  # type: ignore[misc]


def begun(folder: Path, **config: object) -> Run:
    run = Run(folder)
    run.begin({"data": EVIL, "pretext": "taco", "batch": 8, **config})
    return run


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Checker, str]:
    """A report with everything in it."""
    run = begun(tmp_path_factory.mktemp("full") / "run", question={"transformations": ["speed"]})
    clip = {"length": 8, "rate": 12.0, "stride": 2, "size": 64}
    run.resolve({"steps": 40, "clips": {"video": clip}, "encoders": {"video": {"name": "r3d"}}})
    problems = [{"recording": EVIL, "reason": "no moov atom"}]
    run.write_json("check.json", {"recordings": 7, "held_back": 1, "problems": problems})
    ends = {"answers": {"speed": (0.61, 0.25)}, "held": True, "alarms": ["starved"]}
    facts = {"steps": 40, "seconds": 75.0, "speed": 9.0, "waiting": 0.25}
    run.write_json("summary.json", {"verdict": "of the summary", **ends, **facts})
    lines = [json.dumps(row) for row in steps(40)]
    (run.folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 41, "lo']))
    probes = {"trained": result(0.7, right=7.0), "random weights": result(0.4, right=4.0)}
    bars = {"accuracy": 0.7, "low": 0.6, "high": 0.8, "chance": 0.1}
    path = write_report(
        run,
        vectors=world(),
        probes={"motion": probes, f"looks {EVIL}": probes},
        reader=SeriesReader([16] * 24),
        catalogue=recordings(),
        arms={"one": {"motion": bars}},
        verdict=f"It paid.\nSee {EVIL}.",
    )
    assert path == run.folder / "report.html"
    text = path.read_text("utf-8")
    return run, Checker(text), text


def test_page_needs_nothing_but_itself(full: tuple[Run, Checker, str]) -> None:
    _, checked, text = full
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert {tag for tag, _ in checked.tags}.isdisjoint({"script", "link", "iframe", "object"})
    for _, attributes in checked.tags:
        assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png")
        assert (attributes.get("href") or "#").startswith("#")


def test_every_picture_says_what_it_shows(full: tuple[Run, Checker, str]) -> None:
    _, checked, _ = full
    alts = [attributes["alt"] for tag, attributes in checked.tags if tag == "img"]
    assert len(alts) == 8
    assert all(alts)
    assert any("questions answered beyond chance" in (alt or "") for alt in alts)


def test_names_are_shown_as_they_are(full: tuple[Run, Checker, str]) -> None:
    _, checked, text = full
    assert "<script>" not in text
    assert f"See {EVIL}." in checked.text
    assert checked.text.count(EVIL) >= 5


def test_page_says_what_the_run_folder_holds(full: tuple[Run, Checker, str]) -> None:
    _, checked, _ = full
    for said_there in (
        "Alarm: starved",
        "It paid.",
        "Which clips are of one recording",
        "8 frames, 64 by 64 pixels, one in 2, of 12 a second",
        "no moov atom",
        "61.0 %",
        "40 steps in 1:15, 9 samples a second, 25 % of the time waiting",
        "+30.0 (+30.0 to +30.0)",
        "1 label a class",
        "Note: class 'rare' left out.",
    ):
        assert said_there in checked.text
    assert "of the summary" not in checked.text


def test_pictures_are_files_too(full: tuple[Run, Checker, str]) -> None:
    run, _, _ = full
    names = {path.name for path in run.plots.iterdir()}
    assert {"curves.png", "map.png", "confusion.png", "labels.png", "gallery.png", "arms.png"} < (
        names
    )
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in run.plots.iterdir())


def test_sections_come_with_their_material(full: tuple[Run, Checker, str], tmp_path: Path) -> None:
    everything = full[1].headings()
    assert everything[:5] == [
        "verdict",
        "what-was-asked",
        "the-question-asked-decides-what-is-learnt",
        "what-the-data-held",
        "how-training-went",
    ]
    assert {"what-the-vectors-know-of-motion", "a-map-of-the-embeddings"} < set(everything)
    assert "what-the-encoder-finds-alike" in everything

    run = begun(tmp_path / "bare")
    bare = Checker(write_report(run).read_text())
    assert bare.headings() == ["what-was-asked", "configuration", "made-with"]
    assert "nav" not in {tag for tag, _ in bare.tags}
    run.write_json("summary.json", {"verdict": "of the summary"})
    assert "of the summary" in Checker(write_report(run).read_text()).text


def test_a_page_of_several_streams_says_which(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    run.resolve({"encoders": {"video": {"name": "r3d"}, "audio": {"name": "logmel"}}})
    two = write_report(run, verdict="Verdict on video:\nIt paid.\nVerdict on audio:\nNot here.")
    for stream in ("video", "audio"):
        assert f'<p class="lead">Verdict on {stream}:</p>' in two.read_text()
    probes = {"motion": {"trained": result(0.7, right=7.0)}}
    text = Checker(
        write_report(run, vectors=world(), probes=probes, verdict="It paid.").read_text()
    ).text
    assert f"Verdict on {world().stream}:" in text
    assert f"What the vectors of {world().stream} know of motion" in text


def test_aligned_text_stays_aligned(tmp_path: Path) -> None:
    text = "arm      accuracy\nboth     70 %"
    checked = write_report(begun(tmp_path / "run"), verdict=text).read_text()
    assert f"<pre>{text}</pre>" in checked


def test_unknown_pretext_and_foreign_folder(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", pretext="of another time")
    assert "of another time" in Checker(write_report(run).read_text()).text
    with pytest.raises(RunError, match="is no run folder"):
        write_report(Run(tmp_path / "empty"))


def test_report_without_groups_to_compare_has_no_gallery(tmp_path: Path) -> None:
    alone = replace(world(), groups=np.full(48, "one", object))
    run = begun(tmp_path / "run")
    path = write_report(run, vectors=alone, reader=SeriesReader([16] * 24), catalogue=recordings())
    assert Checker(path.read_text()).headings()[2] == "a-map-of-the-embeddings"
    assert not (run.plots / "gallery.png").exists()


def test_page_survives_names_that_are_no_unicode() -> None:
    section = page.Section("One", page.paragraphs("bad \udcff name"))
    assert b"bad ? name" in page.render("Title", "", [section])


def test_a_recording_that_training_set_aside_is_listed_once(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    problems = [{"recording": "a", "reason": "torn"}]
    run.write_json("check.json", {"recordings": 7, "problems": problems})
    found = replace(world(), problems={"a": "torn", "b": "empty"})
    text = write_report(run, vectors=found).read_text()
    assert "while embedding: torn" not in text
    assert "while embedding: empty" in text
    assert "The 2 that could not be used" in text

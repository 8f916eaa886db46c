"""What a run says of itself: the sections of its report that its folder is enough for."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mainspring.errors import ConfigError
from mainspring.evaluate import page
from mainspring.evaluate.curves import curves
from mainspring.evaluate.drawing import DPI, percent, png, said, unit
from mainspring.evaluate.page import Section
from mainspring.evaluate.vectors import Vectors
from mainspring.pretexts import catalog
from mainspring.training.progress import clock
from mainspring.training.run import Run, flat, write

LISTED = 200
"""Problems listed on the page; check.json has them all."""

PACKAGES = ("mainspring", "torch", "numpy", "av", "soundfile", "scikit-learn")


def verdict(text: str, summary: Mapping[str, Any]) -> Section | None:
    """What it all means, alarms first."""
    alarms = [
        f"Alarm: {alarm}. log.txt says when and what to do." for alarm in summary.get("alarms", [])
    ]
    if not text and not alarms:
        return None
    if "   " in text:
        words = page.preformatted(text)
    else:
        words = "".join(
            page.paragraphs(line, kind="lead" if not at or line.startswith("Verdict on") else "")
            for at, line in enumerate(text.split("\n"))
        )
    return Section("Verdict", page.paragraphs(*alarms, kind="alarm") + words)


def asked(config: Mapping[str, Any]) -> Section | None:
    """The pretext's question, and how it was put."""
    if "pretext" not in config:
        return None
    try:
        kind = catalog.find(config["pretext"])
        question, citation = kind.question, kind.citation
    except (ConfigError, AttributeError):
        question, citation = "", ""
    resolved = config.get("resolved", {})
    facts: list[tuple[str, object]] = [("pretext", config["pretext"])]
    facts += [
        (f"encoder of {stream}", _settings(encoder))
        for stream, encoder in resolved.get("encoders", {}).items()
    ]
    facts += [
        (f"clips of {stream}", _clip(clip)) for stream, clip in resolved.get("clips", {}).items()
    ]
    facts += [(key, _text(value)) for key, value in flat(config.get("question", {})).items()]
    budget = {"steps": resolved.get("steps"), "batch": config.get("batch")}
    facts += [(key, value) for key, value in budget.items() if value is not None]
    return Section(
        "What was asked",
        page.paragraphs(question, kind="lead")
        + page.paragraphs(citation and f"Source: {citation}", kind="quiet")
        + page.table(facts),
    )


def data(
    check: Mapping[str, Any], summary: Mapping[str, Any], vectors: Vectors | None
) -> Section | None:
    """Counts, and what was left out and why."""
    aside = dict(check.get("set_aside", {}))
    problems = [(one["recording"], one["reason"]) for one in check.get("problems", [])]
    failed = check.get("quarantined") or summary.get("quarantined") or {}
    problems += [(name, f"while training: {why}") for name, why in failed.items()]
    if vectors is not None:
        known = set(problems)
        problems += [
            (name, f"while embedding: {why}")
            for name, why in vectors.problems.items()
            if (name, why) not in known
        ]
    facts: list[tuple[str, object]] = []
    if "recordings" in check:
        facts.append(("recordings to learn from", check["recordings"]))
        facts.append(("kept back to ask at the end", check.get("held_back", 0)))
    facts += [(f"set aside: {reason}", count) for reason, count in aside.items()]
    if problems:
        facts.append(("could not be used", len(problems)))
    if vectors is not None:
        facts.append((f"{unit(vectors)} embedded", len(vectors)))
    if not facts:
        return None
    text = "Recordings that were used, and those that were not with the reason."
    parts = [
        page.paragraphs(text),
        page.table(facts),
        page.paragraphs(*check.get("notes", []), kind="quiet"),
    ]
    if problems:
        more = len(problems) - LISTED
        listed = page.table(problems[:LISTED], ("recording", "reason"))
        tail = page.paragraphs(f"... and {more} more.") if more > 0 else ""
        parts.append(page.details(f"The {len(problems)} that could not be used", listed + tail))
    return Section("What the data held", "\n".join(parts))


def training(run: Run, summary: Mapping[str, Any]) -> Section | None:
    """Curves, and the answers at the end."""
    rows = _rows(run.folder / "metrics.jsonl")
    if not rows:
        return None
    parts = [
        page.paragraphs(
            "The loss should fall and each question be answered beyond chance (dashed). Effective "
            "rank counts the directions the embedding uses: near 1, all recordings look alike."
        ),
        picture(
            run, "curves", curves(rows), "Single steps are faint, running means over a thirtieth "
            "of the run strong."
        ),
    ]  # fmt: skip
    answers = summary.get("answers", {})
    if answers:
        where = "recordings kept back" if summary.get("held") else "the last training steps"
        told = [(name, percent(got, 1), percent(luck, 1)) for name, (got, luck) in answers.items()]
        head = ("question", "correct", "by chance")
        parts.append(page.table(told, head, f"Answers at the end, on {where}"))
    if "seconds" in summary:
        parts.append(
            page.paragraphs(
                f"{summary['steps']} steps in {clock(summary['seconds'])}, "
                f"{summary['speed']:.0f} samples a second, {percent(summary['waiting'])} of the "
                "time waiting for data.",
                kind="quiet",
            )
        )
    return Section("How training went", "\n".join(parts))


def stamps(vectors: Vectors | None) -> Section:
    """What made all this."""
    rows: list[tuple[str, object]] = []
    for name in PACKAGES:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            continue
    rows.append(("Python", f"{platform.python_version()} on {platform.system()}"))
    if vectors is not None:
        rows += [(f"embeddings: {key}", value) for key, value in flat(vectors.stamps).items()]
    return Section("Made with", page.table(rows))


def picture(run: Run, name: str, figure: Figure, caption: str) -> str:
    """Saves a figure and embeds it; its titles are what is said to those who cannot see it."""
    content = png(figure)
    write(run.plots / f"{name}.png", content)
    width, height = (round(DPI * inches) for inches in figure.get_size_inches())
    return page.picture(content, width, height, f"{said(figure)}.", caption)


def _settings(values: Mapping[str, Any]) -> str:
    rest = ", ".join(f"{key} {_text(value)}" for key, value in values.items() if key != "name")
    name = str(values.get("name", ""))
    return f"{name} ({rest})" if name and rest else name or rest


def _clip(clip: Mapping[str, Any]) -> str:
    """How a clip is cut, in words."""
    size, stride = clip.get("crop") or clip.get("size"), clip.get("stride", 1)
    words = [f"{clip['length']} {'frames' if size else 'samples'}"]
    words += [f"{size} by {size} pixels"] if size else []
    words += [f"one in {stride}"] if stride > 1 else []
    words += [f"of {clip['rate']:.6g} a second"] if "rate" in clip else []
    return ", ".join(words)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl; one that a killed process left half written is none."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows

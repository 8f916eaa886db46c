"""What a surveyed catalogue holds, in numbers (`report`) and for people (`render`)."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mainspring.clips import ClipSpec
from mainspring.errors import DataError
from mainspring.recordings.catalogue_table import Catalogue
from mainspring.recordings.recording import STREAMS, Recording, many
from mainspring.recordings.series import read_series
from mainspring.recordings.series_file import split_uri

# A peak of -60 dB of full scale is below what a listener notices at ordinary loudness.
SILENT_PEAK = 1e-3
BLACK_MEAN = 16 + 4  # of 255: limited-range black, and noise
FROZEN_CHANGE = 0.5  # of 255: mean absolute difference of frames
_FRAMES = 8
_EXCERPTS = 10  # of a second each
_SIZE = 64  # pixels
_SERIES_ROWS = 1_000_000


def report(catalogue: Catalogue, deep: bool = True, sample: int = 200) -> dict[str, Any]:
    """Counts and shares, as plain values that JSON can hold.

    Args:
        catalogue: Surveyed.
        deep: Also decode a sample for silent, black, frozen, constant and missing content, and
            compare files for exact duplicates.
        sample: How many recordings of each stream to decode, evenly spread over the catalogue.
    """
    good = catalogue.usable()
    paths = sorted(_files(catalogue))
    sizes = {path: os.path.getsize(path) for path in paths if os.path.isfile(path)}
    timed = [s for s in ("video", "audio") if np.isfinite(good.column(f"{s}.seconds")).any()]
    result: dict[str, Any] = {
        "recordings": len(catalogue),
        "usable": len(good),
        "files": len(paths),
        "bytes": sum(sizes.values()),
        "hours": float(np.nansum(good.seconds()) / 3600) if timed else 0.0,
        "streams": {
            stream: facts for stream in STREAMS if (facts := _stream(good, stream)) is not None
        },
        "labels": _top(label for label in good.column("label") if label is not None),
        "problems": _problems(catalogue),
        "notes": list(catalogue.notes),
    }
    if deep:
        used = _files(good)
        result["duplicates"] = _duplicates({p: n for p, n in sizes.items() if p in used})
        result["content"] = _content(good, sample)
    return result


def _files(catalogue: Catalogue) -> set[str]:
    """The files that recordings lie in."""
    names = ["uri", *(f"{stream}.uri" for stream in STREAMS)]
    uris = {uri for name in names for uri in catalogue.column(name) if isinstance(uri, str) and uri}
    return {split_uri(uri)[0] for uri in uris}


def _stream(catalogue: Catalogue, stream: str) -> dict[str, Any] | None:
    lengths = catalogue.column(f"{stream}.length")
    there = np.isfinite(lengths)
    if not there.any():
        return None
    facts = {
        name: catalogue.column(f"{stream}.{name}")[there]
        for name in ("rate", "seconds", "width", "height", "channels", "codec")
    }
    seconds = _seconds(catalogue, stream)[there]
    whole = seconds == facts["seconds"]
    within = np.where(whole, lengths[there], np.floor(seconds * facts["rate"] + 1e-6))
    result: dict[str, Any] = {
        "recordings": int(there.sum()),
        "codecs": _top(facts["codec"]),
        "length": _quantiles(within),
    }
    if stream != "text":
        result["rates"] = _top(f"{rate:.6g}" for rate in facts["rate"])
    if stream == "video":
        result["sizes"] = _top(
            f"{w:.0f}x{h:.0f}" for w, h in zip(facts["width"], facts["height"], strict=True)
        )
    if stream in ("audio", "series"):
        result["channels"] = _top(f"{count:.0f}" for count in facts["channels"])
    if stream in ("video", "audio"):
        result |= {"seconds": _quantiles(seconds), "hours": float(seconds.sum() / 3600)}
    return result


def _seconds(catalogue: Catalogue, stream: str) -> np.ndarray:
    """How long a stream lasts within each recording's span; NaN where it is not there."""
    stop = np.fmin(catalogue.column(f"{stream}.seconds"), catalogue.column("end"))
    there = np.isfinite(catalogue.column(f"{stream}.seconds"))
    return np.where(there, np.maximum(stop - catalogue.column("start"), 0.0), np.nan)


def _top(values: Iterable[str], most: int = 12) -> dict[str, int]:
    """The most frequent values with their counts; the others together under "other"."""
    counts = Counter(values)
    top = dict(counts.most_common(most))
    rest = sum(counts.values()) - sum(top.values())
    return top | ({"other": rest} if rest else {})


def _quantiles(values: np.ndarray) -> dict[str, float]:
    points = {"min": 0.0, "5%": 0.05, "25%": 0.25, "50%": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}
    return {name: float(np.quantile(values, point)) for name, point in points.items()}


def _problems(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Reasons with how many recordings they concern and the first few of those."""
    uris: dict[str, list[str]] = defaultdict(list)
    for uri, problem in zip(catalogue.column("uri"), catalogue.column("problem"), strict=True):
        if problem is not None:
            uris[problem].append(uri)
    by_count = sorted(uris.items(), key=lambda item: (-len(item[1]), item[0]))
    return [{"reason": r, "count": len(who), "examples": who[:5]} for r, who in by_count]


def _duplicates(sizes: Mapping[str, int]) -> dict[str, Any]:
    """Files that are byte for byte the same. Only files of equal size are read."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for path, size in sizes.items():
        by_size[size].append(path)
    groups: dict[bytes, list[str]] = defaultdict(list)
    for same in by_size.values():
        for path in same if len(same) > 1 else ():
            try:
                with open(path, "rb") as file:
                    groups[hashlib.file_digest(file, "blake2b").digest()].append(path)
            except OSError:
                continue  # the survey names files that cannot be read
    equal = sorted(group for group in groups.values() if len(group) > 1)
    surplus = sum(len(group) - 1 for group in equal)
    return {"groups": len(equal), "surplus": surplus, "examples": equal[:5]}


def _content(catalogue: Catalogue, sample: int) -> dict[str, Any]:
    """Shares found in a sample of each stream, and what could not be decoded."""
    looks = {"video": _look_at_video, "audio": _listen, "series": _look_at_series}
    result: dict[str, Any] = {}
    for stream, look in looks.items():
        rows = np.flatnonzero(_seconds(catalogue, stream) > 0)
        if not len(rows):
            continue
        chosen = rows[np.linspace(0, len(rows) - 1, min(sample, len(rows))).astype(np.int64)]
        seen, failed = [], []
        for row in chosen:
            recording = catalogue[int(row)]
            try:
                seen.append(look(recording))
            except DataError as error:
                failed.append({"uri": recording.name, "reason": str(error)})
        shares = {
            name: float(np.mean([one[name] for one in seen])) for name in (seen[0] if seen else ())
        }
        result[stream] = {"sampled": len(chosen)} | shares | {"failed": failed}
    return result


def _look_at_video(recording: Recording) -> dict[str, float]:
    from mainspring.recordings.reader import Reader

    reader = Reader({"video": ClipSpec(length=_FRAMES, size=_SIZE)})
    extent = reader.timeline(recording)["video"].length
    places = np.unique(np.linspace(0, extent - 1, _FRAMES).round().astype(np.int64))
    frames = reader.read(recording, {"video": places[None]})["video"][0].astype(np.float32)
    change = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    return {
        "black": float(frames.mean() < BLACK_MEAN),
        "frozen": float(len(frames) > 1 and change.max() < FROZEN_CHANGE),
    }


def _listen(recording: Recording) -> dict[str, float]:
    from mainspring.recordings.reader import Reader

    reader = Reader({"audio": ClipSpec(length=1)})
    extent = reader.timeline(recording)["audio"]
    second = max(1, round(extent.rate))
    if extent.length <= _EXCERPTS * second:
        places = np.arange(extent.length)[None]
    else:
        starts = np.linspace(0, extent.length - second, _EXCERPTS).astype(np.int64)
        places = starts[:, None] + np.arange(second)
    samples = reader.read(recording, {"audio": places})["audio"]
    return {"silent": float(np.abs(np.nan_to_num(samples)).max(initial=0.0) < SILENT_PEAK)}


def _look_at_series(recording: Recording) -> dict[str, float]:
    most = recording.start + _SERIES_ROWS / recording.streams["series"].rate
    stop = most if recording.end is None else min(most, recording.end)
    rows = read_series(recording.source("series"), recording.start, stop)
    missing = np.isnan(rows)
    low = np.where(missing, np.inf, rows).min(axis=0, initial=np.inf)
    high = np.where(missing, -np.inf, rows).max(axis=0, initial=-np.inf)
    return {"constant": float(np.all(high <= low)), "missing": float(missing.mean())}


def render(report: Mapping[str, Any]) -> str:
    """The report in short, aligned lines."""
    size = report["bytes"]
    unit = "MB" if size >= 1e6 else "kB"
    lines = [
        (
            "recordings",
            f"{report['recordings']} in {many(report['files'], 'file')}, "
            f"{size / (1e6 if unit == 'MB' else 1e3):.3g} {unit}"
            + (f", {report['hours']:.3g} hours" if report["hours"] else ""),
        ),
        ("usable", f"{report['usable']} of {report['recordings']}"),
    ]
    for stream, facts in report["streams"].items():
        count = many(facts["recordings"], "recording")
        lines.append((stream, f"{count}, {_counts(facts['codecs'])}"))
        kinds = [name for name in ("sizes", "channels", "rates") if name in facts]
        lines += [("", f"{name}: {_counts(facts[name])}") for name in kinds]
        steps = " sentences" if stream == "text" else " steps"
        name, unit = ("seconds", " s") if "seconds" in facts else ("length", steps)
        span = facts[name]
        lines.append(
            ("", f"length: {span['min']:.6g} to {span['max']:.6g}{unit}, median {span['50%']:.6g}")
        )
    for stream, facts in report.get("content", {}).items():
        names = [name for name in facts if name not in ("sampled", "failed")]
        shares = [f"{100 * facts[name]:.2g} % {name}" for name in names]
        failed = [f"{len(facts['failed'])} could not be decoded"] if facts["failed"] else []
        lines.append(
            (f"{stream} seen", f"in a sample of {facts['sampled']}: {', '.join(shares + failed)}")
        )
        lines += [("", f"{one['uri']}: {one['reason']}") for one in facts["failed"][:3]]
    if report.get("duplicates", {}).get("surplus"):
        twins = report["duplicates"]
        example = " = ".join(os.path.basename(path) for path in twins["examples"][0][:3])
        surplus = many(twins["surplus"], "file") + (
            " repeats" if twins["surplus"] == 1 else " repeat"
        )
        lines.append(("duplicates", f"{surplus} another, such as {example}"))
    for index, problem in enumerate(report["problems"][:10]):
        lines.append(("problems" if index == 0 else "", f"{problem['count']}: {problem['reason']}"))
        lines.append(("", f"   {', '.join(problem['examples'][:3])}"))
    lines += [("notes" if i == 0 else "", note) for i, note in enumerate(report["notes"])]
    return "\n".join(f"{name:<12}{text}".rstrip() for name, text in lines)


def _counts(counts: Mapping[str, int], most: int = 4) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:most]]
    return ", ".join([*shown, "..."] if len(counts) > most else shown)

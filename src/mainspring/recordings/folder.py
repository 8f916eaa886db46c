"""Which files of a folder are recordings: by extension, without opening them."""

from __future__ import annotations

import difflib
import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import filterfalse
from pathlib import Path

from mainspring.errors import DataError
from mainspring.recordings import series, series_file
from mainspring.recordings.manifest import is_manifest
from mainspring.recordings.recording import many

_VIDEO = (
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .m2v .mts .m2ts .vob .flv .f4v .wmv .asf .3gp .3g2 "
    ".ogv .mxf .gif .mjpeg .y4m"
)
_AUDIO = (
    ".wav .flac .ogg .oga .opus .mp3 .m4a .m4b .aac .ac3 .aif .aiff .aifc .au .snd .wma .amr .caf "
    ".w64 .mka .wv .ape"
)
_IMAGE = ".jpg .jpeg .png .bmp .webp .tif .tiff"
VIDEO = frozenset(_VIDEO.split())
AUDIO = frozenset(_AUDIO.split())
IMAGE = frozenset(_IMAGE.split())
SERIES = frozenset(series_file.EXTENSIONS)

# Tables that lie beside recordings and describe them.
_DESCRIPTIONS = (
    "labels label classes metadata meta annotations manifest catalogue catalog index splits"
)
DESCRIPTIONS = frozenset(_DESCRIPTIONS.split())

STREAMS_OF = {
    "video": ("video", "audio"),
    "image": ("video",),
    "audio": ("audio",),
    "series": ("series",),
}


@dataclass
class Found:
    """The files of a folder.

    Attributes:
        files: Those that may be recordings, sorted.
        problems: Why a path that should be looked at cannot be.
        notes: What was left out, in sentences.
    """

    files: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def kind(path: str) -> str | None:
    """What a file should hold by its extension: video, image, audio or series; None if unknown."""
    extension = os.path.splitext(path)[1].lower()
    if extension in VIDEO:
        return "video"
    if extension in AUDIO:
        return "audio"
    if extension in SERIES:
        return "series"
    return "image" if extension in IMAGE else None


def scan(folder: str, streams: Sequence[str] | None) -> Found:
    """Every recording below a folder; see `sift` for what is left out.

    Raises:
        DataError: If it may not be read, or holds no recording.
    """
    problems: dict[str, str] = {}
    found = sift(_walk(folder, problems), streams)
    found.problems = problems
    if not found.files:
        raise DataError(_nothing(folder, found))
    return found


def matching(pattern: str, streams: Sequence[str] | None) -> Found:
    """Every recording that a glob matches, and those below the folders that it matches, each once
    though links lead to it by several ways.

    Raises:
        DataError: If nothing matches, or no recording.
    """
    problems: dict[str, str] = {}
    files = []
    matches = glob.glob(pattern, recursive=True)
    for path in matches:
        files += _walk(path, problems) if os.path.isdir(path) else [path]
    if not matches:
        raise DataError(f"No file matches {pattern!r}. {neighbours(pattern)}")
    found = sift(_entered_once(files), streams)
    found.problems = problems
    if not found.files:
        raise DataError(
            f"What matches {pattern!r} holds no recording ({'; '.join(found.notes) or 'nothing'})."
        )
    return found


def sift(paths: Iterable[str], streams: Sequence[str] | None) -> Found:
    """The recordings among the files.

    Tables that describe recordings, files of unknown kinds and those whose paths are not UTF-8 are
    left out. Images are one-frame videos where there is nothing else; beside recordings they are
    left out.

    Args:
        paths: Of files.
        streams: Leave out files that cannot hold one of these; None takes all.
    """
    found = Found()
    every = sorted(paths)
    paths, unwritable = list(filter(_is_text, every)), list(filterfalse(_is_text, every))
    offsets = {path.removesuffix(series.OFFSETS) for path in paths if path.endswith(series.OFFSETS)}
    kinds: dict[str, list[str]] = {}
    unknown: list[str] = []
    for path in paths:
        what = kind(path)
        if what == "series" and path.removesuffix(series.OFFSETS) in offsets:
            continue
        if what == "series" and _describes(path):
            found.notes.append(
                f"left out {path}: it describes recordings; to use it as "
                "a manifest, give it as the data"
            )
            continue
        if what is None:
            unknown.append(path)
        else:
            kinds.setdefault(what, []).append(path)
    if unwritable:
        example = os.fsencode(unwritable[0]).decode(errors="backslashreplace")
        found.notes.append(
            f"left out files whose paths are not UTF-8 ({len(unwritable)}, such as {example}): "
            "rename them"
        )
    if unknown:
        found.notes.append(f"ignored {_counted(unknown)}: no kind of recording")
    for what in [*kinds]:
        if what == "image" and len(kinds) > 1:
            found.notes.append(f"left out {_counted(kinds.pop(what))}: images beside recordings")
        elif streams is not None and not set(streams) & set(STREAMS_OF[what]):
            asked = " and ".join(streams)
            found.notes.append(f"left out {_counted(kinds.pop(what))}: {asked} was asked for")
    found.files = sorted(path for group in kinds.values() for path in group)
    return found


def neighbours(path: str) -> str:
    """What there is in the nearest folder that exists, for the error on a path that does not."""
    here = os.path.dirname(path)
    while here and (glob.has_magic(here) or not os.path.isdir(here)):
        here = os.path.dirname(here)
    try:
        entries = [entry for entry in os.scandir(here or ".") if not entry.name.startswith(".")]
    except OSError:
        return ""
    near = difflib.get_close_matches(os.path.basename(path), [entry.name for entry in entries], n=1)
    hint = f" Did you mean {os.path.join(here, near[0])}?" if near else ""
    folders = sum(entry.is_dir() for entry in entries)
    files = counted_kinds(entry.name for entry in entries if not entry.is_dir()) or "no files"
    return (
        f"The nearest folder that exists, {here or os.getcwd()}, holds {files} and "
        f"{many(folders, 'folder')}.{hint}"
    )


def _nothing(folder: str, found: Found) -> str:
    if found.problems:
        reason = next(iter(found.problems.items()))
        return f"{reason[0]} cannot be read: {reason[1]}. Give yourself permission to read it."
    held = f"holds no recording ({'; '.join(found.notes)})" if found.notes else "is empty"
    return (
        f"The folder {folder} {held}. Expected files of video (.mp4, .mkv, ...), sound (.wav, "
        ".flac, ...) or series (.csv, .npy, .tsv, ...) in it or below it; point to the folder that "
        "holds them, or to a manifest, a CSV with a column uri."
    )


def _walk(folder: str, problems: dict[str, str]) -> list[str]:
    """All visible files below a folder; links are followed, no folder is entered twice."""
    files: list[str] = []
    pending, entered = [folder], set()
    while pending:
        here = pending.pop()
        try:
            stat = os.stat(here)
            if (stat.st_dev, stat.st_ino) in entered:
                continue
            entered.add((stat.st_dev, stat.st_ino))
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    (pending if entry.is_dir() else files).append(entry.path)
        except PermissionError:
            problems[here] = "no permission to read this folder"
        except OSError as error:
            problems[here] = f"this folder cannot be read: {error.strerror}"
    return files


def _entered_once(paths: Iterable[str]) -> list[str]:
    """The files, each by the shortest of the paths that links to folders give it."""
    folders: dict[str, str] = {}
    files: dict[tuple[str, str], str] = {}
    for path in sorted(map(os.path.normpath, paths), key=lambda path: (path.count(os.sep), path)):
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        files.setdefault((folders[folder], name), path)
    return list(files.values())


def _is_text(path: str) -> bool:
    """Whether a path can be written down; file systems allow any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _describes(path: str) -> bool:
    stem = os.path.basename(path).partition(".")[0].lower()
    if stem in DESCRIPTIONS:
        return True
    try:
        return is_manifest(path)
    except OSError:
        return False


def counted_kinds(paths: Iterable[str]) -> str:
    """Files counted by extension: ".txt 3, .json 1"."""
    counts = Counter(Path(path).suffix.lower() or "no extension" for path in paths)
    shown = [f"{name} {count}" for name, count in counts.most_common(6)]
    return ", ".join([*shown, "..."] if len(counts) > 6 else shown)


def _counted(paths: list[str]) -> str:
    return f"{many(len(paths), 'file')} ({counted_kinds(paths)})"

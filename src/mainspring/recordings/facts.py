"""What is known of one file once it was opened, and a store that remembers it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mainspring.errors import DataError
from mainspring.recordings import archives, folder
from mainspring.recordings.guard import Overdue, within
from mainspring.recordings.recording import StreamInfo
from mainspring.recordings.series import probe_series
from mainspring.recordings.timestamps import way

_DEADLINE = 120.0  # seconds that opening one file may take


@dataclass(frozen=True)
class FileFacts:
    """A file's recordings. Facts of a file that cannot be used are a problem and nothing else.

    Attributes:
        problem: Why the file cannot be used, if so.
        keys: What follows `#` in the uri of each recording; one empty key for a file of one.
        streams: The streams of each recording.
        labels: The class of each recording, for evaluation only.
        problems: Why each recording cannot be used, if so.
        columns: Names of the variables of a table.
        lasting: Whether the facts hold until the file changes (a lack of permission does not).
    """

    problem: str | None = None
    keys: tuple[str, ...] = ("",)
    streams: tuple[dict[str, StreamInfo], ...] = ({},)
    labels: tuple[str | None, ...] = (None,)
    problems: tuple[str | None, ...] = (None,)
    columns: tuple[str, ...] = ()
    lasting: bool = field(default=True, compare=False)

    def chosen(self, key: str | None) -> list[int]:
        """Which of the file's recordings are meant by what follows `#` in a uri (None: all)."""
        if key is None or (len(self.keys) == 1 and key == "0"):
            return list(range(len(self.keys)))
        if key.isdecimal() and int(key) < len(self.keys) and self.keys[int(key)] == key:
            return [int(key)]
        return [self.keys.index(key)] if key in self.keys else []


def probe(path: str) -> FileFacts:
    """Opens a file and states what it holds. Whatever is wrong with it becomes its problem."""
    refusal = _refusal(path)
    if refusal is not None:
        return FileFacts(refusal, lasting=False)
    try:
        if folder.kind(path) == "series" and not _is_film(path):
            held = within(_DEADLINE, probe_series, path)
            streams = tuple({"series": info} for info in held.infos)
            return FileFacts(None, held.keys, streams, held.labels, held.problems, held.columns)
        from mainspring.recordings.video import probe_media

        return FileFacts(streams=(within(_DEADLINE, probe_media, path),))
    except DataError as error:
        # Another time the disk may answer.
        passing = isinstance(error, Overdue) or isinstance(error.__cause__, OSError)
        return FileFacts(_without_path(str(error), path), lasting=not passing)
    except Exception as error:  # one odd file among many must not end the survey
        reason = f"Reading the file failed: {type(error).__name__}: {error}"
        return FileFacts(_without_path(reason, path), lasting=False)


def _refusal(path: str) -> str | None:
    """Why a file cannot even be opened."""
    if "://" in path:
        return "It is a network address; only files on disk are read: download it first."
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        return "There is no such file."
    except OSError as error:
        return f"The file cannot be reached: {error.strerror}."
    if os.path.isdir(path):
        return "It is a folder; a manifest or list names files."
    if not os.access(path, os.R_OK):
        return "There is no permission to read the file."
    return None if size else "The file is empty (0 bytes). Copy or download it again."


def _is_film(path: str) -> bool:
    return path.lower().endswith(".ts") and archives.is_transport_stream(path)


def _without_path(reason: str, path: str) -> str:
    """The reason in words that are the same for all files that share it."""
    text = reason.replace(f"{path}: ", "").replace(path, "the file")
    return text[:1].upper() + text[1:]


class FactStore:
    """Facts of files, remembered in a folder under path, size, date of change and the way with
    irregular times.

    Entries are lines that are only ever appended, so that nothing is lost when a process is killed
    and two processes do no harm; a line cut short is passed over.

    Args:
        where: The folder; None remembers nothing.
    """

    def __init__(self, where: str | Path | None) -> None:
        self._path = None if where is None else Path(where) / "survey-5.jsonl"
        self._stamps: dict[str, list[int | str] | None] = {}

    @cached_property
    def _known(self) -> dict[str, dict[str, Any]]:
        """By path; read when a file is first asked for."""
        known: dict[str, dict[str, Any]] = {}
        if self._path is None or not self._path.exists():
            return known
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                    known[entry["path"]] = entry
                except (ValueError, KeyError, TypeError):
                    continue
        return known

    def get(self, path: str) -> FileFacts | None:
        """What is remembered of a file, if it did not change since."""
        stamp = self._stamps[path] = _stamp(path)
        entry = self._known.get(os.path.abspath(path))
        if entry is None or entry.get("stamp") != stamp:
            return None
        facts = entry["facts"]
        streams = tuple({k: StreamInfo(**v) for k, v in one.items()} for one in facts["streams"])
        return FileFacts(
            facts["problem"],
            tuple(facts["keys"]),
            streams,
            tuple(facts["labels"]),
            tuple(facts["problems"]),
            tuple(facts["columns"]),
        )

    def put(self, found: dict[str, FileFacts]) -> None:
        """Remembers facts of files, those that last. The files were asked for (`get`) before they
        were opened, so that facts of one that changed meanwhile are not taken for its new ones."""
        if self._path is None:
            return
        lines = [
            json.dumps({"path": os.path.abspath(path), "stamp": stamp, "facts": asdict(facts)})
            for path, facts in found.items()
            if facts.lasting and (stamp := self._stamps[path]) is not None
        ]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + "\n".join(lines) + "\n" if lines else "")


def _stamp(path: str) -> list[int | str] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, way()]  # irregular times may add a channel

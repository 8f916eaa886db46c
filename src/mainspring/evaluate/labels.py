"""Labels from a CSV file, matched to the recordings that were embedded."""

from __future__ import annotations

import csv
import difflib
import itertools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from mainspring.errors import DataError
from mainspring.evaluate.vectors import Vectors, known

USUAL = {
    "uri": ("file", "path", "filename", "filepath", "name", "video", "clip", "recording", "id"),
    "label": ("class", "category", "target", "labels", "y", "tag"),
}
"""What such columns are called elsewhere; used for suggestions only."""


@dataclass(frozen=True)
class Labels:
    """Labels of the rows of a `Vectors`.

    Attributes:
        values: Class name of each row (str), None where the file has none.
        matched: Rows with a label.
        missing: Rows without.
        unused: Lines of the file that no row asked for.
    """

    values: np.ndarray
    matched: int
    missing: int
    unused: int

    def __str__(self) -> str:
        return (
            f"{self.matched} of {self.matched + self.missing} rows labelled, "
            f"{self.unused} lines of the labels unused"
        )


@dataclass
class _Line:
    """One line of the file: a label of the span [start, end) of a recording."""

    number: int
    uri: str
    label: str
    start: float
    end: float
    used: bool = False


def read_labels(path: Path | str, vectors: Vectors, column: str = "label") -> Labels:
    """Reads `uri,label` (optionally `start,end` in seconds) and finds each row's label.

    The label may be in a column of another name, so that one file can hold several.

    A uri is taken as written, or relative to the file's folder; failing that, recordings match by
    file name with or without suffix, where one name stands for one recording on either side. With
    start and end a row takes the label of the span that holds its middle.

    Raises:
        DataError: If a column is missing, a value is no number, two lines contradict each other,
            or no line matches.
    """
    path = Path(path)
    lines = _read(path, column)
    by_key: list[dict[str, list[_Line]]] = [{}, {}, {}]
    for line in lines:
        for level, key in zip(by_key, _keys(line.uri, path.parent), strict=True):
            level.setdefault(key, []).append(line)
    wanted = sorted(set(vectors.uris))
    here = Path.cwd()
    keys = {uri: _keys(uri, here) for uri in wanted}
    counts = [Counter(k[level] for k in keys.values()) for level in range(3)]
    found: dict[str, list[_Line]] = {}
    for uri in wanted:
        for depth, key in enumerate(keys[uri]):
            candidates = by_key[depth].get(key, [])
            if candidates and counts[depth][key] == 1 and len({c.uri for c in candidates}) == 1:
                found[uri] = candidates
                break
    if not found:
        raise DataError(
            f"No line of {path} belongs to a recording that was embedded. It names, for example, "
            f"{lines[0].uri!r}; embedded were, for example, {wanted[0]!r}. The uri is a path "
            f"relative to the file of labels, a whole path, or a file name that occurs once."
        )
    for uri, candidates in found.items():
        _contradiction(path, uri, candidates)
    values = np.full(len(vectors), None, object)
    for row, uri in enumerate(vectors.uris):
        middle = (vectors.starts[row] + vectors.ends[row]) / 2
        for line in found.get(uri, ()):
            if line.start <= middle < line.end:
                values[row] = line.label
                line.used = True
                break
    matched = int(known(values).sum())
    unused = sum(not line.used for line in lines)
    return Labels(values, matched, len(vectors) - matched, unused)


def _keys(uri: str, folder: Path) -> tuple[str, str, str]:
    """Whole path, file name and stem, each with the `#row` that picks one of many in a file."""
    file, mark, row = uri.rpartition("#")
    if not mark or not row.isdigit():
        file, mark, row = uri, "", ""
    pure = PurePosixPath(file.replace("\\", "/"))
    whole = folder / file
    return (
        f"{Path(*_resolved(whole.absolute().parts))}{mark}{row}",
        f"{pure.name}{mark}{row}",
        f"{pure.stem}{mark}{row}",
    )


def _resolved(parts: Iterable[str]) -> list[str]:
    """Parts of a path without `..`, found without asking the disk."""
    kept: list[str] = []
    for part in parts:
        if part == ".." and len(kept) > 1:
            kept.pop()
        elif part != "..":
            kept.append(part)
    return kept


def _read(path: Path, column: str) -> list[_Line]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"Cannot read the labels {path}: {error}. Expected a CSV of uri,{column}."
        ) from error
    head = text.split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    reader = csv.DictReader(text.splitlines(), delimiter=separator)
    columns = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = columns
    for needed in ("uri", column):
        if needed not in columns:
            near = [name for name in columns if name.lower() in (needed, *USUAL.get(needed, ()))]
            near += difflib.get_close_matches(needed, columns, n=1)
            hint = f" Rename {near[0]!r} to {needed!r}." if near else ""
            raise DataError(
                f"{path} has no column {needed!r}; its columns are "
                f"{', '.join(columns) or 'none'}.{hint} Expected columns uri,{column}."
            )
    lines = []
    for number, row in enumerate(reader, start=2):
        uri, label = (row["uri"] or "").strip(), (row[column] or "").strip()
        if not uri or not label:
            continue
        try:
            start, end = float(row.get("start") or 0), float(row.get("end") or math.inf)
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: start and end are seconds, not {row.get('start')!r} and "
                f"{row.get('end')!r}."
            ) from error
        lines.append(_Line(number, uri, label, start, end))
    if not lines:
        raise DataError(f"{path} holds no line with both a uri and a {column}.")
    return lines


def _contradiction(path: Path, uri: str, lines: list[_Line]) -> None:
    """Raises if two spans of a recording overlap with different labels."""
    ordered = sorted(lines, key=lambda line: (line.start, line.end))
    for first, second in itertools.pairwise(ordered):
        if second.start < first.end and first.label != second.label:
            raise DataError(
                f"{path}, lines {first.number} and {second.number}: {uri!r} is both "
                f"{first.label!r} and {second.label!r}. Give each span one label."
            )

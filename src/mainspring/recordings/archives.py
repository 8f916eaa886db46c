"""Series in the text formats of the public archives: UCR `.tsv` and sktime's and aeon's `.ts`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from mainspring.errors import DataError
from mainspring.recordings.series_file import SeriesFile, joined


def is_ucr(path: str) -> bool:
    """Whether a `.tsv` is of the UCR archive (a class, then numbers), not a table with a header."""
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
    cells = first.rstrip("\r\n").split("\t")
    return len(cells) > 1 and all(_number(cell) is not None for cell in cells[1:])


def is_transport_stream(path: str) -> bool:
    """Whether a `.ts` is MPEG video (a packet of 188 bytes begins with 0x47), not a text file."""
    with Path(path).open("rb") as file:
        head = file.read(189)
    return len(head) == 189 and head[0] == head[188] == 0x47


def read_ucr(path: str) -> SeriesFile:
    """One series a line: its class, then its values; missing values at its end are padding.

    Raises:
        DataError: If a value is no number (with its line).
    """
    series: list[np.ndarray] = []
    labels: list[str | None] = []
    for number, line in _lines(path):
        label, *cells = line.split("\t")
        series.append(_values(path, number, cells)[:, None])
        labels.append(_class_name(label))
    return _collected(path, series, labels, "ucr")


def read_ts(path: str) -> SeriesFile:
    """The `.ts` format: `@` lines, then one series a line, its variables separated by `:`, its
    values by `,`, `?` where missing; the class (or the target of a regression) comes last.

    Variables of unequal length are padded with missing values to the longest of their series.

    Raises:
        DataError: If a line cannot be read (with its number), or values carry time stamps.
    """
    header: dict[str, str] = {}
    series: list[np.ndarray] = []
    labels: list[str | None] = []
    data = False
    for number, line in _lines(path):
        if line.startswith("#"):
            continue
        if not data:
            if not line.startswith("@"):
                raise DataError(
                    f"{path}: line {number} holds {line[:40]!r}, where a line with @ was expected: "
                    "is it a .ts file of sktime or aeon?"
                )
            key, value = [*line[1:].lower().split(maxsplit=1), "", ""][:2]
            header[key] = value.strip()
            data = key == "data"
            if header.get("timestamps", "false") == "true":
                raise DataError(f"{path}: values with time stamps are not read: write them as CSV.")
            continue
        variables = line.split(":")
        labels.append(None)
        if _has_target(header):
            labels[-1] = _class_name(variables.pop())
        parts = [_values(path, number, variable.split(",")) for variable in variables]
        rows = np.full((max(map(len, parts), default=0), len(parts)), np.nan, dtype=np.float32)
        for channel, part in enumerate(parts):
            rows[: len(part), channel] = part
        series.append(rows)
    return _collected(path, series, labels, "ts")


def _has_target(header: dict[str, str]) -> bool:
    return any(header.get(key, "").startswith("true") for key in ("classlabel", "targetlabel"))


def _lines(path: str) -> Iterator[tuple[int, str]]:
    with Path(path).open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.strip("\r\n")


def _number(cell: str) -> float | None:
    cell = cell.strip()
    if cell in ("", "?", "NA"):
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return None


def _values(path: str, line: int, cells: list[str]) -> Float32[np.ndarray, "time"]:
    """The numbers of one variable; missing ones at the end are padding."""
    try:
        numbers = np.array(list(map(float, cells)), dtype=np.float64)
    except ValueError:
        read = [_number(cell) for cell in cells]
        for place, value in enumerate(read):
            if value is None:
                raise DataError(
                    f"{path}: line {line} holds {cells[place].strip()[:40]!r}, where a number was "
                    "expected."
                ) from None
        numbers = np.array(read, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(numbers))
    with np.errstate(over="ignore"):
        return numbers[: known[-1] + 1 if len(known) else 0].astype(np.float32)


def _class_name(text: str) -> str | None:
    """A class as written, but 1 for 1.0000000e+00."""
    text = text.strip()
    try:
        value = float(text)
    except ValueError:
        return text or None
    return str(int(value)) if value.is_integer() else text


def _collected(
    path: str, series: list[np.ndarray], labels: list[str | None], format: str
) -> SeriesFile:
    widths = sorted({rows.shape[1] for rows in series})
    if not series:
        raise DataError(f"{path} holds no series, where one a line was expected.")
    if len(widths) > 1:
        raise DataError(
            f"{path}: its series have {' and '.join(map(str, widths))} variables, where all must "
            "have the same number."
        )
    return joined(series, format, list(map(str, range(len(series)))), labels)

"""Series in tables: CSV and Parquet, a row a time step, a numeric column a variable."""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from mainspring.errors import DataError
from mainspring.recordings.series_file import SeriesFile, one
from mainspring.recordings.timestamps import on_grid, seconds_of

MISSING = [*pyarrow.csv.ConvertOptions().null_values, "?", "-", "None", "none", "NAN", "NaT"]

_DELIMITERS = ";\t|, "
_DECIMAL_COMMA = re.compile(r"^\s*[-+]?\d*,\d+([eE][-+]?\d+)?\s*$")
_WHOLE = re.compile(r"^\s*[-+]?\d*\s*$")
_MOMENT = re.compile(
    r"^\s*(\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4})?([ T].*)?|\d{1,2}:\d\d(:\d\d.*)?)\s*$"
)
_SNIFFED = 1 << 16  # bytes
_LARGEST_BLOCK = 1 << 30  # bytes; pyarrow infers a column's type from one block


@dataclass(frozen=True)
class Dialect:
    """How a text table is written.

    Attributes:
        delimiter: What separates cells.
        decimal: What separates the fraction of a number.
        encoding: Of its characters.
        skip: Lines of comment before the table.
        header: Names of its columns as written; None where the first line holds data.
    """

    delimiter: str
    decimal: str
    encoding: str
    skip: int
    header: tuple[str, ...] | None


def sniff(path: str) -> Dialect:
    """The dialect of a text table, told from its beginning.

    Raises:
        DataError: If it is binary.
    """
    with Path(path).open("rb") as file:
        head = file.read(_SNIFFED)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in head:
        raise DataError(f"{path} holds binary data, where text with a table was expected.")
    else:
        encoding = "utf-8"
        try:
            codecs.getincrementaldecoder("utf-8")().decode(head)
        except UnicodeDecodeError:
            encoding = "latin-1"
    lines = head.decode(encoding, errors="ignore").removeprefix("\ufeff").splitlines()
    skip = 0
    while skip < len(lines) and (not lines[skip].strip() or lines[skip].lstrip().startswith("#")):
        skip += 1
    shown = [line for line in lines[skip:] if line.strip()][:3]
    if not shown:
        raise DataError(f"{path} holds no line of data, where a table was expected.")
    delimiter = _delimiter(shown)
    rows = list(csv.reader(shown, delimiter=delimiter))
    decimal = "."
    if delimiter != "," and any(_DECIMAL_COMMA.match(cell) for row in rows for cell in row):
        decimal = ","
    titled = any(not _is_data(cell, decimal) for cell in rows[0]) or _is_numbered(rows)
    header = tuple(cell.strip() for cell in rows[0]) if titled else None
    return Dialect(delimiter, decimal, encoding, skip, header)


def _delimiter(lines: list[str]) -> str:
    """The first of `_DELIMITERS` that splits all shown lines into equally many cells."""
    for delimiter in _DELIMITERS:
        widths = {len(row) for row in csv.reader(lines, delimiter=delimiter)}
        if len(widths) == 1 and widths != {1}:
            return delimiter
    return ","


def _is_data(cell: str, decimal: str) -> bool:
    if cell.strip() in MISSING or _MOMENT.match(cell):
        return True
    try:
        float(cell.replace(decimal, "."))
    except ValueError:
        return False
    return True


def _is_numbered(rows: list[list[str]]) -> bool:
    """Whether the first row numbers columns from 0, as pandas does for those without a name: behind
    an empty cell for its index, or above cells none of which is a whole number."""
    cells = [cell.strip() for cell in rows[0]]
    named = cells[1:] if cells[0] == "" else cells
    if not named or named != [str(number) for number in range(len(named))]:
        return False
    below = [cell for row in rows[1:] for cell in row]
    return len(named) < len(cells) or (
        len(named) > 1 and bool(below) and not any(_WHOLE.match(cell) for cell in below)
    )


def read_csv(path: str) -> SeriesFile:
    """A text table as one series. A time or date column gives the rate and is left out; empty
    cells are missing values; decimal commas are understood where commas do not separate cells.

    Raises:
        DataError: If it is no table, or a column is not numeric (with column and line).
    """
    dialect = sniff(path)
    size = Path(path).stat().st_size
    try:
        table = pyarrow.csv.read_csv(
            path,
            pyarrow.csv.ReadOptions(
                skip_rows=dialect.skip,
                autogenerate_column_names=dialect.header is None,
                encoding=dialect.encoding,
                block_size=min(max(size, _SNIFFED) + 1, _LARGEST_BLOCK),
            ),
            pyarrow.csv.ParseOptions(delimiter=dialect.delimiter),
            pyarrow.csv.ConvertOptions(
                null_values=MISSING, strings_can_be_null=True, decimal_point=dialect.decimal
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DataError(f"{path} is no table of numbers: {_brief(error)}.") from error
    names = dialect.header or tuple(f"column {i + 1}" for i in range(table.num_columns))
    return _series(path, table.rename_columns(list(names)), "csv", dialect)


def read_parquet(path: str) -> SeriesFile:
    """A Parquet table as one series, under the rules of `read_csv`.

    Raises:
        DataError: If it is no Parquet, or a column is not numeric (with column and row).
    """
    try:
        table = pyarrow.parquet.read_table(path, use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is no Parquet file: {_brief(error)}.") from error
    return _series(path, table, "parquet", None)


def _series(path: str, table: pa.Table, format: str, dialect: Dialect | None) -> SeriesFile:
    names, columns, clock = [], [], None
    for index, name in enumerate(table.column_names):
        column = table.column(index)
        seconds = seconds_of(name if dialect is None or dialect.header else "", column, index == 0)
        if seconds is not None and clock is None:
            clock = (name, seconds)
            continue
        columns.append(_numbers(path, name, index, column, dialect))
        names.append(name)
    if not columns or not table.num_rows:
        raise DataError(
            f"{path} has {table.num_rows} rows and {len(columns)} numeric columns, where a table "
            "with a row a time step and a column a variable was expected."
        )
    values, rate = np.stack(columns, axis=1), 1.0
    if clock is not None:
        values, rate = on_grid(values, clock[1], f"{path}: the time column {clock[0]!r}")
    known = tuple(names) if dialect is None or dialect.header else ()
    return one(values, format, rate, known)


def _numbers(
    path: str, name: str, index: int, column: pa.ChunkedArray, dialect: Dialect | None
) -> np.ndarray:
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan, dtype=np.float32)
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        where = _culprit(path, index, column, dialect)
        raise DataError(
            f"{path}: column {name!r} is not numeric: {where}. A series holds numbers and at most "
            "one time column: leave the column out, or code it as numbers."
        )
    with np.errstate(over="ignore"):
        return column.cast(pa.float64(), safe=False).to_numpy().astype(np.float32)


def _culprit(path: str, index: int, column: pa.ChunkedArray, dialect: Dialect | None) -> str:
    """The first cell that is no number, and its line."""
    if dialect is None:
        return f"it is of type {column.type}"
    text = Path(path).read_text(dialect.encoding).removeprefix("\ufeff")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=dialect.delimiter)
    for row in reader:
        if reader.line_num <= dialect.skip or len(row) <= index:
            continue
        if dialect.header is not None and tuple(map(str.strip, row)) == dialect.header:
            continue
        cell = row[index].strip()
        try:
            if cell not in MISSING:
                float(cell.replace(dialect.decimal, "."))
        except ValueError:
            return f"line {reader.line_num} holds {cell[:40]!r}"
    return f"it was read as {column.type}"


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(". ")[:200] if str(error) else type(error).__name__

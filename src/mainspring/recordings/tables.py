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
from mainspring.recordings.timestamps import clock_among, on_grid

MISSING = [*pyarrow.csv.ConvertOptions().null_values, "?", "-", "None", "none", "NAN", "NaT"]

_DELIMITERS = ";\t|, "
_DECIMAL_COMMA = re.compile(r"^\s*[-+]?\d*,\d+([eE][-+]?\d+)?\s*$")
_WHOLE = re.compile(r"^\s*[-+]?\d*\s*$")
_MOMENT = re.compile(
    r"^\s*(\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4})?([ T].*)?|\d{1,2}:\d\d(:\d\d.*)?)\s*$"
)
_BLANKS = re.compile(r"[ \t]+")
_SNIFFED = 1 << 16  # bytes, more where a line is longer
_SHOWN = 3  # lines
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
        units: Whether the line below the names holds units.
        aligned: Whether columns are aligned by any number of blanks; the delimiter is then one.
    """

    delimiter: str
    decimal: str
    encoding: str
    skip: int
    header: tuple[str, ...] | None
    units: bool
    aligned: bool

    def text(self, path: str) -> str:
        """All of the file, cells separated by one delimiter. Characters beyond its beginning may be
        of another encoding."""
        text = Path(path).read_text(self.encoding, errors="replace").removeprefix("\ufeff")
        if not self.aligned:
            return text
        return "\n".join(_BLANKS.sub(" ", line.strip()) for line in text.splitlines())

    def source(self, path: str) -> str | io.BytesIO:
        """What to read the table from: the file itself where it can be read as it is."""
        return io.BytesIO(self.text(path).encode(self.encoding)) if self.aligned else path


def sniff(path: str) -> Dialect:
    """The dialect of a text table, told from its beginning.

    Raises:
        DataError: If it is binary.
    """
    size, read = Path(path).stat().st_size, _SNIFFED
    while True:
        with Path(path).open("rb") as file:
            head = file.read(read)
        encoding = _encoding(path, head)
        lines = head.decode(encoding, errors="ignore").removeprefix("\ufeff").splitlines()
        if read < size:
            lines = lines[:-1]  # cut short
        skip = 0
        while skip < len(lines) and (not lines[skip].strip() or _is_comment(lines[skip])):
            skip += 1
        shown = [line for line in lines[skip:] if line.strip()][:_SHOWN]
        if len(shown) == _SHOWN or read >= size:
            break
        read *= 4
    if not shown:
        raise DataError(f"{path} holds no line of data, where a table was expected.")
    delimiter = _delimiter(shown)
    aligned = delimiter is None
    rows = [line.split() for line in shown] if delimiter is None else _cells(shown, delimiter)
    delimiter = delimiter or " "
    decimal = "."
    if delimiter != "," and any(_DECIMAL_COMMA.match(cell) for row in rows for cell in row):
        decimal = ","
    titled = any(not _is_data(cell, decimal) for cell in rows[0]) or _is_numbered(rows)
    header = tuple(cell.strip() for cell in rows[0]) if titled else None
    units = titled and len(rows) == _SHOWN and _is_units(rows[1], rows[2], decimal)
    return Dialect(delimiter, decimal, encoding, skip, header, units, aligned)


def _encoding(path: str, head: bytes) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in head:
        raise DataError(f"{path} holds binary data, where text with a table was expected.")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _cells(lines: list[str], delimiter: str) -> list[list[str]]:
    return list(csv.reader(lines, delimiter=delimiter))


def _delimiter(lines: list[str]) -> str | None:
    """The first of `_DELIMITERS` that splits all shown lines into equally many cells, none of them
    for want of a second blank; None where only runs of blanks do."""
    for delimiter in _DELIMITERS:
        if not all(delimiter in line for line in lines):
            continue
        rows = _cells(lines, delimiter)
        if len({len(row) for row in rows}) > 1:
            continue
        if delimiter != " " or all(cell for row in rows for cell in row):
            return delimiter
    widths = {len(line.split()) for line in lines}
    return None if len(widths) == 1 and widths != {1} else ","


def _is_data(cell: str, decimal: str) -> bool:
    if cell.strip() in MISSING or _MOMENT.match(cell):
        return True
    try:
        float(cell.replace(decimal, "."))
    except ValueError:
        return False
    return True


def _is_units(cells: list[str], below: list[str], decimal: str) -> bool:
    """Whether a line holds words and signs of absence alone, above one that holds no word."""
    words = [cell for cell in cells if cell.strip() not in MISSING]
    return (
        bool(words)
        and not any(_is_data(cell, decimal) for cell in words)
        and all(_is_data(cell, decimal) for cell in below)
    )


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


def read_text(path: str) -> tuple[pa.Table, Dialect]:
    """A text table with its columns as they are, and how it is written.

    Raises:
        DataError: If it is no table.
    """
    try:
        dialect, size = sniff(path), Path(path).stat().st_size
        table = pyarrow.csv.read_csv(
            dialect.source(path),
            pyarrow.csv.ReadOptions(
                skip_rows=dialect.skip,
                skip_rows_after_names=int(dialect.units),
                autogenerate_column_names=dialect.header is None,
                encoding=dialect.encoding,
                block_size=min(max(size, _SNIFFED) + 1, _LARGEST_BLOCK),
            ),
            pyarrow.csv.ParseOptions(delimiter=dialect.delimiter),
            pyarrow.csv.ConvertOptions(
                null_values=MISSING, strings_can_be_null=True, decimal_point=dialect.decimal
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, csv.Error) as error:
        raise DataError(f"{path} is no table of numbers: {_brief(error)}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    names = dialect.header or tuple(f"column {i + 1}" for i in range(table.num_columns))
    return table.rename_columns(list(names)), dialect


def read_csv(path: str) -> SeriesFile:
    """A text table as one series. A time or date column gives the rate and is left out; empty
    cells are missing values; decimal commas are understood where commas do not separate cells; a
    line of units below the names is passed over.

    Raises:
        DataError: If it is no table, or a column is not numeric (with column and line).
    """
    table, dialect = read_text(path)
    return _series(path, table, "csv", dialect)


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
    titled = dialect is None or dialect.header is not None
    every = table.column_names
    clock = clock_among(every if titled else [""] * len(every), table.schema.types, table.column)
    others = [at for at in range(len(every)) if clock is None or at not in clock.places]
    names = tuple(every[at] for at in others)
    columns = [_numbers(path, every[at], at, table.column(at), dialect) for at in others]
    if not columns or not table.num_rows:
        raise DataError(
            f"{path} has {table.num_rows} rows and {len(columns)} numeric columns, where a table "
            "with a row a time step and a column a variable was expected."
        )
    values, rate = np.stack(columns, axis=1), 1.0
    if clock is not None:
        values, rate = on_grid(values, clock.seconds, f"{path}: the time column {clock.name!r}")
    return one(values, format, rate, names if titled else ())


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
    text = io.StringIO(dialect.text(path), newline="")
    reader = csv.reader(text, delimiter=dialect.delimiter)
    above = dialect.skip + (dialect.header is not None) + dialect.units
    for row in reader:
        if reader.line_num <= above or len(row) <= index:
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

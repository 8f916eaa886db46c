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
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from mainspring.errors import DataError
from mainspring.recordings import dates
from mainspring.recordings.recording import many
from mainspring.recordings.seems import no_data, seems
from mainspring.recordings.series_file import SeriesFile, one
from mainspring.recordings.timestamps import Clock, clock_among

_SIGNS = "? - -- --- None none NAN NaT n.a. <NA> #DIV/0! #VALUE! #REF! #NUM! #NAME? #NULL!"
MISSING = [*pyarrow.csv.ConvertOptions().null_values, *_SIGNS.split()]
_TRUE = [*pyarrow.csv.ConvertOptions().true_values, "ON", "On", "on", "YES", "Yes", "yes"]
_FALSE = [*pyarrow.csv.ConvertOptions().false_values, "OFF", "Off", "off", "NO", "No", "no"]

_DELIMITERS = ";\t|, "
_ALIGNED = "  "
_DECIMAL_COMMA = re.compile(r"^\s*[-+]?\d*,\d+([eE][-+]?\d+)?\s*$")
_WHOLE = re.compile(r"^\s*[-+]?\d*\s*$")
_MOMENT = re.compile(
    r"^\s*(\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4})?([ T].*)?|\d{1,2}:\d\d(:\d\d.*)?)\s*$"
)
_NAMED_MONTH = re.compile(r"(?i)\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b.*\d{4}")
_SURE_POINT = re.compile(r"^\s*[-+]?\d*\.(\d|\d\d|\d{4,})([eE][-+]?\d+)?\s*$")
_GROUPS = "[-+]?(?:[1-9][0-9]{0,2}(?:[MARK'\u2019\u00a0\u202f ][0-9]{3})+|[0-9]*)"
# By decimal sign: numbers whose thousands may be set apart, and a comma without them.
_GROUPED = {
    sign: rf"^\s*{_GROUPS.replace('MARK', mark)}(?:\{sign}\d*)?(?:[eE][-+]?\d+)?\s*$"
    for sign, mark in ((".", ","), (",", "."))
}
_BLANKS = re.compile(r"[ \t]+")
_SEPARATOR_LINE = re.compile(r"(?i)\s*\"?sep=(.)\"?\s*$")
_SNIFFED = 1 << 16  # bytes, more where a line is longer
_SHOWN = 3  # lines
_TAIL = 5  # lines that show how a table goes on
_LARGEST_BLOCK = 1 << 30  # bytes; pyarrow infers a column's type from one block


@dataclass(frozen=True)
class Dialect:
    """How a text table is written.

    Attributes:
        delimiter: What separates cells.
        decimal: What separates the fraction of a number.
        encoding: Of its characters.
        skip: Lines before the table.
        header: Names of its columns as written; None where the first line holds data.
        units: Lines from below the names to a line of units, where there is one.
        aligned: Whether columns are aligned by any number of blanks; the delimiter is then one.
        trailing: Whether lines end with a delimiter that separates nothing.
    """

    delimiter: str
    decimal: str
    encoding: str
    skip: int
    header: tuple[str, ...] | None
    units: int
    aligned: bool
    trailing: bool

    def text(self, path: str) -> str:
        """All of the file, cells separated by one delimiter. Characters beyond its beginning may be
        of another encoding."""
        text = Path(path).read_text(self.encoding, errors="replace").removeprefix("\ufeff")
        if self.trailing:
            return "\n".join(line.removesuffix(self.delimiter) for line in text.splitlines())
        if not self.aligned:
            return text
        return "\n".join(_BLANKS.sub(" ", line.strip()) for line in text.splitlines())

    def source(self, path: str) -> str | io.BytesIO:
        """What to read the table from: the file itself where it can be read as it is."""
        changed = self.aligned or self.trailing
        return io.BytesIO(self.text(path).encode(self.encoding)) if changed else path


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
        skip, told = 0, None
        while skip < len(lines) and (not lines[skip].strip() or _is_comment(lines[skip])):
            skip += 1
        if skip < len(lines) and (told := _SEPARATOR_LINE.match(lines[skip])):
            skip += 1
        body = [line for line in lines[skip:] if line.strip()]
        if len(body) >= _SHOWN or read >= size:
            break
        read *= 4
    if not body:
        raise DataError(f"{path} holds no line of data, where a table was expected.")
    trailing = _trailing(body)
    if trailing is None and (above := _above(body)):
        skip = next(at for at in range(skip, len(lines)) if lines[at] is body[above])
        body = body[above:]
        trailing = _trailing(body)
    if trailing is not None:
        body = [line.removesuffix(trailing) for line in body]
    shown = body[:_SHOWN]
    delimiter = told[1] if told else _delimiter(shown) or ","
    aligned = delimiter == _ALIGNED
    rows = [line.split() for line in shown] if aligned else _cells(shown, delimiter)
    delimiter = " " if aligned else delimiter
    decimal = "." if delimiter == "," else _decimal(body, delimiter)
    titled = any(not _is_data(cell, decimal) for cell in rows[0]) or _is_numbered(rows)
    header = tuple(cell.strip() for cell in rows[0]) if titled else None
    units = 0
    if titled and len(rows) == _SHOWN and _is_units(rows[1], rows[2], decimal):
        full = [at for at in range(skip, len(lines)) if lines[at].strip()]
        units = full[1] - full[0]
    return Dialect(delimiter, decimal, encoding, skip, header, units, aligned, trailing is not None)


def _trailing(lines: list[str]) -> str | None:
    """The delimiter with which all lines of a table end, but for the first if that has a name for
    each cell that the others end with one."""
    for delimiter in ";\t|,":
        if len(lines) < 2 or not all(line.endswith(delimiter) for line in lines[1:]):
            continue
        (names, *_), (cells, *_) = _cells(lines[:1], delimiter), _cells(lines[1:2], delimiter)
        if lines[0].endswith(delimiter) or len(names) == len(cells) - 1:
            return delimiter
    return None


def _above(lines: list[str]) -> int:
    """How many lines lie above a table's names: those before the last lines that all have equally
    many cells, if they begin with names and nothing before them looks like a row."""
    delimiter = _delimiter(lines[-_TAIL:])
    if delimiter is None or delimiter == _ALIGNED or len(lines) < _SHOWN:
        return 0
    try:
        widths = [len(_cells([line], delimiter)[0]) for line in lines]
    except csv.Error:
        return 0
    start = next((at for at in reversed(range(len(lines))) if widths[at] != widths[-1]), -1) + 1
    if start == 0 or widths[-1] in widths[:start] or len(lines) - start < 2:
        return 0
    (names,), (cells,) = _cells(lines[start : start + 1], delimiter), _cells(lines[-1:], delimiter)
    named = not any(_is_data(cell, ".") for cell in names if cell.strip())
    return start if named and any(_is_data(cell, ".") for cell in cells) else 0


def _decimal(lines: list[str], delimiter: str) -> str:
    """What separates the fraction of a number: a comma where cells have one, unless it sets
    thousands apart in a table whose fractions have points."""
    cells = [cell for row in _cells(lines, delimiter) for cell in row]
    commas = [cell for cell in cells if _DECIMAL_COMMA.match(cell)]
    thousands = all(re.match(r"^\s*[-+]?[1-9]\d{0,2},\d{3}\s*$", cell) for cell in commas)
    return "." if not commas or (thousands and any(map(_SURE_POINT.match, cells))) else ","


def _encoding(path: str, head: bytes) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    no_table = no_data(head)
    if no_table is not None:
        raise DataError(f"{path} holds no table: it seems to be {no_table}.")
    if b"\0" in head:
        beginning = seems(head)
        what = "" if beginning is None else f": it seems to be {beginning}"
        raise DataError(f"{path} holds binary data, where text with a table was expected{what}.")
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
    """The first of `_DELIMITERS` that splits all lines into equally many cells, none of them for
    want of a second blank; `_ALIGNED` where only runs of blanks do; None if nothing does."""
    for delimiter in _DELIMITERS:
        if not all(delimiter in line for line in lines):
            continue
        rows = _cells(lines, delimiter)
        if len({len(row) for row in rows}) > 1:
            continue
        if delimiter != " " or all(cell for row in rows for cell in row):
            return delimiter
    widths = {len(line.split()) for line in lines}
    return _ALIGNED if len(widths) == 1 and widths != {1} else None


def _is_data(cell: str, decimal: str) -> bool:
    if cell.strip() in MISSING or _MOMENT.match(cell):
        return True
    if _NAMED_MONTH.search(cell) and dates.stamps(pa.array([cell])) is not None:
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
                skip_rows_after_names=dialect.units,
                autogenerate_column_names=dialect.header is None,
                encoding=dialect.encoding,
                block_size=min(max(size, _SNIFFED) + 1, _LARGEST_BLOCK),
            ),
            pyarrow.csv.ParseOptions(delimiter=dialect.delimiter),
            pyarrow.csv.ConvertOptions(
                null_values=MISSING,
                true_values=_TRUE,
                false_values=_FALSE,
                strings_can_be_null=True,
                decimal_point=dialect.decimal,
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, csv.Error) as error:
        raise DataError(f"{path} is no table of numbers: {_brief(error)}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    names = dialect.header or tuple(f"column {i + 1}" for i in range(table.num_columns))
    return _without_end(table.rename_columns(list(names))), dialect


def _without_end(table: pa.Table) -> pa.Table:
    """Without rows at the end in which nothing is written, as spreadsheets leave them; in a table
    of numbers alone they are steps of which nothing is known."""
    numbers = all(map(_is_plain, table.schema.types))
    if numbers or not table.num_rows or table.column(0)[-1].is_valid:
        return table
    known = np.zeros(table.num_rows, dtype=bool)
    for column in table.columns:
        known |= np.asarray(column.is_valid())
    filled = np.flatnonzero(known)
    return table.slice(0, int(filled[-1]) + 1 if len(filled) else 0)


def _is_plain(kind: pa.DataType) -> bool:
    return pa.types.is_null(kind) or pa.types.is_floating(kind) or pa.types.is_integer(kind)


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


def clock_of(table: pa.Table, dialect: Dialect | None) -> Clock | None:
    """What tells the time of a table's rows; None if nothing does.

    Args:
        table: With its columns as they are.
        dialect: How it is written, if it is text.
    """
    names = table.column_names
    if dialect is not None and dialect.header is None:
        names = [""] * len(names)
    return clock_among(names, table.schema.types, table.column)


def _series(path: str, table: pa.Table, format: str, dialect: Dialect | None) -> SeriesFile:
    titled = dialect is None or dialect.header is not None
    every = table.column_names
    clock = clock_of(table, dialect)
    others = [at for at in range(len(every)) if clock is None or at not in clock.places]
    names = tuple(every[at] for at in others)
    columns = [_numbers(path, every[at], at, table.column(at), dialect) for at in others]
    if not columns or not table.num_rows:
        has = f"{many(table.num_rows, 'row')} and {many(len(columns), 'numeric column')}"
        raise DataError(
            f"{path} has {has}, where a table with a row a time step and a column a variable was "
            "expected."
        )
    values, rate = np.stack(columns, axis=1), 1.0
    if clock is not None:
        layout = clock.layout(path)
        values, rate = layout.lay(values), layout.rate
    return one(values, format, rate, names if titled else ())


def _numbers(
    path: str, name: str, index: int, column: pa.ChunkedArray, dialect: Dialect | None
) -> np.ndarray:
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan, dtype=np.float32)
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif dialect is not None and (grouped := _grouped(column, dialect)) is not None:
        column = grouped
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        where = _culprit(path, index, column, dialect)
        raise DataError(
            f"{path}: column {name!r} is not numeric: {where}. A series holds numbers and at most "
            "one time column: leave the column out, or code it as numbers."
        )
    with np.errstate(over="ignore"):
        return column.cast(pa.float64(), safe=False).to_numpy().astype(np.float32)


def _grouped(column: pa.ChunkedArray, dialect: Dialect) -> pa.ChunkedArray | None:
    """Numbers whose thousands are set apart (1.234,5 or 1,234.5 or 1'234.5), or whose fractions
    have another sign than other columns have; None if they are none, or could be either."""
    if not pa.types.is_string(column.type):
        return None
    fit = [
        s for s, way in _GROUPED.items() if pc.all(pc.match_substring_regex(column, way)).as_py()
    ]
    if len(fit) > 1 and dialect.delimiter == ",":
        # That 1,234 is no fraction is sure where smaller numbers have no comma.
        plain = pc.any(pc.match_substring_regex(column, r"^\s*[-+]?\d{1,3}\s*$")).as_py()
        fit = ["."] if plain else []
    if not fit:
        return None
    sign = dialect.decimal if dialect.decimal in fit else fit[0]
    bare = pc.replace_substring_regex(column, rf"[^-+0-9eE{sign}]", "")
    try:
        return pc.replace_substring(bare, sign, ".").cast(pa.float64())
    except pa.ArrowInvalid:
        return None


def _culprit(path: str, index: int, column: pa.ChunkedArray, dialect: Dialect | None) -> str:
    """The first cell that is no number in any way of writing it, or in the table's own, and its
    line."""
    if dialect is None:
        return f"it is of type {column.type}"
    text = io.StringIO(dialect.text(path), newline="")
    reader = csv.reader(text, delimiter=dialect.delimiter)
    other = ""
    above = dialect.skip + (dialect.header is not None) + dialect.units
    for row in reader:
        if reader.line_num <= above or len(row) <= index:
            continue
        cell = row[index].strip()
        where = f"line {reader.line_num} holds {cell[:40]!r}"
        try:
            if cell not in MISSING:
                float(cell.replace(dialect.decimal, "."))
        except ValueError:
            if not any(re.match(way, cell) for way in _GROUPED.values()):
                return where
            other = other or where
    return other or f"it was read as {column.type}"


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(". ")[:200] if str(error) else type(error).__name__

"""Series in tables: CSV and Parquet, a row a time step, a numeric column a variable."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from mainspring.errors import DataError
from mainspring.recordings.dialect import MISSING, SNIFFED, Dialect, sniff
from mainspring.recordings.recording import many
from mainspring.recordings.series_file import SeriesFile, one
from mainspring.recordings.timestamps import Clock, clock_among

_TRUE = [*pyarrow.csv.ConvertOptions().true_values, "ON", "On", "on", "YES", "Yes", "yes"]
_FALSE = [*pyarrow.csv.ConvertOptions().false_values, "OFF", "Off", "off", "NO", "No", "no"]
_GROUPS = "[-+]?(?:[1-9][0-9]{0,2}(?:[MARK'\u2019\u00a0\u202f ][0-9]{3})+|[0-9]*)"
# By decimal sign: numbers whose thousands may be set apart, and a comma without them.
_GROUPED = {
    sign: rf"^\s*{_GROUPS.replace('MARK', mark)}(?:\{sign}\d*)?(?:[eE][-+]?\d+)?\s*$"
    for sign, mark in ((".", ","), (",", "."))
}
_LARGEST_BLOCK = 1 << 30  # bytes; pyarrow infers a column's type from one block


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
                autogenerate_column_names=dialect.header is None or dialect.commented,
                encoding=dialect.encoding,
                block_size=min(max(size, SNIFFED) + 1, _LARGEST_BLOCK),
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
    titled = dialect.header is not None and not dialect.commented
    above = dialect.skip + titled + dialect.units
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

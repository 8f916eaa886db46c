"""How a text table is written: what separates cells and fractions, where names and units stand.

dialect = sniff("export.csv")
dialect.source("export.csv")             # what a reader of CSV takes
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from mainspring.errors import DataError
from mainspring.recordings import dates
from mainspring.recordings.seems import no_data, seems

_SIGNS = "? - -- --- None none NAN NaT n.a. <NA> #DIV/0! #VALUE! #REF! #NUM! #NAME? #NULL!"
MISSING = [*pyarrow.csv.ConvertOptions().null_values, *_SIGNS.split()]

_DELIMITERS = ";\t|, "
_ALIGNED = "  "
_DECIMAL_COMMA = re.compile(r"^\s*[-+]?\d*,\d+([eE][-+]?\d+)?\s*$")
_WHOLE = re.compile(r"^\s*[-+]?\d*\s*$")
_MOMENT = re.compile(
    r"^\s*(\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4})?([ T].*)?|\d{1,2}:\d\d(:\d\d.*)?)\s*$"
)
_NAMED_MONTH = re.compile(r"(?i)\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b.*\d{4}")
_SURE_POINT = re.compile(r"^\s*[-+]?\d*\.(\d|\d\d|\d{4,})([eE][-+]?\d+)?\s*$")
_BLANKS = re.compile(r"[ \t]+")
_SEPARATOR_LINE = re.compile(r"(?i)\s*\"?sep=(.)\"?\s*$")
SNIFFED = 1 << 16  # bytes, more where a line is longer
_SHOWN = 3  # lines
_TAIL = 5  # lines that show how a table goes on


@dataclass(frozen=True)
class Dialect:
    """How a text table is written.

    Attributes:
        delimiter: What separates cells.
        decimal: What separates the fraction of a number.
        encoding: Of its characters.
        skip: Lines before the table.
        header: Names of its columns as written; None where there are none.
        commented: Whether they stand in a comment above the table, as NumPy writes them.
        units: Lines from below the names to a line of units, where there is one.
        aligned: Whether columns are aligned by any number of blanks; the delimiter is then one.
        trailing: Whether lines end with a delimiter that separates nothing.
    """

    delimiter: str
    decimal: str
    encoding: str
    skip: int
    header: tuple[str, ...] | None
    commented: bool
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
    size, read = Path(path).stat().st_size, SNIFFED
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
    commented = None if titled else _in_comment(lines[:skip], delimiter, len(rows[0]), decimal)
    return Dialect(
        delimiter=delimiter,
        decimal=decimal,
        encoding=encoding,
        skip=skip,
        header=commented or header,
        commented=commented is not None,
        units=units,
        aligned=aligned,
        trailing=trailing is not None,
    )


def _in_comment(
    above: list[str], delimiter: str, width: int, decimal: str
) -> tuple[str, ...] | None:
    """Names of columns in the last comment above a table, if it holds one for each. A comment above
    a single column is more likely a sentence."""
    comment = next(filter(_is_comment, reversed(above)), "").strip(" \t#")
    cells = comment.split() if delimiter == " " else _cells([comment], delimiter)[0]
    names = tuple(cell.strip() for cell in cells)
    named = len(names) == width > 1 and not any(_is_data(name, decimal) for name in names)
    return names if named else None


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

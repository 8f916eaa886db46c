"""Manifests: tables that name recordings. CSV, Parquet or JSON lines with a column `uri`.

    uri,start,end,group,label,caption
    lab/cam1.mp4,0,10,lab,,
    lab/cam1.mp4,10,20,lab,,

All columns but `uri` may be absent. Relative paths are relative to the manifest. `start` and `end`
are seconds from the file's beginning. Each line of a caption is a sentence; sentences are the
recording's text. Cells of a CSV may be separated by semicolons or tabs too. No file that it names
is touched.

Where a stream of a recording lies in another file, `video_uri`, `audio_uri` or `series_uri` names
it, row by row; all files of a recording begin at the same moment:

    uri,series_uri
    lab/cam1.mp4,lab/arm1.csv
"""

from __future__ import annotations

import csv
import difflib
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from mainspring.errors import DataError

COLUMNS = {
    "uri": pa.large_string(),
    "start": pa.float64(),
    "end": pa.float64(),
    "group": pa.large_string(),
    "label": pa.large_string(),
    "caption": pa.large_string(),
    "video_uri": pa.large_string(),
    "audio_uri": pa.large_string(),
    "series_uri": pa.large_string(),
}
COMPANIONS = {"video": "video_uri", "audio": "audio_uri", "series": "series_uri"}
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
_DELIMITERS = ",;\t"

# What people call the column `uri`; a table of series has no such column.
_SYNONYMS = (
    "path paths file files filename file_name filepath file_path url urls uris src source_file "
    "video video_path audio audio_path wav wav_path clip clip_path recording"
)
SYNONYMS = frozenset(_SYNONYMS.split())


def is_manifest(path: str) -> bool:
    """Whether a table has a column `uri`, told from its first bytes."""
    extension = os.path.splitext(path)[1].lower()
    if extension in JSON_LINES:
        return True
    return extension in (".csv", *PARQUET) and "uri" in column_names(path)


def column_names(path: str) -> list[str]:
    """The names in a table's header; for a CSV without header the cells of its first line."""
    if os.path.splitext(path)[1].lower() in PARQUET:
        try:
            return list(pyarrow.parquet.read_schema(path).names)
        except pa.ArrowInvalid:
            return []
    with Path(path).open(encoding="utf-8-sig", errors="replace") as file:
        line = file.readline(1 << 16)
    if "\0" in line:
        return []
    cells = next(csv.reader([line.rstrip("\r\n")], delimiter=_delimiter(line)), [])
    return [cell.strip() for cell in cells]


def _delimiter(header: str) -> str:
    """What separates the cells of a CSV: a comma where its header has one."""
    return next((mark for mark in _DELIMITERS if mark in header), ",")


def nearest_to_uri(names: list[str]) -> str | None:
    """The column that was probably meant to be `uri`, if there is one."""
    for name in names:
        if name.strip().lower().replace(" ", "_") in SYNONYMS | {"uri"}:
            return name
    for name in names:
        if name.strip().lower() in COMPANIONS.values():
            return name
    near = difflib.get_close_matches("uri", [name.lower() for name in names], n=1, cutoff=0.6)
    return next((name for name in names if near and name.lower() == near[0]), None)


def without_uri(path: str, names: list[str]) -> DataError:
    """The error for a manifest that lacks its one necessary column."""
    near = nearest_to_uri(names)
    hint = f" Did you mean {near!r}? Rename it to uri." if near else ""
    return DataError(
        f"The manifest {path} has no column 'uri', but {', '.join(map(repr, names[:12]))}.{hint} "
        f"A manifest has a column uri and may have {', '.join([*COLUMNS][1:])}."
    )


def read_manifest(path: str) -> tuple[pa.Table, list[str]]:
    """The recordings that a manifest names.

    Returns:
        A table of `COLUMNS` and the column problem, paths being absolute or relative to the working
        folder, as the manifest's own path is; and notes on what was left out.

    Raises:
        DataError: If it cannot be read, has no column `uri`, or a row has none.
    """
    given = _read(path)
    if "uri" not in given.column_names:
        raise without_uri(path, given.column_names)
    twice = [name for name in COLUMNS if given.column_names.count(name) > 1]
    if twice:
        raise DataError(
            f"The manifest {path} has the column {twice[0]!r} more than once: leave one of them."
        )
    columns = {name: _typed(path, given, name, kind) for name, kind in COLUMNS.items()}
    if not given.num_rows:
        raise DataError(f"The manifest {path} has a header but no rows: one a recording expected.")
    _require_uris(path, columns["uri"])
    for name in ("uri", *COMPANIONS.values()):
        columns[name] = _located(path, columns[name])
    columns["start"] = pc.fill_null(columns["start"], 0.0)
    columns["problem"] = _impossible_spans(columns["start"], columns["end"])
    notes = []
    other = [name for name in given.column_names if name not in columns]
    if other:
        named = ", ".join(_suggested(name, given.column_names) for name in other[:8])
        notes.append(f"left out columns of the manifest: {named}")
    return pa.table(columns), notes


def _suggested(name: str, there: list[str]) -> str:
    """A column that is left out, with the one that may have been meant, if that is missing."""
    free = [known for known in COLUMNS if known not in there]
    near = difflib.get_close_matches(name.strip().lower(), free, n=1, cutoff=0.75)
    return f"{name} (did you mean {near[0]}?)" if near else name


def _read(path: str) -> pa.Table:
    extension = os.path.splitext(path)[1].lower()
    try:
        if extension in PARQUET:
            schema = pyarrow.parquet.read_schema(path).names
            wanted = [name for name in COLUMNS if name in schema]
            return pyarrow.parquet.read_table(path, columns=wanted or None)
        if extension in JSON_LINES:
            return pyarrow.json.read_json(path)
        with Path(path).open(encoding="utf-8-sig", errors="replace") as file:
            delimiter = _delimiter(file.readline())
        return pyarrow.csv.read_csv(
            path,
            pyarrow.csv.ReadOptions(column_names=column_names(path), skip_rows=1),
            pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: kind for name, kind in COLUMNS.items() if kind != pa.float64()}
                | {"start": pa.float64(), "end": pa.float64()},
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"The manifest {path} cannot be read: {reason}. Expected a table with a column uri; "
            "start and end are seconds."
        ) from error


def _typed(path: str, table: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    if name not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, kind)])
    try:
        column = table.column(name).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        expected = "seconds" if kind == pa.float64() else "text"
        raise DataError(
            f"The manifest {path}: column {name!r} holds {table.column(name).type}, where "
            f"{expected} was expected: {str(error).splitlines()[0]}"
        ) from error
    if kind != pa.float64():
        return column
    # Data frames write what is absent as NaN.
    return pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)


def _require_uris(path: str, uri: pa.ChunkedArray) -> None:
    empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(uri), ""), True)
    if pc.any(empty).as_py():
        row = pc.index(empty, True).as_py() + 1
        raise DataError(f"The manifest {path}: row {row} has no uri: name its file.")


def _located(path: str, uri: pa.ChunkedArray) -> pa.ChunkedArray:
    """Paths relative to the manifest as paths from here; null where there is none."""
    if uri.null_count == len(uri):
        return uri
    empty = pc.equal(pc.utf8_trim_whitespace(uri), "")
    uri = pc.if_else(empty, pa.scalar(None, pa.large_string()), uri)
    folder = os.path.dirname(path)
    if not folder:
        return uri
    relative = pc.invert(pc.or_(pc.starts_with(uri, "/"), pc.match_substring(uri, "://")))
    if not pc.any(relative).as_py():
        return uri
    text = pa.large_string()
    within = pc.binary_join_element_wise(pa.scalar(folder, text), uri, pa.scalar("/", text))
    return within if pc.all(relative).as_py() else pc.if_else(relative, within, uri)


def _impossible_spans(start: pa.ChunkedArray, end: pa.ChunkedArray) -> pa.ChunkedArray:
    """Why a span holds nothing, where it does."""
    text = pa.large_string()
    early = pa.scalar("starts before its file does: start is below 0", text)
    reverse = pa.scalar("ends before it starts: end must be above start", text)
    nothing = pa.scalar(None, text)
    backwards = pc.fill_null(pc.less_equal(end, start), False)
    return pc.if_else(pc.less(start, 0.0), early, pc.if_else(backwards, reverse, nothing))

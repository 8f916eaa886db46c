"""The table behind a catalogue, and how it travels to other processes.

Rows live in an Arrow table. `freeze` writes it to a file that processes map into memory: a pickled
catalogue is then the path of that file, and a million rows cost a worker next to nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from mainspring.errors import DataError, unknown
from mainspring.recordings import manifest
from mainspring.recordings.arrays import TemporaryFolder
from mainspring.recordings.recent import Recent
from mainspring.recordings.recording import STREAMS, Recording, StreamInfo
from mainspring.recordings.series_file import split_uri

FACTS = pa.struct(
    {
        "length": pa.int64(),
        "rate": pa.float64(),
        "seconds": pa.float64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "channels": pa.int32(),
        "codec": pa.large_string(),
        "uri": pa.large_string(),
    }
)
SCHEMA = pa.schema(
    [*manifest.COLUMNS.items(), ("problem", pa.large_string()), *((s, FACTS) for s in STREAMS)]
)
_METADATA = b"mainspring"
REMEMBERED = 4096
"""Recordings, made from rows of the table, that are kept for when they are asked for again."""


class Catalogue:
    """A table of recordings.

    Args:
        columns: Of `SCHEMA`; those absent are empty.
        streams: Which streams are of interest; None takes what is there.
        notes: What was left out when it was made, in sentences.
        temporary: The folder of files that exist only for this catalogue.
    """

    def __init__(
        self,
        columns: pa.Table | Mapping[str, Any],
        streams: Sequence[str] | None = None,
        notes: Sequence[str] = (),
        temporary: TemporaryFolder | None = None,
    ) -> None:
        table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
        if "start" not in table.column_names:
            table = table.append_column("start", pa.array(np.zeros(table.num_rows)))
        kept = [
            field
            for field in SCHEMA
            if field.name in ("uri", "start")
            or (
                field.name in table.column_names
                and table.column(field.name).null_count < table.num_rows
            )
        ]
        self.table = pa.table(
            [table.column(field.name).cast(field.type) for field in kept], schema=pa.schema(kept)
        )
        self.streams = tuple(streams) if streams is not None else None
        self.notes = tuple(notes)
        self._temporary = temporary
        self._frozen: str | None = None
        self._recent: Recent[Recording] = Recent(REMEMBERED)
        self._chunks = {name: _single(self.table.column(name)) for name in self.table.column_names}

    @property
    def passing(self) -> bool:
        """Whether its files are temporary: arrays that were given in memory."""
        return self._temporary is not None

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, row: int) -> Recording:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a catalogue of {len(self)}")
        at = int(row) % len(self)
        known = self._recent.get(at)
        return self._recent.put(at, self._recording(at)) if known is None else known

    def _recording(self, at: int) -> Recording:
        cells = {name: chunk[at].as_py() for name, chunk in self._chunks.items()}
        streams = {
            stream: StreamInfo(kind=stream, **facts | {"uri": facts["uri"] or ""})
            for stream in STREAMS
            if (facts := cells.pop(stream, None)) is not None
        }
        companions = {
            stream: uri
            for stream, name in manifest.COMPANIONS.items()
            if (uri := cells.pop(name, None)) is not None
        }
        return Recording(streams=streams, companions=companions, **cells)

    def __iter__(self) -> Iterator[Recording]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"Catalogue({len(self)} recordings)"

    def select(self, rows: Any) -> Catalogue:
        """The recordings of the given rows, in the order given (row numbers, or a mask)."""
        index = np.asarray(rows)
        if not index.size:
            index = index.astype(np.int64)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        return self.replaced(self.table.take(pa.array(index.astype(np.int64))))

    def usable(self) -> Catalogue:
        """The recordings without a problem."""
        if "problem" not in self._chunks:
            return self
        return self.select(self._chunks["problem"].is_null().to_numpy(zero_copy_only=False))

    def column(self, name: str) -> np.ndarray:
        """One column as an array: text as objects (None where absent), numbers as float64 or
        int64 (NaN where absent). `video.seconds` is a fact of a stream, `seconds` the duration.

        Raises:
            ConfigError: If there is no such column.
        """
        if name == "seconds":
            return self.seconds()
        stream, _, fact = name.partition(".")
        if fact and stream in STREAMS and FACTS.get_field_index(fact) >= 0:
            if stream in self._chunks:
                return _to_numpy(pc.struct_field(self._chunks[stream], fact))
            return _absent(FACTS.field(fact).type, len(self))
        if name not in SCHEMA.names or name in STREAMS:
            plain = [column for column in SCHEMA.names if column not in STREAMS]
            facts = [f"{s}.{field.name}" for s in STREAMS for field in FACTS]
            raise unknown("column", name, [*plain, "seconds", *facts])
        if name in self._chunks:
            return _to_numpy(self._chunks[name])
        return _absent(SCHEMA.field(name).type, len(self))

    def seconds(self) -> np.ndarray:
        """The duration of each recording: of its longest stream, within its span; NaN while it is
        unknown."""
        longest = np.full(len(self), -np.inf)
        for stream in (name for name in STREAMS if name in self._chunks):
            longest = np.fmax(longest, self.column(f"{stream}.seconds"))
        start, end = self.column("start"), self.column("end")
        stop = np.fmin(np.where(np.isfinite(longest), longest, np.nan), end)
        return np.maximum(stop - start, 0.0)

    def fingerprint(self, captions: bool = False) -> str:
        """A stamp of the rows (uri, start, end) and of the size and date of their files.

        Equal stamps mean the same recordings in the same order, as far as can be told without
        reading them. Costs one look at each file. Files of single streams count as well; words
        about a recording do not, unless `captions` is set, for what is made of its text.
        """
        uris = self._chunks["uri"].to_pylist()
        root = self._temporary.path if self._temporary is not None else None
        named = [uri.removeprefix(root) for uri in uris] if root else uris
        stamp = hashlib.blake2b("\0".join(named).encode(), digest_size=8)
        for name in ("start", "end"):
            stamp.update(self.column(name).tobytes())
        for name in manifest.COMPANIONS.values():
            others = self._chunks[name].to_pylist() if name in self._chunks else []
            if others:
                stamp.update("\0".join([name, *(other or "" for other in others)]).encode())
                uris += [other for other in others if other]
        if captions and "caption" in self._chunks:
            stamp.update(json.dumps(self._chunks["caption"].to_pylist()).encode())
        for path in dict.fromkeys(split_uri(uri)[0] for uri in dict.fromkeys(uris)):
            try:
                stat = os.stat(path)
                stamp.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
            except OSError:
                stamp.update(b"missing\n")
        return stamp.hexdigest()

    def save(self, path: str | Path) -> None:
        """Writes the catalogue as Parquet, which table tools open and which is a manifest too. Its
        paths are absolute, so that it can be read from any folder."""
        target = Path(path)
        here = self.replaced(self._anchored())
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        pyarrow.parquet.write_table(here._described(), draft)
        draft.replace(target)

    @classmethod
    def load(cls, path: str | Path) -> Catalogue:
        """Opens what `save` wrote, or maps what `freeze` wrote.

        Raises:
            DataError: If it is neither.
        """
        try:
            if Path(path).suffix == ".arrow":
                table = pa.ipc.open_file(pa.memory_map(os.fspath(path))).read_all()
            else:
                table = pyarrow.parquet.read_table(path)
            described = json.loads(table.schema.metadata[_METADATA])
        except (pa.ArrowInvalid, KeyError, TypeError) as error:
            raise DataError(f"{path} is not a catalogue that Mainspring saved: {error}") from error
        catalogue = cls(table, described["streams"], described["notes"])
        if Path(path).suffix == ".arrow":
            catalogue._frozen = os.path.abspath(path)
        return catalogue

    def freeze(self, where: str | Path) -> Catalogue:
        """Writes the table to a file in the folder `where` and maps it into memory; from then on
        pickling passes on only the file's path. Returns itself."""
        os.makedirs(where, exist_ok=True)
        draft = Path(where) / f".catalogue.{os.getpid()}"
        table = self._described()
        with pa.OSFile(os.fspath(draft), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
            out.write_table(table.combine_chunks())
        with draft.open("rb") as file:
            name = hashlib.file_digest(file, "blake2b").hexdigest()[:16]
        draft.replace(target := Path(where) / f"catalogue-{name}.arrow")
        mapped = Catalogue.load(target)
        self.table, self._chunks, self._frozen = mapped.table, mapped._chunks, mapped._frozen
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._frozen is not None:
            return Catalogue.load, (self._frozen,)
        return Catalogue, (self.table, self.streams, self.notes)

    def replaced(self, columns: pa.Table | Mapping[str, Any]) -> Catalogue:
        """A catalogue of other rows made from these, which keeps all else."""
        return Catalogue(columns, self.streams, self.notes, self._temporary)

    def noted(self, notes: Sequence[str]) -> Catalogue:
        """The same recordings, with more to say about what was left out."""
        fresh = [note for note in notes if note not in self.notes]
        return Catalogue(self.table, self.streams, [*self.notes, *fresh], self._temporary)

    def _anchored(self) -> pa.Table:
        """The table with paths that do not depend on the working folder."""
        table = self.table
        for at, field in enumerate(table.schema):
            column = self._chunks[field.name]
            if field.name in ("uri", *manifest.COMPANIONS.values()):
                anchored = _absolute(column)
            elif field.name in STREAMS:
                parts = [
                    _absolute(part) if name.name == "uri" else part
                    for name, part in zip(FACTS, column.flatten(), strict=True)
                ]
                anchored = pa.StructArray.from_arrays(
                    parts, fields=list(FACTS), mask=column.is_null()
                )
            else:
                continue
            table = table.set_column(at, field, anchored)
        return table

    def _described(self) -> pa.Table:
        about = json.dumps({"streams": self.streams, "notes": self.notes})
        return self.table.replace_schema_metadata({_METADATA: about.encode()})


def _absolute(uris: pa.Array) -> pa.Array:
    """Paths from the root; what is empty, absent or a network address stays."""
    here = os.getcwd()
    anchored = [
        os.path.join(here, uri) if uri and "://" not in uri else uri for uri in uris.to_pylist()
    ]
    return pa.array(anchored, pa.large_string())


def _single(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _absent(kind: pa.DataType, count: int) -> np.ndarray:
    return (
        np.full(count, None, dtype=object) if kind == pa.large_string() else np.full(count, np.nan)
    )


def _to_numpy(chunk: pa.Array) -> np.ndarray:
    return chunk.to_numpy(zero_copy_only=False)

"""The table of embeddings: one row a window, kept as Parquet shards, worked on as one matrix."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32, Float64, Int64

from mainspring.errors import RunError, unknown

META = b"mainspring"
"""Key of the JSON that each shard carries in its footer."""

PATTERN = "part-*.parquet"


@dataclass(frozen=True)
class Vectors:
    """Embeddings of windows (or of whole recordings, after `pooled`).

    Attributes:
        matrix: One row a window.
        uris: File of each row (str).
        starts: Seconds from the file's beginning.
        ends: Seconds from the file's beginning.
        rows: The recording's row in the catalogue.
        groups: What must stay on one side of a split (str), None where unknown.
        labels: Class name (str), None where unknown.
        stream: Which stream was embedded.
        stamps: What made the vectors: encoder, reader, preprocessing, version.
        problems: For each recording that could not be embedded, its name and the reason.
    """

    matrix: Float32[np.ndarray, "n dim"]
    uris: np.ndarray
    starts: Float64[np.ndarray, "n"]
    ends: Float64[np.ndarray, "n"]
    rows: Int64[np.ndarray, "n"]
    groups: np.ndarray
    labels: np.ndarray
    stream: str = ""
    stamps: dict[str, Any] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, index: np.ndarray | slice) -> Vectors:
        """Some of the rows, by a mask, indices or a slice."""
        names = ("matrix", "uris", "starts", "ends", "rows", "groups", "labels")
        return replace(self, **{name: getattr(self, name)[index] for name in names})

    @property
    def sides(self) -> np.ndarray:
        """What must stay on one side of a split: the group, or the file where none is known."""
        return np.where(known(self.groups), self.groups, self.uris)

    @classmethod
    def load(cls, folder: Path | str) -> Vectors:
        """Reads all shards of a folder that `embed` wrote, memory-mapped.

        Raises:
            RunError: If there are none, some are missing, or they were made in different ways.
        """
        folder = Path(folder)
        paths = sorted(folder.glob(PATTERN))
        if not paths:
            raise RunError(
                f"{folder} holds no embeddings (no {PATTERN}). Make them with "
                f"`mainspring embed RUN DATA`."
            )
        metas = [read_meta(path) for path in paths]
        for path, meta in zip(paths, metas, strict=True):
            if meta["stamps"] != metas[0]["stamps"]:
                raise RunError(
                    f"{path} was made in another way than {paths[0].name}: "
                    f"{differences(metas[0]['stamps'], meta['stamps'])}. Delete the "
                    f"{PATTERN} there and embed again."
                )
        expected = metas[0]["shard"]["of"]
        if len(paths) != expected:
            raise RunError(
                f"{folder} is incomplete: {len(paths)} of {expected} shards. Give the same embed "
                f"command again; it goes on where it stopped."
            )
        count = sum(pq.read_metadata(path).num_rows for path in paths)
        return cls.gather((pq.read_table(path, memory_map=True) for path in paths), count, metas)

    @classmethod
    def gather(
        cls, tables: Iterable[pa.Table], count: int, metas: Sequence[dict[str, Any]]
    ) -> Vectors:
        """All rows of some tables, in order; the tables are taken one at a time.

        Args:
            tables: At least one, as shards hold them.
            count: Rows of all tables together.
            metas: What the shards' footers hold.
        """
        parts: list[pa.Table] = []
        matrix = np.empty((0, 0), np.float32)
        at = 0
        for part in tables:
            dim = part.schema.field("vector").type.list_size
            if not parts:
                matrix = np.empty((count, dim), np.float32)
            for chunk in part.column("vector").chunks:
                values = chunk.flatten().to_numpy()
                matrix[at : at + len(chunk)] = values.reshape(-1, dim)
                at += len(chunk)
            parts.append(part.drop_columns("vector"))
        table = pa.concat_tables(parts)
        streams = table.column("stream").unique().to_pylist()
        return cls(
            matrix=matrix,
            uris=table.column("uri").to_numpy().astype(object),
            starts=table.column("start").to_numpy(),
            ends=table.column("end").to_numpy(),
            rows=table.column("row").to_numpy(),
            groups=table.column("group").to_numpy().astype(object),
            labels=table.column("label").to_numpy().astype(object),
            stream=streams[0] if streams else "",
            stamps=metas[0]["stamps"],
            problems={name: why for meta in metas for name, why in meta["problems"].items()},
        )

    def pooled(self, by: str = "recording") -> Vectors:
        """One row a recording: the mean of its windows, in order of first appearance.

        Args:
            by: What a row of the result stands for: "recording" (a row of the catalogue), "uri"
                (a file, however many recordings were cut from it) or "group". Groups and labels
                on which the windows disagree become None.
        """
        columns = {"recording": self.rows, "uri": self.uris, "group": self.sides}
        if by not in columns:
            raise unknown("pooling", by, columns)
        _, first, inverse = np.unique(columns[by], return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")
        place = np.argsort(order, kind="stable")[inverse]
        first = first[order]
        count = len(first)
        total = np.zeros((count, self.matrix.shape[1]), np.float64)
        np.add.at(total, place, self.matrix)
        starts = np.full(count, np.inf)
        ends = np.full(count, -np.inf)
        np.minimum.at(starts, place, self.starts)
        np.maximum.at(ends, place, self.ends)
        return replace(
            self,
            matrix=(total / np.bincount(place, minlength=count)[:, None]).astype(np.float32),
            uris=self.uris[first],
            starts=starts,
            ends=ends,
            rows=self.rows[first],
            groups=_agreed(self.groups, place, first),
            labels=_agreed(self.labels, place, first),
        )


def read_meta(path: Path) -> dict[str, Any]:
    """What the footer of a shard says: its `stamps`, its `shard` and its `problems`.

    Raises:
        RunError: If the file is no shard of ours.
    """
    try:
        footer = pq.read_metadata(path).metadata or {}
        return json.loads(footer[META])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise RunError(
            f"{path} is not a shard of embeddings that mainspring wrote ({error}). If it "
            f"is a damaged one, delete it and give the embed command again; otherwise choose "
            f"another folder for the embeddings."
        ) from error


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """In words, what differs between two stamps: `name: before → now`, nested names dotted."""
    before, now = _flat(old), _flat(new)
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name}: {before.get(name)} → {now.get(name)}" for name in names)


def known(values: np.ndarray) -> Bool[np.ndarray, "n"]:
    """Which values are not None."""
    return np.array([value is not None for value in values], bool)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found.update(_flat(inner, f"{prefix}.{key}" if prefix else str(key)))
    return found


def _agreed(values: np.ndarray, place: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The value at each place's first row, None where another row of it says otherwise."""
    agreed = values[first].copy()
    agreed[place[values != agreed[place]]] = None
    return agreed

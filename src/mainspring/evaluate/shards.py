"""Shards of embeddings on disk: each appears whole or not at all, and says how it was made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.errors import RunError
from mainspring.evaluate.vectors import META, PATTERN, differences, read_meta
from mainspring.recordings.recording import Recording


def schema(dim: int) -> pa.Schema:
    """Columns of a shard."""
    return pa.schema(
        [
            pa.field("uri", pa.string(), nullable=False),
            pa.field("start", pa.float64(), nullable=False),
            pa.field("end", pa.float64(), nullable=False),
            pa.field("stream", pa.string(), nullable=False),
            pa.field("row", pa.int64(), nullable=False),
            pa.field("group", pa.string()),
            pa.field("label", pa.string()),
            pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
        ]
    )


def shard_path(folder: Path, index: int) -> Path:
    """Where shard `index` lies."""
    return folder / f"part-{index:05d}.parquet"


def fingerprint(recordings: Sequence[Recording]) -> str:
    """Changes with what the recordings are called, labelled and captioned, and with size and time
    of their files; no file is read."""
    digest = hashlib.sha256()
    for item in recordings:
        line = [item.name, item.group, item.label, item.problem, *_facts(item.uri)]
        for stream in sorted(item.streams):
            if item.source(stream) != item.uri:
                line += [stream, item.source(stream), *_facts(item.source(stream))]
        if item.caption is not None:
            line.append(item.caption)
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()[:16]


def _facts(uri: str) -> list[int]:
    """Size and time of a file; nothing if it is not there."""
    file, mark, row = uri.rpartition("#")
    try:
        facts = os.stat(file if mark and row.isdigit() else uri)
    except OSError:
        return []
    return [facts.st_size, facts.st_mtime_ns]


def finished(path: Path, stamps: dict[str, Any], shard: dict[str, Any]) -> bool:
    """True for a shard that was made as it would be made now.

    Raises:
        RunError: If it was made otherwise, with what differs and both ways out.
    """
    meta = read_meta(path)
    ways = (
        f"Delete the {PATTERN} there to embed anew, or choose another folder for the new "
        f"embeddings."
    )
    if meta["stamps"] != stamps:
        raise RunError(
            f"{path.parent} holds embeddings that were made in another way: "
            f"{differences(meta['stamps'], stamps)}. {ways}"
        )
    if meta["shard"] != shard:
        raise RunError(
            f"{path.parent} holds embeddings of other recordings: rows {shard['first']} to "
            f"{shard['last']} were added, removed, relabelled or modified since {path.name} was "
            f"written. {ways}"
        )
    return True


def write(
    path: Path,
    tables: Iterator[pa.Table],
    dim: int,
    stamps: dict[str, Any],
    shard: dict[str, Any],
    problems: dict[str, str],
) -> None:
    """Writes one shard under another name, flushes it to disk and moves it into place.

    Args:
        path: Its final place.
        tables: Its rows, a row group each, so that a shard need not fit into memory.
        dim: Width of the vectors.
        stamps: How it is made.
        shard: Which recordings it holds.
        problems: Filled while `tables` runs; written last.

    Raises:
        RunError: If the disk is full or cannot be written. Finished shards stay as they are.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            with pq.ParquetWriter(file, schema(dim)) as writer:
                for table in tables:
                    writer.write_table(table)
                meta = {"stamps": stamps, "shard": shard, "problems": problems}
                writer.add_key_value_metadata({META: json.dumps(meta).encode()})
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(
            f"Cannot write {path}: {error.strerror or error}. Shards written before it are "
            f"intact; make room (or choose another folder) and give the same command again, it "
            f"goes on from there."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Removes what killed processes left behind."""
    for leftover in folder.glob(".part-*.tmp"):
        owner = leftover.name.split(".")[-2]
        if not owner.isdigit() or not psutil.pid_exists(int(owner)):
            leftover.unlink(missing_ok=True)

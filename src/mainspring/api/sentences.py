"""The sentences that windows of text stand for, kept beside their vectors so that search can say
them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from mainspring.evaluate.search import Hit
from mainspring.evaluate.vectors import Vectors
from mainspring.recordings.catalogue import Catalogue
from mainspring.recordings.text import sentences
from mainspring.training.run import write

FILE = "sentences.parquet"


def keep(folder: Path, vectors: Vectors, found: Catalogue) -> None:
    """Writes the sentences of every window, in one line, into the folder of its vectors.

    Args:
        folder: Where the vectors are.
        vectors: Of text.
        found: The recordings that were embedded.

    Raises:
        RunError: If the file cannot be written.
    """
    said = []
    for row, start, end in zip(vectors.rows, vectors.starts, vectors.ends, strict=True):
        recording = found[int(row)]
        rate = recording.streams["text"].rate  # sentences a second
        first = math.floor((start - recording.start) * rate + 1e-6)
        last = math.ceil((end - recording.start) * rate - 1e-6)
        said.append(" ".join(sentences(recording.caption)[first:last]))
    columns = {"uri": pa.array(vectors.uris, pa.string()), "sentence": said}
    table = pa.table(columns | {"start": vectors.starts, "end": vectors.ends})
    write(folder / FILE, lambda file: pyarrow.parquet.write_table(table, file))


def spoken(folder: Path, hits: Sequence[Hit]) -> list[Hit]:
    """Hits with their sentences; as they are where none were kept."""
    if not (folder / FILE).is_file():
        return list(hits)
    wanted = pa.array(sorted({hit.uri for hit in hits}), pa.string())
    table = pyarrow.parquet.read_table(folder / FILE)
    rows = table.filter(pa.compute.is_in(table.column("uri"), wanted)).to_pylist()
    said = {(row["uri"], row["start"], row["end"]): row["sentence"] for row in rows}
    return [replace(hit, text=said.get((hit.uri, hit.start, hit.end), "")) for hit in hits]

"""Every window of every recording to a vector, on disk as it goes.

    saved = load_encoder("RUN/encoder")
    vectors = embed(saved.encoder, saved.clip, catalogue, reader, Path("RUN/embeddings"),
                    stamps={"encoder": saved.stamp})

Killed at any moment, the same call goes on with the first shard that is not finished and ends with
the same files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from mainspring.clips import ClipSpec
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, DataError, RunError
from mainspring.evaluate.forward import Job, Reads
from mainspring.evaluate.shards import fingerprint, finished, schema, shard_path, sweep, write
from mainspring.evaluate.vectors import PATTERN, Vectors
from mainspring.recordings.recording import Recording


@runtime_checkable
class Recordings(Protocol):
    """What is asked of a catalogue."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Recording: ...


def embed(
    encoder: Encoder,
    clip: ClipSpec,
    catalogue: Recordings,
    reader: Reads,
    out: Path | None,
    hop_seconds: float | None = None,
    batch: int = 64,
    *,
    stamps: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
    bf16: bool = False,
    shard: int = 256,
) -> Vectors:
    """Embeds all recordings, window by window.

    Args:
        encoder: Runs on the device it is on, in evaluation mode, without gradients.
        clip: How a window is sampled; video is cropped from `size` to `crop` at the centre.
        catalogue: The recordings. One that cannot be read is left out from where it fails, and
            is listed with the reason in the result's `problems`.
        reader: Reads them, in a thread ahead of the encoder.
        out: Folder for the shards; None keeps the vectors in memory only.
        hop_seconds: From one window to the next; a clip's span unless given.
        batch: Windows a forward pass.
        stamps: Where the encoder comes from; plain JSON values. Reader, preprocessing and version
            are added.
        progress: Told after each recording how many of how many are done.
        bf16: Compute in bfloat16 where autocast allows it.
        shard: Recordings a shard.

    Raises:
        ConfigError: If `batch` is below 1.
        RunError: If `out` holds embeddings made otherwise, or cannot be written.
        DataError: If not one recording could be embedded.
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch}; it is a number of windows, at least 1.")
    if len(catalogue) == 0:
        raise DataError("There are no recordings to embed: the catalogue is empty.")
    job = Job(encoder, clip, reader, hop_seconds, batch, bf16)
    said = job.stamps() | dict(stamps) | {"mainspring": version("mainspring")}
    said = json.loads(json.dumps(said))
    starts = range(0, len(catalogue), shard)

    def recordings_of(index: int) -> list[Recording]:
        first = starts[index]
        return [catalogue[row] for row in range(first, min(len(catalogue), first + shard))]

    def facts(index: int) -> dict[str, Any]:
        mine = recordings_of(index)
        return {
            "index": index,
            "of": len(starts),
            "first": starts[index],
            "last": starts[index] + len(mine) - 1,
            "recordings": fingerprint(mine),
        }

    if out is not None:
        _prepare(out, [shard_path(out, index).name for index in range(len(starts))])
    paths = [None if out is None else shard_path(out, index) for index in range(len(starts))]
    # All finished shards are looked at before anything is computed.
    there = [
        path is not None and path.exists() and finished(path, said, facts(index))
        for index, path in enumerate(paths)
    ]
    tables: list[pa.Table] = []
    metas: list[dict[str, Any]] = []
    for index, path in enumerate(paths):
        first = starts[index]
        recordings = [] if there[index] else recordings_of(index)
        problems: dict[str, str] = {}

        def tick(count: int, first: int = first) -> None:
            if progress is not None:
                progress(min(first + count, len(catalogue)), len(catalogue))

        if not there[index]:
            with closing(job.tables(recordings, first, problems, tick)) as made:
                if path is None:
                    tables += made
                else:
                    write(path, made, encoder.dim, said, facts(index), problems)
        metas.append({"stamps": said, "problems": problems})
        tick(shard)

    if out is None:
        tables = tables or [schema(encoder.dim).empty_table()]
        vectors = Vectors.gather(tables, sum(len(table) for table in tables), metas)
    else:
        vectors = Vectors.load(out)
    if len(vectors) == 0:
        some = [*vectors.problems.items()][:3]
        why = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in some)
        failed = f"None of the {len(catalogue)} recordings could be embedded. {why}."
        if out is not None:
            failed += f" When that is put right, delete the {PATTERN} in {out} and try again."
        raise DataError(failed)
    return replace(vectors, stream=encoder.stream)


def _prepare(out: Path, names: list[str]) -> None:
    """Makes the folder, or sees that it holds nothing but these shards and what is not ours."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        sweep(out)
    except OSError as error:
        raise RunError(
            f"Cannot use {out} for embeddings: {error.strerror}. Choose a folder you may write to."
        ) from error
    others = sorted({path.name for path in out.glob(PATTERN)} - set(names))
    if others:
        raise RunError(
            f"{out} holds embeddings of more recordings than there are now ({others[0]} is not of "
            f"these {len(names)} shards). Delete the {PATTERN} there to embed anew, or choose "
            f"another folder for the new embeddings."
        )

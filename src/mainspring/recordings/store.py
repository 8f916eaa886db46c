"""Arrays on disk, written whole or not at all, read by memory mapping.

An entry is one file of two arrays one after the other in numpy's format: `facts` (small, read at
once) and `data` (mapped). It is written under a name of its own, flushed to disk and then renamed,
so whoever opens it sees all of it; two processes that write the same entry both succeed, and one
that is killed leaves only a part, which the next `Store` clears away.
"""

from __future__ import annotations

import errno
import getpass
import hashlib
import mmap
import os
import socket
import tempfile
import time
import uuid
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np
import psutil

from mainspring.errors import RunError
from mainspring.recordings.container import check_file
from mainspring.recordings.recent import Recent

STAMPED_BYTES = 64 << 10
# A part written on another machine counts as left behind after a day.
STALE_SECONDS = 86_400
OPEN_ENTRIES = 4096
# Writes between two looks at what other processes have added to the folder.
COUNTED_AGAIN = 200


@dataclass(frozen=True)
class Entry:
    """Two arrays: small `facts`, and `data` mapped from disk."""

    facts: np.ndarray
    data: np.ndarray


class Store:
    """A folder of entries.

    Args:
        folder: Made if it is not there.
        limit: Bytes that all entries may take together.

    Raises:
        RunError: If the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], limit: int) -> None:
        self.folder = Path(folder)
        self.limit = limit
        self._open: Recent[Entry] = Recent(OPEN_ENTRIES)
        self._used = -1
        self._writes = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"The cache folder {self.folder} cannot be made: {error.strerror}. "
                "Choose another folder."
            ) from error
        self.clear_parts()

    def get(self, key: str) -> Entry | None:
        """The entry under a key, or None if there is none."""
        entry = self._open.get(key)
        if entry is None:
            try:
                entry = _map(self._path(key))
            except FileNotFoundError:
                return None
            except (OSError, ValueError, TokenError):  # damaged by something else than us
                self._path(key).unlink(missing_ok=True)
                return None
            self._open.put(key, entry)
        return entry

    def put(self, key: str, facts: np.ndarray, data: np.ndarray) -> Entry | None:
        """Writes an entry.

        Returns:
            The entry, mapped; None if it would go past the limit, and nothing was written.

        Raises:
            RunError: If the disk is full or the folder cannot be written; nothing is left behind.
        """
        size = facts.nbytes + data.nbytes + 256
        if self.used + size > self.limit:
            return None
        part = self.folder / f"{key}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex}.part"
        try:
            self._write(part, facts, data)
            os.replace(part, self._path(key))
        except OSError as error:
            part.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise RunError(
                    f"The disk of the cache folder {self.folder} is full ({size / 1e6:.1f} MB "
                    "were to be written). Free some space, or give a smaller budget or another "
                    "folder."
                ) from error
            raise RunError(
                f"The cache folder {self.folder} cannot be written: {error.strerror or error}."
            ) from error
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        self._used += size
        self._writes += 1
        return self.get(key)

    def _write(self, part: Path, facts: np.ndarray, data: np.ndarray) -> None:
        with open(part, "wb") as file:
            np.save(file, facts, allow_pickle=False)
            np.save(file, data, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())

    @property
    def used(self) -> int:
        """Bytes in the folder: those of other processes as of a little while ago."""
        if self._used < 0 or self._writes >= COUNTED_AGAIN:
            self._used, self._writes = sum(size for _, size, _ in self._entries()), 0
        return self._used

    def make_room(self, wanted: int, keep: Collection[str]) -> None:
        """Deletes entries not in `keep`, oldest first, until `wanted` more bytes fit."""
        self._used = -1
        surplus = self.used + wanted - self.limit
        for _, size, key in sorted(self._entries()):
            if surplus <= 0:
                break
            if key not in keep:
                self._path(key).unlink(missing_ok=True)
                surplus -= size
        self._used = -1

    def clear_parts(self) -> None:
        """Deletes what processes that no longer run have left half written."""
        for part in self.folder.glob("*.part"):
            _, host, process, _, _ = (part.name.rsplit(".", 4) + [""] * 5)[:5]
            try:
                age = time.time() - part.stat().st_mtime
            except OSError:
                continue
            here = host == socket.gethostname() and process.isdigit()
            if (here and not psutil.pid_exists(int(process))) or age > STALE_SECONDS:
                part.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.arrays"

    def _entries(self) -> list[tuple[float, int, str]]:
        """Age, bytes and key of every entry."""
        found = []
        for path in self.folder.glob("*.arrays"):
            try:
                facts = path.stat()
            except OSError:
                continue
            found.append((facts.st_mtime, facts.st_size, path.stem))
        return found


def default_cache() -> Path:
    """Where decoded samples and facts about files are kept between runs: XDG_CACHE_HOME or
    ~/.cache, or where nothing can be written there, as in many containers, a folder of the user's
    own among temporary files."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        usual = Path(base).expanduser() / "mainspring"
        usual.mkdir(parents=True, exist_ok=True)
        if os.access(usual, os.W_OK):
            return usual
    except (OSError, RuntimeError):  # no home at all is a RuntimeError
        pass
    owner = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    other = Path(tempfile.gettempdir()) / f"mainspring-{owner}"
    other.mkdir(mode=0o700, exist_ok=True)
    warnings.warn(
        f"Nothing can be written to {base}/mainspring; what is decoded is kept in {other}. Set "
        "XDG_CACHE_HOME to a folder that lasts.",
        stacklevel=2,
    )
    return other


def _map(path: Path) -> Entry:
    with open(path, "rb") as file:
        facts = np.lib.format.read_array(file, allow_pickle=False)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        offset, count = file.tell(), int(np.prod(shape))
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(mapped) != offset + count * dtype.itemsize:
        raise ValueError(f"{path} holds {len(mapped)} bytes, not what its header says")
    if count == 0:
        return Entry(facts, np.empty(shape, dtype))
    return Entry(facts, np.frombuffer(mapped, dtype, count, offset).reshape(shape))


class Stamps:
    """Content stamps of files: size, time of change, and a hash of head, middle and tail."""

    def __init__(self) -> None:
        self._known: Recent[str] = Recent(200_000)

    def __getitem__(self, path: str) -> str:
        facts = check_file(path)
        key = (path, facts.st_size, facts.st_mtime_ns)
        stamp = self._known.get(key)
        if stamp is None:
            stamp = self._known.put(key, _stamp(path, facts.st_size, facts.st_mtime_ns))
        return stamp


def _stamp(path: str, size: int, changed_ns: int) -> str:
    digest = hashlib.blake2b(f"{size} {changed_ns}".encode(), digest_size=16)
    with open(path, "rb") as file:
        for at in (0, max(0, size // 2 - STAMPED_BYTES // 2), max(0, size - STAMPED_BYTES)):
            file.seek(at)
            digest.update(file.read(STAMPED_BYTES))
    return digest.hexdigest()

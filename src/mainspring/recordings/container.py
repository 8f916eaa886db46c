"""Opening media files with PyAV: which stream to read, and errors that give the reason.

Decoding uses one thread a file: the loader's processes are the parallelism, and on clips of a few
seconds one thread is also the faster choice. FFmpeg's messages go to a callback in C that drops
them; a callback in Python would take the interpreter's lock from within the decoder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Literal

import av
import av.logging
from av.container import InputContainer
from av.stream import Disposition, Stream

from mainspring.errors import DataError
from mainspring.recordings.seems import HEAD_BYTES, is_text, seems

av.logging.set_level(None)

# Demuxers that draw text files as pictures.
TEXT_ART = {"tty", "ansi", "bin", "xbin", "adf", "idf"}
# How files begin that are what their name says, only broken.
BROKEN = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\x1a\x45\xdf\xa3", b"\xff\xd8\xff", b"\x89PNG")
# Identifiers of the two elements that a Matroska file is made of.
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# Demuxers that guess how long a file lasts: from its bit rate, from packets before its last, or
# from a header that a file which was cut short still has.
GUESSING = {"aac", "flv", "mpeg"}
# Seconds from which on a file's clock begins late enough to doubt whether the end that a container
# states for all its streams counts from there: Matroska's counts from 0.
LATE_SECONDS = 0.1


def version() -> str:
    """The decoder and the versions of its parts, as stored with whatever it decoded."""
    parts = ("libavformat", "libavcodec", "libswscale")
    numbers = (".".join(map(str, av.library_versions[part])) for part in parts)
    names = ", ".join(f"{part} {number}" for part, number in zip(parts, numbers, strict=True))
    return f"PyAV {av.__version__} ({names})"


@contextmanager
def opened(path: str) -> Iterator[InputContainer]:
    """A container opened for reading, from disk only.

    Raises:
        DataError: If the file is missing, may not be read, is empty, or is no media file; also
            for what FFmpeg finds wrong while it is open.
    """
    check_file(path)
    try:
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            if container.format.name in TEXT_ART:
                raise DataError(mistaken(path) or f"{path} holds text, not video or sound.")
            yield container
    except av.FFmpegError as error:
        raise DataError(reason(path, error)) from error


def check_file(path: str) -> os.stat_result:
    """The facts the file system states of a file.

    Raises:
        DataError: If it is missing, a folder, empty, or may not be read.
    """
    try:
        facts = os.stat(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except PermissionError:
        raise DataError(f"{path} may not be read: no permission for its folder.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder; a file was expected.")
    if facts.st_size == 0:
        raise DataError(f"{path} is empty (0 bytes). Copy or download it again.")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path} may not be read: no permission. Change its mode or owner.")
    return facts


def choose(container: InputContainer, kind: Literal["video", "audio"]) -> Stream | None:
    """The stream that is meant: the default one, else the first. Cover art, subtitles and data
    streams are never meant, nor is a stream that no decoder is known for."""
    streams = container.streams.video if kind == "video" else container.streams.audio
    usable = [
        stream
        for stream in streams
        if stream.codec_context is not None
        and not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    ]
    marked = [stream for stream in usable if stream.disposition & Disposition.default]
    return next(iter(marked or usable), None)


def origin(container: InputContainer) -> float:
    """Where the file begins on its own clock, in seconds. All streams count from there, so that
    they stay together."""
    return 0.0 if container.start_time is None else container.start_time / av.time_base


def cut_off(path: str, stream: Stream) -> bool:
    """Whether a file ends before its index or its header says, as a partial copy of a file that
    begins with them does."""
    size = check_file(path).st_size
    last = stream.index_entries[-1:]
    if last and last[0].pos + last[0].size > size:
        return True
    with open(path, "rb") as file:
        if file.read(4) != EBML:
            return False
        header = _ebml_size(file)
        file.seek(header or 0, os.SEEK_CUR)
        if file.read(4) != SEGMENT:
            return False
        segment = _ebml_size(file)
        return segment is not None and file.tell() + segment > size


def _ebml_size(file: BinaryIO) -> int | None:
    """The size of an element of Matroska at which the file stands; None where it is not stated.
    Leading zero bits of the first byte count the bytes that follow it (RFC 8794, section 4)."""
    first = (file.read(1) or b"\0")[0]
    more = 8 - first.bit_length()
    value = int.from_bytes(bytes([first]) + file.read(more), "big") - (1 << 7 * (more + 1))
    return None if not first or value == (1 << 7 * (more + 1)) - 1 else value


def reason(path: str, error: Exception) -> str:
    """Why a file could not be opened or decoded, in words."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        boxed = head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free")
        if boxed and not _has_index(path):
            return (
                f"{path} is a cut-off MP4: its index (moov) is missing, so nothing in it can be "
                "found. It was not copied or written to its end; copy it again."
            )
    detail = getattr(error, "strerror", None) or str(error)
    return mistaken(path) or f"{path} cannot be read as video or sound: {detail}."


def mistaken(path: str) -> str | None:
    """What a file is that is no video or sound, in a sentence; None if its first bytes do not tell
    that."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    what = None if head.startswith(BROKEN) or head[4:8] == b"ftyp" else seems(head)
    if what is None:
        return None
    holds = "holds text, not video or sound" if is_text(head) else "is no video or sound"
    return f"{path} {holds}: it seems to be {what}."


def _has_index(path: str) -> bool:
    """Whether an MP4's top-level boxes include its index, complete."""
    size = os.path.getsize(path)
    at = 0
    with open(path, "rb") as file:
        while at + 8 <= size:
            file.seek(at)
            header = file.read(16)
            length, name = int.from_bytes(header[:4], "big"), header[4:8]
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            if length == 0:
                length = size - at
            if name == b"moov":
                return at + length <= size
            if length < 8:
                return False
            at += length
    return False

"""What a file seems to be, told from its first bytes, for errors about files with a wrong name."""

from __future__ import annotations

import re

HEAD_BYTES = 4096

_BEGINNINGS = (
    (b"\x1f\x8b", "compressed by gzip: unpack it"),
    (b"BZh", "compressed by bzip2: unpack it"),
    (b"\xfd7zXZ\0", "compressed by xz: unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it"),
    (b"PK\3\4", "a ZIP archive or a workbook of a spreadsheet: unpack it, or save it as CSV"),
    (b"\xd0\xcf\x11\xe0", "a workbook of an old spreadsheet: save it as CSV"),
    (b"%PDF", "a PDF"),
    (b"\x89HDF\r\n\x1a\n", "HDF5: save its arrays as NPY or Parquet"),
    (b"SQLite format 3\0", "an SQLite database: save its tables as CSV"),
    (b"PAR1", "Parquet: let its name end in .parquet"),
    (b"\x93NUMPY", "a NumPy array: let its name end in .npy"),
    (b"MATLAB 5.0", "a MATLAB file: save its arrays as NPY or CSV"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"RIFF", "a WAV or AVI"),
    (b"fLaC", "a FLAC"),
    (b"OggS", "an Ogg"),
    (b"ID3", "an MP3"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM film"),
)
_PAGE = re.compile(rb"\s*<(!doctype html|html|head|body)", re.IGNORECASE)
_SHOWN = 40  # characters


def seems(head: bytes) -> str | None:
    """What begins with these bytes, to be put behind "it seems to be"; None if that is unknown."""
    for beginning, what in _BEGINNINGS:
        if head.startswith(beginning):
            return what
    if head[4:8] == b"ftyp":
        return "an MP4 or MOV film"
    if not is_text(head) or no_data(head) is not None:
        return no_data(head)
    line = " ".join(head.decode("utf-8-sig", errors="ignore").split())
    return f"text that begins with {line[:_SHOWN]!r}"


def no_data(head: bytes) -> str | None:
    """Which text that stands in for a file begins with these bytes; None if none does."""
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS to the file: git lfs pull brings the file"
    if _PAGE.match(head.removeprefix(b"\xef\xbb\xbf")):
        return "a web page, as a failed download leaves it: download it again"
    return None


def is_text(head: bytes) -> bool:
    """Whether a file's first bytes are plain text."""
    if b"\x00" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4 and error.start > 0
    return True

"""Text: the caption of a recording as a stream of sentences and words.

    sentences("A ball falls.\\nIt bounces.")     # ["A ball falls.", "It bounces."]
    words("A ball falls.")                       # ["a", "ball", "falls"]
    numbers("A ball falls.", length=5)           # int64 (5,): three hashes, then two zeros

Each line of a caption is a sentence. Which second a sentence belongs to is not written down, so
sentences are taken to be spread evenly over the recording: of four in twenty seconds the second one
stands for seconds 5 to 10.

A word's number is a hash of the word, the same on every machine, so that no vocabulary has to be
built before training or kept with an encoder; an encoder takes it modulo its number of buckets.
With 62 bits, two of a million words share a number with a chance of about one in ten million.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from mainspring.clips import NOTHING
from mainspring.recordings.recording import StreamInfo

NO_WORD = 0
WAY = "lines, NFKC, lower case, runs of letters and digits, blake2b"
"""How words come about: in the stamp of what was read."""

_ASCII = re.compile(r"[a-z0-9']+")
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u02bc": "'", "\uff07": "'"})
# Joiners steer how letters are drawn and do not end a word.
_JOINERS = str.maketrans("", "", "\u200c\u200d\u00ad")


def words(text: str) -> list[str]:
    """The words of a text: lower-cased runs of letters, digits and apostrophes, of any script.

    A mark that belongs to a letter (an accent, a vowel sign) is part of it, and letters that look
    the same in two encodings are the same (NFKC). Scripts written without spaces give one word a
    run: put spaces where words end.
    """
    if text.isascii():
        return [word for run in _ASCII.findall(text.lower()) if (word := run.strip("'"))]
    plain = unicodedata.normalize("NFKC", text).lower().translate(_JOINERS).translate(_APOSTROPHES)
    # Letters (L), the marks upon them (M) and numbers (N); everything else ends a word.
    spaced = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in plain)
    found = (word.strip("'") for word in spaced.split())
    return [word for word in found if any(map(str.isalnum, word))]


@lru_cache(maxsize=1 << 17)
def number(word: str) -> int:
    """A word's hash: from 1 to 2**62 - 1, the same in every process and on every machine."""
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (2**62 - 1) + 1


def numbers(sentence: str, length: int) -> Int64[np.ndarray, "{length}"]:
    """The numbers of a sentence's words, as the reader delivers them and as queries need them.

    Args:
        sentence: Any text.
        length: How many; further words are left out, and what is missing is `NO_WORD`.
    """
    out = np.full(length, NO_WORD, dtype=np.int64)
    found = [number(word) for word in words(sentence)[:length]]
    out[: len(found)] = found
    return out


def sentences(caption: str | None) -> list[str]:
    """The lines of a caption that hold a word."""
    return [line.strip() for line in (caption or "").splitlines() if words(line)]


def read_words(
    caption: str | None, positions: Int64[np.ndarray, "view time"], length: int
) -> Int64[np.ndarray, "view time"]:
    """The numbers of words at positions, `length` of which are one sentence; `NO_WORD` for
    padding and past the end."""
    lines = sentences(caption)
    sentence = np.where(positions == NOTHING, len(lines), positions // length)
    sentence = np.minimum(sentence, len(lines))
    table = np.full((len(lines) + 1, length), NO_WORD, dtype=np.int64)
    for row in np.unique(sentence[sentence < len(lines)]).tolist():
        table[row] = numbers(lines[row], length)
    return table[sentence, positions % length]


def cut(caption: str, seconds: float, spans: Iterable[tuple[float, float]]) -> list[str]:
    """The caption of each of some windows of a recording.

    A sentence goes to the windows that its middle lies in; a window too short for any gets the
    one that its own middle lies in.

    Args:
        caption: Of the whole recording.
        seconds: How long that is.
        spans: Start and stop of each window, in seconds from the recording's start.
    """
    lines = sentences(caption)
    middles = (np.arange(len(lines)) + 0.5) * (seconds / max(len(lines), 1))
    cuts = []
    for start, stop in spans:
        low, high = np.searchsorted(middles, [start, stop]).tolist()
        if low == high and lines:
            low = min(int((start + stop) / 2 / seconds * len(lines)), len(lines) - 1)
            high = low + 1
        cuts.append("\n".join(lines[low:high]))
    return cuts


def text_info(caption: str | None, start: float, end: float) -> StreamInfo | None:
    """The facts of a caption as a stream; None where it holds no word, or lasts no time.

    Args:
        caption: Of the recording.
        start: When the recording starts, in seconds from its file's beginning.
        end: When it ends, likewise: where its longest stream does, or its span.

    Returns:
        `length` counts sentences, `rate` is sentences per second of the recording, and `seconds`
        is, as in other streams, when it ends from the file's beginning.
    """
    count = len(sentences(caption))
    if not count or not end > start:
        return None
    return StreamInfo("text", count, count / (end - start), end, codec="caption")

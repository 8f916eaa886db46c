"""Words as vectors, one layer, and the greatest over the sentence: the encoder for text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mainspring.clips import ClipSpec
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, DataError
from mainspring.recordings.text import NO_WORD, number, words

Numbers = Int64[Tensor, "n time"]
Present = Bool[Tensor, "n time"] | None


class Words(Encoder):
    """A vector a word, a linear layer with ReLU, and the maximum over the words of a sentence.

    So did GDT (Patrick et al., ICCV 2021) encode captions, after Miech et al. (CVPR 2020): up to 20
    words, word2vec of 300, a layer to 2048, the maximum over words; the 256 of the shared space
    follow in the pretext's head. Both begin with word2vec and keep its vectors as they are (GDT in
    its released code); here the vectors begin at random, or with those of a file, and learn.

    Words come as numbers (hashes; 0 is no word) and share `buckets` vectors: of w different words,
    about w / buckets meet any given word in its bucket, and the two then look the same. The demo
    world has some hundred words; for a caption vocabulary of tens of thousands take 2**18.

    The maximum does not know the order of words, so a sentence read backwards is the same sentence,
    and no question about its direction has an answer. With `context` above 1 the layer sees so many
    neighbouring words at once, and order counts.

    Args:
        buckets: Different words that can be told apart at best.
        width: Of a word's vector (300 in the papers, as in word2vec).
        dim: Of the layer. The papers have 2048; 512 suits captions of thousands of sentences
            rather than millions.
        context: Words that the layer sees at once: 1 (the papers'), or an odd number for a
            convolution over the sentence.
        vectors: File of vectors to begin with: word2vec's text format (a word and its numbers a
            line, with or without a first line of counts) or `.npz` with the arrays "words" and
            "vectors". Words are split and lower-cased as captions are, and entries of several words
            are left out; where two share a bucket the first wins, which in word2vec's files is the
            more frequent. Not needed again once there are weights, hence not in `settings`.

    Attributes:
        ordered: Whether it can tell a sentence from the same words in another order.
        read: How many buckets began with a vector of the file.

    Raises:
        ConfigError: If a setting is out of range.
        DataError: If the file cannot be read or its vectors have another width.
    """

    stream: ClassVar[str] = "text"
    clip: ClassVar[ClipSpec] = ClipSpec(length=20)
    citation: ClassVar[str] = (
        "Miech et al., End-to-end learning of visual representations, CVPR 2020, as in "
        "Patrick et al., On Compositions of Transformations (GDT), ICCV 2021"
    )

    def __init__(
        self,
        buckets: int = 16384,
        width: int = 300,
        dim: int = 512,
        context: int = 1,
        vectors: str = "",
    ) -> None:
        super().__init__()
        if min(buckets, width, dim) < 1:
            raise ConfigError(f"buckets {buckets}, width {width} and dim {dim} must be positive.")
        if context < 1 or context % 2 == 0:
            raise ConfigError(
                f"context must be 1 or an odd number, so that it has a middle, not {context}."
            )
        self.settings = {"buckets": buckets, "width": width, "dim": dim, "context": context}
        self.dim = dim
        self.ordered = context > 1
        self.vectors = nn.Embedding(buckets, width)
        self.layer = nn.Conv1d(width, dim, context, padding=context // 2)
        self.read = self._begin_with(Path(vectors)) if vectors else 0

    def prepare(self, samples: Numbers, present: Present = None) -> Numbers:
        """Numbers as they are, `NO_WORD` at padding."""
        return samples if present is None else samples * present

    def stem(self, prepared: Numbers) -> Float[Tensor, "n time width"]:
        """A vector a word, zeros where there is none."""
        found = self.vectors(prepared % self.vectors.num_embeddings)
        return found * (prepared != NO_WORD)[:, :, None]

    def trunk(self, hidden: Float[Tensor, "n time width"]) -> Float[Tensor, "n time dim"]:
        """The layer, with its ReLU."""
        return F.relu(self.layer(hidden.transpose(1, 2)).transpose(1, 2))

    def tokens(self, samples: Numbers, present: Present = None) -> Float[Tensor, "n time dim"]:
        """A token a word, none of them below 0; zeros where there is no word."""
        prepared = self.prepare(samples, present)
        return self.trunk(self.stem(prepared)) * (prepared != NO_WORD)[:, :, None]

    def embed(
        self, tokens: Float[Tensor, "n *grid dim"], present: Present = None
    ) -> Float[Tensor, "n dim"]:
        """The maximum over words; zeros for a sentence without any."""
        return tokens.float().flatten(1, -2).amax(1)

    @torch.no_grad()
    def _begin_with(self, path: Path) -> int:
        """Puts the vectors of a file in their buckets; returns how many it filled."""
        buckets, width = self.vectors.weight.shape
        filled = np.zeros(buckets, bool)
        for text, vector in _entries(path):
            found = words(text)
            bucket = number(found[0]) % buckets if len(found) == 1 else None
            if bucket is None or filled[bucket]:
                continue
            if vector.shape != (width,):
                raise DataError(
                    f"{path} has {vector.size} numbers for {text!r}, but the encoder reads vectors "
                    f"of {width}; build it with width={vector.size}."
                )
            self.vectors.weight[bucket] = torch.from_numpy(vector)
            filled[bucket] = True
        if not filled.any():
            raise DataError(f"{path} holds no vector of a single word.")
        return int(filled.sum())


def _entries(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Words of a file with their vectors, in its order.

    Raises:
        DataError: If the file is not there or has another form.
    """
    form = 'word2vec\'s text format ("word v1 v2 ..." a line) or .npz with "words" and "vectors"'
    if not path.is_file():
        raise DataError(f"There are no word vectors at {path}: no such file.")
    try:
        if path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                listed, vectors = arrays["words"], arrays["vectors"].astype(np.float32)
            if listed.shape != vectors.shape[:1] or vectors.ndim != 2:
                raise ValueError(f"shapes {listed.shape} of words and {vectors.shape} of vectors")
            yield from zip(map(str, listed.tolist()), vectors, strict=True)
            return
        with path.open(encoding="utf-8") as lines:
            for index, line in enumerate(lines):
                text, *numbers = line.rstrip().split(" ")
                if index == 0 and len(numbers) == 1 and text.isdigit():
                    continue  # how many there are, and how wide
                if numbers:
                    yield text, np.array(numbers, np.float32)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} cannot be read as word vectors ({form}): {error}.") from error

"""The square of all pairs of views, visited block by block and never held as a whole.

What Eq. 1 of GDT (Patrick et al., ICCV 2021) needs of it: sums over rows, and the gradient. See
`mainspring.losses.contrast` for the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mainspring.losses.pairs import Rule, Stored

KEPT = 2**26
"""Similarities kept from the first pass for the second: 256 MiB in float32."""
SIDE, SIDE_ELSEWHERE = 512, 4096
"""Rows and columns of a block of similarities on CPUs, 1 MiB, which fits a core's cache; and
elsewhere, where every block has to be worth starting."""
BOUNDED = 0.9
"""Share of a number format's exponents that sums may use without a maximum taken out."""
TIE = 1e-5
"""Cosines nearer than this are equal but for rounding: right and wrong ones come of sums in
different orders, and collapsed embeddings must not win by their last digits."""


def side_for(device: torch.device) -> int:
    """Rows and columns of a block that suit a device."""
    return SIDE if device.type == "cpu" else SIDE_ELSEWHERE


class Facts(NamedTuple):
    """What is known of the views besides their vectors.

    Attributes:
        label: Views of one label are pulled together.
        rule: Which pairs take part; all views are there.
        stored: More keys.
        temperature: Of the similarities.
    """

    label: Tensor
    rule: Rule
    stored: Stored | None
    temperature: float


class _Span(NamedTuple):
    """Views of one stream that follow each other, and the range of their labels."""

    rows: slice
    stream: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """How many."""
        return self.rows.stop - self.rows.start

    def shares(self, other: _Span) -> bool:
        """Whether views of one label may be in both."""
        return self.first <= other.last and other.first <= self.last


class Square:
    """The square of all pairs of views, visited block by block.

    A cosine over the temperature is at most 1 / temperature, so exponentials can be summed as they
    are, and those of a block are those of its mirror image too. Only where the temperature is so
    small that sums could overflow or vanish is each row's maximum taken out as a reference; then
    each block needs a visit of its own.
    """

    def __init__(self, unit: Tensor, facts: Facts, kept: int, side: int) -> None:
        self.label, self.rule, self.stored, self.temperature = facts
        self.unit = unit
        self.scaled = unit / self.temperature
        self.side = side
        self.spans = _spans(self.label, self.rule.stream, side)
        self.mirrored = 2 / self.temperature < BOUNDED * math.log(torch.finfo(unit.dtype).max)
        self.reference: Tensor | None = None
        self.blocks = self._blocks()
        visited = sum(rows.size * columns.size for rows, columns in self.blocks)
        self.kept = unit.new_empty(visited) if visited <= kept else None
        # Fresh memory is paid for page by page, so blocks are written over each other.
        largest = max((rows.size * columns.size for rows, columns in self.blocks), default=0)
        self.rooms = unit.new_empty(2, largest)

        def each(value: float) -> Tensor:
            return unit.new_full((len(unit),), value)

        self.total, self.keys, self.pulled, self.pull = each(0), each(0), each(0), each(0)
        self.right, self.wrong = each(-math.inf), each(-math.inf)
        if not self.mirrored:
            self._find_maxima()

    def sum(self) -> None:
        """For each view the sum over its keys, how many there are, and how its positives fare."""
        for place, (rows, columns) in self._places():
            own, other = rows.rows, columns.rows
            similar = self._similar(own, self.unit[other], place)
            allowed, pulled = self._masks(rows, columns)
            self._note(own, similar, allowed, pulled, 1)
            twice = self.mirrored and rows is not columns
            if twice:
                self._note(other, similar, allowed, pulled, 0)
            share = similar.exp_() if allowed is None else similar.exp_().mul_(allowed)
            self.total[own] += share.sum(1)
            if twice:
                self.total[other] += share.sum(0)
        for own, keys, allowed in self._outside():
            similar = self._similar(own, keys)
            self._note(own, similar, allowed, None, 1)
            self.total[own] += similar.exp_().mul_(allowed).sum(1)

    def found(self) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, accuracy and chance."""
        tiny = torch.finfo(self.total.dtype).tiny
        surprise = self.pulled * self.total.clamp(min=tiny).log() - self.pull
        asked = self.pulled > 0
        count = asked.sum().clamp(min=1)
        right = (self.right - TIE / self.temperature > self.wrong) & asked
        chance = self.pulled / self.keys.clamp(min=1)
        return surprise.sum() / self._pairs(), right.sum() / count, chance.sum() / count

    def gradient(self, keys_learn: bool) -> Tensor:
        """Of the loss with respect to each vector, after `sum`.

        The derivative by a similarity is, as a matrix of rows T and columns T', softmax times the
        number of the row's positives minus c w, over the number of pairs.
        """
        pairs = self._pairs()
        share = torch.where(self.total > 0, self.pulled / (self.total * pairs), 0.0)[:, None]
        grad = torch.zeros_like(self.unit)
        for place, (rows, columns) in self._places():
            own, other = rows.rows, columns.rows
            allowed, pulled = self._masks(rows, columns)
            if self.kept is None:
                similar = self._similar(own, self.unit[other], place).exp_()
                similar = similar if allowed is None else similar.mul_(allowed)
            else:
                similar = place
            twice = self.mirrored and rows is not columns
            slope = self._room(1, rows.size, columns.size)
            if keys_learn:  # the pair and its mirror image move the same two vectors
                weight = share[own]
                if twice:
                    weight = torch.add(share[own], share[other].T, out=slope)
                torch.mul(similar, weight, out=slope)
                if pulled is not None:
                    slope.sub_(pulled * ((1 + twice) / pairs))
                if rows is columns:
                    grad[own].addmm_(slope + slope.T, self.unit[own])
                    continue
                grad[own].addmm_(slope, self.unit[other])
                grad[other].addmm_(slope.T, self.unit[own])
                continue
            target = 0.0 if pulled is None else pulled / pairs
            grad[own].addmm_(
                torch.mul(similar, share[own], out=slope).sub_(target), self.unit[other]
            )
            if twice:
                torch.mul(similar, share[other].T, out=slope).sub_(target)
                grad[other].addmm_(slope.T, self.unit[own])
        for own, keys, allowed in self._outside():
            slope = self._similar(own, keys).exp_().mul_(allowed).mul_(share[own])
            grad[own].addmm_(slope, keys)
        return grad.div_(self.temperature)

    def _pairs(self) -> Tensor:
        """How many pairs have c w = 1."""
        return self.pulled.sum().clamp(min=1)

    def _blocks(self) -> list[tuple[_Span, _Span]]:
        """Rows and columns of each block that any pair may be in."""
        return [
            (rows, columns)
            for index, rows in enumerate(self.spans)
            for columns in (self.spans[index:] if self.mirrored else self.spans)
            if self.rule.stream is None or rows.stream != columns.stream
        ]

    def _places(self) -> Iterator[tuple[Tensor, tuple[_Span, _Span]]]:
        """Each block with the memory to write it to: its own where blocks are kept."""
        start = 0
        for rows, columns in self.blocks:
            if self.kept is None:
                place = self._room(0, rows.size, columns.size)
            else:
                stop = start + rows.size * columns.size
                place = self.kept[start:stop].view(rows.size, columns.size)
                start = stop
            yield place, (rows, columns)

    def _room(self, which: int, rows: int, columns: int) -> Tensor:
        """Memory for a block, written over by the next."""
        return self.rooms[which, : rows * columns].view(rows, columns)

    def _similar(self, rows: slice, keys: Tensor, place: Tensor | None = None) -> Tensor:
        """Similarities over the temperature, less the reference, which only pairs that do not take
        part can exceed; their exponentials must not overflow, as 0 times infinity is no number."""
        similar = torch.mm(self.scaled[rows], keys.T, out=place)
        if self.reference is None:
            return similar
        return similar.sub_(self.reference[rows]).clamp_(max=0)

    def _masks(self, rows: _Span, columns: _Span) -> tuple[Tensor | None, Tensor | None]:
        """w of a block, None where all pairs take part, and c w, None where no pair may agree."""
        whole = rows is not columns and self.rule.near is None
        allowed = None if whole else self.rule.block(rows.rows, columns.rows)
        if not rows.shares(columns):
            return allowed, None
        agree = self.label[rows.rows, None] == self.label[columns.rows]
        return allowed, agree if allowed is None else agree & allowed

    def _outside(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Rows, some of the stored keys, and w between them."""
        if self.stored is None:
            return
        keys, owner, stream = self.stored
        for start in range(0, len(keys), self.side):
            some = slice(start, start + self.side)
            part = Stored(keys[some], owner[some], None if stream is None else stream[some])
            for span in self.spans:
                yield span.rows, part.keys, self.rule.against(span.rows, part)

    def _note(
        self, rows: slice, similar: Tensor, allowed: Tensor | None, pulled: Tensor | None, dim: int
    ) -> None:
        """Counts the keys of these rows, and finds the best positive and negative of each."""
        wrong = similar
        if pulled is not None:
            wrong = wrong.masked_fill(pulled, -torch.inf)
            right = similar.masked_fill(~pulled, -torch.inf).amax(dim)
            self.right[rows] = torch.maximum(self.right[rows], right)
            self.pull[rows] += (similar * pulled).sum(dim)
            self.pulled[rows] += pulled.sum(dim)
        if allowed is not None:
            wrong = wrong.masked_fill(~allowed, -torch.inf)
        self.wrong[rows] = torch.maximum(self.wrong[rows], wrong.amax(dim))
        self.keys[rows] += similar.shape[dim] if allowed is None else allowed.sum(dim)

    def _find_maxima(self) -> None:
        """Makes each row's greatest similarity its reference."""
        reference = self.unit.new_full((len(self.unit), 1), -torch.inf)
        for rows, columns in self.blocks:
            similar = self._similar(rows.rows, self.unit[columns.rows])
            allowed, _ = self._masks(rows, columns)
            if allowed is not None:
                similar.masked_fill_(~allowed, -torch.inf)
            top = similar.amax(1, keepdim=True)
            reference[rows.rows] = torch.maximum(reference[rows.rows], top)
        for own, keys, some in self._outside():
            similar = self._similar(own, keys).masked_fill_(~some, -torch.inf)
            reference[own] = torch.maximum(reference[own], similar.amax(1, keepdim=True))
        self.reference = reference.nan_to_num(neginf=0.0)


def _spans(label: Tensor, stream: Tensor | None, side: int) -> list[_Span]:
    """Cuts sorted views into spans of at most `side`, none with two streams in it."""
    if not len(label):
        return []
    streams = torch.zeros_like(label) if stream is None else stream
    kinds, counts = (part.tolist() for part in streams.unique_consecutive(return_counts=True))
    cuts: list[tuple[int, slice]] = []
    start = 0
    for kind, count in zip(kinds, counts, strict=True):
        stop = start + count
        cuts += [(kind, slice(at, min(at + side, stop))) for at in range(start, stop, side)]
        start = stop
    ends = [(rows.start, rows.stop - 1) for _, rows in cuts]
    ranges = label[torch.tensor(ends, device=label.device)].tolist()
    return [
        _Span(rows, kind, first, last)
        for (kind, rows), (first, last) in zip(cuts, ranges, strict=True)
    ]

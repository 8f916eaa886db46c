"""The square of all pairs of views, visited block by block and never held as a whole.

What Eq. 1 of GDT (Patrick et al., ICCV 2021) needs of it: sums over rows, and the gradient. See
`mainspring.losses.contrast` for the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mainspring.losses.pairs import Rule, Stored

KEPT = 2**26
"""Similarities kept from the first pass for the second: 256 MiB in float32."""
SIDE, SIDE_ELSEWHERE = 768, 4096
"""Rows and columns of a block of similarities on CPUs, 2 MiB, which caches hold; and elsewhere,
where every block has to be worth starting."""
BOUNDED = 0.9
"""Share of a number format's exponents that sums may use without a maximum taken out."""
APART = 4.0
"""Positives are moved by this many cosines, out of reach of the others, so that one maximum finds
the best of them and another the best of the rest; on CPUs arithmetic is many times faster than
masks of truth values."""
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


class _Sums(NamedTuple):
    """What is found out about each view, shape (n,) each.

    Attributes:
        total: Sum of the exponentials over its keys.
        keys: How many there are.
        pulled: How many of them are positives.
        pull: Sum of the similarities of these.
        right: The greatest of these similarities.
        wrong: The greatest of all others.
    """

    total: Tensor
    keys: Tensor
    pulled: Tensor
    pull: Tensor
    right: Tensor
    wrong: Tensor

    def note(self, similar: Tensor, pulled: Tensor | None, temperature: float, dim: int) -> None:
        """Takes in the best positive and the best negative along an axis of a block."""
        if pulled is None:
            torch.maximum(self.wrong, similar.amax(dim), out=self.wrong)
            return
        out_of_reach = APART / temperature
        best = similar.add(pulled, alpha=out_of_reach).amax(dim) - out_of_reach
        torch.maximum(self.right, best, out=self.right)
        wrong = similar.sub(pulled, alpha=out_of_reach).amax(dim)
        torch.maximum(self.wrong, wrong, out=self.wrong)


@dataclass(frozen=True, eq=False)
class _Span:
    """Views of one stream that follow each other.

    Attributes:
        rows: Which views.
        stream: Theirs.
        first: The least of their labels.
        last: The greatest.
        unit: Their vectors.
        label: Their labels, numbered, in the type of the vectors.
        sums: What is found out about them.
        halves: The first and the second half, if there are two views or more.
    """

    rows: slice
    stream: int
    first: int
    last: int
    unit: Tensor
    label: Tensor
    sums: _Sums
    halves: tuple[_Span, ...] = ()

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
        self.side = side
        self.mirrored = 2 / self.temperature < BOUNDED * math.log(torch.finfo(unit.dtype).max)
        self.reference: Tensor | None = None

        def each(value: float) -> Tensor:
            return unit.new_full((len(unit),), value)

        never = -math.inf
        self.sums = _Sums(each(0), each(0), each(0), each(0), each(never), each(never))
        self.spans = self._spans()
        self.blocks = self._blocks()
        visited = sum(rows.size * columns.size for rows, columns in self.blocks)
        self.kept = unit.new_empty(visited) if visited <= kept else None
        # Fresh memory is paid for page by page, so blocks are written over each other.
        largest = max((rows.size * columns.size for rows, columns in self.blocks), default=0)
        self.rooms = unit.new_empty(2, largest)
        self._count_all_others()
        if not self.mirrored:
            self._find_maxima()

    def sum(self) -> None:
        """For each view the sum over its keys, how many there are, and how its positives fare."""
        for place, (rows, columns) in self._places():
            ways = self._ways(rows, columns)
            similar = self._similar(rows, columns.unit, place)
            pulled = self._pulled(rows, columns)
            if pulled is not None:
                pull = similar * pulled  # before pairs are left out: 0 times infinity is no number
                for views, dim in ways:
                    views.sums.pull.add_(pull.sum(dim))
                    views.sums.pulled.add_(pulled.sum(dim))
            allowed = self._leave_out(similar, rows, columns)
            for views, dim in ways:
                views.sums.note(similar, pulled, self.temperature, dim)
                if allowed is not None:
                    views.sums.keys.add_(allowed.sum(dim))
            share = similar.exp_()
            for views, dim in ways:
                views.sums.total.add_(share.sum(dim))
        for rows, keys, allowed in self._outside():
            similar = self._similar(rows, keys).masked_fill_(~allowed, -torch.inf)
            rows.sums.note(similar, None, self.temperature, 1)
            rows.sums.keys.add_(allowed.sum(1))
            rows.sums.total.add_(similar.exp_().sum(1))

    def found(self) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, accuracy and chance."""
        total, keys, pulled, pull, right, wrong = self.sums
        surprise = pulled * total.clamp(min=torch.finfo(total.dtype).tiny).log() - pull
        asked = pulled > 0
        count = asked.sum().clamp(min=1)
        best = (right - TIE / self.temperature > wrong) & asked
        chance = pulled / keys.clamp(min=1)
        return surprise.sum() / self._pairs(), best.sum() / count, chance.sum() / count

    def gradient(self, keys_learn: bool) -> Tensor:
        """Of the loss with respect to each vector, after `sum`.

        The derivative by a similarity is, as a matrix of rows T and columns T', softmax times the
        number of the row's positives minus c w, over the number of pairs.
        """
        each = 1 / (self._pairs() * self.temperature)
        total, pulled = self.sums.total, self.sums.pulled
        share = torch.where(total > 0, pulled / total * each, 0.0)[:, None]
        grad = torch.zeros_like(self.unit)
        for place, (rows, columns) in self._places():
            own, other = rows.rows, columns.rows
            similar = place
            if self.kept is None:
                self._leave_out(self._similar(rows, columns.unit, place), rows, columns)
                similar.exp_()
            agree = self._pulled(rows, columns)
            slope = self._room(1, rows.size, columns.size)
            if keys_learn:  # the pair and its mirror image move the same two vectors
                weight = share[own]
                if self.mirrored:
                    weight = torch.add(weight, share[other].T, out=slope)
                torch.mul(similar, weight, out=slope)
                if agree is not None:
                    slope.addcmul_(agree, each, value=-2.0 if self.mirrored else -1.0)
                grad[own].addmm_(slope, columns.unit)
                if rows is not columns or not self.mirrored:
                    grad[other].addmm_(slope.T, rows.unit)
                continue
            for views, dim in self._ways(rows, columns):
                weight = share[views.rows]
                torch.mul(similar, weight if dim else weight.T, out=slope)
                if agree is not None:
                    slope.addcmul_(agree, each, value=-1.0)
                if dim:
                    grad[own].addmm_(slope, columns.unit)
                else:
                    grad[other].addmm_(slope.T, rows.unit)
        for rows, keys, allowed in self._outside():
            similar = self._similar(rows, keys).masked_fill_(~allowed, -torch.inf)
            grad[rows.rows].addmm_(similar.exp_().mul_(share[rows.rows]), keys)
        return grad

    def _pairs(self) -> Tensor:
        """How many pairs have c w = 1."""
        return self.sums.pulled.sum().clamp(min=1)

    def _spans(self) -> list[_Span]:
        """Cuts sorted views into spans of at most `side`, none with two streams in it."""
        if not len(self.label):
            return []
        stream = torch.zeros_like(self.label) if self.rule.stream is None else self.rule.stream
        kinds, counts = (part.tolist() for part in stream.unique_consecutive(return_counts=True))
        cuts: list[tuple[int, int, int, int]] = []
        start = 0
        for kind, count in zip(kinds, counts, strict=True):
            stop = start + count
            for at in range(start, stop, self.side):
                end = min(at + self.side, stop)
                cuts.append((kind, at, (at + end + 1) // 2, end))
            start = stop
        # The first and the last of each half, a half without views as that before it.
        ends = [(at, mid - 1, min(mid, end - 1), end - 1) for _, at, mid, end in cuts]
        label = self.label[torch.tensor(ends, device=self.label.device)].tolist()
        number = self.label.unique(return_inverse=True)[1].to(self.unit.dtype)

        def span(at: int, end: int, kind: int, first: int, last: int) -> _Span:
            rows = slice(at, end)
            sums = _Sums(*(values[rows] for values in self.sums))
            return _Span(rows, kind, first, last, self.unit[rows], number[rows], sums)

        spans = []
        for (kind, at, mid, end), (first, left, right, last) in zip(cuts, label, strict=True):
            whole = span(at, end, kind, first, last)
            halves = (span(at, mid, kind, first, left), span(mid, end, kind, right, last))
            spans.append(replace(whole, halves=halves) if mid < end else whole)
        return spans

    def _blocks(self) -> list[tuple[_Span, _Span]]:
        """Rows and columns of each block that any pair may be in. On the diagonal, where a block is
        its own mirror image, its upper right quarter serves as the lower left."""
        blocks: list[tuple[_Span, _Span]] = []
        for index, rows in enumerate(self.spans):
            for columns in self.spans[index:] if self.mirrored else self.spans:
                if self.rule.stream is not None and rows.stream == columns.stream:
                    continue
                if rows is columns and self.mirrored and rows.halves:
                    one, other = rows.halves
                    blocks += [(one, one), (one, other), (other, other)]
                else:
                    blocks.append((rows, columns))
        return blocks

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

    def _ways(self, rows: _Span, columns: _Span) -> list[tuple[_Span, int]]:
        """Whose keys a block holds, and along which of its axes: of its rows, and of its columns
        where it also serves as its mirror image."""
        ways = [(rows, 1)]
        return [*ways, (columns, 0)] if self.mirrored and rows is not columns else ways

    def _similar(self, rows: _Span, keys: Tensor, place: Tensor | None = None) -> Tensor:
        """Similarities over the temperature, less the reference, which only pairs that do not take
        part can exceed; their exponentials must not overflow, as 0 times infinity is no number."""
        if place is None:
            place = keys.new_empty(rows.size, len(keys))
        torch.addmm(place, rows.unit, keys.T, beta=0, alpha=1 / self.temperature, out=place)
        if self.reference is None:
            return place
        return place.sub_(self.reference[rows.rows]).clamp_(max=0)

    def _pulled(self, rows: _Span, columns: _Span) -> Tensor | None:
        """c w of a block as numbers, None where no pair may agree."""
        if not rows.shares(columns):
            return None
        agree = self.unit.new_empty(rows.size, columns.size)
        torch.eq(rows.label[:, None], columns.label, out=agree)
        if rows is columns:
            agree.fill_diagonal_(0)
        if self.rule.near is not None:
            agree.mul_(self.rule.block(rows.rows, columns.rows))
        return agree

    def _leave_out(self, similar: Tensor, rows: _Span, columns: _Span) -> Tensor | None:
        """Makes similarities of pairs that take no part less than any number. Returns w of the
        block where that is more than leaving out a view itself."""
        if self.rule.near is not None:
            allowed = self.rule.block(rows.rows, columns.rows)
            similar.masked_fill_(~allowed, -torch.inf)
            return allowed
        if rows is columns:
            similar.fill_diagonal_(-torch.inf)
        return None

    def _count_all_others(self) -> None:
        """How many keys each view has, as far as no pairs have to be looked at to count them."""
        if self.rule.near is not None:
            return
        for span in self.spans:
            count = len(self.unit) - 1
            if self.rule.stream is not None:
                count = sum(one.size for one in self.spans if one.stream != span.stream)
            span.sums.keys.fill_(count)

    def _outside(self) -> Iterator[tuple[_Span, Tensor, Tensor]]:
        """Rows, some of the stored keys, and w between them."""
        if self.stored is None:
            return
        keys, owner, stream = self.stored
        for start in range(0, len(keys), self.side):
            some = slice(start, start + self.side)
            part = Stored(keys[some], owner[some], None if stream is None else stream[some])
            for span in self.spans:
                yield span, part.keys, self.rule.against(span.rows, part)

    def _find_maxima(self) -> None:
        """Makes each row's greatest similarity its reference."""
        reference = self.unit.new_full((len(self.unit), 1), -torch.inf)

        def take(rows: _Span, similar: Tensor) -> None:
            top = reference[rows.rows]
            torch.maximum(top, similar.amax(1, keepdim=True), out=top)

        for rows, columns in self.blocks:
            similar = self._similar(rows, columns.unit)
            self._leave_out(similar, rows, columns)
            take(rows, similar)
        for rows, keys, allowed in self._outside():
            take(rows, self._similar(rows, keys).masked_fill_(~allowed, -torch.inf))
        self.reference = reference.nan_to_num(neginf=0.0)

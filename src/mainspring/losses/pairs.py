"""Which pairs of views a contrast pulls together (c) and which it looks at (w).

Both are binary functions of a pair in GDT (Patrick et al., "On compositions of transformations in
contrastive self-supervised learning", ICCV 2021, Section 3.1). `agreement` turns a question per
factor into one label a view, and c is the equality of labels; a `Rule` is w.

    SimCLR      agreement(recording, {}, {})                  all_but_self(recording)
    GDT, row l  agreement(recording, {"shift": s}, {"shift":  cross_stream(recording, stream)
                "tell_apart"})

The paper prints GDT's rule as w = [i != i'] [m != m'] (Section 3.3). With c = [i = i'] that leaves
no pair with c w = 1 and no loss at all, so its first factor is taken for a misprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from mainspring.errors import ConfigError, unknown

QUESTIONS = ("ignore", "tell_apart")


class Stored(NamedTuple):
    """More keys, of a queue or a memory bank; they get no gradient and are nobody's positive.

    Attributes:
        keys: (k, dim) One vector each; their length does not matter.
        owner: (k,) The recording that a key is of; it is no negative for views of that recording.
            -1 for a key that is not there yet (`negatives.NOBODY`).
        stream: (k,) The stream that a key is of; needed where only other streams are compared.
    """

    keys: Tensor
    owner: Tensor
    stream: Tensor | None = None


@dataclass(frozen=True)
class Rule:
    """The weight function w(T, T') of n views. It is symmetric and leaves out T = T'.

    Attributes:
        recording: Which recording each view is of.
        stream: If given, only views of different streams are compared.
        there: If given, views that are False neither ask nor count: they are absent or silent.
        near: If given, values of factors; views of one recording are compared only where they
            differ in at most one of these.
    """

    recording: Int64[Tensor, "n"]
    stream: Int64[Tensor, "n"] | None = None
    there: Bool[Tensor, "n"] | None = None
    near: Int64[Tensor, "n factor"] | None = None

    def among(self, there: Bool[Tensor, "n"]) -> Rule:
        """The same rule among the views that are there."""
        return replace(self, there=there if self.there is None else self.there & there)

    def edges(self, *factors: Int64[Tensor, "n"]) -> Rule:
        """The same rule without pairs of one recording that differ in two of the factors: of the
        square of two shifts and two directions the four edges, not the diagonals, as in the
        released code of GDT."""
        return replace(self, near=torch.stack(factors, 1))

    def take(self, rows: Int64[Tensor, "k"]) -> Rule:
        """The rule for some of the views, in this order."""

        def some(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[rows]

        return Rule(self.recording[rows], some(self.stream), some(self.there), some(self.near))

    def block(self, rows: slice, columns: slice) -> Bool[Tensor, "row column"]:
        """w for some rows and columns of the square of pairs."""
        index = torch.arange(len(self.recording), device=self.recording.device)
        allowed = _differ(index[rows], index[columns])
        if self.stream is not None:
            allowed &= _differ(self.stream[rows], self.stream[columns])
        if self.there is not None:
            allowed &= self.there[rows, None] & self.there[columns]
        if self.near is not None:
            apart = (self.near[rows, None] != self.near[columns]).sum(2) > 1
            allowed &= ~apart | _differ(self.recording[rows], self.recording[columns])
        return allowed

    def against(self, rows: slice, stored: Stored) -> Bool[Tensor, "row k"]:
        """w between some of the views and stored keys.

        Raises:
            ConfigError: If streams are compared and the stored keys come without theirs.
        """
        allowed = (stored.owner >= 0) & _differ(self.recording[rows], stored.owner)
        if self.stream is not None:
            if stored.stream is None:
                raise ConfigError(
                    "Only views of different streams are compared, but the stored keys come "
                    "without their streams. Give Stored(keys, owner, stream)."
                )
            allowed &= _differ(self.stream[rows], stored.stream)
        if self.there is not None:
            allowed &= self.there[rows, None]
        return allowed


def all_but_self(recording: Int64[Tensor, "n"]) -> Rule:
    """The weight function of SimCLR, w(T, T') = [T != T']: any pair but a view with itself."""
    return Rule(recording)


def cross_stream(recording: Int64[Tensor, "n"], stream: Int64[Tensor, "n"]) -> Rule:
    """The weight function of GDT, Section 3.3: only views of different streams are compared.

    Args:
        recording: Which recording each view is of.
        stream: Which stream each view is of, as any integers.
    """
    return Rule(recording, stream)


def agreement(
    recording: Int64[Tensor, "n"],
    factors: Mapping[str, Tensor],
    questions: Mapping[str, str],
) -> Int64[Tensor, "n"]:
    """The contrast function as labels: c(T, T') = [label of T = label of T'].

    c is a product with one term a factor (GDT, Section 3.1): a factor to tell apart contributes
    [values equal], a factor to ignore contributes 1, and views of different recordings never
    agree. A product of equalities is the equality of tuples; here these are numbered.

    Args:
        recording: Which recording each view is of.
        factors: For each factor its value in each view, shape (n,).
        questions: For each factor "ignore" or "tell_apart".

    Raises:
        ConfigError: If a question is not one of the two or is asked of a factor that is not there.
    """
    label = recording.unique(return_inverse=True)[1]
    for factor, question in questions.items():
        if factor not in factors:
            raise unknown("factor", factor, factors)
        if question not in QUESTIONS:
            raise unknown("question", question, QUESTIONS)
        if question == "tell_apart":
            values, value = factors[factor].unique(return_inverse=True)
            label = (label * len(values) + value).unique(return_inverse=True)[1]
    return label


def _differ(
    one: Int64[Tensor, "row"], other: Int64[Tensor, "column"]
) -> Bool[Tensor, "row column"]:
    return one[:, None] != other

"""Steps of series that are not as usual, found with frozen vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from jaxtyping import Bool, Float64

from mainspring.api.data import sparing
from mainspring.api.series import Values, as_rows, both, read_whole, say, with_series
from mainspring.api.vectors import load
from mainspring.clips import ClipSpec
from mainspring.encoders.cone import last_tokens
from mainspring.encoders.dilated import Dilated
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, DataError
from mainspring.evaluate import anomaly as anomalies
from mainspring.evaluate.forward import encode
from mainspring.evaluate.labels import read_labels
from mainspring.evaluate.vectors import Vectors
from mainspring.evaluate.verdict import TRAINED
from mainspring.recordings.catalogue import Catalogue
from mainspring.training.progress import Log
from mainspring.training.run import Run, write

CHANGE = "change from the step before"
NORMAL = frozenset({"", "0", "0.0", "false", "no", "none", "normal", "ok"})
"""Labels, in small letters, of steps that are no anomaly."""


@dataclass(frozen=True)
class Anomalies:
    """Steps that were found anomalous.

    Attributes:
        path: Parquet with a row a step: uri, step, time, error, hit, and label where given.
        steps: Steps that could be reported.
        hits: Steps that were.
        problems: Recordings left out, with the reason.
        scores: With labels, how well each method did.
    """

    path: Path
    steps: int
    hits: int
    problems: dict[str, str]
    scores: dict[str, anomalies.AnomalyScore]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": str(self.path),
            "steps": self.steps,
            "hits": self.hits,
            "problems": self.problems,
            "scores": {name: score.to_dict() for name, score in self.scores.items()},
        }


def anomaly(
    run: str | Path,
    data: Any,
    *,
    labels: str | Path | None = None,
    column: str = "label",
    delay: int = 7,
    difference: int = 0,
    cold: bool = False,
    past: int = anomalies.PAST,
    out: str | Path | None = None,
    log: Log | None = None,
) -> Anomalies:
    """Steps whose vector changes more than usual when they are hidden; writes the scores of all
    steps as Parquet, and anomaly.json.

    Args:
        run: Run folder.
        data: Series; each is looked at by itself.
        labels: CSV of uri,label,start,end (seconds; a series without a time column has a step a
            second): the spans that are anomalous. Spans labelled 0, normal or ok, and steps in no
            span, are not. With them, random weights and the plain change from the step before are
            scored too.
        column: Which column of that file is the label.
        delay: A hit counts for its segment if it comes within so many steps of its start.
        difference: How often values are replaced by their changes; 1 for levels that wander.
        cold: Do without a train part, with thresholds from the steps so far. Otherwise the first
            half of each series is taken as train and the other half is searched. Either way values
            are standardised by the part before what is searched (the cold tenth too, where the
            protocol of TS2Vec takes half of the series).
        past: Steps before its own that a vector has seen.
        out: File for the scores; RUN/anomaly.parquet unless given.
        log: Where to say how far it is.

    Raises:
        ConfigError: If delay, difference or past is negative.
        DataError: If no series could be searched, or no label belongs to one.
    """
    if min(delay, difference, past) < 0:
        raise ConfigError(
            f"delay is {delay}, difference {difference} and past {past}; none may be negative."
        )
    saved = load(run, "series")
    found, problems = with_series(data, log)
    encoders = {TRAINED: saved.encoder} if labels is None else both(saved.encoder, 0)
    methods = [*encoders, *([] if labels is None else [CHANGE])]
    rows, errors, first = [], [], []
    for row in range(len(found)):
        say(log, f"searching series {row + 1} of {len(found)}")
        series = read_whole(found.select([row]), saved.clip)[0]
        begin = len(series) // (anomalies.COLD_SHARE if cold else 2)
        try:
            values = anomalies.prepare(series, max(1, begin), difference).astype(np.float32)
            each = {
                name: anomalies.masking_errors(_hiding(encoder), values, past)
                for name, encoder in encoders.items()
            }
            each[CHANGE] = _change(values)
            hits = {name: _hits(each[name], begin, delay, cold) for name in methods}
        except DataError as error:
            problems[found[row].name] = str(error)
            continue
        rows.append(row)
        first.append(begin)
        errors.append((each, hits))
    if not rows:
        why = "; ".join(f"{name}: {reason}" for name, reason in [*problems.items()][:3])
        raise DataError(f"None of the {len(found)} series could be searched. {why}")
    used = found.select(rows)
    lengths = [len(each[TRAINED]) for each, _ in errors]
    table = _steps(used, lengths, saved.clip)
    truth = None if labels is None else _truth(table, labels, column)
    ends = np.cumsum(lengths)
    scores = {}
    if truth is not None:
        parts = [part[at:] for part, at in zip(np.split(truth, ends[:-1]), first, strict=True)]
        for name in methods:
            told = [hits[name] for _, hits in errors]
            scores[name] = anomalies.score(told, parts, delay)
    path = Path(out) if out is not None else Run(run).folder / "anomaly.parquet"
    told = [
        np.concatenate([np.zeros(at, bool), hits[TRAINED]])
        for at, (_, hits) in zip(first, errors, strict=True)
    ]
    _write_steps(path, table, lengths, [each[TRAINED] for each, _ in errors], told, truth)
    hit = int(sum(each.sum() for each in told))
    result = Anomalies(path, int(sum(lengths) - sum(first)), hit, problems, scores)
    with sparing(log, "anomaly.json"):
        Run(run).write_json("anomaly.json", result.to_dict())
    return result


def _hiding(encoder: Encoder) -> anomalies.Encode:
    """How windows are encoded with and without their last step; the beginning, where nothing is
    known yet, is padding."""
    device = next(encoder.parameters()).device

    def told(windows: np.ndarray, hidden: bool) -> np.ndarray:
        there = np.maximum.accumulate(~np.isnan(windows).all(axis=2), axis=1)
        there[:, -1] = True
        present = torch.from_numpy(there)
        if isinstance(encoder, Dilated):
            samples = torch.from_numpy(windows).to(device)
            with torch.inference_mode():
                return last_tokens(encoder, samples, present.to(device), hidden).cpu().numpy()
        if hidden:
            windows = windows.copy()
            windows[:, -1] = np.nan
        return encode(encoder, torch.from_numpy(windows), present)

    return told


def _change(values: Values) -> Float64[np.ndarray, "time"]:
    """How far each step lies from the one before; 0 where either is missing."""
    steps = np.abs(np.diff(values.astype(np.float64), axis=0, prepend=values[:1]))
    return np.where(np.isnan(steps), 0, steps).sum(axis=1)


def _hits(
    errors: Float64[np.ndarray, "time"], train: int, delay: int, cold: bool
) -> Bool[np.ndarray, "asked"]:
    if cold:
        return anomalies.detect_cold(errors, delay)
    return anomalies.detect(errors, train, delay)


def _steps(found: Catalogue, lengths: list[int], clip: ClipSpec) -> Vectors:
    """One row a step of all series, with the seconds that it lasts."""
    again = np.repeat(np.arange(len(found)), lengths)
    at = np.concatenate([np.arange(length) for length in lengths])
    rates = [clip.rate or found[row].streams["series"].rate for row in range(len(found))]
    seconds = clip.stride / np.array(rates)[again]
    begin = found.column("start").astype(np.float64)[again]
    table = found.select(again.tolist())
    return as_rows(table, begin + at * seconds, begin + (at + 1) * seconds)


def _truth(table: Vectors, labels: str | Path, column: str) -> Bool[np.ndarray, "step"]:
    values = read_labels(labels, table, column).values
    return np.array([v is not None and v.lower() not in NORMAL for v in values], bool)


def _write_steps(
    path: Path,
    table: Vectors,
    lengths: list[int],
    errors: list[np.ndarray],
    hits: list[np.ndarray],
    truth: np.ndarray | None,
) -> None:
    columns: dict[str, Any] = {
        "uri": pa.array(table.uris, pa.string()).dictionary_encode(),
        "step": np.concatenate([np.arange(length) for length in lengths]),
        "time": table.starts,
        "error": np.concatenate(errors),
        "hit": np.concatenate(hits),
    }
    if truth is not None:
        columns["label"] = truth
    held = pa.table(columns)
    write(path, lambda file: pyarrow.parquet.write_table(held, file))

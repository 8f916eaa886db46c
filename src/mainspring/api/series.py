"""What the vectors of a run are worth on series: classes, forecasts, anomalies, clusters.

    ms.classify("runs/ts2vec", "GunPoint_TRAIN.tsv", "GunPoint_TEST.tsv").arms["trained"]["svm"]
    ms.forecast("runs/ett", "ETTh1.csv", parts=ETT_HOURLY).arms["trained"][24].mse
    ms.anomaly("runs/pumps", "pumps/", labels="failures.csv").scores["trained"].f1
    ms.cluster("runs/pumps", "pumps/").clusterings["trained"].assigned

The encoder stays as it is; what is fitted on top, and what it is compared with, sees the train part
alone. Each verb writes its numbers to the run folder.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from jaxtyping import Bool, Float32, Float64

from mainspring import clips
from mainspring.api.data import recordings
from mainspring.api.vectors import load
from mainspring.clips import ClipSpec
from mainspring.encoders.cone import last_tokens
from mainspring.encoders.dilated import Dilated
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.patch_transformer import PatchTransformer
from mainspring.errors import ConfigError, DataError
from mainspring.evaluate import anomaly as anomalies
from mainspring.evaluate import per_step
from mainspring.evaluate.baselines import RANDOM, untrained
from mainspring.evaluate.calendar import calendar_features
from mainspring.evaluate.classify import (
    Classified,
    by_score,
    class_scores,
    logistic,
    nearest_neighbour,
    squared_distances,
    svm,
)
from mainspring.evaluate.clustering import Clustering
from mainspring.evaluate.clustering import cluster as cluster_rows
from mainspring.evaluate.dtw import dtw_neighbour
from mainspring.evaluate.forecast_baselines import forecast_baselines
from mainspring.evaluate.forecasting import (
    Forecast,
    Splits,
    chronological,
    measure,
    standardise,
)
from mainspring.evaluate.forecasting import forecast as forecast_steps
from mainspring.evaluate.forward import encode
from mainspring.evaluate.gaps import filled
from mainspring.evaluate.labels import read_labels
from mainspring.evaluate.ridge import NormalEquations, RidgePath
from mainspring.evaluate.rocket import rocket
from mainspring.evaluate.vectors import Vectors, known
from mainspring.evaluate.verdict import TRAINED
from mainspring.recordings.catalogue import Catalogue
from mainspring.recordings.reader import Reader
from mainspring.recordings.series import layout_of, moments
from mainspring.training.progress import Log
from mainspring.training.run import Run, write

RAW, DTW, ROCKET = "raw values", "DTW", "MiniRocket"
NEIGHBOUR = "1-NN"
CHANGE = "change from the step before"

HORIZONS = (24, 48, 168, 336, 720)
CONTEXT = 200
"""Steps before its own that a vector for forecasting has seen (TS2Vec, Section 4.2)."""

PATCH_ROWS = 40_000
"""Windows of one channel that the map from patches is fitted to, at most; a quarter checks it."""
PATCH_PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
WINDOWS_AT_ONCE = 64

NORMAL = frozenset({"", "0", "0.0", "false", "no", "none", "normal", "ok"})
"""Labels, in small letters, of steps that are no anomaly."""

Values = Float32[np.ndarray, "_time _channel"]


@dataclass(frozen=True)
class Compared:
    """Classifiers on a test set.

    Attributes:
        arms: For "trained" and "random weights" the results of "svm", "logistic" and "1-NN"; for
            "raw values", "DTW" and "MiniRocket" their own.
        train: Series of train.
        test: Series of test.
    """

    arms: dict[str, dict[str, Classified]]
    train: int
    test: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        arms = {
            arm: {how: found.to_dict() for how, found in hows.items()}
            for arm, hows in self.arms.items()
        }
        return {"train": self.train, "test": self.test, "arms": arms}


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of the test part.

    Attributes:
        arms: For each method and horizon how far it was off.
        notes: What a reader of the numbers should know.
    """

    arms: dict[str, dict[int, Forecast]]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        arms = {
            arm: {str(horizon): found.to_dict() for horizon, found in by.items()}
            for arm, by in self.arms.items()
        }
        return {"arms": arms, "notes": self.notes}


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


@dataclass(frozen=True)
class Clusters:
    """Clusters of recordings.

    Attributes:
        path: CSV of uri and cluster, and label where known.
        clusterings: Of the vectors of "trained" and of "random weights".
    """

    path: Path
    clusterings: dict[str, Clustering]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = {name: each.to_dict() for name, each in self.clusterings.items()}
        return {"path": str(self.path), "arms": found}


def classify(
    run: str | Path,
    train: Any,
    test: Any,
    *,
    quick: bool = False,
    seed: int = 0,
    log: Log | None = None,
) -> Compared:
    """Classifiers on the vectors of whole series, beside random weights and methods that need no
    encoder; writes classify.json.

    The nearest neighbour on raw values stretches all series to the longest. DTW allows any warping.

    Args:
        run: Run folder.
        train: Recordings with labels, to fit the classifiers to.
        test: Recordings with labels, to tell the class of.
        quick: Leave DTW and MiniRocket out.
        seed: Of random weights and MiniRocket.
        log: Where to say how far it is.

    Raises:
        DataError: If labels are missing or train has fewer than two classes.
    """
    saved = load(run, "series")
    (seen, known_labels), (asked, truth) = (_labelled(d, saved.clip, log) for d in (train, test))
    arms: dict[str, dict[str, Classified]] = {}
    for name, encoder in _both(saved.encoder, seed).items():
        _say(log, f"classifying by {name}")
        a, b = (vectors_of(encoder, saved.clip, series) for series in (seen, asked))
        arms[name] = {
            "svm": svm(a, known_labels, b, truth),
            "logistic": logistic(a, known_labels, b, truth),
            NEIGHBOUR: nearest_neighbour(a, known_labels, b, truth),
        }
    rows = _stretched([*seen, *asked])
    distances = np.sqrt(squared_distances(rows[len(seen) :], rows[: len(seen)]))
    scores = class_scores(distances, known_labels)
    arms[RAW] = {NEIGHBOUR: by_score(scores, truth, known_labels)}
    if not quick:
        _say(log, "classifying by DTW")
        arms[DTW] = {NEIGHBOUR: dtw_neighbour(seen, known_labels, asked, truth)}
        _say(log, "classifying by MiniRocket")
        arms[ROCKET] = {"ridge": rocket(seen, known_labels, asked, truth, seed=seed)}
    found = Compared(arms, len(seen), len(asked))
    Run(run).write_json("classify.json", found.to_dict())
    return found


def forecast(
    run: str | Path,
    data: Any,
    *,
    parts: Sequence[float] = (0.6, 0.2, 0.2),
    horizons: Sequence[int] = (),
    context: int | None = None,
    period: int | None = None,
    scale: bool = False,
    calendar: bool = False,
    quick: bool = False,
    log: Log | None = None,
) -> Forecasts:
    """Ridge regression from each step's vector to the values that follow, beside persistence, the
    season before, the mean and ridge regression on the raw values; writes forecast.json.

    Args:
        run: Run folder.
        data: One long series, or several that share one regression.
        parts: Train, validation and test: shares, or numbers of steps (`ETT_HOURLY`).
        horizons: Steps ahead; unless given those of 24, 48, 168, 336 and 720 that fit twice into
            validation and into test.
        context: Steps before its own that a vector has seen: 200 unless given. For an encoder of
            patches (`patch_transformer`), which `patch_forecast` reads in PatchTST's way: the
            window's steps but one, as many as it was trained with unless given.
        period: Steps of a season, for the baseline; guessed from train unless given.
        scale: Standardise by train before encoding, as TS2Vec does. For encoders that take values
            as they are (`normalise="none"`) and learnt from standardised ones.
        calendar: Append the seven features of `calendar_features`, standardised by train, to what
            the encoder reads. For encoders that learnt from arrays with these seven columns last.
        quick: Leave random weights out.
        log: Where to say how far it is.

    Raises:
        DataError: If the series do not fit the encoder, or a part is too short.
        ConfigError: If parts or horizons do not fit the data.
    """
    saved, found = load(run, "series"), recordings(data, log).usable()
    values, splits = _instances(_read(found, saved.clip), parts)
    chosen = tuple(horizons) or _fitting(splits.valid, splits.test)
    inputs = standardise(values, splits.train)[0].astype(np.float32) if scale else values
    if calendar:
        inputs = np.concatenate([inputs, _calendar(found, values.shape[1], splits.train)], axis=2)
    encoders = {TRAINED: saved.encoder} if quick else _both(saved.encoder, 0)
    patches = isinstance(saved.encoder, PatchTransformer)
    own = int(saved.encoder.settings["context"]) - 1 if patches else CONTEXT
    past = own if context is None else context
    arms: dict[str, dict[int, Forecast]] = {}
    for name, encoder in encoders.items():
        _say(log, f"forecasting by {name}")
        if isinstance(encoder, PatchTransformer):
            arms[name] = patch_forecast(encoder, values, splits, chosen, past + 1)
        else:
            vectors = np.stack(per_step.steps(encoder, list(inputs), context=past))
            arms[name] = forecast_steps(vectors, values, splits, chosen, drop=past)
    _say(log, "forecasting without an encoder")
    arms |= forecast_baselines(values, splits, chosen, period=period, window=past + 1, drop=past)
    result = Forecasts(arms, _learnt_from(run, data))
    Run(run).write_json("forecast.json", result.to_dict())
    return result


def patch_forecast(
    encoder: PatchTransformer,
    data: Float32[np.ndarray, "n time channel"],
    splits: Splits,
    horizons: Sequence[int],
    window: int,
    seed: int = 0,
) -> dict[int, Forecast]:
    """The linear probe of PatchTST (Nie et al., ICLR 2023, Sections 3.1 and 4.2): one linear map,
    shared by all channels, from all tokens of a channel's window to what follows, both in the
    units of the window.

    The map is fitted in closed form (ridge; the paper trains it by gradients), its penalty chosen
    on validation by RMSE + MAE as in `mainspring.evaluate.forecasting.forecast`. In validation and
    test the windows reach back into what lies before. An origin of train counts for a channel where
    all its targets are known.

    Args:
        encoder: Runs on the device it is on.
        data: What to forecast, in its own units.
        splits: Stretches of time.
        horizons: Steps ahead.
        window: Steps of a window, the origin's own included.
        seed: Of which origins are used where there are more than `PATCH_ROWS`.

    Raises:
        DataError: If a part is too short.
    """
    values, deviations = standardise(data, splits.train)
    rng = np.random.default_rng(seed)
    channels = values.shape[2]
    found = {}
    for horizon in horizons:
        origins = []
        for part, rows in ((splits.train, PATCH_ROWS), (splits.valid, PATCH_ROWS // 4)):
            steps = np.arange(max(part.start, window - 1), part.stop - horizon)
            if not len(steps):
                raise DataError(
                    f"No window of {window} steps is followed by {horizon} steps in the part of "
                    f"{part.stop - part.start} steps from {part.start} on. Give more data, a "
                    "shorter horizon or a shorter context."
                )
            grid = np.stack(np.meshgrid(np.arange(len(values)), steps, indexing="ij"))
            pairs = grid.reshape(2, -1)
            kept = min(pairs.shape[1], max(1, rows // channels))
            origins.append(pairs[:, np.sort(rng.choice(pairs.shape[1], kept, replace=False))])
        sums: NormalEquations | None = None
        for instances, steps in _portions(origins[0]):
            x, mean, scale = _patches(encoder, values, instances, steps, window)
            ahead = (_ahead(values, instances, steps, horizon) - mean) / scale
            whole = ~np.isnan(ahead).any(axis=1)
            sums = sums or NormalEquations(x.shape[1], horizon)
            sums.add(x[whole], ahead[whole])
        if sums is None or sums.rows < 2:
            raise DataError(
                f"No channel of train has {horizon} known steps in a row to learn from."
            )
        path = sums.solve()
        square, size = np.zeros(len(PATCH_PENALTIES)), np.zeros(len(PATCH_PENALTIES))
        count = 0
        for instances, steps in _portions(origins[1]):
            x, mean, scale = _patches(encoder, values, instances, steps, window)
            truth, x = _ahead(values, instances, steps, horizon), path.rotate(x)
            count += int((~np.isnan(truth)).sum())
            for at, penalty in enumerate(PATCH_PENALTIES):
                error = np.nan_to_num(path.predict(x, penalty) * scale + mean - truth)
                square[at] += (error**2).sum()
                size[at] += np.abs(error).sum()
        score = np.sqrt(square / max(1, count)) + size / max(1, count)
        penalty = PATCH_PENALTIES[int(np.argmin(score))]

        def predict(
            instances: np.ndarray, steps: np.ndarray, horizon: int, path: RidgePath = path,
            penalty: float = penalty,
        ) -> Float64[np.ndarray, "row horizon channel"]:  # fmt: skip
            told = []
            for one, at in _portions(np.stack([instances, steps])):
                x, mean, scale = _patches(encoder, values, one, at, window)
                ahead = path.predict(path.rotate(x), penalty) * scale + mean
                told.append(ahead.reshape(len(at), channels, horizon).swapaxes(1, 2))
            return np.concatenate(told)

        found[horizon] = measure(predict, values, deviations, splits.test, horizon, penalty)
    return found


def _portions(origins: np.ndarray) -> list[np.ndarray]:
    count = origins.shape[1]
    return [origins[:, at : at + WINDOWS_AT_ONCE] for at in range(0, count, WINDOWS_AT_ONCE)]


def _patches(
    encoder: PatchTransformer,
    values: Float64[np.ndarray, "n time channel"],
    instances: np.ndarray,
    steps: np.ndarray,
    window: int,
) -> tuple[
    Float64[np.ndarray, "row width"], Float64[np.ndarray, "row 1"], Float64[np.ndarray, "row 1"]
]:
    """Tokens of each channel of the windows that end at these steps, a row a channel, and the mean
    and scale of each."""
    at = steps[:, None] + np.arange(1 - window, 1)
    # Before the beginning nothing is known; it is missing, so that patches keep their places.
    known = np.where((at >= 0)[..., None], values[instances[:, None], np.maximum(at, 0)], np.nan)
    device = next(encoder.parameters()).device
    samples = torch.from_numpy(known.astype(np.float32)).to(device)
    training = encoder.training
    encoder.eval()
    with torch.inference_mode():
        tokens = encoder.channel_tokens(samples).flatten(0, 1)
        units = [unit.transpose(1, 2).reshape(-1, 1) for unit in encoder.units(samples)]
    encoder.train(training)
    x, mean, scale = (part.double().cpu().numpy() for part in (tokens, *units))
    return x, mean, scale


def _ahead(
    values: Float64[np.ndarray, "n time channel"],
    instances: np.ndarray,
    steps: np.ndarray,
    horizon: int,
) -> Float64[np.ndarray, "row horizon"]:
    """What follows, a row a channel."""
    following = values[instances[:, None], steps[:, None] + np.arange(1, horizon + 1)]
    return following.swapaxes(1, 2).reshape(-1, horizon)


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
            half of each series is taken as train and the other half is searched.
        past: Steps before its own that a vector has seen.
        out: File for the scores; RUN/anomaly.parquet unless given.
        log: Where to say how far it is.

    Raises:
        DataError: If no series could be searched, or no label belongs to one.
    """
    saved, found = load(run, "series"), recordings(data, log).usable()
    encoders = {TRAINED: saved.encoder} if labels is None else _both(saved.encoder, 0)
    methods = [*encoders, *([] if labels is None else [CHANGE])]
    problems: dict[str, str] = {}
    rows, errors, first = [], [], []
    for row in range(len(found)):
        _say(log, f"searching series {row + 1} of {len(found)}")
        series = _read(found.select([row]), saved.clip)[0]
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
    Run(run).write_json("anomaly.json", result.to_dict())
    return result


def cluster(
    run: str | Path,
    data: Any,
    *,
    labels: str | Path | None = None,
    column: str = "label",
    k: int | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    log: Log | None = None,
) -> Clusters:
    """k-means on the vectors of whole series, beside random weights; writes who is in which
    cluster as CSV, and cluster.json.

    Args:
        run: Run folder.
        data: Series.
        labels: CSV of uri and label to compare with; the catalogue's own labels unless given.
        column: Which column of that file is the label.
        k: Number of clusters; unless given, the one from 2 to 10 with the best silhouette.
        out: File for the clusters; RUN/clusters.csv unless given.
        seed: Of k-means and of random weights.
        log: Where to say how far it is.

    Raises:
        DataError: If there are too few series to choose k, or no label belongs to one.
        ConfigError: If k does not fit.
    """
    saved, found = load(run, "series"), recordings(data, log).usable()
    series = _read(found, saved.clip)
    labelled = found.column("label").astype(object)
    if labels is not None:
        ends = np.array([len(values) for values in series], np.float64)
        labelled = read_labels(labels, _rows(found, np.zeros(len(series)), ends), column).values
    clusterings = {}
    for name, encoder in _both(saved.encoder, seed).items():
        _say(log, f"clustering by {name}")
        matrix = vectors_of(encoder, saved.clip, series)
        clusterings[name] = cluster_rows(matrix, labelled, k, seed=seed)
        k = clusterings[name].k if k is None else k  # alike in number, so that they compare
    path = Path(out) if out is not None else Run(run).folder / "clusters.csv"
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["uri", "cluster", "label"])
    for row, at in enumerate(clusterings[TRAINED].assigned.tolist()):
        writer.writerow([found[row].name, at, labelled[row] or ""])
    write(path, text.getvalue().encode())
    result = Clusters(path, clusterings)
    Run(run).write_json("cluster.json", result.to_dict())
    return result


def times(data: Any, log: Log | None = None) -> dict[str, int]:
    """For how many recordings what was done to rows that are not at equal distances in time; the
    notes of `mainspring.recordings.timestamps`. Every table is opened."""
    uris = recordings(data, log).usable().column("uri")
    counts: Counter[str] = Counter()
    for uri in uris:
        if uri.lower().endswith((".csv", ".tsv", ".parquet", ".pq")):
            found = layout_of(uri)
            counts.update(() if found is None else found.notes)
    return dict(counts.most_common())


def vectors_of(
    encoder: Encoder, clip: ClipSpec, series: Sequence[Values]
) -> Float32[np.ndarray, "n dim"]:
    """One vector a series: of the whole of it where the encoder reads any length, and otherwise the
    mean over windows as long as those of training."""
    if isinstance(encoder, Dilated):
        return per_step.whole(encoder, series)
    found = []
    for values in series:
        spans = np.array(clips.windows(len(values), clip.length, clip.length), np.int64)
        at = clips.fit(spans[:, :1] + np.arange(clip.length), len(values), "nothing")
        there = at != clips.NOTHING
        samples = np.where(there[..., None], values[at], np.float32(np.nan))
        vectors = encode(encoder, torch.from_numpy(samples), torch.from_numpy(there))
        found.append(vectors.mean(axis=0))
    return np.stack(found)


def _both(encoder: Encoder, seed: int) -> dict[str, Encoder]:
    return {TRAINED: encoder, RANDOM: untrained(encoder, seed).eval()}


def _say(log: Log | None, doing: str) -> None:
    if log is not None:
        log.update(doing)


def _read(found: Catalogue, clip: ClipSpec) -> list[Values]:
    """Whole recordings, at the rate and stride of training."""
    reader = Reader({"series": clip})
    series = []
    for row in range(len(found)):
        recording = found[row]
        length = reader.timeline(recording)["series"].length
        at = np.arange(0, length, clip.stride, dtype=np.int64)[None]
        series.append(reader.read(recording, {"series": at})["series"][0])
    return series


def _labelled(data: Any, clip: ClipSpec, log: Log | None) -> tuple[list[Values], np.ndarray]:
    """The series that have a label, and the labels."""
    found = recordings(data, log).usable()
    labels = found.column("label")
    there = known(labels)
    if not there.any():
        raise DataError(
            f"None of the {len(found)} series of {_named(data)} has a label. Give a UCR .tsv or .ts"
            " file, a folder with a folder a class, or a manifest with a column label."
        )
    return _read(found.select(np.flatnonzero(there).tolist()), clip), labels[there].astype(str)


def _named(data: Any) -> str:
    return str(data) if isinstance(data, str | Path) else f"the {type(data).__name__}"


def _stretched(series: Sequence[Values]) -> Float64[np.ndarray, "n wide"]:
    """Series as rows, all of the length of the longest, without holes."""
    whole = filled(list(series))
    time = whole.values.shape[1]
    rows = []
    for values, length in zip(whole.values, whole.lengths.tolist(), strict=True):
        at = np.linspace(0, length - 1, time)
        rows.append([np.interp(at, np.arange(length), line) for line in values[:length].T])
    return np.array(rows).reshape(len(rows), -1)


def _instances(
    series: list[Values], parts: Sequence[float]
) -> tuple[Float32[np.ndarray, "n time channel"], Any]:
    """Series of one length, and its split."""
    lengths = [len(values) for values in series]
    if all(part >= 1 for part in parts):
        # What lies after the last part is not used, so that lengths may differ there.
        lengths = [min(length, int(sum(parts))) for length in lengths]
        series = [values[: int(sum(parts))] for values in series]
    if len({values.shape for values in series}) > 1:
        raise DataError(
            f"The series have {min(lengths)} to {max(lengths)} steps, but they share one split in "
            "time. Give parts in steps, such as --parts 600 200 200, that fit the shortest, or "
            "forecast them one by one."
        )
    return np.stack(series), chronological(lengths[0], parts)


def _fitting(valid: slice, test: slice) -> tuple[int, ...]:
    room = min(valid.stop - valid.start, test.stop - test.start) // 2
    chosen = tuple(horizon for horizon in HORIZONS if horizon <= room)
    if not chosen:
        raise ConfigError(
            f"Validation and test have {2 * room} steps or few more, too few for a horizon of "
            f"{HORIZONS[0]}. Say how far ahead to look, such as --horizons {max(1, room // 2)}."
        )
    return chosen


def _calendar(found: Catalogue, time: int, train: slice) -> Float32[np.ndarray, "n time 7"]:
    """Features of the moment of each step, one row a recording."""
    features = [
        calendar_features(moments(found[row].uri)[:time], train) for row in range(len(found))
    ]
    return np.stack(features).astype(np.float32)


def _learnt_from(run: str | Path, data: Any) -> list[str]:
    """Whether the encoder may have seen the test part."""
    named = Run(run).config().get("data", "")
    if not isinstance(data, str | Path) or Path(named).absolute() != Path(data).absolute():
        return []
    return [
        f"the encoder was trained on all of {data}, the test part included (without its targets); "
        "to train on the train part alone, pretrain on a manifest of uri,start,end"
    ]


def _hiding(encoder: Encoder) -> anomalies.Encode:
    """How windows are encoded with and without their last step; the beginning, where nothing is
    known yet, is padding."""
    device = next(encoder.parameters()).device

    def told(windows: np.ndarray, hidden: bool) -> np.ndarray:
        there = np.maximum.accumulate(~np.isnan(windows).all(axis=2), axis=1)
        there[:, -1] = True
        if hidden:
            windows = windows.copy()
            windows[:, -1] = np.nan
        samples, present = torch.from_numpy(windows), torch.from_numpy(there)
        if not isinstance(encoder, Dilated):
            return encode(encoder, samples, present)
        with torch.inference_mode():
            return last_tokens(encoder, samples.to(device), present.to(device)).cpu().numpy()

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


def _rows(found: Catalogue, starts: np.ndarray, ends: np.ndarray) -> Vectors:
    """The rows of a catalogue as `read_labels` takes them, without vectors."""
    uris = found.column("uri").astype(object)
    return Vectors(
        np.zeros((len(uris), 1), np.float32),
        uris,
        starts,
        ends,
        np.arange(len(uris)),
        found.column("group").astype(object),
        found.column("label").astype(object),
    )


def _steps(found: Catalogue, lengths: list[int], clip: ClipSpec) -> Vectors:
    """One row a step of all series, with the seconds that it lasts."""
    again = np.repeat(np.arange(len(found)), lengths)
    at = np.concatenate([np.arange(length) for length in lengths])
    rates = [clip.rate or found[row].streams["series"].rate for row in range(len(found))]
    seconds = clip.stride / np.array(rates)[again]
    begin = found.column("start").astype(np.float64)[again]
    table = found.select(again.tolist())
    return _rows(table, begin + at * seconds, begin + (at + 1) * seconds)


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

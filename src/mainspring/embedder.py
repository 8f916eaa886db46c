"""The scikit-learn face of the series pretexts: `Embedder("ts2vec").fit(X).transform(X)`."""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from mainspring.api.training import pretrain
from mainspring.api.vectors import load
from mainspring.errors import ConfigError, DataError, RunError
from mainspring.evaluate import per_step
from mainspring.pretexts.catalog import find
from mainspring.recordings.in_memory import read
from mainspring.training.progress import Log
from mainspring.training.run import Run, plain, write
from mainspring.training.settings import BUDGETS

DESCRIPTION = "embedder.json"
KEPT = ("config.toml", "check.json", "metrics.jsonl", "encoder/series/*", "checkpoints/step-*.pt")
"""What of a run is needed to use its encoder and to go on training it."""
GIVEN = ("data", "pretext", "out", "verdict", "report", "log")
"""What of a run `settings` cannot say."""
ALARMS = {
    "unasked": "nothing was asked in whole steps: the series are too short, constant or too full of"
    " gaps for this pretext, and the encoder has learnt little or nothing",
    "collapsed": "the embedding has collapsed: all series look alike to the encoder",
}
ONE_AT_A_TIME = threading.Lock()
FEW_STEPS, MANY_STEPS, MANY_VALUES = 200, 600, 100_000

Values = Float32[np.ndarray, "_time _channel"]


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Vectors of time series, learnt without labels.

        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        model = make_pipeline(Embedder("ts2vec"), LogisticRegression())
        model.fit(X, y)

    `X` is an array (n, time, channel) or (n, time), a frame with a series a row, or a list of
    arrays or frames (time,) or (time, channel), of any lengths; one long series is a list of one.
    NaN, None, infinity, a frame's NA and what an array masks are missing values. In an array, steps
    at the end where no channel has a value do not belong to the series. Labels are never looked at.
    "ts2vec" takes values as they are, as its paper does: bring channels to a size near 1, or ask
    for units of each series, {"architecture": {"series": {"normalise": "recording"}}}.

    Training is that of `mainspring.pretrain` with the pretext's own settings, on all series: none
    is kept back. Of one series alone each half of what is known is learnt from as a series, since
    every pretext needs two.

    Args:
        pretext: What is asked of the data: "ts2vec" or any other pretext that reads series.
        steps: Optimiser steps. None takes what the pretext's paper gives, else TS2Vec's rule: 200,
            or 600 where the data hold more than 100,000 values.
        batch: Series a step; None takes the pretext's own (TS2Vec: 8).
        seed: Seed of everything; the same data and seed give the same vectors.
        pool: What `transform` gives. "series": a vector each, (n, dim). "steps": a vector a step,
            (n, time, dim), or a list of (time, dim) where lengths differ. A number: a vector a
            step too, each the maximum over so many steps around it.
        context: Let a step see itself and so many steps before it alone, as TS2Vec does in
            forecasting and anomaly detection with 200; needs `pool="steps"` or a number.
        settings: Further settings of the run, such as {"architecture": {"series": {"dim": 64}}};
            see `mainspring.training.settings.Settings`.
        out: Run folder to keep, with its report; in it an interrupted `fit` of the same `X` goes on
            where it stopped. None keeps none.
        verbose: Say how far training is.

    Attributes:
        encoder_: The encoder, a torch module in evaluation mode.
        losses_: The loss at every step so far.
        n_steps_: Steps so far.
        n_features_in_: Channels of the series.
    """

    def __init__(
        self,
        pretext: str = "ts2vec",
        *,
        steps: int | None = None,
        batch: int | None = None,
        seed: int = 0,
        pool: str | int = "series",
        context: int | None = None,
        settings: dict[str, Any] | None = None,
        out: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.pretext = pretext
        self.steps = steps
        self.batch = batch
        self.seed = seed
        self.pool = pool
        self.context = context
        self.settings = settings
        self.out = out
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Embedder:
        """Trains an encoder from its beginning.

        Raises:
            DataError, ValueError: If `X` cannot be read, or is too short or too little.
            ConfigError: If a parameter is unknown or out of range.
            RunError: If `out` holds a finished run already, or something else.

        Warns:
            ConvergenceWarning: If the embedding has collapsed, or nothing could be asked of `X`.
        """
        self._require_pool()
        series, _ = read(X, least_steps=2)
        given = self._given()
        recipe = find(str(self.pretext)).recipe
        if not any(name in given or name in recipe for name in BUDGETS):
            size = sum(values.size for values in series)
            given["steps"] = MANY_STEPS if size > MANY_VALUES else FEW_STEPS
        with self._folder() as folder:
            if (folder / "summary.json").exists():
                raise RunError(
                    f"{folder} holds a finished run. Embedder.load({str(folder)!r}) reads it; give "
                    "out a new folder to fit another."
                )
            self._train(series, folder, given)
        return self

    def fit_more(self, X: Any, steps: int) -> Embedder:
        """Goes on training for so many steps, as if it had never stopped: on the same series it
        ends with the same weights as one fit of all steps.

        Raises:
            DataError: If `X` has other channels than in `fit`.
            RunError: If the learning rate is not constant (TS2Vec's is), or parameters that decide
                training were changed.
        """
        check_is_fitted(self)
        if steps < 1:
            raise ConfigError(f"steps is {steps}; it must be at least 1.")
        series, _ = read(X, least_steps=2)
        self._require_channels(series)
        given = {k: v for k, v in self._given().items() if k not in BUDGETS}
        with self._folder() as folder:
            if not (folder / "config.toml").exists():
                self._write(folder)
            self._train(series, folder, given | {"steps": self.n_steps_ + steps})
        return self

    def transform(self, X: Any) -> Any:
        """Vectors, as `pool` says. Steps that do not belong to their series are 0.

        Returns:
            float32 (n, dim); or (n, time, dim), or a list of (time, dim) where lengths differ.

        Raises:
            DataError, ValueError: If `X` cannot be read, or has other channels than in `fit`.
        """
        check_is_fitted(self)
        self._require_pool()
        series, time = read(X)
        self._require_channels(series)
        if self.pool == "series":
            return per_step.whole(self.encoder_, series)
        window = None if isinstance(self.pool, str) else int(self.pool)
        context = None if self.context is None else int(self.context)
        tokens = per_step.steps(self.encoder_, series, window, context)
        if time is None and len({len(values) for values in series}) > 1:
            return tokens
        length = len(tokens[0]) if time is None else time
        out = np.zeros((len(tokens), length, self._n_features_out), np.float32)
        for row, own in zip(out, tokens, strict=True):
            row[: len(own)] = own
        return out

    def save(self, folder: str | Path) -> None:
        """Writes all that `load` needs, as a run folder that the other verbs read too.

        Raises:
            RunError: If the folder holds something already, or cannot be written.
        """
        check_is_fitted(self)
        place = Path(folder)
        if place.exists() and not place.is_dir():
            raise RunError(f"{place} is a file; give a new folder.")
        if place.exists() and any(place.iterdir()):
            raise RunError(f"{place} is not empty; give a new folder.")
        self._write(place)
        params = {**self.get_params(deep=False), "out": None}
        write(place / DESCRIPTION, json.dumps(plain(params), indent=2).encode())

    @classmethod
    def load(cls, folder: str | Path) -> Embedder:
        """Reads what `save` wrote, or any run that learnt from series; `fit_more` goes on.

        Raises:
            RunError: If there is none.
        """
        place = Path(folder)
        config = Run(place).config()
        params = Run(place).read_json(DESCRIPTION)
        if params is None:
            own = {
                name: config[name]
                for name in ("pretext", "steps", "batch", "seed")
                if name in config
            }
            others = config.keys() - own.keys() - {"data", "resolved"}
            params = {**own, "settings": {name: config[name] for name in others}}
        loaded = cls(**params)
        loaded._take(place)
        return loaded

    @property
    def _n_features_out(self) -> int:
        return self.encoder_.dim

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        if tags.transformer_tags is not None:
            tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _require_pool(self) -> None:
        """Raises where `pool` and `context` make no sense."""
        named = isinstance(self.pool, str) and self.pool in ("series", "steps")
        if not (named or _counts(self.pool, 1)):
            raise ConfigError(
                f'pool is {self.pool!r}; it must be "series", "steps" or a number of steps.'
            )
        if self.context is not None and (not _counts(self.context, 0) or self.pool == "series"):
            raise ConfigError(
                f"context is {self.context!r} with pool {self.pool!r}; it is a number of steps "
                'before each step, with pool="steps" or a number.'
            )

    def _require_channels(self, series: Sequence[Values]) -> None:
        """Raises where series have other channels than in `fit`."""
        for values in series:
            if values.shape[1] != self.n_features_in_:
                raise DataError(
                    f"X has series of {values.shape[1]} channels, but this Embedder was fitted on "
                    f"series of {self.n_features_in_}."
                )

    def _given(self) -> dict[str, Any]:
        """The settings of the run that the parameters give, of plain values."""
        if not isinstance(self.settings, Mapping | None):
            raise ConfigError(
                f"settings is {self.settings!r}; it must be a dict of settings of the run, such as "
                '{"optimiser": {"lr": 1e-4}}.'
            )
        given: dict[str, Any] = dict(self.settings or {})
        for name in GIVEN:
            if name in given:
                raise ConfigError(
                    f"settings holds {name!r}, which is no setting here; what is learnt, from "
                    "what and where to keep it are told by pretext, fit and out."
                )
        for name in ("steps", "batch", "seed"):
            value = getattr(self, name)
            if value is None:
                continue
            if name in given:
                raise ConfigError(f"{name} is given twice, as a parameter and in settings.")
            given[name] = value
        loading = given.get("loading", {})
        if isinstance(loading, Mapping):
            given["loading"] = {"holdout": 0.0, **loading}
        return dict(plain(given))

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        """`out`, or a folder that goes at the end."""
        if self.out is not None:
            yield Path(self.out)
            return
        with tempfile.TemporaryDirectory(prefix="mainspring-") as folder:
            yield Path(folder) / "run"

    def _train(self, series: Sequence[Values], folder: Path, given: dict[str, Any]) -> None:
        if len(series) == 1:
            known = np.flatnonzero(~np.isnan(series[0]).all(axis=1))
            half = known[len(known) // 2] if len(known) else len(series[0]) // 2
            series = [series[0][:half], series[0][half:]]
        with _own_randomness():
            summary = pretrain(
                list(series),
                self.pretext,
                out=folder,
                verdict=False,
                report=self.out is not None,
                log=Log(quiet=not self.verbose),
                **given,
            )
        for alarm in summary["alarms"]:
            if alarm in ALARMS:
                text = f"{self.pretext}: {ALARMS[alarm]}."
                warnings.warn(text, ConvergenceWarning, stacklevel=3)
        self._take(folder)

    def _take(self, folder: Path) -> None:
        """Holds a run in memory, so that it outlives its folder and travels in a pickle."""
        paths = [path for pattern in KEPT for path in sorted(folder.glob(pattern))]
        older = [path for path in paths if path.suffix == ".pt"][:-1]
        self._files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in paths
            if path not in older
        }
        with _own_randomness():
            self.encoder_ = load(folder, "series").encoder
        rows = self._files["metrics.jsonl"].decode().splitlines()
        self.losses_ = [json.loads(row)["loss"] for row in rows]
        self.n_steps_ = len(self.losses_)
        self.n_features_in_ = int(self.encoder_.settings["channels"])

    def _write(self, folder: Path) -> None:
        for name, content in self._files.items():
            write(folder / name, content)


def _counts(value: Any, least: int) -> bool:
    """Whether it is a whole number of at least so many."""
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return number and int(value) >= least


@contextlib.contextmanager
def _own_randomness() -> Iterator[None]:
    """Leaves the user's global generators as they were. Threads share those, so one draws from
    them after the other."""
    with ONE_AT_A_TIME, torch.random.fork_rng(range(torch.cuda.device_count())):
        yield

"""The scikit-learn face: same training as everywhere, any form of series, training that goes on."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import mainspring as ms
from mainspring.embedder import Embedder
from mainspring.errors import ConfigError, DataError, RunError

TINY = {"architecture": {"series": {"width": 4, "depth": 2, "dim": 6}}}
MEAN_LENGTH = "columns are time steps: series of another length are as good"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def tiny(**params) -> Embedder:
    return Embedder(**{"steps": 3, "batch": 4, "settings": TINY, **params})


def world(n: int = 12, time: int = 30, channels: int = 2) -> np.ndarray:
    """Slow and fast waves, one after the other."""
    rng = np.random.default_rng(0)
    pace = np.where(np.arange(n) % 2, 0.9, 0.25)[:, None, None]
    phase = rng.uniform(0, 6, (n, 1, channels))
    return np.sin(np.arange(time)[None, :, None] * pace + phase) + rng.normal(
        0, 0.05, (n, time, channels)
    )


@parametrize_with_checks(
    [tiny(steps=2)],
    expected_failed_checks=lambda _: {
        "check_n_features_in": "n_features_in_ counts channels, not steps",
        "check_n_features_in_after_fitting": MEAN_LENGTH,
        "check_transformer_general": MEAN_LENGTH,
        "check_methods_sample_order_invariance": "asks for more digits than float32 has",
        "check_do_not_raise_errors_in_init_or_set_params": "tests execute annotations",
        "check_array_api_input": "skipped where SCIPY_ARRAY_API is not set",
    },
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


# -- forms of X -----------------------------------------------------------------------------------


class Frame:
    """As much of a data frame as is asked for."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.columns = [f"c{i}" for i in range(values.shape[1])]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.values.astype(dtype or float)


def test_the_forms_of_series_are_one():
    X = world()
    array = tiny().fit(X)
    vectors = array.transform(X)
    assert vectors.shape == (12, 6)
    assert vectors.dtype == np.float32
    for form in (list(X), tuple(X), [Frame(x) for x in X], X.astype(object), X.astype(np.float32)):
        np.testing.assert_allclose(tiny().fit(form).transform(form), vectors, atol=1e-5)
    flat = X[:, :, 0]
    one = tiny().fit(flat)
    np.testing.assert_allclose(one.transform(list(flat)), one.transform(flat[:, :, None]))
    assert (array.n_features_in_, one.n_features_in_) == (2, 1)


def test_fit_transform_is_fit_and_transform_and_labels_are_not_seen():
    X = world()
    first = tiny().fit_transform(X)
    second = tiny().fit(X, np.arange(12)).transform(X)
    np.testing.assert_array_equal(first, second)


def test_unequal_lengths_do_not_see_each_other():
    X = [x[: 12 + i] for i, x in enumerate(world())]
    model = tiny().fit(X)
    alone = np.concatenate([model.transform([x]) for x in X])
    np.testing.assert_allclose(model.transform(X), alone, atol=1e-5)
    shuffled = model.transform(X[::-1])[::-1]
    np.testing.assert_allclose(shuffled, alone, atol=1e-5)


def test_missing_values_and_ends_of_arrays():
    X = world()
    X[0, 20:] = np.nan
    X[1, 4:9, 0] = np.nan
    X[2, 3, 1] = np.inf
    X[3] = np.nan
    model = tiny(pool="steps").fit(X)
    tokens = model.transform(X)
    assert np.isfinite(tokens).all()
    assert tokens[0, :20].any(axis=1).all()
    assert not tokens[0, 20:].any()
    np.testing.assert_allclose(model.transform([X[0, :20]])[0], tokens[0, :20], atol=1e-5)


def test_one_long_series():
    X = [world(1, 300)[0]]
    assert tiny(pool="steps").fit(X).transform(X).shape == (1, 300, 6)
    X[0][:160] = np.nan  # half of what is known lies in either half
    assert tiny(pool="steps").fit(X).transform(X).shape == (1, 300, 6)


def test_wrong_data_is_named():
    model = tiny().fit(world())
    with pytest.raises(DataError, match="3 channels, but this Embedder was fitted on series of 2"):
        model.transform(world(channels=3))
    with pytest.raises(DataError, match=r"Series 1 of the list has shape \(0, 2\)"):
        model.transform([world()[0], world()[1][:0]])
    with pytest.raises(DataError, match=r"shape \(1, 2, 3, 4\)"):
        model.transform(np.zeros((1, 2, 3, 4)))
    with pytest.raises(NotFittedError):
        tiny().transform(world())


# -- pooling --------------------------------------------------------------------------------------


def test_pools_come_from_the_same_tokens():
    X = world()
    model = tiny().fit(X)
    series = model.transform(X)
    tokens = model.set_params(pool="steps").transform(X)
    np.testing.assert_allclose(tokens.max(1), series, atol=1e-5)  # TS2Vec pools by the maximum
    for window in (1, 4, 5, 80):
        got = model.set_params(pool=window).transform(X)
        half = window // 2
        for t in (0, 2, 17, 29):
            around = tokens[:, max(0, t - half) : t - half + window]
            np.testing.assert_allclose(got[:, t], around.max(1), atol=1e-6)
    ragged = [x[: 12 + i] for i, x in enumerate(X)]
    assert [t.shape for t in model.transform(ragged)] == [(12 + i, 6) for i in range(12)]


def test_context_hides_the_future():
    X = world(4, 60)
    model = tiny(pool="steps", context=20).fit(X)
    changed = X.copy()
    changed[:, 40:] += 5
    before, after = model.transform(X), model.transform(changed)
    np.testing.assert_allclose(before[:, :40], after[:, :40], atol=1e-5)
    window = torch.from_numpy(X[:1, 30:51].astype(np.float32))
    with torch.no_grad():
        want = model.encoder_.tokens(window)[0, -1].numpy()
    np.testing.assert_allclose(before[0, 50], want, atol=1e-5)


def test_other_pretexts_and_encoders():
    X = world(8, 160)
    settings = {"architecture": {"series": {"dim": 8, "depth": 1, "heads": 2, "hidden": 8}}}
    model = Embedder("masked_patches", steps=2, batch=4, settings=settings).fit(X)
    vectors = model.transform(X)
    assert vectors.shape == (8, model.encoder_.dim)
    model.set_params(pool="steps")
    with pytest.raises(ConfigError, match="gives no token for each step"):
        model.transform(X)
    tokens = model.set_params(context=159).transform(X)  # the last window is the series
    np.testing.assert_allclose(tokens[:, -1], vectors, atol=1e-5)


def test_parameters_out_of_range_are_named():
    with pytest.raises(ConfigError, match="pool is 'sum'"):
        tiny(pool="sum").fit(world())
    with pytest.raises(ConfigError, match="pool is 0"):
        tiny(pool=0).fit(world())
    with pytest.raises(ConfigError, match="context is 9 with pool 'series'"):
        tiny(context=9).fit(world())
    with pytest.raises(ConfigError, match="Did you mean 'ts2vec'"):
        tiny(pretext="ts2vek").fit(world())
    with pytest.raises(ConfigError, match="Unknown pretext 'None'"):
        tiny().set_params(pretext=None).fit(world())
    with pytest.raises(ConfigError, match=r"context is 2\.5 with pool 'steps'"):
        tiny(pool="steps").set_params(context=2.5).fit(world())
    with pytest.raises(ConfigError, match=r"settings is \['batch'\]; it must be a dict"):
        tiny().set_params(settings=["batch"]).fit(world())
    with pytest.raises(ConfigError, match="settings holds 'out', which is no setting here"):
        tiny(settings={"out": "runs"}).fit(world())
    with pytest.raises(ConfigError, match="batch is given twice"):
        tiny(settings={"batch": 8}).fit(world())
    with pytest.raises(ConfigError, match="Did you mean 'architecture'"):
        tiny(settings={"architectur": {}}).fit(world())


# -- scikit-learn's company -----------------------------------------------------------------------


def test_clone_pipeline_grid_search_and_names():
    X, y = world(), np.arange(12) % 2
    model = tiny(settings={**TINY, "precision": "fp32"}, seed=3)
    assert clone(model).get_params() == model.get_params()
    pipeline = make_pipeline(model, LogisticRegression())
    search = GridSearchCV(pipeline, {"embedder__steps": [1, 2]}, cv=2, error_score="raise")
    search.fit(X, y)
    assert search.predict(X).shape == (12,)
    fitted = search.best_estimator_["embedder"]
    assert list(fitted.get_feature_names_out()) == [f"embedder{i}" for i in range(6)]
    assert ms.Embedder is Embedder


def test_numbers_of_numpy_are_numbers(tmp_path):
    X = world()
    numbers = {"steps": 3, "batch": 4, "seed": 1, "pool": 3, "context": 5}
    settings = {"architecture": {"series": {"width": np.int64(4), "depth": np.int64(2)}}}
    want = tiny(**numbers, settings=settings).fit(X).transform(X)
    model = tiny(settings=settings).set_params(**{k: np.int64(v) for k, v in numbers.items()})
    model.fit(X)
    np.testing.assert_array_equal(model.transform(X), want)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(Embedder.load(tmp_path / "model").transform(X), want)


def test_threads_do_not_disturb_each_other():
    X = world()
    models = [tiny(steps=10, seed=seed) for seed in range(4)]
    alone = [clone(model).fit(X).transform(X) for model in models]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda model: model.fit(X).transform(X), models))
    for one, same in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, same)


def test_where_nothing_could_be_asked_a_warning_says_so():
    with pytest.warns(ConvergenceWarning, match="impute: nothing was asked in whole steps"):
        tiny(pretext="impute").fit(np.ones((6, 20)))


def test_a_pickle_transforms_and_goes_on():
    X = world()
    model = tiny().fit(X)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    assert again.fit_more(X, 2).n_steps_ == 5


def test_fitting_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    tiny().fit(world())
    assert torch.equal(torch.rand(3), want)


@pytest.mark.parametrize(("time", "steps"), [(50, 200), (1001, 600)])
def test_ts2vecs_number_of_steps(time, steps, monkeypatch):
    asked = {}

    def stop(*args, **settings):
        asked.update(settings)
        raise RunError("far enough")

    monkeypatch.setattr("mainspring.embedder.pretrain", stop)
    with pytest.raises(RunError, match="far enough"):
        Embedder().fit(np.zeros((100, time)))
    assert asked["steps"] == steps
    assert asked["loading"] == {"holdout": 0.0}, "no series is kept back"
    asked.clear()
    with pytest.raises(RunError, match="far enough"):
        Embedder(settings={"epochs": 3}).fit(np.zeros((100, time)))
    assert asked["epochs"] == 3
    assert "steps" not in asked


# -- on disk, and going on ------------------------------------------------------------------------


def weights(model: Embedder) -> list[torch.Tensor]:
    return list(model.encoder_.state_dict().values())


def test_going_on_equals_never_having_stopped(tmp_path):
    X = [x[: 20 + i] for i, x in enumerate(world())]
    straight = tiny(steps=40).fit(X)
    model = tiny(steps=20).fit(X)
    model.save(tmp_path / "model")
    loaded = Embedder.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))
    assert loaded.get_params() == model.get_params()
    loaded.fit_more(X, 20)
    assert loaded.losses_ == straight.losses_
    assert all(map(torch.equal, weights(loaded), weights(straight)))
    # Without weights, running mean and optimiser state it would have begun anew:
    assert np.mean(loaded.losses_[20:25]) < np.mean(loaded.losses_[:5])


def test_a_saved_model_is_a_run_and_a_run_is_a_model(tmp_path):
    X = world()
    model = tiny().fit(X)
    model.save(tmp_path / "model")
    vectors = ms.embed(tmp_path / "model", X)
    np.testing.assert_allclose(vectors.matrix, model.transform(X), atol=1e-5)
    with pytest.raises(RunError, match="not empty"):
        model.save(tmp_path / "model")
    with pytest.raises(RunError, match="is a file"):
        model.save(tmp_path / "model" / "config.toml")

    (tmp_path / "data").mkdir()
    for index, x in enumerate(X):
        np.save(tmp_path / "data" / f"{index}.npy", x)
    ms.pretrain(
        tmp_path / "data", "ts2vec", out=tmp_path / "run", verdict=False, report=False,
        steps=3, batch=4, loading={"holdout": 0.0}, **TINY,
    )  # fmt: skip
    assert Embedder.load(tmp_path / "run").transform(X).shape == (12, 6)


def test_a_run_folder_to_keep(tmp_path):
    X, out = world(), tmp_path / "run"
    model = tiny(out=out).fit(X)
    assert (out / "report.html").exists()
    with pytest.raises(RunError, match="holds a finished run"):
        tiny(out=out).fit(X)
    model.fit_more(X, 2)
    assert json.loads((out / "summary.json").read_text())["steps"] == 5
    assert Embedder.load(out).n_steps_ == 5


def test_no_going_on_where_the_rate_depends_on_the_number_of_steps():
    X = world()
    model = tiny(settings={**TINY, "optimiser": {"schedule": "cosine"}}).fit(X)
    before = model.transform(X)
    with pytest.raises(RunError, match=r"steps: 3 -> 5[\s\S]*optimiser\.schedule constant"):
        model.fit_more(X, 2)
    np.testing.assert_array_equal(model.transform(X), before)
    with pytest.raises(DataError, match="3 channels, but this Embedder was fitted on series of 2"):
        tiny().fit(X).fit_more(world(channels=3), 2)
    with pytest.raises(RunError, match="batch: 4 -> 6"):
        tiny().fit(X).set_params(batch=6).fit_more(X, 2)


def test_values_beyond_what_can_be_learnt_from_say_so():
    with pytest.raises(RunError, match=r"first step.*the values may be too large"):
        tiny().fit([1e30 * x for x in world()])

import json
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mainspring.errors import DataError
from mainspring.evaluate import classify
from mainspring.evaluate.classify import PENALTIES, logistic, nearest_neighbour, svm


def world(seed: int, n: int, classes: int, dim: int = 6, noise: float = 1.5, shift: float = 0.0):
    """Blobs that overlap, of uneven sizes and scales."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(classes, 5.0))
    labels = np.concatenate([np.arange(classes), rng.choice(classes, n - classes, p=shares)])
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    matrix = centres[labels] * 2 + noise * rng.normal(size=(n, dim)) + shift
    return (matrix * np.linspace(0.3, 3, dim)).astype(np.float32), labels


def by_grid(train, labels, test):
    """The protocol as scikit-learn spells it."""
    machine = SVC(C=np.inf, gamma="scale")
    if len(train) // len(set(labels)) < 5 or len(train) < 50:
        return machine.fit(train, labels), None
    grid = GridSearchCV(machine, {"C": PENALTIES}, cv=5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class in y")
        grid.fit(train, labels)
    return grid.best_estimator_, grid.best_params_["C"]


@pytest.mark.parametrize(
    ("seed", "n", "classes", "noise"),
    [(0, 60, 2, 1.5), (1, 120, 2, 3.0), (2, 150, 4, 2.0), (3, 90, 3, 0.1), (4, 49, 3, 1.0),
     (5, 70, 15, 1.0), (6, 200, 5, 4.0)],
)  # fmt: skip
def test_svm_equals_grid_search(seed: int, n: int, classes: int, noise: float) -> None:
    train, labels = world(seed, n, classes, noise=noise, shift=3.0)
    test, truth = world(seed + 100, 300, classes, noise=noise, shift=3.0)
    model, penalty = by_grid(train, labels, test)
    found = svm(train, labels, test, truth)
    assert found.settings["C"] == (np.inf if penalty is None else penalty)
    np.testing.assert_array_equal(found.told, model.predict(test))
    value = model.decision_function(test)
    mine = found.scores[:, 1] if classes == 2 else found.scores
    np.testing.assert_allclose(mine, value, atol=2e-3 * np.abs(value).max())
    assert found.accuracy == model.score(test, truth)
    if classes == 2:
        assert found.auprc == pytest.approx(average_precision_score(truth, value), abs=1e-3)
    else:
        onehot = truth[:, None] == np.arange(classes)
        assert found.auprc == pytest.approx(average_precision_score(onehot, value), abs=1e-3)


@pytest.mark.parametrize("seed", [0, 11])
def test_each_fold_has_the_width_of_its_own_kernel(seed: int) -> None:
    train, labels = world(seed, 60, 2, noise=2.0)
    train[0] *= 10  # one fold's train part is much narrower
    assert svm(train, labels, train, labels).settings["C"] == by_grid(train, labels, train)[1]


def test_test_rows_are_told_in_parts(monkeypatch) -> None:
    data = (*world(0, 60, 3), *world(1, 50, 3))
    whole = svm(*data), nearest_neighbour(*data)
    monkeypatch.setattr(classify, "VALUES_AT_ONCE", 60 * 7)
    for one, other in zip(whole, (svm(*data), nearest_neighbour(*data)), strict=True):
        np.testing.assert_array_equal(one.told, other.told)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-9)


def test_too_many_rows_are_drawn_from_with_shares_kept() -> None:
    train, labels = world(0, 400, 2, noise=0.5)
    test, truth = world(1, 100, 2, noise=0.5)
    found = svm(train, labels, test, truth, rows=100)
    assert found.accuracy > 0.9
    labels[0] = 2  # the only row of its class stays
    found = svm(train, labels, test, truth, rows=100)
    assert found.classes.tolist() == [0, 1, 2]
    assert found.accuracy > 0.9
    _, kept = classify._some(np.zeros((400, 1)), np.repeat([0, 1, 2], [240, 120, 40]), 100)
    assert np.bincount(kept).tolist() == [60, 30, 10]


def test_logistic_and_nearest_equal_pipelines() -> None:
    train, labels = world(0, 80, 4)
    test, truth = world(1, 120, 4)
    line = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(max_iter=10**6)))
    line.fit(train.astype(float), labels)
    found = logistic(train, labels, test, truth)
    np.testing.assert_array_equal(found.told, line.predict(test.astype(float)))
    near = make_pipeline(StandardScaler(), KNeighborsClassifier(1)).fit(train.astype(float), labels)
    found = nearest_neighbour(train, labels, test, truth)
    np.testing.assert_array_equal(found.told, near.predict(test.astype(float)))
    assert 0 < found.auprc <= 1


@pytest.mark.parametrize("classifier", [svm, logistic, nearest_neighbour])
def test_noise_gives_chance_and_names_may_be_words(classifier) -> None:
    rng = np.random.default_rng(0)
    names = rng.choice(["walk", "run"], 600, p=[0.5, 0.5])
    matrix = rng.normal(size=(600, 5))
    found = classifier(matrix[:200], names[:200], matrix[200:], names[200:])
    assert found.accuracy == pytest.approx(found.chance, abs=0.1)
    assert found.auprc == pytest.approx((names[200:] == "walk").mean(), abs=0.1)
    assert found.classes.tolist() == ["run", "walk"]
    json.dumps(found.to_dict(), allow_nan=False)


def test_chance_says_the_commonest_class_of_train() -> None:
    train, test = np.repeat(["a", "b"], [3, 2]), np.repeat(["a", "b"], [1, 9])
    found = nearest_neighbour(np.eye(5), train, np.ones((10, 5)), test)
    assert found.chance == pytest.approx(0.1)


def test_a_collapsed_encoder_is_told_from_in_no_time_and_gets_chance() -> None:
    labels, truth = np.arange(90) % 3, np.arange(60) % 3
    for matrix in (np.ones((90, 4)), np.repeat(world(0, 30, 3)[0], 3, axis=0)):
        found = svm(matrix, labels, matrix[:60], truth)
        assert np.isfinite(found.settings["C"])
        assert found.accuracy == pytest.approx(1 / 3)
    assert svm(np.ones((12, 4)), labels[:12], np.ones((60, 4)), truth).settings["C"] == 1e4


def test_classes_that_train_lacks_are_errors_and_absent_ones_left_out() -> None:
    train, labels = world(0, 90, 3, noise=0.1)
    test, truth = world(1, 60, 3, noise=0.1)
    renamed = np.where(truth == 2, 7, truth)
    whole, found = svm(train, labels, test, truth), svm(train, labels, test, renamed)
    assert found.accuracy == pytest.approx(whole.accuracy - (truth == 2).mean(), abs=0.05)
    assert np.isfinite(found.auprc)


def test_what_cannot_be_classified() -> None:
    train, labels = world(0, 60, 2)
    hole = train.copy()
    hole[3, 1] = np.nan
    with pytest.raises(DataError, match="1 of 60 test rows hold NaN"):
        svm(train, labels, hole, labels)
    with pytest.raises(DataError, match="at least two classes"):
        logistic(train, np.zeros(60), train, labels)
    with pytest.raises(DataError, match="train has 60 rows and 59 labels"):
        nearest_neighbour(train, labels[1:], train, labels)


def test_rows_of_two_classes_that_are_all_but_equal_do_not_break_the_svm():
    rng = np.random.default_rng(0)
    rows = np.ones((40, 3)) * 1e4 + rng.normal(0, 1e-11, (40, 3))
    labels = np.repeat(["a", "b"], 20)
    found = svm(rows.astype(np.float64), labels, rows.astype(np.float64), labels)
    assert 0 <= found.accuracy <= 1

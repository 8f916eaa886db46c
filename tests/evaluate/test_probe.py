import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.preprocessing import StandardScaler

from mainspring.errors import DataError
from mainspring.evaluate.probe import STRENGTHS, compare, probe
from mainspring.evaluate.splits import grouped_folds, labels_per_class
from mainspring.evaluate.verdict import verdict


def clusters(
    groups: int, windows: int, classes: int, apart: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors whose class moves them `apart`, and whose group moves them too."""
    rng = np.random.default_rng(seed)
    of = np.arange(groups) % classes
    centres = rng.normal(size=(classes, 16))
    offset = rng.normal(size=(groups, 16))
    matrix = apart * centres[of][:, None] + offset[:, None]
    matrix = matrix + 0.3 * rng.normal(size=(groups, windows, 16))
    names = np.array([f"class {c}" for c in of], object)
    return (
        matrix.reshape(-1, 16).astype(np.float32),
        names.repeat(windows),
        np.array([f"g{g}" for g in range(groups)], object).repeat(windows),
    )


def test_finds_what_is_there() -> None:
    result = probe(*clusters(60, 4, 3, apart=2.0))
    assert result.accuracy > 0.95
    assert result.low <= result.accuracy <= result.high
    assert result.chance_uniform == pytest.approx(1 / 3)
    assert result.confusion.sum() == pytest.approx(240)
    assert np.trace(result.confusion) / 240 == pytest.approx(result.accuracy)
    assert result.classes == ["class 0", "class 1", "class 2"]
    assert result.notes == []


def test_finds_nothing_where_nothing_is() -> None:
    """Windows of one recording are near each other: a split that let them straddle would be right
    nearly always."""
    matrix, labels, groups = clusters(18, 6, 3, apart=0.0)
    result = probe(matrix, labels, groups)
    assert result.accuracy < 0.55
    straddling = probe(matrix, labels, np.arange(len(groups)).astype(str).astype(object))
    assert straddling.accuracy > 0.9


def by_hand(matrix, labels, groups, seed: int):
    """The protocol with scikit-learn alone: fold after fold, every strength tried."""
    codes = np.unique(labels.astype(str), return_inverse=True)[1]
    dice, fit = np.random.default_rng(seed), LogisticRegression(max_iter=50_000)
    told, common, strengths, few = np.zeros_like(codes), np.zeros_like(codes), [], []
    for train, test in grouped_folds(codes, groups, 5, dice):
        scaler = StandardScaler().fit(matrix[train].astype(float))
        x, y = scaler.transform(matrix[train].astype(float)), codes[train]
        right = np.zeros(len(STRENGTHS))
        for a, b in grouped_folds(y, groups[train], 3, dice):
            right += [
                (fit.set_params(C=c).fit(x[a], y[a]).predict(x[b]) == y[b]).sum() for c in STRENGTHS
            ]
        strengths.append(STRENGTHS[int(right.argmax())])
        fit.set_params(C=strengths[-1]).fit(x, y)
        told[test] = fit.predict(scaler.transform(matrix[test].astype(float)))
        common[test] = np.bincount(y).argmax()
        drawn = labels_per_class(y, 20, dice)
        fit.set_params(C=1.0).fit(x[drawn], y[drawn])
        few.append(fit.score(scaler.transform(matrix[test].astype(float)), codes[test]))
    return codes, told, common, strengths, few


def test_equals_the_protocol_by_hand() -> None:
    """With a few recordings far from the others, so that it matters which rows standardise."""
    matrix, labels, groups = clusters(40, 3, 3, apart=0.8, seed=1)
    matrix[:30] *= 4
    kept = np.random.default_rng(1).random(120) < np.where(labels == "class 0", 1, 0.5)
    data = matrix[kept], labels[kept], groups[kept]
    codes, told, common, strengths, few = by_hand(*data, seed=0)
    found = probe(*data, seeds=(0,), per_class=(20, 60))  # one class has more than 20, none 60
    assert found.strengths == strengths
    np.testing.assert_array_equal(found.confusion, confusion_matrix(codes, told))
    assert found.chance_majority == (common == codes).mean()
    assert [point.labels for point in found.curve] == [20, None]
    assert found.curve[0].accuracy == pytest.approx(np.mean(few))
    twice = probe(*data, seeds=(0, 1), per_class=())
    other = probe(*data, seeds=(1,), per_class=())
    assert twice.accuracy == pytest.approx((found.accuracy + other.accuracy) / 2)
    assert other.accuracy != found.accuracy


def test_a_probe_of_uneven_classes_is_not_stopped_by_telling_the_commonest() -> None:
    rng = np.random.default_rng(0)
    common = rng.random(100) < 0.8
    matrix = rng.normal(size=(100, 16)) + common[:, None] * rng.normal(size=16)
    labels = np.where(common, "common", "rare").astype(object)
    found = probe(matrix.astype(np.float32), labels, np.arange(100).astype(str), (0,), ())
    assert found.accuracy > found.chance_majority + 0.1
    assert found.balanced_accuracy > 0.8


def test_the_commonest_class_is_that_of_train() -> None:
    """Whichever group is held out, its class is the rarer one among the others."""
    groups = np.repeat(list("vwxyz"), [4, 4, 4, 8, 8])
    labels = np.where(groups < "y", "few", "many").astype(object)
    matrix = np.random.default_rng(0).normal(size=(28, 2)).astype(np.float32)
    assert probe(matrix, labels, groups, (0,), ()).chance_majority == 0


def test_the_metrics_by_hand_on_a_lopsided_problem() -> None:
    """No signal and 9 of 10 rows of one class: the probe says that class, or little else."""
    rng = np.random.default_rng(0)
    labels = np.array(["common"] * 90 + ["rare"] * 10, object)
    groups = np.arange(100).astype(str).astype(object)
    result = probe(np.zeros((100, 4), np.float32) + rng.normal(), labels, groups)
    assert result.accuracy == pytest.approx(0.9)
    assert result.balanced_accuracy == pytest.approx(0.5)
    assert result.macro_f1 == pytest.approx((2 * 0.9 / 1.9) / 2)
    assert result.chance_majority == pytest.approx(0.9)
    np.testing.assert_allclose(result.confusion, [[90, 0], [10, 0]])


def test_the_curve_rises_and_ends_with_all_labels() -> None:
    result = probe(*clusters(200, 1, 4, apart=0.7), per_class=(1, 5, 10, 1000))
    assert [point.labels for point in result.curve] == [1, 5, 10, None]
    accuracies = [point.accuracy for point in result.curve]
    assert accuracies == sorted(accuracies)
    assert accuracies[-1] == pytest.approx(result.accuracy, abs=0.01)
    assert accuracies[0] > result.chance_uniform
    assert result.curve[0].spread > result.curve[-1].spread
    assert result.curve[0].draws == 15


def test_the_strength_is_chosen_from_the_train_folds_alone() -> None:
    """Test labels that are pure noise cannot be told, however the strength is chosen."""
    matrix, labels, groups = clusters(40, 1, 2, apart=3.0)
    rng = np.random.default_rng(3)
    accuracies = [
        probe(matrix, rng.permutation(labels), groups, seeds=(0,)).accuracy for _ in range(6)
    ]
    assert 0.35 < np.mean(accuracies) < 0.6


def test_the_same_seeds_give_the_same_result() -> None:
    data = clusters(40, 2, 3, apart=0.5)
    assert probe(*data).to_dict() == probe(*data).to_dict()
    assert probe(*data, seeds=(7,)).to_dict() != probe(*data, seeds=(8,)).to_dict()


def test_the_result_is_plain_json() -> None:
    said = json.loads(json.dumps(probe(*clusters(20, 1, 2, apart=1.0)).to_dict()))
    assert said["groups"] == 20
    assert said["curve"][-1]["labels"] is None
    assert len(said["confusion"]) == 2


def test_rows_without_a_label_are_left_out() -> None:
    matrix, labels, groups = clusters(40, 1, 2, apart=1.0)
    some = labels.copy()
    some[:10] = None
    result = probe(matrix, some, groups)
    assert (result.rows, result.unlabelled) == (30, 10)
    assert result.accuracy == probe(matrix[10:], labels[10:], groups[10:]).accuracy


def test_tiny_classes() -> None:
    matrix, labels, groups = clusters(40, 2, 2, apart=2.0)
    labels[:2] = "lonely"
    result = probe(matrix, labels, groups)
    assert result.classes == ["class 0", "class 1"]
    assert "class 'lonely' left out: its 2 rows are all of group 'g0'" in result.notes[0]
    labels[2:4] = "lonely"
    assert probe(matrix, labels, groups).classes == ["class 0", "class 1", "lonely"]


def test_too_little_to_probe_is_told() -> None:
    matrix, labels, groups = clusters(2, 4, 2, apart=2.0)
    with pytest.raises(DataError, match=r"at least 2 classes.*0 of the 2.*'class 0' left out"):
        probe(matrix, labels, groups)
    with pytest.raises(DataError, match="0 of the 0 classes"):
        probe(matrix, np.full(8, None, object), groups)
    matrix[3, 1] = np.nan
    with pytest.raises(DataError, match="1 of 8 vectors hold NaN"):
        probe(matrix, labels, groups)


def test_compare_says_which_is_better() -> None:
    good = probe(*clusters(100, 1, 4, apart=2.0))
    bad = probe(*clusters(100, 1, 4, apart=0.0))
    found = compare(good, bad)
    assert found.mean == pytest.approx(good.accuracy - bad.accuracy)
    assert found.word == "better"
    assert compare(bad, good).word == "worse"
    assert compare(good, good).word == "no better"


def test_two_groups_give_no_interval_and_no_winner() -> None:
    matrix, labels, _ = clusters(40, 1, 2, apart=2.0)
    cameras = np.repeat(["one", "another"], 20)
    good, bad = probe(matrix, labels, cameras), probe(0 * matrix, labels, cameras)
    assert good.accuracy > bad.accuracy
    assert (good.low, good.high, compare(good, bad).word) == (0, 1, "no better")
    assert "of 2 groups" in verdict({"trained": good, "random weights": bad})


def test_labels_given_as_text_arrays_work() -> None:
    matrix, labels, groups = clusters(20, 1, 2, apart=2.0)
    assert probe(matrix, labels.astype(str), groups.astype(str)).accuracy > 0.9

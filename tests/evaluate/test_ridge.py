import numpy as np
import pytest
from sklearn.linear_model import Ridge

from mainspring.evaluate.ridge import NormalEquations


def data(seed: int = 0, n: int = 80, width: int = 7, targets: int = 5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width)) * np.linspace(0.1, 10, width) + 1e3
    return x, x @ rng.normal(size=(width, targets)) + rng.normal(size=(n, targets))


@pytest.mark.parametrize("penalty", [0.1, 3.0, 1000.0])
def test_equals_scikit_learn_however_rows_come(penalty: float) -> None:
    x, y = data()
    asked, _ = data(1)
    model = Ridge(alpha=penalty).fit(x, y)
    for parts in (1, 3, 80):
        sums = NormalEquations(7, 5)
        for some, wanted in zip(np.array_split(x, parts), np.array_split(y, parts), strict=True):
            sums.add(some, wanted)
        path = sums.solve()
        np.testing.assert_allclose(
            path.predict(path.rotate(asked), penalty), model.predict(asked), rtol=1e-9
        )


def test_fewer_targets_may_have_more_rows() -> None:
    x, y = data()
    sums = NormalEquations(7, 5)
    sums.add(x[:50], y[:50])
    sums.keep(2)
    sums.add(x[50:], y[50:, :2])
    path = sums.solve()
    model = Ridge(alpha=2.0).fit(x, y[:, :2])
    np.testing.assert_allclose(path.predict(path.rotate(x), 2.0), model.predict(x), rtol=1e-9)


def test_more_inputs_than_rows_and_copies_of_inputs() -> None:
    x, y = data(n=10, width=30)
    x = np.concatenate([x, x], axis=1)
    sums = NormalEquations(60, 5)
    sums.add(x, y)
    path = sums.solve()
    model = Ridge(alpha=1.0, solver="svd").fit(x, y)
    np.testing.assert_allclose(path.predict(path.rotate(x), 1.0), model.predict(x), rtol=1e-6)

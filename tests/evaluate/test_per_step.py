import numpy as np
import pytest
import torch

from mainspring.encoders.dilated import Dilated
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.patch_transformer import PatchTransformer
from mainspring.errors import ConfigError, DataError
from mainspring.evaluate import per_step


def series(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(length, 2)).astype(np.float32) for length in lengths]


def small() -> Dilated:
    torch.manual_seed(0)
    return Dilated(channels=2, width=8, depth=3, dim=12, dropout=0.5).train()


def one(encoder: torch.nn.Module, values: np.ndarray, way: str) -> np.ndarray:
    with torch.no_grad():
        return getattr(encoder.eval(), way)(torch.from_numpy(values)[None])[0].numpy()


def test_each_series_is_encoded_at_its_own_length_whatever_the_portion(monkeypatch):
    encoder, X = small(), series(20, 7, 20, 1, 7, 20)
    for portion in (1 << 16, 40, 1):
        monkeypatch.setattr(per_step, "STEPS_AT_ONCE", portion)
        vectors, tokens = per_step.whole(encoder, X), per_step.steps(encoder, X)
        assert encoder.training  # as it came
        for values, vector, own in zip(X, vectors, tokens, strict=True):
            np.testing.assert_allclose(vector, one(small(), values, "forward"), atol=1e-5)
            np.testing.assert_allclose(own, one(small(), values, "tokens"), atol=1e-5)


def test_windows_take_the_maximum_as_the_authors_code_does():
    encoder, X = small(), series(20, 9)
    tokens = per_step.steps(encoder, X)
    for window in (1, 2, 3, 8, 31):
        for plain, got in zip(tokens, per_step.steps(encoder, X, window), strict=True):
            rows = torch.from_numpy(plain).T[None]
            want = torch.nn.functional.max_pool1d(rows, window, stride=1, padding=window // 2)
            want = want[0].T[: len(plain)]  # an even window gives one too many
            np.testing.assert_allclose(got, want, atol=1e-6)


def test_context_of_an_encoder_without_a_token_a_step_is_its_vector_of_the_window(monkeypatch):
    torch.manual_seed(0)
    encoder = PatchTransformer(channels=2, patch=4, stride=4, dim=8, depth=1, heads=2, hidden=8)
    X = series(30)
    with pytest.raises(ConfigError, match=r"PatchTransformer gives no token.*dilated"):
        per_step.steps(encoder, X)
    for portion in (1 << 16, 40):
        monkeypatch.setattr(per_step, "STEPS_AT_ONCE", portion)
        (got,) = per_step.steps(encoder, X, context=11)
        want = one(encoder, X[0][14:26], "forward")
        np.testing.assert_allclose(got[25], want, atol=1e-5)
    assert len(got) == 30


class Counts(Encoder):
    """Tells how many steps of a window are no padding."""

    stream = "series"
    citation = "none"

    def __init__(self):
        super().__init__()
        self.dim = 1
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, samples, present=None):
        return present.sum(1, keepdim=True) + self.nothing


def test_what_lies_before_the_beginning_is_padding():
    for context, want in ((3, [1, 2, 3, 4, 4, 4]), (9, [1, 2, 3, 4, 5, 6])):
        (got,) = per_step.steps(Counts(), series(6), context=context)
        assert got[:, 0].tolist() == want


def test_an_empty_series_is_named():
    with pytest.raises(DataError, match="Series 1 is empty"):
        per_step.whole(small(), series(5, 0))
    assert per_step.whole(small(), []).shape == (0, 12)

import numpy as np
import torch
from little_world import SERIES, MeanEncoder, SeriesReader, recordings

from mainspring.evaluate.baselines import (
    RANDOM,
    RAW,
    RawFeatures,
    baselines,
    principal,
    turned,
    untrained,
)
from mainspring.evaluate.embed import embed
from mainspring.evaluate.probe import probe


class Linear(MeanEncoder):
    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.settings = {"width": width}
        self.dim = width
        self.layer = torch.nn.Linear(3, width)

    def forward(self, samples: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        return self.layer(super().forward(samples, present))


def test_untrained_is_the_same_architecture_from_the_seed() -> None:
    trained = Linear(7)
    state = torch.get_rng_state()
    one, same, other = (untrained(trained, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state), "global randomness is left alone"
    assert one.dim == 7
    assert torch.equal(one.layer.weight, same.layer.weight)
    assert not torch.equal(one.layer.weight, other.layer.weight)
    assert not torch.equal(one.layer.weight, trained.layer.weight)


def test_baselines_are_row_for_row_those_of_each_alone() -> None:
    reader = SeriesReader([8, 20, 3, 16])
    trained = Linear()
    mine = embed(trained, SERIES, recordings(4), reader, None, stamps={})
    reads = reader.reads
    found = baselines(trained, SERIES, recordings(4), reader, seed=3)
    assert reader.reads == 2 * reads, "once for both"
    random = embed(untrained(trained, 3), SERIES, recordings(4), reader, None, stamps={})
    np.testing.assert_array_equal(found[RANDOM].matrix, random.matrix)
    for vectors in found.values():
        assert vectors.uris.tolist() == mine.uris.tolist()
        assert vectors.starts.tolist() == mine.starts.tolist()
        assert vectors.labels.tolist() == mine.labels.tolist()
    features = RawFeatures("series", SERIES)
    raw = embed(features, SERIES, recordings(4), reader, None, stamps={}).matrix
    np.testing.assert_array_equal(found[RAW].matrix, turned(principal(raw, 256)))


def test_principal_keeps_distances_and_orders_by_variance() -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(50, 4)) @ rng.normal(size=(4, 9))).astype(np.float32)
    matrix[:, 3] = 7
    scaled = (matrix - matrix.mean(0)) / np.where(np.arange(9) == 3, 1, matrix.std(0))
    found = principal(matrix, 4)
    np.testing.assert_allclose(found @ found.T, scaled @ scaled.T, atol=1e-3)
    assert (np.diff(found.var(axis=0)) < 0).all()
    np.testing.assert_allclose(principal(matrix, 2), found[:, :2], atol=1e-5)


def test_a_probe_finds_in_raw_features_what_is_there() -> None:
    """Standardised principal components hold nothing for it: half of them are noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    raw = rng.normal(size=(60, 40)).astype(np.float32)
    raw += 1.5 * labels[:, None] * (np.arange(40) < 20)
    groups = np.arange(60).astype(str).astype(object)

    def accuracy(matrix: np.ndarray) -> float:
        names = labels.astype(str).astype(object)
        return probe(matrix, names, groups, seeds=(0,), per_class=()).accuracy

    found = principal(raw, 256)
    assert accuracy(turned(found)) > accuracy(raw) - 0.05
    assert accuracy(found) < accuracy(raw) - 0.1, "or there is nothing to turn for"
    np.testing.assert_allclose(turned(found) @ turned(found).T, found @ found.T, atol=1e-3)

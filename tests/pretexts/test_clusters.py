"""k-means targets: as good as scikit-learn's, the same again, and there from the first step on."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from mainspring.errors import ConfigError
from mainspring.pretexts.clusters import Clusters, perplexity


def clouds(count: int, rng: np.random.Generator, spread: float = 1.0) -> torch.Tensor:
    """Frames around 12 places of very different weight."""
    places = np.random.default_rng(7).normal(0, 3, (12, 5))
    chosen = rng.choice(12, count, p=np.arange(1, 13) / 78)
    return torch.from_numpy(places[chosen] + rng.normal(0, spread, (count, 5))).float()


def build(**settings) -> Clusters:
    torch.manual_seed(0)
    return Clusters(**{"count": 12, "dim": 5, "pool": 4000, "steps": 8, **settings})


def inertia(frames: torch.Tensor, centres: torch.Tensor) -> float:
    return float(torch.cdist(frames, centres).min(1).values.square().sum())


def test_centres_are_as_good_as_those_of_scikit_learn_on_all_frames():
    rng, clusters, shown = np.random.default_rng(0), build(), []
    for _ in range(8):
        frames = clouds(1000, rng)
        shown.append(frames)
        clusters.remember(frames)
    every = torch.cat(shown)
    best = KMeans(12, n_init=10, random_state=0).fit(every.numpy()).inertia_
    assert inertia(every, clusters.centres) < 1.05 * best
    assert inertia(clouds(1000, rng), clusters.centres) < 1.1 * best / 8


def test_labels_are_the_nearest_centres():
    clusters = build()
    clusters.remember(clouds(300, np.random.default_rng(0)))
    frames = clouds(50, np.random.default_rng(1))
    for frame, label in zip(frames, clusters(frames).tolist(), strict=True):
        assert label == int(torch.stack([(frame - c).norm() for c in clusters.centres]).argmin())


def test_the_first_labels_are_of_the_centres_that_are_then_kept():
    clusters, frames = build(), clouds(300, np.random.default_rng(0))
    first = clusters(frames)
    assert int(clusters.used) == 0  # labelling keeps nothing
    clusters.remember(frames)
    assert (clusters(frames) == first).all()


def test_centres_stay_once_the_pool_has_been_clustered():
    rng, clusters = np.random.default_rng(0), build(steps=3)
    held = []
    for _ in range(5):
        clusters.remember(clouds(500, rng))
        held.append(clusters.centres.clone())
    assert (held[0] == held[1]).all()
    assert not (held[1] == held[2]).all()
    assert (held[2] == held[3]).all()
    assert (held[2] == held[4]).all()


def test_the_same_frames_give_the_same_centres_also_after_a_stop():
    def shown(clusters: Clusters, numbers: range) -> Clusters:
        for number in numbers:
            clusters.remember(clouds(300, np.random.default_rng(number)))
        return clusters

    whole = shown(build(), range(8))
    assert (shown(build(), range(8)).centres == whole.centres).all()
    torch.manual_seed(5)
    resumed = Clusters(12, 5, 4000, 8)
    resumed.load_state_dict(shown(build(), range(4)).state_dict())
    assert (shown(resumed, range(4, 8)).centres == whole.centres).all()


def test_fewer_frames_than_clusters_are_a_cluster_each():
    clusters = build()
    frames = clouds(5, np.random.default_rng(0)).repeat(4, 1)
    clusters.remember(frames)
    assert int(clusters.used) == 5
    assert len(clusters(frames).unique()) == 5
    assert inertia(frames, clusters.centres[:5]) < 1e-6
    clusters.remember(frames[:0])
    assert build()(frames[:0]).shape == (0,)


def test_perplexity_counts_the_clusters_in_use():
    assert perplexity(torch.arange(8).repeat(3), 8).item() == pytest.approx(8)
    assert perplexity(torch.zeros(9, dtype=torch.int64), 8).item() == pytest.approx(1)
    labels = torch.tensor([0, 0, 0, 1])
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert perplexity(labels, 4).item() == pytest.approx(expected)


def test_a_pool_too_small_for_its_clusters_is_refused():
    with pytest.raises(ConfigError, match="12 clusters of 20 frames"):
        build(pool=20)

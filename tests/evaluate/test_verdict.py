import json

import numpy as np
import pytest

from mainspring.evaluate.probe import probe
from mainspring.evaluate.vectors import Vectors
from mainspring.evaluate.verdict import margins, unlabelled, verdict


def labelled(apart: float, seed: int):
    rng = np.random.default_rng(seed)
    labels = np.array(["up", "down", "left", "right"] * 30, object)
    centres = dict(zip(["up", "down", "left", "right"], np.eye(4, 8), strict=True))
    matrix = apart * np.stack([centres[name] for name in labels]) + rng.normal(size=(120, 8))
    groups = np.arange(120).astype(str).astype(object)
    return probe(matrix.astype(np.float32), labels, groups, seeds=(0,), per_class=())


def windows(noise: float, recordings: int = 80, each: int = 3, seed: int = 0) -> Vectors:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(recordings, 16)).repeat(each, axis=0)
    count = recordings * each
    return Vectors(
        matrix=(base + noise * rng.normal(size=(count, 16))).astype(np.float32),
        uris=np.array([f"{row // each}.mp4" for row in range(count)], object),
        starts=np.tile(np.arange(each) * 2.0, recordings),
        ends=np.tile(np.arange(each) * 2.0 + 2, recordings),
        rows=np.arange(count) // each,
        groups=np.full(count, None, object),
        labels=np.full(count, None, object),
    )


def test_better_than_both() -> None:
    results = {
        "trained": labelled(4, 0),
        "random weights": labelled(0, 1),
        "raw features": labelled(1, 2),
    }
    said = verdict(results).splitlines()
    assert "right for" in said[0]
    assert "of 120" in said[0]
    assert "commonest of 4 classes: 25.0 %" in said[0] or "4 classes" in said[0]
    by = margins(results)["random weights"]
    assert by.mean == pytest.approx(
        results["trained"].accuracy - results["random weights"].accuracy
    )
    assert said[1].startswith("Than random weights (")
    assert f"better by {100 * by.mean:.1f} points ({100 * by.low:.1f} to" in said[1]
    assert said[-1] == "Training paid."


def test_no_better_and_worse() -> None:
    said = verdict(
        {
            "trained": labelled(1, 0),
            "random weights": labelled(1, 1),
            "raw features": labelled(9, 2),
        }
    )
    assert "no better; the difference" in said.splitlines()[1]
    assert "worse by " in said.splitlines()[2]
    assert "worse by -" not in said
    assert "not shown its worth against random weights or raw features" in said


def test_without_labels_two_windows_find_each_other() -> None:
    good, bad = unlabelled(windows(0.3)), unlabelled(windows(30.0))
    assert good.accuracy is not None
    assert good.accuracy > 0.9
    assert bad.accuracy is not None
    assert bad.accuracy < 0.1
    assert good.chance == pytest.approx(1 / 80)
    assert 10 < good.rank <= 16
    said = verdict({"trained": good, "random weights": bad})
    assert "of 80 recordings, one window finds the other" in said
    assert "better by" in said
    assert "Effective rank: trained 1" in said
    assert "of 16, random weights" in said
    assert "the background included" in said
    assert json.loads(json.dumps(good.to_dict()))["dim"] == 16


def test_better_than_one_alone_is_not_enough() -> None:
    said = verdict(
        {
            "trained": labelled(4, 0),
            "random weights": labelled(0, 1),
            "raw features": labelled(9, 2),
        }
    )
    assert "Training paid" not in said
    assert "not shown its worth against raw features:" in said


def test_windows_are_tallied_by_group() -> None:
    vectors = windows(0.3, recordings=80)
    vectors.groups[:] = [f"room {row // 40}" for row in vectors.rows]
    found = unlabelled(vectors)
    assert found.tally.groups.tolist() == ["room 0", "room 1"]
    assert (found.low, found.high) == (0, 1)


def test_unlabelled_by_a_slow_loop() -> None:
    vectors = windows(2.0, recordings=30, each=4, seed=3)
    shuffled = vectors[np.random.default_rng(0).permutation(len(vectors))]
    unit = vectors.matrix / np.linalg.norm(vectors.matrix, axis=1, keepdims=True)
    first, last = unit[0::4], unit[3::4]
    expected = np.mean([(last @ query).argmax() == n for n, query in enumerate(first)])
    assert unlabelled(vectors).accuracy == pytest.approx(expected)
    assert unlabelled(shuffled).accuracy == pytest.approx(expected)


def test_windows_that_overlap_do_not_count() -> None:
    vectors = windows(0.1, each=2)
    vectors.ends[:] = vectors.starts + 2.5
    assert unlabelled(vectors).accuracy is None
    said = verdict({"trained": unlabelled(vectors), "random weights": unlabelled(vectors)})
    assert "only the effective rank can be told" in said
    assert "Training paid" not in said


def test_collapsed_vectors_are_at_chance() -> None:
    vectors = windows(0.1)
    vectors.matrix[:] = 1
    found = unlabelled(vectors)
    assert found.accuracy == pytest.approx(1 / 80)
    assert found.rank == 0

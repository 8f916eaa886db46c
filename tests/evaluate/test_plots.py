"""Pictures show the numbers they were given."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from report_world import EVIL, result, steps, world

from mainspring.errors import ConfigError, DataError
from mainspring.evaluate import plots
from mainspring.evaluate.curves import MOST_STEPS
from mainspring.evaluate.drawing import canvas, name_ends, png, said, short


def test_curves_draw_the_numbers_of_the_steps() -> None:
    rows = steps(90)
    rows[7]["loss"] = float("nan")
    del rows[8]["rank"]
    figure = plots.curves(rows)
    loss, answers, rank, spread, task = figure.axes
    kept = [row["loss"] for row in rows if row["step"] != 8]
    raw, smooth = loss.get_lines()
    np.testing.assert_allclose(raw.get_ydata(), kept)
    slow = [np.mean(kept[max(0, i - 1) : i + 2]) for i in range(89)]
    np.testing.assert_allclose(smooth.get_ydata(), slow)
    lines = answers.get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), [row["answers"]["speed"][0] for row in rows])
    np.testing.assert_allclose(lines[2].get_ydata(), 0.25)
    assert lines[2].get_linestyle() == "--"
    assert answers.get_title(loc="left") == "1 of 2 questions answered beyond chance"
    assert len(rank.get_lines()[0].get_xdata()) == 89
    assert "Spread 0.7 → 0.7" in said(figure)
    assert task.get_ylabel() == "task loss"
    assert spread.get_xlabel() == "step (of 8 samples)"


def test_very_long_runs_are_drawn_by_means() -> None:
    rows = [{"step": i, "loss": float(i % 10)} for i in range(10 * MOST_STEPS)]
    line = plots.curves(rows).axes[0].get_lines()[0]
    np.testing.assert_allclose(line.get_ydata(), np.full(MOST_STEPS, 4.5))


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(DataError, match="no step"):
        plots.curves([])
    with pytest.raises(DataError, match="no probe"):
        plots.label_curve({})
    with pytest.raises(DataError, match="no arm"):
        plots.arms({"one": {}})
    with pytest.raises(DataError, match="at least 3"):
        plots.map_2d(world()[:2])


def test_map_keeps_the_distances_of_a_plane() -> None:
    rng = np.random.default_rng(3)
    plane = rng.normal(size=(30, 2)) * [3, 1]
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    vectors = replace(world(15), matrix=(plane @ turn + 5).astype(np.float32))
    vectors.matrix[4] = np.nan
    figure = plots.map_2d(vectors)
    points = np.asarray(figure.axes[0].collections[0].get_offsets())
    kept = np.delete(plane, 4, axis=0)

    def apart(x: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x[:, None] - x, axis=2)

    np.testing.assert_allclose(apart(points), apart(kept), atol=1e-4)
    assert said(figure) == "29 windows: two directions hold 100 % of their variance"


def test_map_colours_names_and_greys_the_unknown() -> None:
    vectors = world()
    names = vectors.labels.copy()
    names[:5] = None
    axes = plots.map_2d(vectors, names).axes[0]
    sizes = [len(np.asarray(dots.get_offsets())) for dots in axes.collections]
    counts = [(names == name).sum() for name in sorted({"_a", "$b$", EVIL})]
    assert sizes == [5, *counts]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][1:3] == [" $b$", f" {short(EVIL, 24)}"]
    colours = {tuple(dots.get_facecolor()[0]) for dots in axes.collections}
    assert len(colours) == 4


def test_map_by_umap_needs_it_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match=r"mainspring\[umap\]"):
        plots.map_2d(world(), method="umap")
    with pytest.raises(ConfigError, match="Did you mean 'pca'"):
        plots.map_2d(world(), method="pcs")

    class UMAP:
        def __init__(self, **settings: object) -> None:
            assert settings["random_state"] == 3

        def fit_transform(self, matrix: np.ndarray) -> np.ndarray:
            return matrix[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    axes = plots.map_2d(world(), method="umap", seed=3).axes[0]
    np.testing.assert_allclose(axes.collections[0].get_offsets(), world().matrix[:, :2])


def test_confusion_rows_are_shares_of_the_true_class() -> None:
    figure = plots.confusion(result())
    image = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(image, [[0.8, 0.1, 0.1], [0.5, 0.5, 0], [0, 0.2, 0.8]])
    assert said(figure) == "$roll$ is taken for _fall in 50 %"
    perfect = replace(result(), confusion=np.eye(3))
    assert said(plots.confusion(perfect)) == "No class is taken for another"


def test_many_long_classes_still_fit() -> None:
    names = [f"{'long ' * 8}{i}" for i in range(40)]
    figure = plots.confusion(replace(result(), classes=names, confusion=np.eye(40)))
    assert figure.get_size_inches()[0] <= 9.6
    assert png(figure)


def test_label_curve_draws_accuracy_over_labels() -> None:
    results = {"random weights": result(0.4, (0.1, 0.2)), "trained": result(0.8, (0.3, 0.45))}
    figure = plots.label_curve(results)
    axes = figure.axes[0]
    heights = [np.asarray(b.lines[0].get_ydata(), float) for b in axes.containers]
    np.testing.assert_allclose(heights, [[0.1, 0.2, 0.4], [0.3, 0.45, 0.8]])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "5", "all"]
    assert [t.get_text() for t in axes.texts] == [
        "chance 34.0 %", "random weights 40 %", "trained 80 %",
    ]  # fmt: skip
    assert said(figure) == "trained needs 5 labels a class for what random weights does with all"


def test_best_of_the_trained_is_talked_about_where_none_is_named_so() -> None:
    arms = {"raw features": result(0.9), "one": result(0.5), "both": result(0.6)}
    assert plots.subject(arms) == "both"
    assert plots.subject({"raw features": result(0.9)}) == "raw features"
    assert said(plots.label_curve(arms)) == "With all labels: both 60 %, raw features 90 %"


def test_arms_are_bars_of_the_given_heights() -> None:
    def one(accuracy: float, chance: float = 0.1) -> dict[str, float]:
        return {"accuracy": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.2,
                "chance": chance}  # fmt: skip

    figure = plots.arms(
        {
            "contrast only": {"motion": one(0.3), "looks": one(0.8, 0.25)},
            "task only": {"motion": one(0.7)},
        }
    )
    axes = figure.axes[0]
    heights = sorted(patch.get_height() for patch in axes.patches)  # type: ignore[attr-defined]
    np.testing.assert_allclose(heights, [0.3, 0.7, 0.8])
    reach = [segment[:, 1] for bars in axes.collections for segment in bars.get_segments()]
    np.testing.assert_allclose(sorted(map(tuple, reach)), [(0.2, 0.5), (0.6, 0.9), (0.7, 1.0)])
    dashed = [line.get_ydata()[0] for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert dashed == [0.1, 0.25]
    assert said(figure) == "motion best by task only (70 %); looks best by contrast only (80 %)"


def test_names_at_ends_keep_apart_and_in_order() -> None:
    with canvas(3) as figure:
        axes = figure.subplots()
        heights = [0.5, 0.51, 0.1, 0.5, 0.9]
        name_ends(axes, [(h, f"{i}", "k") for i, h in enumerate(heights)], 0.05)
    at = {int(text.get_text()): text.get_position()[1] for text in axes.texts}
    order = sorted(at, key=lambda i: at[i])
    assert order == [2, 0, 3, 1, 4]
    assert min(np.diff([at[i] for i in order])) > 0.05 - 1e-9
    np.testing.assert_allclose([at[2], at[4]], [0.1, 0.9])
    np.testing.assert_allclose(np.mean([at[0], at[1], at[3]]), np.mean([0.5, 0.51, 0.5]))


def test_short_keeps_both_ends() -> None:
    assert short("abc\n def", 20) == "abc def"
    assert short("abcdefghij", 5) == "ab…ij"
    assert len(short("x" * 99, 24)) == 24
    assert short("\udcff", 5) == "?"


def test_a_measure_that_is_always_zero_has_no_values_below() -> None:
    rows = [{"step": step, "loss": 0.5, "silent": 0.0} for step in range(1, 9)]
    drawn = plots.curves(rows).axes
    (zero,) = [axes for axes in drawn if axes.get_ylabel() == "silent"]
    assert zero.get_ylim() == (0, 1)

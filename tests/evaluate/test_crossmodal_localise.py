"""Pointing game and IoU, against loops over pixels and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from mainspring.errors import DataError
from mainspring.evaluate.localise import boxes, discs, enlarged, highest, localise, points_of

SIZE = (48, 64)


def scene(seed: int, count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform([8, 8], [56, 40], (count, 2)), rng.uniform(4, 8, count)


def bumps(places: np.ndarray, width: float = 10.0) -> np.ndarray:
    """Maps of 6 x 8 cells, each largest where the object is."""
    down, right = (np.arange(6)[:, None] + 0.5) * 8, (np.arange(8) + 0.5) * 8
    away = (right - places[:, 0, None, None]) ** 2 + (down - places[:, 1, None, None]) ** 2
    return np.exp(-away / width**2).astype(np.float32)


def test_discs_and_boxes_pixel_by_pixel() -> None:
    places, radii = scene(0, 3)
    disc = discs(places, radii, SIZE)
    box = boxes(np.array([[3.0, 5.0, 20.0, 9.0]]), SIZE)
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            away = (x + 0.5 - places[:, 0]) ** 2 + (y + 0.5 - places[:, 1]) ** 2
            np.testing.assert_array_equal(disc[:, y, x], away <= radii**2)
            assert box[0, y, x] == (3 <= x < 20 and 5 <= y < 9)
    assert disc.sum(axis=(1, 2)) == pytest.approx(np.pi * radii**2, rel=0.1)


def test_every_score_equals_the_loop() -> None:
    places, radii = scene(1, 5)
    truth = discs(places, radii, SIZE)
    maps = bumps(places) + np.random.default_rng(2).normal(0, 0.3, (5, 6, 8)).astype(np.float32)
    found, fine = localise(maps, truth, np.arange(5)), enlarged(maps, SIZE)
    for row in range(5):
        cell = divmod(int(maps[row].argmax()), 8)
        assert found.pointing.correct[row] == truth[row, cell[0] * 8 + 4, cell[1] * 8 + 4]
        low, high = fine[row].min(), fine[row].max()
        both = either = 0
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                marked = fine[row, y, x] >= (low + high) / 2
                both += marked and truth[row, y, x]
                either += marked or truth[row, y, x]
        assert found.half.correct[row] == pytest.approx(both / either)
        size = int(truth[row].sum())
        top = set(np.argsort(fine[row].ravel())[-size:].tolist())
        object_ = set(np.flatnonzero(truth[row]).tolist())
        assert found.area.correct[row] == pytest.approx(len(top & object_) / len(top | object_))
    assert found.pointing_chance == pytest.approx(truth.mean())


def test_maps_that_know_beat_those_that_do_not() -> None:
    places, radii = scene(3)
    found = localise(bumps(places), discs(places, radii, SIZE), np.arange(30))
    assert found.pointing.mean > 0.8
    assert found.pointing_swapped < 0.2
    assert found.area.mean > 0.4 > 3 * found.area_chance
    assert found.half.mean > 2 * found.half_swapped
    said = found.to_dict(np.random.default_rng(0))["pointing"]
    assert said["interval"][0] > 3 * said["chance"]


def test_a_map_without_an_opinion_is_chance() -> None:
    places, radii = scene(4, 200)
    truth = discs(places, radii, SIZE)
    found = localise(np.full((200, 6, 8), 0.3, np.float32), truth, np.arange(200))
    assert found.pointing.mean == pytest.approx(found.pointing_chance, rel=0.05)
    assert found.half.mean == pytest.approx(found.half_chance) == pytest.approx(truth.mean())
    assert found.area.mean == pytest.approx(found.area_chance)


def test_a_map_that_only_knows_where_things_tend_to_be_is_told_by_swapping() -> None:
    rng = np.random.default_rng(5)
    places = rng.normal([28, 20], 2, (50, 2))
    truth = discs(places, np.full(50, 6.0), SIZE)
    found = localise(bumps(np.full((50, 2), [28.0, 20.0])), truth, np.arange(50))
    assert found.pointing.mean > 5 * found.pointing_chance
    assert found.pointing.mean == pytest.approx(found.pointing_swapped, abs=0.05)
    assert found.area.mean == pytest.approx(found.area_swapped, abs=0.05)


def test_the_scale_and_level_of_a_map_do_not_matter() -> None:
    places, radii = scene(6, 10)
    truth, maps = discs(places, radii, SIZE), bumps(places)
    a, b = localise(maps, truth, np.arange(10)), localise(8 * maps - 4, truth, np.arange(10))
    assert a.pointing.mean == b.pointing.mean
    assert a.half.mean == pytest.approx(b.half.mean, rel=1e-3)
    assert a.area.mean == pytest.approx(b.area.mean, rel=1e-3)


def test_a_larger_radius_is_a_margin() -> None:
    maps, place = bumps(np.array([[28.0, 20.0]])), np.array([[35.0, 20.0]])
    groups = np.arange(1)
    assert localise(maps, discs(place, np.array([6.0]), SIZE), groups).pointing.mean == 0
    wide = localise(maps, discs(place, np.array([9.0]), SIZE), groups)
    assert wide.pointing.mean == 1
    assert np.isnan(wide.pointing_swapped)


def test_equal_cells_share_the_point_and_equal_pixels_the_area() -> None:
    maps = np.array([[[1, 0], [1, 0]]], np.float32)
    points = points_of(maps, (4, 4))
    assert points[0, 1, 1] == points[0, 3, 1] == 0.5
    fine = np.array([[[3.0, 2.0], [2.0, 1.0]]])
    np.testing.assert_allclose(highest(fine, np.array([2])), [[[1, 0.5], [0.5, 0]]])


def test_objects_out_of_the_picture_and_broken_maps_are_refused() -> None:
    maps = bumps(np.array([[10.0, 10.0], [20.0, 20.0]]))
    truth = discs(np.array([[10.0, 10.0], [900.0, 20.0]]), np.array([5.0, 5.0]), SIZE)
    with pytest.raises(DataError, match="1 objects have no pixel and 0 maps are not finite"):
        localise(maps, truth, np.arange(2))
    maps[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="0 objects have no pixel and 1 maps are not finite"):
        localise(maps, truth[[0, 0]], np.arange(2))

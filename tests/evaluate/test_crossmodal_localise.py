"""Pointing game and IoU, against loops over pixels and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mainspring.encoders.catalog import find
from mainspring.errors import DataError
from mainspring.evaluate.localise import boxes, discs, enlarge, highest, localise, points

SIZE = (48, 64)


def scene(seed: int, count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform([8, 8], [56, 40], (count, 2)), rng.uniform(4, 8, count)


def bumps(places: np.ndarray, width: float = 10.0) -> np.ndarray:
    """Maps that are largest where the object is."""
    down, right = np.arange(SIZE[0])[:, None] + 0.5, np.arange(SIZE[1]) + 0.5
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
    maps = bumps(places) + np.random.default_rng(2).normal(0, 0.3, (5, *SIZE)).astype(np.float32)
    found = localise(maps, truth, np.arange(5))
    for row in range(5):
        assert found.pointing.correct[row] == truth[row].flat[maps[row].argmax()]
        low, high = (float(end) for end in (maps[row].min(), maps[row].max()))
        both = either = 0
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                marked = maps[row, y, x] >= (low + high) / 2
                both += marked and truth[row, y, x]
                either += marked or truth[row, y, x]
        assert found.half.correct[row] == pytest.approx(both / either)
        size = int(truth[row].sum())
        top = set(np.argsort(maps[row].ravel())[-size:].tolist())
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


def test_a_map_without_an_opinion_is_no_better_than_chance() -> None:
    places, radii = scene(4, 200)
    truth = discs(places, radii, SIZE)
    found = localise(np.full((200, *SIZE), 0.3, np.float32), truth, np.arange(200))
    assert found.pointing.mean == 0  # the corner, where no object is
    assert found.half.mean == pytest.approx(found.half_chance) == pytest.approx(truth.mean())
    assert found.area.mean == pytest.approx(found.area_chance)


def test_a_map_that_only_knows_where_things_tend_to_be_is_told_by_swapping() -> None:
    rng = np.random.default_rng(5)
    places = rng.normal([28, 20], 2, (50, 2))
    truth = discs(places, np.full(50, 6.0), SIZE)
    found = localise(bumps(np.full((50, 2), [28.0, 20.0])), truth, np.arange(50))
    assert found.pointing.mean > 5 * found.pointing_chance
    assert found.pointing.mean == pytest.approx(found.pointing_swapped)
    assert found.half.mean == pytest.approx(found.half_swapped)
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


def test_the_point_of_a_map_whose_last_token_is_highest_is_what_that_token_looks_at() -> None:
    grid = np.zeros((1, 6, 6), np.float32)
    grid[0, 5, 5] = 1
    (point,) = points(enlarge(grid, 96, 96))
    assert point.sum() == point[80, 80] == 1


def test_equal_pixels_at_the_edge_share_the_area() -> None:
    levels = np.array([[[3.0, 2.0], [2.0, 1.0]]])
    np.testing.assert_allclose(highest(levels, np.array([2])), [[[1, 0.5], [0.5, 0]]])


def test_objects_out_of_the_picture_and_broken_maps_are_refused() -> None:
    maps = bumps(np.array([[10.0, 10.0], [20.0, 20.0]]))
    truth = discs(np.array([[10.0, 10.0], [900.0, 20.0]]), np.array([5.0, 5.0]), SIZE)
    with pytest.raises(DataError, match="1 objects have no pixel and 0 maps are not finite"):
        localise(maps, truth, np.arange(2))
    maps[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="0 objects have no pixel and 1 maps are not finite"):
        localise(maps, truth[[0, 0]], np.arange(2))


def test_enlarged_maps_keep_levels_and_slopes() -> None:
    flat = np.full((1, 6, 6), 0.3, np.float32)
    np.testing.assert_allclose(enlarge(flat, 96, 96), 0.3, atol=1e-6)
    slope = np.tile(np.arange(6, dtype=np.float32), (1, 6, 1))
    np.testing.assert_allclose(
        enlarge(slope, 96, 96)[0, 50, 16:64], np.arange(16, 64) / 16, atol=1e-5
    )


def test_what_two_tokens_see_alike_lies_between_them() -> None:
    grid = np.zeros((1, 6, 6), np.float32)
    grid[0, 2:4, 1] = 1
    assert divmod(int(enlarge(grid, 96, 96).argmax()), 96) == (40, 16)


@pytest.mark.parametrize(("size", "crop", "first"), [(96, 0, 0), (192, 0, 0), (96, 48, 24)])
def test_a_token_lies_on_the_pixel_it_looks_at(size: int, crop: int, first: int) -> None:
    grid = np.zeros((1, 6, 6), np.float32)
    grid[0, 2, 4] = 1
    row, column = divmod(int(enlarge(grid, 96, size, crop).argmax()), 96)
    cell = (crop or size) / 6 * 96 / size
    assert (row, column) == (first + 2 * cell, first + 4 * cell)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("r2plus1d_tiny", {}), ("r3d18", {"width": 4}), ("slow18", {"width": 8})],
)
def test_convolutional_encoders_look_at_the_first_pixel_of_a_cell(
    name: str, settings: dict
) -> None:
    """Where, by the gradient, the middle token of a grid gets its value from."""
    size, places = 192, []
    for seed in range(4):
        torch.manual_seed(seed)
        encoder = find(name)(**settings)
        pixels = torch.rand(2, 2, size, size, 3, requires_grad=True)
        tokens = encoder.tokens(pixels)
        middle = tokens.shape[2] // 2
        tokens[:, :, middle, middle].square().sum().backward()
        weight = pixels.grad.square().sum((0, 1, 4))
        along = torch.arange(size).float()
        places += [float(weight.sum(axis) @ along / weight.sum()) for axis in (0, 1)]
    cell = size / tokens.shape[2]
    assert np.mean(places) == pytest.approx(cell * middle, abs=cell / 5)

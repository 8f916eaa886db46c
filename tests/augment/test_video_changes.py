import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mainspring.augment.video import (
    LUMA,
    VideoAugment,
    centre,
    colour,
    cut,
    gaussian,
    interpolation,
    resample,
    rotate,
)
from mainspring.errors import ConfigError

NOTHING = VideoAugment(flip=0.0)


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clips(n: int = 6, time: int = 3, height: int = 20, width: int = 20) -> torch.Tensor:
    return torch.randint(0, 256, (n, time, height, width, 3), dtype=torch.uint8, generator=dice(99))


def per_view(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


# -- the whole ------------------------------------------------------------------------------------


def test_with_every_setting_zero_nothing_is_changed():
    samples = clips()
    assert torch.equal(NOTHING(samples, dice()), samples)
    floats = samples.float() / 255
    assert torch.equal(NOTHING(floats, dice()), floats)


@pytest.mark.parametrize(
    "augment",
    [
        VideoAugment(crop=12),
        VideoAugment(crop=12, scale=(0.3, 1.0)),
        VideoAugment(crop=12, blur=1.0),
        VideoAugment(jitter=0.8, grey=0.2),
        VideoAugment(crop=16, scale=(0.3, 1.0), jitter=0.5, grey=0.2, blur=0.5),
    ],
)
class TestEveryAugment:
    def test_the_same_generator_gives_the_same_views(self, augment):
        assert torch.equal(augment(clips(), dice(1)), augment(clips(), dice(1)))
        assert not torch.equal(augment(clips(), dice(1)), augment(clips(), dice(2)))

    def test_all_frames_of_a_clip_agree_and_views_do_not(self, augment):
        # The mean grey of a clip steers contrast: the same picture everywhere keeps it equal.
        samples = clips(n=1, time=1).expand(8, 3, -1, -1, -1)
        views = augment(samples, dice(3))
        assert torch.equal(views, views[:, :1].expand_as(views))
        assert any(not torch.equal(views[0], other) for other in views[1:])

    def test_values_and_size_stay_in_bounds(self, augment):
        views = augment(clips(), dice(4))
        top = 255 if views.dtype == torch.uint8 else 1
        assert views.min() >= 0
        assert views.max() <= top
        assert views.shape[2:4] == (augment.crop or 20,) * 2

    def test_bytes_and_floats_agree(self, augment):
        bytes_in = augment(clips(), dice(5)).float()
        if bytes_in.max() > 1:
            bytes_in /= 255
        floats_in = augment(clips().float() / 255, dice(5))
        # Resampled bytes are rounded to whole levels before colour amplifies them.
        torch.testing.assert_close(bytes_in, floats_in, atol=0.02, rtol=0)

    def test_autocast_leaves_pixels_alone(self, augment):
        plain = augment(clips(), dice(6))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(augment(clips(), dice(6)), plain)


def test_still_takes_the_centre_whatever_else_is_set():
    samples = clips()
    augment = VideoAugment(crop=12, scale=(0.2, 0.5), jitter=0.5)
    assert torch.equal(augment.still(samples), samples[:, :, 4:16, 4:16])
    assert torch.equal(replace(augment, crop=0).still(samples), samples)
    oblong = clips(height=14, width=20)
    assert torch.equal(augment.still(oblong), oblong[:, :, 1:13, 4:16])


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match=r"grey is 1\.5; it must lie between 0 and 1"):
        VideoAugment(grey=1.5)
    with pytest.raises(ConfigError, match="0 < low <= high <= 1"):
        VideoAugment(scale=(0.5, 0.2))
    with pytest.raises(ConfigError, match="number of pixels"):
        VideoAugment(crop=-1)
    with pytest.raises(ConfigError, match=r"crop of 32 pixels .* clips of 20 x 20"):
        VideoAugment(crop=32)(clips(), dice())
    with pytest.raises(ConfigError, match="use a crop of at most 20"):
        centre(clips(), 21)


# -- geometry -------------------------------------------------------------------------------------


def test_cut_equals_slicing_and_mirroring():
    samples = clips(height=18, width=23)
    top, left = torch.tensor([0, 1, 2, 3, 4, 8]), torch.tensor([13, 0, 5, 2, 1, 7])
    mirrored = torch.tensor([True, False, True, False, True, False])
    got = cut(samples, top, left, mirrored, 10, 10)
    for i in range(6):
        want = samples[i, :, top[i] : top[i] + 10, left[i] : left[i] + 10]
        assert torch.equal(got[i], want.flip(2) if mirrored[i] else want)


def test_random_crops_reach_every_corner():
    place = torch.arange(4)
    samples = torch.zeros(400, 1, 4, 4, 3, dtype=torch.uint8)
    samples[..., 0] = place[:, None] * 10 + place  # each pixel says where it was
    views = VideoAugment(crop=2, flip=0.5)(samples, dice())
    starts = views[:, 0, :, :, 0].flatten(1).min(1).values
    assert set(starts.tolist()) == {10 * y + x for y in range(3) for x in range(3)}
    mirrored = (views[:, 0, 0, 0, 0] > views[:, 0, 0, 1, 0]).float().mean()
    assert 0.4 < mirrored < 0.6


def test_both_paths_cut_the_same_pixels():
    # A stretch of whole pixels is copied exactly by the matrices too.
    samples = clips(height=18, width=23)
    top, left = torch.tensor([0, 1, 2, 3, 4, 8]), torch.tensor([13, 0, 5, 2, 1, 7])
    size = torch.full((6,), 10)
    got = resample(samples, interpolation(top, size, 10, 18), interpolation(left, size, 10, 23))
    assert torch.equal(got, cut(samples, top, left, torch.zeros(6, dtype=torch.bool), 10, 10))


@pytest.mark.parametrize("size", [7, 10, 20, 31])
def test_resizing_equals_antialiased_bilinear_interpolation(size):
    samples = clips(n=2, height=20, width=20).float() / 255
    box = per_view(0, 0), per_view(20, 20)
    matrix = interpolation(*box, size, 20)
    got = resample(samples, matrix, matrix)
    frames = samples.flatten(0, 1).permute(0, 3, 1, 2)
    want = F.interpolate(frames, (size, size), mode="bilinear", antialias=True)
    want = want.permute(0, 2, 3, 1).view_as(got)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_a_resized_crop_shows_the_part_it_was_cut_from():
    # A picture that is linear in its place stays linear, with the box's scale.
    x = torch.linspace(0, 1, 40)
    ramp = x.expand(1, 1, 40, 40)[..., None].expand(1, 1, 40, 40, 3)
    matrix = interpolation(per_view(10), per_view(20), 10, 40)
    got = resample(ramp, matrix, matrix)[0, 0, 5, :, 0]
    where = 10 + (torch.arange(10) + 0.5) * 2 - 0.5
    torch.testing.assert_close(got, where / 39, atol=1e-5, rtol=0)


def test_random_resized_crops_have_the_areas_asked_for():
    from mainspring.augment.video import _Dice

    _, _, tall, wide = _Dice(5000, dice(), torch.device("cpu")).box(100, 100, (0.2, 0.6))
    area = tall * wide / 1e4
    assert area.min() >= 0.19
    assert area.max() <= 0.61
    assert abs(area.mean() - 0.4) < 0.01
    shape = (wide / tall).log() / np.log(4 / 3)
    assert -1.01 < shape.min() < -0.95
    assert 0.95 < shape.max() < 1.01
    assert abs(shape.mean()) < 0.05


def test_random_parts_lie_anywhere_in_an_oblong_picture_and_keep_their_proportions():
    from mainspring.augment.video import _Dice

    top, left, tall, wide = _Dice(5000, dice(), torch.device("cpu")).box(60, 100, (0.2, 1.0))
    for start, size, extent in ((top, tall, 60), (left, wide, 100)):
        assert start.min() >= 0
        assert (start + size).max() <= extent + 1e-3
        room = (extent - size)[extent - size > 5]
        share = start[extent - size > 5] / room
        assert share.min() < 0.01
        assert share.max() > 0.99
    # Each pixel says where it was: what comes out spans the height and the width of its box.
    y, x = torch.linspace(0, 1, 60), torch.linspace(0, 1, 100)
    place = torch.stack([y[:, None].expand(60, 100), x.expand(60, 100), x.expand(60, 100)], -1)
    augment = VideoAugment(crop=20, flip=0.0, scale=(0.2, 1.0))
    views = augment(place.expand(300, 1, 60, 100, 3), dice())
    down = (views[:, 0, 15, 10, 0] - views[:, 0, 5, 10, 0]) * 59 * 2
    along = (views[:, 0, 10, 15, 1] - views[:, 0, 10, 5, 1]) * 99 * 2
    assert (along / down).log().abs().max() <= np.log(4 / 3) + np.log(100 / 60)
    assert (down * along).min() > 0.18 * 6000
    assert (down * along).max() > 0.8 * 6000


@pytest.mark.parametrize("settings", [{}, {"scale": (0.3, 1.0)}, {"blur": 1.0}])
def test_views_are_mirrored_as_often_as_asked(settings):
    ramp = torch.linspace(0, 1, 20)[:, None].expand(200, 1, 20, 20, 3)
    for flip in (0.0, 0.25, 1.0):
        views = VideoAugment(crop=12, flip=flip, **settings)(ramp, dice())
        mirrored = views[:, 0, 6, 2, 0] > views[:, 0, 6, 9, 0]
        assert float(mirrored.float().mean()) == pytest.approx(flip, abs=0.1 * (0 < flip < 1))


@pytest.mark.parametrize(("height", "most"), [(224, 2.0), (112, 1.0)])
def test_sigma_is_up_to_two_pixels_in_224_for_as_many_views_as_asked(height, most):
    point = torch.zeros(200, 1, height, 1, 3)
    point[:, :, height // 2] = 1
    for share in (0.25, 1.0):
        views = VideoAugment(flip=0.0, blur=share)(point, dice())[:, 0, :, 0, 0]
        here, beside = views[:, height // 2], views[:, height // 2 + 1]
        sigma = (-0.5 / (beside / here).clamp(min=1e-30).log()).sqrt()  # exp(-1 / (2 sigma²))
        assert float(sigma.max()) <= most + 1e-3
        assert float(sigma.max()) > 0.9 * most
        visible = float((sigma > 0.15 * most).float().mean())  # 1.7 of 1.9 of those
        assert visible == pytest.approx(share * 1.7 / 1.9, abs=0.08)


def test_blur_equals_a_direct_gaussian_and_keeps_flat_pictures():
    sigma = per_view(1.5)
    row = gaussian(sigma, 21)[0, 10]
    away = np.arange(21) - 10
    want = np.exp(-0.5 * (away / 1.5) ** 2)
    np.testing.assert_allclose(row, want / want.sum(), atol=1e-6)
    assert torch.equal(gaussian(per_view(0.0), 7)[0], torch.eye(7))
    flat = torch.full((2, 2, 16, 16, 3), 200, dtype=torch.uint8)
    assert torch.equal(VideoAugment(blur=1.0)(flat, dice()), flat)


# -- colour ---------------------------------------------------------------------------------------


def slow_colour(clip: np.ndarray, b: float, c: float, s: float, turn: float) -> np.ndarray:
    """One change after the other, pixel arithmetic in float64."""
    luma = np.array(LUMA)
    x = clip * b
    x = c * x + (1 - c) * (x @ luma).mean()
    x = s * x + (1 - s) * (x @ luma)[..., None]
    yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    y = x @ yiq.T
    chroma = (y[..., 1] + 1j * y[..., 2]) * np.exp(2j * np.pi * turn)
    x = np.stack([y[..., 0], chroma.real, chroma.imag], -1) @ np.linalg.inv(yiq).T
    return np.clip(x, 0, 1)


@pytest.mark.parametrize("size", [(3, 20, 20), (1, 3, 5)])
def test_one_matrix_equals_one_change_after_the_other(size):
    samples = clips(3, *size)
    b, c = per_view(0.7, 1.2, 1.0), per_view(1.3, 0.6, 1.0)
    s, turn = per_view(0.5, 1.6, 0.0), per_view(0.1, -0.2, 0.05)
    got = colour(samples, b, c, s, turn).numpy()
    for i in range(3):
        clip = samples[i].numpy() / 255
        want = slow_colour(clip, *(float(v[i]) for v in (b, c, s, turn)))
        np.testing.assert_allclose(got[i], want, atol=2e-5)


def test_neutral_amounts_change_no_colour():
    one = torch.ones(6)
    got = colour(clips(), one, one, one, torch.zeros(6))
    torch.testing.assert_close(got, clips().float() / 255, atol=1e-5, rtol=0)


def test_hue_turns_colours_and_leaves_greys():
    grey = torch.full((1, 1, 2, 2, 3), 0.4)
    one = torch.ones(1)
    torch.testing.assert_close(colour(grey, one, one, one, per_view(0.3)), grey)
    red = torch.tensor([0.6, 0.3, 0.3]).expand(1, 1, 2, 2, 3)
    third = colour(red, one, one, one, per_view(1 / 3))[0, 0, 0, 0].tolist()
    shift = (colorsys.rgb_to_hsv(*third)[0] - colorsys.rgb_to_hsv(0.6, 0.3, 0.3)[0]) % 1
    assert min(abs(shift - 1 / 3), abs(shift - 2 / 3)) < 0.1  # a third of the way round


def test_jitter_scales_by_its_strength_and_turns_by_a_quarter_of_it():
    strength = 0.4
    augment = VideoAugment(flip=0.0, jitter=strength)
    yiq = torch.tensor(
        [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
    )
    flat = torch.tensor([0.45, 0.4, 0.37]).expand(3000, 1, 1, 1, 3)
    seen, was = augment(flat, dice()).flatten(1) @ yiq.T, flat[0].flatten() @ yiq.T
    light = seen[:, 0] / was[0]  # a flat picture has no contrast to change
    assert 0.6 <= float(light.min()) < 0.61
    assert 1.39 < float(light.max()) <= 1.4001
    turn = torch.atan2(seen[:, 2], seen[:, 1]) - torch.atan2(was[2], was[1])
    turn = turn / (2 * torch.pi)
    assert -0.1001 <= float(turn.min()) < -0.098
    assert 0.098 < float(turn.max()) <= 0.1001
    strong = seen[:, 1:].norm(dim=1) / was[1:].norm() / light  # of contrast and saturation
    assert 0.36 <= float(strong.min()) < 0.45
    assert 1.8 < float(strong.max()) <= 1.9601


def test_grey_takes_all_colour_away():
    views = VideoAugment(flip=0.0, grey=1.0)(clips(), dice())
    torch.testing.assert_close(views[..., 0], views[..., 1], atol=1e-5, rtol=0)
    want = (clips().float() / 255) @ torch.tensor(LUMA)
    torch.testing.assert_close(views[..., 2], want, atol=1e-5, rtol=0)


# -- rotation -------------------------------------------------------------------------------------


def test_quarter_turns_are_exact():
    quarter = torch.tensor([0, 1, 2, 3, 1, 2])
    samples = clips()
    turned = rotate(samples, quarter)
    for i, k in enumerate(quarter.tolist()):
        assert torch.equal(turned[i], torch.rot90(samples[i], k, (1, 2)))
    assert torch.equal(rotate(turned, -quarter), samples)


def test_jitter_turns_the_way_quarters_turn():
    samples = clips()
    by_jitter = rotate(samples, torch.zeros(6, dtype=torch.long), torch.full((6, 3), 90.0))
    assert torch.equal(by_jitter, rotate(samples, torch.ones(6, dtype=torch.long)))
    still = rotate(samples, torch.zeros(6, dtype=torch.long), torch.zeros(6, 3))
    assert torch.equal(still, samples)


def test_jitter_is_bilinear_with_the_border_mirrored():
    samples = clips(n=1, time=1).double()
    angle = 3.0
    got = rotate(samples.float(), torch.tensor([0]), torch.tensor([[angle]]))[0, 0]
    picture = samples[0, 0].numpy()
    padded = np.pad(picture, ((4, 4), (4, 4), (0, 0)), mode="symmetric")
    a, middle = np.deg2rad(angle), 9.5
    for row, column in [(0, 0), (19, 3), (10, 10), (5, 19)]:
        v, u = row - middle, column - middle
        y = u * np.sin(a) + v * np.cos(a) + middle + 4
        x = u * np.cos(a) - v * np.sin(a) + middle + 4
        y0, x0 = int(np.floor(y)), int(np.floor(x))
        want = sum(
            padded[y0 + j, x0 + i] * abs(1 - j - (y - y0)) * abs(1 - i - (x - x0))
            for j in (0, 1)
            for i in (0, 1)
        )
        np.testing.assert_allclose(got[row, column].numpy(), want, atol=2e-2)


def test_jitter_leaves_no_dark_corners():
    flat = torch.full((4, 2, 16, 16, 3), 255, dtype=torch.uint8)
    degrees = torch.tensor([[-3.0, 3.0]]).expand(4, 2)
    assert torch.equal(rotate(flat, torch.arange(4), degrees), flat)


def test_oblong_clips_turn_by_halves_only():
    oblong = clips(height=10, width=20)
    assert torch.equal(rotate(oblong, torch.full((6,), 2)), oblong.flip(2, 3))
    with pytest.raises(ConfigError, match="use a square crop"):
        rotate(oblong, torch.ones(6, dtype=torch.long))

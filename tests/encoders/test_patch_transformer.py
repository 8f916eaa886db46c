"""PatchTransformer: equality with a slow reference, and what absent values must not change."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mainspring.encoders.catalog import find
from mainspring.encoders.patch_transformer import Dropout, PatchTransformer, sine_positions
from mainspring.encoders.saved import load_encoder, save_encoder
from mainspring.errors import ConfigError, DataError
from mainspring.training.step import frozen_statistics


def series(n: int = 3, time: int = 50, channels: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, time, channels, generator=torch.Generator().manual_seed(seed))


def small(**settings) -> PatchTransformer:
    """Evaluating, with running statistics and "missing" weights that are not those of the start."""
    torch.manual_seed(0)
    plain = {"channels": 2, "patch": 8, "dim": 16, "depth": 2, "heads": 4, "hidden": 24}
    encoder = PatchTransformer(**{**plain, "context": 96, **settings})
    torch.nn.init.normal_(encoder.missing.weight, std=0.1)
    encoder(series(20, 40, 2, seed=5) + 1)
    return encoder.eval()


def gappy(samples: torch.Tensor, seed: int = 1, share: float = 0.3) -> torch.Tensor:
    hole = torch.rand(samples.shape, generator=torch.Generator().manual_seed(seed)) < share
    return samples.masked_fill(hole, torch.nan)


# -- the network ----------------------------------------------------------------------------------


def test_patchtsts_size():
    encoder = PatchTransformer()
    layer = 4 * (128 * 128 + 128) + 2 * 128 * 512 + 512 + 128 + 4 * 128
    missing = 12 * 128  # ours
    count = sum(p.numel() for p in encoder.parameters())
    assert count == 3 * layer + (12 * 128 + 128) + 42 * 128 + missing
    assert encoder.tokens(series(2, 512, 1)).shape == (2, 42, 1, 128)
    assert (encoder.settings["heads"], encoder.settings["dropout"]) == (16, 0.2)
    assert not encoder.missing.weight.any()  # without gaps it is PatchTST
    assert encoder.positions is not None
    assert 0.019 < float(encoder.positions.detach().abs().max()) <= 0.02


def test_dropout_is_on_patches_and_in_both_halves_of_a_layer():
    encoder, calls = small().train(), []
    for module in encoder.modules():
        if isinstance(module, Dropout):
            module.register_forward_hook(lambda module, given, out: calls.append(out.shape))
    encoder(series(time=48))
    layer = [(6, 6, 16), (6, 6, 24), (6, 6, 16)]  # after attention, between and after the maps
    assert [tuple(shape) for shape in calls] == [(6, 6, 16), *layer, *layer]


def slow_tokens(encoder: PatchTransformer, window: np.ndarray) -> np.ndarray:
    """The tokens of one channel of one window without gaps, in float64, patch by patch and head
    by head (evaluating)."""

    def weights(layer):
        return [p.detach().double().numpy() for p in layer.parameters()]

    def linear(layer, x):
        weight, bias = weights(layer)
        return weight @ x + bias

    def normed(layer, x):
        gain, offset = weights(layer)
        if isinstance(layer, torch.nn.BatchNorm1d):
            mean, variance = layer.running_mean.double().numpy(), layer.running_var.double().numpy()
        else:
            mean, variance = x.mean(), x.var()
        return (x - mean) / np.sqrt(variance + 1e-5) * gain + offset

    units = (window - window.mean()) / window.std()
    patch, stride = encoder.patch, encoder.stride
    count = (len(units) - patch) // stride + 1
    first = len(units) - patch - (count - 1) * stride  # what is too much is cut off in front
    tokens = []
    for k in range(count):
        steps = units[first + k * stride :][:patch]
        if encoder.positions is None:
            half = np.arange(0, encoder.width, 2) / encoder.width
            position = np.empty(encoder.width)
            position[0::2], position[1::2] = np.sin(k / 1e4**half), np.cos(k / 1e4**half)
        else:
            position = encoder.positions[k].detach().double().numpy()
        tokens.append(linear(encoder.project, steps) + position)
    for layer in encoder.layers:
        dim, head = encoder.width, encoder.width // layer.heads
        qkv = [linear(layer.qkv, token) for token in tokens]
        mixed = []
        for i in range(count):
            parts = []
            for h in range(layer.heads):
                q = qkv[i][h * head : (h + 1) * head]
                k = np.stack([row[dim + h * head : dim + (h + 1) * head] for row in qkv])
                v = np.stack([row[2 * dim + h * head : 2 * dim + (h + 1) * head] for row in qkv])
                score = np.exp(k @ q / np.sqrt(head))
                parts.append(score @ v / score.sum())
            mixed.append(normed(layer.norm1, tokens[i] + linear(layer.out, np.concatenate(parts))))
        tokens = []
        for x in mixed:
            inner = F.gelu(torch.from_numpy(linear(layer.wide, x))).numpy()
            tokens.append(normed(layer.norm2, x + linear(layer.narrow, inner)))
    return np.stack(tokens)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("positions", ["learned", "sincos"])
@pytest.mark.parametrize("stride", [0, 5])
def test_tokens_equal_a_slow_float64_reference(norm, positions, stride):
    encoder = small(norm=norm, positions=positions, stride=stride)
    samples = series() * 7 + 3
    got = encoder.tokens(samples).detach().numpy()
    for i in range(3):
        for c in range(2):
            want = slow_tokens(encoder, samples[i, :, c].double().numpy())
            np.testing.assert_allclose(got[i, :, c], want, atol=2e-5)


def test_a_channel_does_not_know_of_the_others():
    encoder, samples = small(), gappy(series())
    alone = encoder.tokens(samples[:, :, :1])
    torch.testing.assert_close(encoder.tokens(samples)[:, :, :1], alone, atol=1e-5, rtol=0)


def test_units_do_not_matter_unless_wanted():
    samples = gappy(series())
    other = samples * torch.tensor([300.0, 0.02]) + torch.tensor([-5.0, 8.0])
    torch.testing.assert_close(small()(other), small()(samples), atol=1e-4, rtol=0)
    raw = small(normalise="none")
    assert not torch.allclose(raw(other), raw(samples), atol=0.1)
    mean, scale = raw.units(samples)
    assert (mean == 0).all()
    assert (scale == 1).all()


def test_units_take_values_back():
    encoder = small()
    samples = series(time=48) * 30 + 7
    mean, scale = encoder.units(samples)
    values = encoder.prepare(samples)[..., :8]
    back = values.transpose(2, 3).flatten(1, 2) * scale + mean
    torch.testing.assert_close(back, samples, atol=1e-4, rtol=1e-5)


def test_the_affine_part_begins_as_none_and_is_learnt():
    plain, affine = small(), small(affine=True)
    samples = gappy(series())
    torch.testing.assert_close(affine(samples), plain(samples), atol=1e-5, rtol=0)
    affine(samples).square().sum().backward()
    assert affine.gain.grad.abs().sum() > 0
    assert affine.offset.grad.abs().sum() > 0


def test_channel_tokens_hold_each_channels_patches_in_order():
    encoder, samples = small(), series(time=48)
    tokens, flat = encoder.tokens(samples), encoder.channel_tokens(samples)
    assert flat.shape == (3, 2, 6 * 16)
    torch.testing.assert_close(flat[1, 1, 3 * 16 : 4 * 16], tokens[1, 3, 1])


def test_embed_is_a_mean_over_patches_and_as_wanted_over_channels():
    samples = series()
    tokens = small().tokens(samples)
    torch.testing.assert_close(small()(samples), tokens.mean((1, 2)))
    wide = small(pool="channels")
    assert wide.dim == 32
    torch.testing.assert_close(wide(samples), tokens.mean(1).flatten(1))


def test_sine_positions_tell_places_apart():
    positions = sine_positions(200, 16)
    near = torch.cdist(positions, positions) + 9 * torch.eye(200)
    assert near.min() > 0.1


# -- what is not there ----------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_padding_has_no_influence(norm, training):
    encoder = small(norm=norm, dropout=0.0).train(training)
    samples = gappy(series(time=50))
    padded = torch.cat([samples, torch.full((3, 31, 2), 1e4)], 1)
    present = (torch.arange(81) < 50).expand(3, 81)
    with frozen_statistics(encoder):
        plain, longer = encoder.tokens(samples), encoder.tokens(padded, present)
    torch.testing.assert_close(longer[:, :6], plain, atol=1e-5, rtol=0)
    assert (longer[:, 6:] == 0).all()
    torch.testing.assert_close(
        encoder.embed(longer, present), encoder.embed(plain), atol=1e-5, rtol=0
    )


def test_lengths_may_differ_within_a_batch():
    encoder, samples = small(), series(4, 70)
    present = torch.arange(70) < torch.tensor([70, 41, 9, 3])[:, None]
    together = encoder(samples, present)
    for i, length in enumerate((70, 41, 9, 3)):
        alone = encoder(samples[i : i + 1, :length])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("training", [False, True])
def test_an_unobserved_patch_does_not_exist(training):
    encoder = small(positions="sincos", dropout=0.0).train(training)
    samples = series(time=48)
    samples[0, 16:24, 0] = torch.nan
    tokens = encoder.tokens(samples)
    assert (tokens[0, 2, 0] == 0).all()
    prepared = encoder.prepare(samples)
    hidden = encoder.stem(prepared)
    changed = hidden.clone()
    changed[0, 2, 0] = 50.0
    after = encoder.trunk(changed, encoder.seen(prepared))
    torch.testing.assert_close(after, tokens, atol=1e-5, rtol=0)
    rest = [0, 1, 3, 4, 5]
    mean = torch.cat([tokens[0, rest, 0], tokens[0, :, 1]]).mean(0)
    torch.testing.assert_close(encoder.embed(tokens)[0], mean, atol=1e-5, rtol=0)


def test_a_missing_value_is_told_from_the_mean_only_by_its_flag():
    encoder, samples = small(), series(time=48)
    samples[0, 5, 0] = torch.nan
    filled = samples.clone()
    filled[0, 5, 0] = samples[0, :, 0].nanmean()
    assert not torch.allclose(encoder(filled)[0], encoder(samples)[0], atol=1e-4)
    torch.nn.init.zeros_(encoder.missing.weight)
    values = encoder.prepare(samples)
    same = torch.cat([values[..., :8], torch.ones_like(values[..., 8:])], -1)
    torch.testing.assert_close(encoder.stem(values), encoder.stem(same))


def test_gain_and_offset_leave_missing_values_at_the_mean():
    encoder = small(affine=True)
    assert encoder.gain is not None
    assert encoder.offset is not None
    torch.nn.init.normal_(encoder.gain)
    torch.nn.init.normal_(encoder.offset)
    prepared = encoder.prepare(gappy(series()))
    values, observed = prepared.split(8, -1)
    values = (values * encoder.gain + encoder.offset).masked_fill(observed == 0, 0.0)
    want = encoder.project(values) + encoder.missing(1 - observed)
    torch.testing.assert_close(encoder.stem(prepared), want)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_nothing_observed_is_zero_and_learns_nothing_that_is_no_number(norm, training):
    encoder = small(norm=norm).train(training)
    samples = series()
    samples[0] = torch.nan
    samples[1, :, 1] = torch.nan
    out = encoder(samples)
    assert (out[0] == 0).all()
    out.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())
    nothing = encoder(torch.full((2, 50, 2), torch.nan))
    assert (nothing == 0).all()
    single = series(1, 8, 1)
    assert encoder(single).isfinite().all()


def test_gaps_do_not_count_in_the_running_statistics():
    plain, padded = small(dropout=0.0).train(), small(dropout=0.0).train()
    samples = series(time=48)
    plain(samples)
    padded(
        torch.cat([samples, torch.full((3, 48, 2), torch.nan)], 1),
        (torch.arange(96) < 48).expand(3, 96),
    )
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(padded.state_dict()[name], value, msg=name)


def test_layer_norm_looks_at_each_recording_alone_and_batch_norm_does_not():
    samples = series(6, 48)
    for norm in ("layer", "batch"):
        encoder = small(norm=norm, dropout=0.0).train()
        alike = torch.allclose(encoder(samples)[:2], encoder(samples[:2]), atol=1e-4)
        assert alike == (norm == "layer")


def test_dropout_keeps_the_mean():
    torch.manual_seed(0)
    out = Dropout(0.2)(torch.ones(100, 1000))
    assert sorted(out.unique().tolist()) == pytest.approx([0.0, 1.25], abs=1e-4)
    assert out.mean() == pytest.approx(1, abs=0.01)  # six standard errors
    assert Dropout(0.2).eval()(torch.ones(9)).min() == 1


def test_bfloat16_stays_close():
    encoder, samples = small(), gappy(series())
    with torch.autocast("cpu", torch.bfloat16):
        low = encoder(samples)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, encoder(samples), atol=0.1, rtol=0.05)


# -- as an encoder --------------------------------------------------------------------------------


def test_it_is_found_saved_and_built_again(tmp_path):
    assert find("patch_transformer") is PatchTransformer
    encoder, samples = small(pool="channels", affine=True, stride=4), series()
    save_encoder(tmp_path, encoder, encoder.clip)
    again = load_encoder(tmp_path).encoder
    assert json.loads(json.dumps(encoder.settings)) == again.settings
    assert torch.equal(again(samples), encoder(samples))


def test_what_cannot_be_is_named():
    for settings, words in (
        ({"norm": "bach"}, r"Unknown norm 'bach'. Did you mean 'batch'"),
        ({"positions": "sine"}, "Unknown positions 'sine'"),
        ({"pool": "max"}, "Unknown pool 'max'"),
        ({"normalise": "revin"}, "Unknown normalise"),
        ({"stride": 13}, "stride is 13, but patches have 12 steps"),
        ({"stride": -1}, "stride is -1"),
        ({"dim": 100}, r"dim is 100; it must be a multiple of heads \(16\)"),
        ({"dim": 15, "heads": 5, "positions": "sincos"}, "dim is 15.*even"),
        ({"depth": 0}, "depth 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ):
        with pytest.raises(ConfigError, match=words):
            PatchTransformer(**settings)
    with pytest.raises(DataError, match=r"104 steps makes 13 patches.*positions for 12.*sincos"):
        small()(series(time=104))
    assert small(positions="sincos")(series(time=104)).isfinite().all()
    with pytest.raises(DataError, match="has 3 channels, and this encoder reads 2"):
        small(pool="channels")(series(channels=3))
    assert small()(series(channels=3)).shape == (3, 16)

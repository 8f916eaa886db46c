import itertools
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mainspring.clips import NOTHING
from mainspring.encoders import dilated_block
from mainspring.encoders.dilated import MISSING, Dilated
from mainspring.encoders.dilated_block import Block, DilatedConv, Extent, keep, through
from mainspring.encoders.units import statistics
from mainspring.errors import ConfigError, DataError


def series(n: int = 3, time: int = 40, channels: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, time, channels, generator=torch.Generator().manual_seed(seed))


def small(**settings) -> Dilated:
    torch.manual_seed(0)
    return Dilated(**{"channels": 2, "width": 8, "depth": 4, "dim": 12, **settings}).eval()


# -- the network ----------------------------------------------------------------------------------


def test_ts2vecs_size():
    # 637 thousand parameters with one variable, and 64 weights more for its flag.
    count = sum(p.numel() for p in Dilated(channels=1).parameters())
    blocks = 10 * 2 * (64 * 64 * 3 + 64) + (64 * 320 * 3 + 320) + (320 * 320 * 3 + 320)
    assert count == blocks + (64 * 320 + 320) + (2 * 64 + 64)
    assert abs(count - 64 - 637e3) < 1e3


def slow_block(x: np.ndarray, block, dilation: int) -> np.ndarray:
    """One block in float64, tap by tap."""

    def gelu(a):
        return F.gelu(torch.from_numpy(a)).numpy()

    def conv(a, layer):
        weight = layer.weight.detach().double().numpy()
        out = np.tile(layer.bias.detach().double().numpy()[:, None], (1, a.shape[1]))
        for t in range(a.shape[1]):
            for tap in range(3):
                source = t + (tap - 1) * dilation
                if 0 <= source < a.shape[1]:
                    out[:, t] += weight[:, :, tap] @ a[:, source]
        return out

    residual = x
    if not isinstance(block.residual, torch.nn.Identity):
        layer = block.residual
        residual = layer.weight.detach().double().numpy()[:, :, 0] @ x
        residual = residual + layer.bias.detach().double().numpy()[:, None]
    return residual + conv(gelu(conv(gelu(x), block.conv1)), block.conv2)


def test_tokens_equal_a_slow_float64_reference():
    # 10 steps: the dilations 1, 2, 4, 8 reach within them, 16 does not.
    encoder, samples = small(normalise="none"), series(time=10)
    got = encoder.tokens(samples)
    for i in range(3):
        x = np.concatenate([samples[i].double().numpy(), np.ones((10, 2))], 1)
        weight, bias = (p.detach().double().numpy() for p in encoder.project.parameters())
        hidden = (x @ weight.T + bias).T
        for k, block in enumerate(encoder.blocks):
            hidden = slow_block(hidden, block, 2**k)
        np.testing.assert_allclose(got[i].detach(), hidden.T, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("time", [1, 7, 8, 9, 16, 17])
def test_the_one_tap_shortcut_is_exact(causal, time):
    torch.manual_seed(0)
    layer = DilatedConv(4, 5, dilation=8, causal=causal)
    x = torch.randn(2, 4, time)
    padded = F.pad(x, (16, 0) if causal else (8, 8))
    want = F.conv1d(padded, layer.weight, layer.bias, dilation=8)
    torch.testing.assert_close(layer(x), want, atol=1e-5, rtol=0)


def test_causal_tokens_do_not_know_the_future():
    encoder = small(causal=True, normalise="none")
    samples = series()
    changed = samples.clone()
    changed[:, 25:] = 100 * series(seed=1)[:, 25:]
    before, after = encoder.tokens(samples), encoder.tokens(changed)
    assert torch.equal(before[:, :25], after[:, :25])
    assert not torch.allclose(before[:, 25], after[:, 25])
    both_ways = small(normalise="none")
    assert not torch.allclose(both_ways.tokens(samples)[:, 24], both_ways.tokens(changed)[:, 24])


def test_settings_build_the_same_encoder_again():
    encoder = small(causal=True, pool="max")
    again = Dilated(**json.loads(json.dumps(encoder.settings)))
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(series()), encoder(series()))


# -- missing values and padding -------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("missing", MISSING)
def test_padding_at_the_end_changes_nothing(causal, pool, missing):
    encoder, samples = small(causal=causal, pool=pool, missing=missing), series(time=30)
    samples[1, 27:] = torch.nan
    samples[0, 3:6, 1] = torch.nan
    padded = torch.cat([samples, torch.full((3, 17, 2), 1e6)], 1)
    present = (torch.arange(47) < 30).expand(3, 47)
    tokens, wide = encoder.tokens(samples), encoder.tokens(padded, present)
    torch.testing.assert_close(wide[:, :30], tokens, atol=1e-5, rtol=1e-5)
    assert not wide[:, 30:].any()
    torch.testing.assert_close(encoder(padded, present), encoder(samples), atol=1e-5, rtol=1e-5)


def test_what_lies_in_padding_and_in_missing_cells_is_never_seen():
    encoder = small()
    present = torch.ones(3, 40, dtype=torch.bool)
    present[:, 30:] = False
    samples = series()
    loud = samples.clone()
    loud[:, 30:] = torch.nan
    assert torch.equal(encoder(samples, present), encoder(loud, present))


def test_a_missing_channel_leaves_the_steps_other_channels():
    encoder = small()
    samples = series()
    samples[:, 10, 0] = torch.nan
    other = samples.clone()
    other[:, 10, 1] += 0.5
    assert not torch.allclose(encoder.tokens(samples)[:, 10], encoder.tokens(other)[:, 10])


def test_a_missing_channel_takes_the_whole_step_out_where_asked():
    samples = series()
    samples[:, 10, 0] = torch.nan
    for missing, out in (("step", True), ("channel", False), ("flag", False), ("fill", False)):
        encoder = small(missing=missing)
        there = encoder.stem(encoder.prepare(samples)).any(1)
        assert bool(there[:, 10].any()) != out
        assert bool(there[:, 9].all())


@pytest.mark.parametrize("normalise", ["none", "recording"])
def test_filled_in_values_lie_on_lines_between_observed_ones(normalise):
    encoder = small(missing="fill", normalise=normalise)
    samples = series()
    samples[torch.rand(samples.shape, generator=torch.Generator().manual_seed(1)) < 0.7] = torch.nan
    samples[2, :, 1] = torch.nan
    rows, flags = encoder.prepare(samples).chunk(2, -1)
    for row, channel in itertools.product(range(3), range(2)):
        values = samples[row, :, channel].double().numpy()
        known = np.flatnonzero(~np.isnan(values))
        assert bool(flags[row, :, channel].all()) == bool(len(known)) == (row + channel < 3)
        if normalise == "recording" and len(known):
            values = (values - values[known].mean()) / values[known].std()
        line = np.interp(np.arange(40), known, values[known]) if len(known) else np.zeros(40)
        np.testing.assert_allclose(rows[row, :, channel], line, atol=1e-5)


def test_a_causal_encoder_fills_in_the_last_observed_value():
    encoder = small(missing="fill", causal=True, normalise="none")
    samples = series(1)
    samples[:, :3] = samples[:, 10:14, 1] = torch.nan
    rows, flags = encoder.prepare(samples).chunk(2, -1)
    assert not rows[:, :3].any()
    assert torch.equal(flags[0, :, 0] == 1, torch.arange(40) >= 3)
    assert torch.equal(rows[0, 10:14, 1], samples[0, 9, 1].expand(4))
    later = samples.clone()
    later[:, 14:] += 1
    assert torch.equal(encoder.tokens(samples)[:, :14], encoder.tokens(later)[:, :14])


def test_missing_is_not_the_same_as_average():
    encoder = small()
    samples = series()
    samples -= samples.mean(1, keepdim=True)
    missing, zero = samples.clone(), samples.clone()
    missing[:, 10, 0], zero[:, 10, 0] = torch.nan, 0.0
    assert not torch.allclose(encoder.tokens(missing)[:, 10], encoder.tokens(zero)[:, 10])


def test_an_unobserved_step_enters_as_zero_and_gets_a_token_from_its_neighbours():
    encoder = small()
    samples = series()
    samples[:, 10] = torch.nan
    stem = encoder.stem(encoder.prepare(samples))
    assert not stem[:, :, 10].any()
    other = samples.clone()
    other[:, 9] += 1
    assert not torch.allclose(encoder.tokens(samples)[:, 10], encoder.tokens(other)[:, 10])


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_nothing_observed_stays_finite_with_its_gradients(pool):
    encoder = small(pool=pool).train()
    samples = torch.full((2, 20, 2), torch.nan)
    present = torch.zeros(2, 20, dtype=torch.bool)
    for there in (None, present):
        out = encoder(samples, there)
        assert out.isfinite().all()
        out.sum().backward()
    assert not encoder(samples, present).any()
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)


# -- normalisation --------------------------------------------------------------------------------


def test_units_do_not_matter_to_a_normalised_encoder():
    encoder, samples = small(), series()
    samples[0, 5:9, 0] = torch.nan
    moved = samples * torch.tensor([1000.0, 0.01]) + torch.tensor([5e4, -3.0])
    torch.testing.assert_close(encoder(moved), encoder(samples), atol=1e-3, rtol=1e-3)
    as_is = small(normalise="none")
    assert not torch.allclose(as_is(moved), as_is(samples))


def test_normalised_values_have_mean_0_and_scale_1_over_what_was_observed():
    samples = series() * 7 + 1e5
    samples[1, ::3, 1] = torch.nan
    prepared = small().prepare(samples)
    values, flags = prepared[..., :2], prepared[..., 2:].bool()
    assert torch.equal(flags, ~samples.isnan())
    for i in range(3):
        for c in range(2):
            seen = values[i, flags[i, :, c], c].double()
            assert abs(seen.mean()) < 1e-3  # float32 cannot centre 1e5 any better
            assert float(seen.std(correction=0)) == pytest.approx(1, abs=1e-3)
    assert not values[~flags].any()


def test_a_constant_channel_becomes_zero():
    values = torch.full((1, 50, 1), 101325.1)
    mean, scale = statistics(values, torch.ones(1, 50, 1, dtype=torch.bool))
    assert float(scale) == 1
    assert float(((values - mean) / scale).abs().max()) < 0.1
    assert small(channels=1)(values).isfinite().all()
    values[:, ::2] = values[:, ::2].nextafter(torch.tensor(torch.inf))  # by the last digit
    for size in (1.0, 1e-20):
        scale = statistics(values * size, torch.ones(1, 50, 1, dtype=torch.bool))[1]
        assert float(scale) == 1


@pytest.mark.parametrize("size", [1e-30, 1e-21, 1e20, 1e37])
def test_units_of_any_size_have_a_mean_and_a_scale(size):
    values = series(time=50)
    observed = torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) < 0.8
    values = torch.where(observed, values + 2, 0.0)
    mean, scale = statistics(values * size, observed)
    for got, want in zip((mean, scale), statistics(values, observed), strict=True):
        torch.testing.assert_close(got / size, want)
    encoder = small()
    torch.testing.assert_close(encoder(values * size), encoder(values), atol=1e-4, rtol=1e-4)


def test_the_largest_numbers_there_are_have_a_mean_and_a_scale():
    most = torch.finfo(torch.float32).max
    values = torch.tensor([most, 0.0])[None, :, None]
    for got in statistics(values, torch.ones_like(values, dtype=torch.bool)):
        assert float(got) == pytest.approx(most / 2)


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match=r"Unknown pool 'men'\. Did you mean 'mean'"):
        Dilated(pool="men")
    with pytest.raises(ConfigError, match=r"Unknown normalise 'record'\. Did you mean 'recording'"):
        Dilated(normalise="record")
    with pytest.raises(ConfigError, match="width 0"):
        Dilated(width=0)
    with pytest.raises(DataError, match=r"has 2 channels, and this encoder reads 3: give"):
        Dilated(channels=3)(series())


# -- the block's own backward pass ----------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("time", [3, 9])
@pytest.mark.parametrize("kind", ["none", "tails", "turns", "holes"])
def test_a_blocks_gradients_are_those_of_finite_differences(causal, last, time, kind):
    torch.manual_seed(0)
    block = Block(3, 4 if last else 3, 4, causal, last).double()
    present = torch.ones(4, time, dtype=torch.bool)
    if kind == "tails":
        present[2:, 2:] = False
    elif kind == "turns":
        present[::2, 1:] = present[1::2, 2:] = False
    elif kind == "holes":
        present[0, 1] = present[3, 0] = False
    extent = Extent.of(present)
    assert (extent.keep is not None) == (kind == "holes")
    x = (torch.randn(4, 3, time, dtype=torch.float64) * present[:, None]).requires_grad_()
    names, weights = zip(*block.named_parameters(), strict=True)

    def run(x, *weights):
        values = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(block, values, (x * present[:, None], extent))

    torch.autograd.gradcheck(run, (x, *weights))


def test_a_block_of_long_series_keeps_two_arrays_for_its_backward_pass(monkeypatch):
    block, x = Block(8, 8, 2, False, False), torch.randn(2, 8, 50, requires_grad=True)
    gradients = []
    for most, count in ((x.numel(), 4), (x.numel() - 1, 2)):
        monkeypatch.setattr(dilated_block, "REMEMBERED", most)
        kept = []

        def keep(tensor, kept=kept):
            kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = block(x, Extent(50))
        assert sum(t.numel() == x.numel() for t in kept) == count
        gradients.append(torch.autograd.grad(out.square().sum(), [x, *block.parameters()]))
    for short, long in zip(*gradients, strict=True):
        torch.testing.assert_close(short, long, rtol=0, atol=0)


def test_blocks_remember_nothing_without_a_backward_pass():
    blocks, x = [Block(8, 8, 2**k, False, False) for k in range(3)], torch.randn(2, 8, 50)
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.no_grad():
        through(blocks, x, Extent(50))
    assert not kept


@pytest.mark.parametrize(
    ("ends", "tails"),
    [
        ([5, 5, 5, 5], ()),
        ([3, 4, 3, 4, 3], ((slice(0, None, 2), 3), (slice(1, None, 2), 4))),
        ([5, 2, 5, 2], ((slice(1, None, 2), 2),)),
        ([2, 2, 5, 1], ((slice(0, 2), 2), (slice(3, 4), 1))),
    ],
)
def test_rows_that_end_together_are_one_tail(ends, tails):
    extent = Extent.of(torch.arange(5) < torch.tensor(ends)[:, None])
    assert (extent.length, extent.tails, extent.keep) == (max(ends), tails, None)
    cleared = extent.clear(torch.ones(len(ends), 5, 2))
    assert cleared.sum((1, 2)).tolist() == [2 * end for end in ends]


def test_bfloat16_is_close_to_float32():
    encoder, samples = small(normalise="none"), series()
    want = encoder(samples)
    with torch.autocast("cpu", torch.bfloat16):
        got = encoder(samples)
    torch.testing.assert_close(got, want, atol=0.05, rtol=0.05)


def test_raw_values_keep_their_digits_in_bfloat16():
    encoder = small(normalise="none")
    prepared = encoder.prepare(series() + 1e4)
    with torch.autocast("cpu", torch.bfloat16):
        entered = encoder.stem(prepared)
    torch.testing.assert_close(entered, encoder.stem(prepared))


def test_a_tap_as_a_product_is_the_same_convolution(monkeypatch):
    torch.manual_seed(0)
    block, results = Block(16, 24, 64, False, last=True), []
    present = torch.arange(40) < torch.tensor([40, 25, 40, 25])[:, None]
    inside = torch.randn(4, 16, 40) * present[:, None]
    for most in (0, dilated_block.PRODUCT_ROWS):
        monkeypatch.setattr(dilated_block, "PRODUCT_ROWS", most)
        x = inside.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = block(x, Extent.of(present))
        grads = torch.autograd.grad(out.square().sum(), [x, *block.parameters()])
        results.append([out.detach(), *grads])
    for plain, product in zip(*results, strict=True):
        torch.testing.assert_close(product, plain, atol=0.02 * float(plain.abs().max()), rtol=0.02)


def test_blocks_in_any_order_keep_padding_to_itself():
    torch.manual_seed(0)
    blocks = [Block(5, 5, dilation, False, False).double() for dilation in (8, 1, 16, 2, 8)]
    extent = Extent.of(torch.arange(6) < torch.tensor([6, 4, 6, 4])[:, None])
    x = torch.randn(4, 5, 6, dtype=torch.float64)
    x[1::2, :, 4:] = 0
    together, apart = (x.clone().requires_grad_() for _ in range(2))
    one = through(blocks, together, extent)
    other = apart
    for block in blocks:
        other = block(other, extent)
    torch.testing.assert_close(one, other)
    assert not one[1::2, :, 4:].any()
    weights = [weight for block in blocks for weight in block.parameters()]
    pairs = (
        torch.autograd.grad(out.square().sum(), [given, *weights])
        for out, given in ((one, together), (other, apart))
    )
    for whole, single in zip(*pairs, strict=True):
        torch.testing.assert_close(whole, single)


def test_kept_steps_and_their_gradients():
    x = torch.randn(3, 4, 7, dtype=torch.float64, requires_grad=True)
    steps = torch.tensor([[2, 3, 4], [0, 1, NOTHING], [6, 5, 0]])
    extent = Extent.of(steps != NOTHING)
    out = keep(x, steps, extent)
    for row, wanted in enumerate(steps.tolist()):
        for place, step in enumerate(wanted):
            want = torch.zeros(4, dtype=x.dtype) if step == NOTHING else x[row, :, step]
            assert torch.equal(out[row, :, place], want)
    torch.autograd.gradcheck(lambda given: keep(given, steps, extent), x)

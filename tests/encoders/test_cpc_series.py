import json

import numpy as np
import pytest
import torch

from mainspring.encoders import catalog
from mainspring.encoders.cpc_series import CpcSeries, by_hop
from mainspring.errors import ConfigError, DataError


def series(n: int = 3, time: int = 40, channels: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, time, channels, generator=torch.Generator().manual_seed(seed))


def small(**settings) -> CpcSeries:
    torch.manual_seed(0)
    return CpcSeries(**{"channels": 2, "width": 8, "dim": 12, **settings}).eval()


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def slow_tokens(encoder: CpcSeries, samples: np.ndarray) -> np.ndarray:
    """One series of observed values in float64, tap by tap and step by step."""
    hidden = np.concatenate([samples, np.ones_like(samples)], 1)
    hidden = np.concatenate([hidden, np.zeros((-len(hidden) % encoder.hop, hidden.shape[1]))])
    for layer in encoder.layers:
        weight, bias = numbers(layer.conv.weight), numbers(layer.conv.bias)
        stride, taps = layer.conv.stride[0], weight.shape[2]
        out = np.tile(bias, (len(hidden) // stride, 1))
        for token in range(len(out)):
            for tap in range(taps):
                step = token * stride + stride - taps + tap
                if step >= 0:
                    out[token] += weight[:, :, tap] @ hidden[step]
        out = (out - out.mean(1, keepdims=True)) / np.sqrt(out.var(1, keepdims=True) + 1e-5)
        hidden = np.maximum(out * numbers(layer.norm.weight) + numbers(layer.norm.bias), 0)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    gru = encoder.recurrent
    state, states = np.zeros(encoder.dim), []
    for z in hidden:
        take = numbers(gru.weight_ih_l0) @ z + numbers(gru.bias_ih_l0)
        keep = numbers(gru.weight_hh_l0) @ state + numbers(gru.bias_hh_l0)
        (r, u, fresh), (kr, ku, old) = np.split(take, 3), np.split(keep, 3)
        reset, update = sigmoid(r + kr), sigmoid(u + ku)
        state = (1 - update) * np.tanh(fresh + reset * old) + update * state
        states.append(state)
    return np.stack(states)


@pytest.mark.parametrize("time", [1, 6, 12])
@pytest.mark.parametrize("strides", [[1, 2, 2], [3], [1, 1]])
def test_tokens_equal_a_slow_float64_reference(strides, time):
    encoder, samples = small(strides=strides, normalise="none"), series(time=time)
    got = encoder.tokens(samples)
    for i in range(3):
        np.testing.assert_allclose(
            got[i].detach(), slow_tokens(encoder, samples[i].double().numpy()), atol=1e-5
        )


def test_a_token_knows_its_own_steps_and_the_past_alone():
    encoder, samples = small(normalise="none"), series()
    changed = samples.clone()
    changed[:, 20:] = 100 * series(seed=1)[:, 20:]
    before, after = encoder.tokens(samples), encoder.tokens(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])
    last = samples.clone()
    last[:, 19] += 1  # the last of the steps that token 4 stands for
    assert not torch.allclose(encoder.tokens(last)[:, 4], before[:, 4])
    assert torch.equal(encoder.tokens(last)[:, :4], before[:, :4])


def test_a_latent_sees_twelve_steps():
    encoder, samples = small(normalise="none"), series()
    seen = []
    for step in range(40):
        changed = samples.clone()
        changed[:, step] += 10
        moved = encoder.stem(encoder.prepare(changed)) != encoder.stem(encoder.prepare(samples))
        if moved[:, :, 6].any():
            seen.append(step)
    assert seen == list(range(16, 28))


def test_a_latent_shares_steps_with_what_the_context_two_latents_before_has_seen():
    encoder = small(normalise="none")
    samples = series(n=1).requires_grad_()
    hidden = encoder.stem(encoder.prepare(samples))
    now = 5
    seen = range(encoder.hop * (now + 1))
    for ahead, shared in ((1, 8), (2, 4), (3, 0)):
        (slope,) = torch.autograd.grad(hidden[0, :, now + ahead].sum(), samples, retain_graph=True)
        assert int(slope[0, seen].any(1).sum()) == shared


def test_the_catalogue_finds_it_and_settings_build_it_again():
    assert catalog.find("cpc_series") is CpcSeries
    encoder = small(pool="last", strides=(1, 2))
    again = CpcSeries(**json.loads(json.dumps(encoder.settings)))
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(series()), encoder(series()))


# -- missing values and padding -------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("time", [1, 2, 27, 28])
def test_padding_at_the_end_changes_nothing(time, pool):
    encoder, samples = small(pool=pool), series(time=time)
    samples[0, 3:6, 1] = torch.nan
    padded = torch.cat([samples, torch.full((3, 17, 2), 1e6)], 1)
    present = (torch.arange(time + 17) < time).expand(3, time + 17)
    tokens, wide = encoder.tokens(samples), encoder.tokens(padded, present)
    count = -(-time // 4)
    assert tokens.shape == (3, count, 12)
    torch.testing.assert_close(wide[:, :count], tokens, atol=1e-6, rtol=1e-5)
    assert not wide[:, count:].any()
    torch.testing.assert_close(encoder(padded, present), encoder(samples), atol=1e-6, rtol=1e-5)


def test_pools_are_what_they_say():
    samples = series(time=30)
    present = (torch.arange(30) < 22).expand(3, 30)
    tokens = small().tokens(samples, present)
    torch.testing.assert_close(small()(samples, present), tokens[:, :6].mean(1))
    torch.testing.assert_close(small(pool="last")(samples, present), tokens[:, 5])
    late = (torch.arange(30) >= 12).expand(3, 30)  # padding before
    torch.testing.assert_close(small(pool="last").embed(tokens, late), tokens[:, 7])


def test_a_missing_channel_leaves_the_other_and_missing_is_not_zero():
    encoder, samples = small(normalise="none"), series()
    missing, zero = samples.clone(), samples.clone()
    missing[:, 10, 0], zero[:, 10, 0] = torch.nan, 0.0
    other = missing.clone()
    other[:, 10, 1] += 0.5
    assert not torch.allclose(encoder(missing), encoder(zero))
    assert not torch.allclose(encoder(missing), encoder(other))


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_nothing_observed_stays_finite_with_its_gradients(pool):
    encoder = small(pool=pool).train()
    samples = torch.full((2, 20, 2), torch.nan)
    for present in (None, torch.zeros(2, 20, dtype=torch.bool)):
        out = encoder(samples, present)
        out.sum().backward()
        assert out.isfinite().all()
        assert all(p.grad.isfinite().all() for p in encoder.parameters())
    assert not out.any()


def test_units_do_not_matter():
    encoder, samples = small(), series()
    moved = samples * torch.tensor([1000.0, 0.01]) + torch.tensor([5.0, -3.0])
    torch.testing.assert_close(encoder(moved), encoder(samples), atol=1e-3, rtol=1e-3)


def test_bfloat16_runs_and_is_near():
    encoder, samples = small(), series()
    with torch.autocast("cpu", torch.bfloat16):
        near = encoder(samples)
    torch.testing.assert_close(near, encoder(samples), atol=0.05, rtol=0.05)
    latents = torch.randn(2, 8, 9)
    with torch.autocast("cpu", torch.bfloat16):
        exact = encoder.trunk(latents)
    assert torch.equal(exact, encoder.trunk(latents))  # the recurrence is not rounded


def test_a_token_is_there_if_any_of_its_steps_is():
    there = torch.tensor([[True] * 5 + [False] * 4])
    assert by_hop(there, 4).tolist() == [[True, True, False]]
    assert by_hop(there, 1).tolist() == there.tolist()


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match=r"Unknown pool 'lst'\. Did you mean 'last'"):
        CpcSeries(pool="lst")
    with pytest.raises(ConfigError, match=r"Unknown normalise 'record'"):
        CpcSeries(normalise="record")
    with pytest.raises(ConfigError, match="dim 0"):
        CpcSeries(dim=0)
    for strides in ([], [2, 0]):
        with pytest.raises(ConfigError, match="strides are"):
            CpcSeries(strides=strides)
    with pytest.raises(DataError, match=r"has 2 channels, and this encoder reads 3: give"):
        CpcSeries(channels=3)(series())

import pytest
import torch
from torch import Tensor

from mainspring.encoders import dilated_block
from mainspring.encoders.cone import last_tokens, sliding
from mainspring.encoders.dilated import MISSING, Dilated
from mainspring.errors import ConfigError, DataError


def series(time: int, channels: int = 2, seed: int = 0) -> Tensor:
    return 3 * torch.randn(time, channels, generator=torch.Generator().manual_seed(seed)) + 1


def small(**settings) -> Dilated:
    torch.manual_seed(0)
    return Dilated(**{"channels": 2, "width": 8, "depth": 5, "dim": 12, **settings}).eval()


@torch.no_grad()
def plainly(encoder: Dilated, values: Tensor, context: int, hide_last: bool = False) -> Tensor:
    """Every window on its own, cut at the series' start."""
    rows = []
    for t in range(len(values)):
        window = values[None, max(0, t - context) : t + 1].clone()
        if hide_last:
            window[:, -1] = torch.nan
        hidden = encoder.stem(encoder.prepare(window))
        if hide_last:
            hidden[:, :, -1] = 0
        rows.append(encoder.trunk(hidden)[0, -1])
    return torch.stack(rows)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("normalise", ["none", "recording"])
@pytest.mark.parametrize("missing", MISSING)
def test_sliding_equals_every_window_on_its_own(causal, normalise, missing):
    encoder = small(causal=causal, normalise=normalise, missing=missing)
    values = series(90)
    values[0, 0] = values[20:26, 1] = torch.nan
    values[40:43] = torch.nan
    got = sliding(encoder, values, context=37, batch=32)
    torch.testing.assert_close(got, plainly(encoder, values, 37), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("context", [0, 1, 2, 5, 16, 60])
@pytest.mark.parametrize("time", [1, 2, 17, 40])
def test_any_depth_context_and_length(causal, depth, context, time):
    encoder = small(causal=causal, normalise="none", depth=depth)
    got = sliding(encoder, series(time), context, batch=16)
    want = plainly(encoder, series(time), context)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("normalise", ["none", "recording"])
@pytest.mark.parametrize("context", [1, 30])
@pytest.mark.parametrize("missing", MISSING)
def test_a_hidden_last_step_enters_as_0(causal, normalise, context, missing):
    encoder = small(causal=causal, normalise=normalise, depth=3, missing=missing)
    values = series(60)
    values[20:26, 1] = values[40:43] = torch.nan
    got = sliding(encoder, values, context, batch=16, hide_last=True)
    want = plainly(encoder, values, context, hide_last=True)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(got, sliding(encoder, values, context))
    windows = values.unfold(0, 7, 7).transpose(1, 2)
    other = windows.clone()
    other[:, -1] += 100
    hidden, same = (last_tokens(encoder, some, hide_last=True) for some in (windows, other))
    assert torch.equal(hidden, same)


def test_the_batch_changes_nothing():
    encoder = small(normalise="none")
    one, many = sliding(encoder, series(50), 20, batch=1), sliding(encoder, series(50), 20, batch=7)
    torch.testing.assert_close(one, many, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("normalise", ["none", "recording"])
def test_last_tokens_of_any_windows(causal, normalise):
    encoder = small(causal=causal, normalise=normalise)
    windows = torch.stack([series(30, seed=seed) for seed in range(5)])
    windows[1, 3:9, 0] = torch.nan
    present = torch.ones(5, 30, dtype=torch.bool)
    present[2, :11] = present[3, 20:] = False
    with torch.no_grad():
        want = encoder.tokens(windows, present)[:, -1]
        whole = encoder.tokens(windows)[:, -1]
    torch.testing.assert_close(last_tokens(encoder, windows, present), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last_tokens(encoder, windows), whole, atol=1e-5, rtol=1e-5)
    assert not want[3].any()  # the window ends in padding


def test_no_step_knows_its_future_though_the_encoder_looks_both_ways():
    encoder, values = small(), series(60)
    changed = values.clone()
    changed[30:] = 100.0
    before, after = sliding(encoder, values, 25), sliding(encoder, changed, 25)
    torch.testing.assert_close(before[:30], after[:30], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(before[30], after[30])


def test_the_paper_size_needs_less_than_the_recipes_count(monkeypatch):
    # 7.55 million multiplications a window where nothing is shared, against 127.6 million.
    encoder = Dilated(channels=1, normalise="none", missing="channel").eval()
    spent = []
    addmm = torch.addmm
    monkeypatch.setattr(
        torch, "addmm", lambda b, x, k: spent.append(x.numel() * k.shape[1]) or addmm(b, x, k)
    )
    convolve = dilated_block.convolve

    def counted(x, kernel, *rest):
        spent.append(x.shape[-1] * kernel.numel())
        return convolve(x, kernel, *rest)

    monkeypatch.setattr(dilated_block, "convolve", counted)
    last_tokens(encoder, series(201, 1).expand(4, -1, -1))
    alone = sum(spent) / 4
    spent.clear()
    sliding(encoder, series(1112, 1), batch=1112)
    assert alone < 7.6e6
    assert sum(spent) / 1112 < 0.4 * alone


def test_errors_name_the_fix():
    with pytest.raises(ConfigError, match="must not be negative"):
        sliding(small(), series(10), context=-1)
    with pytest.raises(DataError, match="has 3 channels, and this encoder reads 2"):
        sliding(small(), series(10, 3))


def test_an_empty_series_has_no_tokens():
    assert sliding(small(), series(0)).shape == (0, 12)

import io

import pytest
import torch
from torch import Tensor

from mainspring.encoders.dilated import MISSING, Dilated
from mainspring.encoders.patch_transformer import PatchTransformer
from mainspring.encoders.streaming import Stream
from mainspring.errors import ConfigError, DataError


def causal(**settings) -> Dilated:
    torch.manual_seed(0)
    shape = {"channels": 2, "width": 8, "depth": 4, "dim": 12}
    return Dilated(**{**shape, "causal": True, "normalise": "none", **settings}).eval()


def series(n: int, time: int) -> Tensor:
    values = torch.randn(n, time, 2, generator=torch.Generator().manual_seed(1))
    values[0, 0, 0] = values[0, 5:9, 1] = torch.nan
    values[0, 20:23] = torch.nan
    return values


@torch.no_grad()
def at_once(encoder: Dilated, values: Tensor) -> Tensor:
    return encoder.tokens(values)


@pytest.mark.parametrize("missing", MISSING)
def test_sample_by_sample_equals_the_whole_series(missing):
    encoder, values = causal(missing=missing), series(1, 150)[0]
    stream = Stream(encoder)
    got = torch.stack([stream.push(sample) for sample in values])
    torch.testing.assert_close(got, at_once(encoder, values[None])[0], atol=1e-5, rtol=1e-5)


def test_infinity_is_missing_and_does_not_stay():
    encoder, values = causal(), series(1, 60)[0]
    broken = values.clone()
    values[30, 0], broken[30, 0] = torch.nan, torch.inf
    plain, other = Stream(encoder), Stream(encoder)
    for sample, same in zip(values, broken, strict=True):
        assert torch.equal(plain.push(sample), other.push(same))


def test_the_papers_size():
    torch.manual_seed(0)
    encoder = Dilated(channels=2, causal=True, normalise="none").eval()
    values = series(1, 60)[0]
    stream = Stream(encoder)
    got = torch.stack([stream.push(sample) for sample in values])
    torch.testing.assert_close(got, at_once(encoder, values[None])[0], atol=1e-5, rtol=1e-5)


def test_several_series_side_by_side():
    encoder, values = causal(), series(3, 90)
    stream = Stream(encoder, series=3)
    got = torch.stack([stream.push(values[:, t]) for t in range(90)], 1)
    torch.testing.assert_close(got, at_once(encoder, values), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("missing", ["flag", "fill"])
def test_a_saved_state_goes_on_elsewhere(missing):
    encoder, values = causal(missing=missing), series(1, 80)[0]
    values[48:53] = torch.nan
    first = Stream(encoder)
    for sample in values[:50]:
        first.push(sample)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    for sample in values[50:]:  # what comes later does not reach into the saved state
        first.push(sample)
    file.seek(0)
    second = Stream(encoder)
    second.load_state_dict(torch.load(file, weights_only=True))
    got = torch.stack([second.push(sample) for sample in values[50:]])
    torch.testing.assert_close(got, at_once(encoder, values[None])[0, 50:], atol=1e-5, rtol=1e-5)


def test_a_reset_stream_begins_anew():
    stream, values = Stream(causal(missing="fill")), series(1, 30)[0]
    first = [stream.push(sample) for sample in values]
    stream.reset()
    for before, sample in zip(first, values, strict=True):
        assert torch.equal(stream.push(sample), before)


def test_other_encoders_are_refused_with_the_fix():
    with pytest.raises(ConfigError, match=r"causal=False .*\"causal\": True"):
        Stream(causal(causal=False))
    with pytest.raises(ConfigError, match="normalise='recording'"):
        Stream(causal(normalise="recording"))
    with pytest.raises(ConfigError, match=r"PatchTransformer has no way .* encoder dilated"):
        Stream(PatchTransformer())
    with pytest.raises(ConfigError, match="series is 0"):
        Stream(causal(), series=0)


def test_wrong_shapes_and_states_are_refused():
    stream = Stream(causal())
    with pytest.raises(DataError, match=r"\(3,\) were pushed, where \(2,\)"):
        stream.push(torch.zeros(3))
    with pytest.raises(DataError, match=r"\(4, 2\) were pushed.* series=n"):
        stream.push(torch.zeros(4, 2))
    with pytest.raises(ConfigError, match=r"blocks\.0\.conv1 is \(2, 4, 8\).* \(2, 1, 8\)"):
        stream.load_state_dict(Stream(causal(), series=4).state_dict())
    with pytest.raises(ConfigError, match="not there"):
        stream.load_state_dict({})

"""Rows of frames: spans that hide them, stretches shown in their place, tokens at their times, and
the cepstra that describe them."""

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given
from hypothesis import strategies as st

from mainspring.pretexts.cepstra import cepstra, cosines
from mainspring.pretexts.frames import NOT_HIDDEN, at_places, elsewhere, spans, token_stride


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_spans_hide_the_share_of_wav2vec():
    start = spans(200, 500, 0.8, 10, seeded(0))
    share = (start != NOT_HIDDEN).float().mean().item()
    assert share == pytest.approx(1 - (1 - 0.08) ** 10, abs=0.01)


@given(st.integers(1, 30), st.integers(1, 40), st.floats(0.01, 3), st.integers(0, 99))
def test_every_span_is_whole(length, span, share, seed):
    start = spans(4, length, share, span, seeded(seed))
    span = min(span, length)
    for row in start.tolist():
        begun = {s for s in row if s != NOT_HIDDEN}
        assert begun
        hidden = {t for s in begun for t in range(s, s + span)}
        assert max(hidden) < length
        for t, s in enumerate(row):
            assert (s != NOT_HIDDEN) == (t in hidden)
            if s != NOT_HIDDEN:
                assert s == max(b for b in begun if b <= t)


def test_no_share_hides_nothing():
    assert (spans(3, 9, 0.0, 4, seeded(0)) == NOT_HIDDEN).all()


@given(st.integers(2, 30), st.integers(1, 12), st.integers(0, 99))
def test_hidden_frames_show_a_stretch_apart_from_their_span(length, span, seed):
    start = spans(3, length, 0.5, span, seeded(seed))
    source = elsewhere(start, span, seeded(seed))
    span = min(span, length)
    assert source.min() >= 0
    assert source.max() < length
    for begun, shown in zip(start.tolist(), source.tolist(), strict=True):
        for t, (s, other) in enumerate(zip(begun, shown, strict=True)):
            if s == NOT_HIDDEN:
                assert other == t
                continue
            first = other - (t - s)
            if any(abs(p - s) >= span for p in range(length - span + 1)):
                assert abs(first - s) >= span
            assert 0 <= first <= length - span


def test_all_stretches_apart_are_shown_alike():
    start = torch.full((20_000, 7), NOT_HIDDEN)
    start[:, 2:4] = 2
    first = elsewhere(start, 2, seeded(0))[:, 2]
    share = first.bincount(minlength=7)[:6] / 20_000
    torch.testing.assert_close(
        share, torch.tensor([0.333, 0, 0, 0, 0.333, 0.333]), atol=0.015, rtol=0
    )


def test_tokens_between_places_are_interpolated():
    tokens = torch.randn(2, 5, 3, generator=seeded(0))
    places = torch.tensor([-1.0, 0.0, 0.25, 1.0, 3.5, 4.0, 9.0])
    found = at_places(tokens, places).numpy()
    for n in range(2):
        for d in range(3):
            expected = np.interp(places.numpy(), np.arange(5), tokens[n, :, d].numpy())
            np.testing.assert_allclose(found[n, :, d], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("halvings", [0, 1, 3, 4])
def test_the_stride_of_a_network_that_halves_is_found_from_lengths(halvings):
    for samples in range(2**halvings, 200):
        tokens = samples
        for _ in range(halvings):
            tokens = -(-tokens // 2)
        assert token_stride(samples, tokens) == 2**halvings


def test_cepstra_are_the_cosine_transform_and_slopes_over_five_values():
    levels = torch.randn(2, 11, 20, generator=seeded(0))
    found = cepstra(levels, cosines(20)).numpy()
    assert found.shape == (2, 11, 39)
    for n in range(2):
        static = scipy.fft.dct(levels[n].double().numpy(), norm="ortho", axis=1)[:, :13]

        def slopes(values):
            held = [values[min(max(t, 0), 10)] for t in range(-2, 13)]
            return np.stack(
                [(held[t + 3] - held[t + 1] + 2 * (held[t + 4] - held[t])) / 10 for t in range(11)]
            )

        first = slopes(static)
        expected = np.concatenate([static, first, slopes(first)], 1)
        np.testing.assert_allclose(found[n], expected, rtol=1e-4, atol=1e-5)

"""Heads into a shared space: what they compute, and how they are kept."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mainspring.clips import ClipSpec
from mainspring.encoders import catalog
from mainspring.encoders.joint import Joined, JointHead
from mainspring.encoders.logmel import LogMel
from mainspring.encoders.saved import load_encoder, save_encoder, save_joint, stamp_of
from mainspring.errors import ConfigError, RunError

CLIP = ClipSpec(length=8000, rate=16000)
GDT = {"width": 6, "hidden": 10, "dropout": 0.3, "norm": True}


def head(seed: int = 0, **settings: float | bool) -> JointHead:
    torch.manual_seed(seed)
    return JointHead(16, **({"width": 6} | settings))


def logmel(seed: int = 0) -> LogMel:
    torch.manual_seed(seed)
    return LogMel(width=2)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_one_layer_is_a_linear_map_of_length_one() -> None:
    one, x = head(), torch.randn(5, 16)
    weight, offset = one.layers[0].weight.double(), one.layers[0].bias.double()
    for row, vector in zip(x.double(), one(x), strict=True):
        y = weight @ row + offset
        torch.testing.assert_close(vector.double(), y / y.dot(y).sqrt(), rtol=1e-5, atol=1e-6)


def test_gdts_head_is_linear_norm_relu_dropout_linear() -> None:
    two, x = head(**GDT), torch.randn(12, 16)
    first, norm, _, _, last = two.layers
    h = first(x)
    mean, variance = h.mean(0), h.var(0, unbiased=False)
    h = torch.relu((h - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias)
    two.layers[3].p = 0.0
    expected = last(h)
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(two(x), expected, rtol=1e-4, atol=1e-5)
    two.layers[3].p = 0.3
    assert not torch.equal(two(x), two(x))
    two.eval()
    assert torch.equal(two(x), two(x))


@pytest.mark.parametrize("settings", [{}, {"hidden": 7}, GDT])
def test_settings_build_the_same_head(settings: dict) -> None:
    one = head(**settings)
    other = JointHead(**one.settings)
    other.load_state_dict(one.state_dict())
    x = torch.randn(3, 16)
    assert torch.equal(one.eval()(x), other.eval()(x))


def test_any_leading_axes_and_no_row_at_all() -> None:
    one, x = head(**GDT).eval(), torch.randn(4, 3, 16)
    torch.testing.assert_close(one(x)[2, 1], one(x[2, 1]))
    assert one(torch.randn(0, 3, 16)).shape == (0, 3, 6)


def test_float32_whatever_the_autocast() -> None:
    one, x = head(hidden=7), torch.randn(9, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(one(x), one(x))
        inside, half = one(x), one(x.bfloat16())
    assert torch.equal(inside, one(x))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.norm(dim=1), torch.ones(9), rtol=0, atol=1e-6)


def test_a_vector_of_nothing_has_a_finite_gradient() -> None:
    one = head(hidden=7)
    one(torch.zeros(2, 16)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in one.parameters())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 0}, "width 0"),
        ({"hidden": 4, "dropout": 1.0}, "dropout 1.0"),
        ({"dropout": 0.3}, "give it a hidden width"),
        ({"norm": True}, "give it a hidden width"),
    ],
)
def test_settings_that_cannot_be(settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        head(**settings)


def test_joined_is_the_encoder_and_then_the_head() -> None:
    encoder, one = logmel().eval(), head().eval()
    joined, sound = Joined(encoder, one), torch.randn(3, 8000) * 0.1
    present = torch.ones(3, 8000, dtype=torch.bool)
    present[1, 4000:] = False
    expected = one(encoder(sound, present))
    torch.testing.assert_close(joined(sound, present), expected)
    torch.testing.assert_close(joined.embed(joined.tokens(sound, present), present), expected)
    assert (joined.stream, joined.clip, joined.dim) == ("audio", encoder.clip, 6)
    assert not joined.training
    joined.train()
    assert encoder.training
    assert one.training


def test_a_head_of_another_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="embeddings of 12 numbers, but logmel gives 16"):
        Joined(logmel(), JointHead(12))


def test_joined_cannot_be_asked_for_by_name() -> None:
    assert "joint" not in catalog.names()
    assert Joined not in catalog.encoders().values()


def test_stamps_follow_encoder_and_head() -> None:
    stamps = {
        stamp_of(logmel()),
        stamp_of(Joined(logmel(), head())),
        stamp_of(Joined(logmel(1), head())),
        stamp_of(Joined(logmel(), head(1))),
        stamp_of(Joined(logmel(), head(**GDT))),
    }
    assert len(stamps) == 5
    assert stamp_of(Joined(logmel(), head())) in stamps


@pytest.mark.parametrize("settings", [{}, GDT])
def test_a_head_comes_back_bit_for_bit(settings: dict, tmp_path: Path) -> None:
    encoder, one = logmel(), head(**settings)
    one(torch.randn(8, 16))  # so that running means differ from what is initialised
    stamp = save_encoder(tmp_path, encoder, CLIP, {"steps": 7})
    assert load_encoder(tmp_path).joint is None
    save_joint(tmp_path, one)
    back = load_encoder(tmp_path)
    assert back.joint is not None
    assert same(back.joint, one)
    assert not back.joint.training
    assert (back.stamp, back.extra) == (stamp, {"steps": 7})
    shared = back.shared()
    assert (shared.clip, shared.encoder.dim) == (CLIP, 6)
    assert shared.stamp == stamp_of(Joined(encoder, one)) != stamp
    sound = np.random.default_rng(0).standard_normal((2, 8000)).astype(np.float32)
    torch.testing.assert_close(
        shared.encoder(torch.from_numpy(sound)),
        one.eval()(encoder.eval()(torch.from_numpy(sound))),
    )


def test_a_head_left_from_before_is_not_the_new_encoders(tmp_path: Path) -> None:
    save_encoder(tmp_path, logmel(0), CLIP)
    save_joint(tmp_path, head())
    save_encoder(tmp_path, logmel(1), CLIP)
    back = load_encoder(tmp_path)
    assert back.joint is None
    with pytest.raises(RunError, match="encoder for audio has no head into a space"):
        back.shared()
    save_joint(tmp_path, head())
    assert load_encoder(tmp_path).joint is not None


def test_a_save_that_fails_leaves_the_old_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_encoder(tmp_path, logmel(), CLIP)
    save_joint(tmp_path, head())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        save_joint(tmp_path, head(1))
    back = load_encoder(tmp_path).joint
    assert back is not None
    assert same(back, head())
    assert sorted(os.listdir(tmp_path)) == [
        "encoder.json",
        "encoder.safetensors",
        "joint.safetensors",
    ]


def test_a_head_without_its_encoder_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no encoder"):
        save_joint(tmp_path, head())
    save_encoder(tmp_path, logmel(), CLIP)
    with pytest.raises(RunError, match=r"embeddings of 12 numbers, but the encoder in .* gives 16"):
        save_joint(tmp_path, JointHead(12))
    save_joint(tmp_path, head())
    path = tmp_path / "joint.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunError, match=r"joint.safetensors is damaged"):
        load_encoder(tmp_path)


def test_a_head_of_several_steps_sees_when_things_happen():
    torch.manual_seed(0)
    encoder = LogMel(width=4).eval()
    early = torch.zeros(1, 16000)
    early[:, 2000:4000] = torch.randn(2000) * 0.3
    late = early.roll(10000, 1)
    told = []
    for steps in (1, 4):
        head = JointHead(encoder.dim, 8, steps=steps)
        assert JointHead(**head.settings).settings == head.settings
        taken = [head.taken(encoder, encoder.tokens(sound)) for sound in (early, late)]
        assert taken[0].shape == (1, encoder.dim * steps)
        told.append(float(torch.cosine_similarity(*taken).detach()))
        joined = Joined(encoder, head)
        torch.testing.assert_close(joined(early), head(taken[0]))
        torch.testing.assert_close(joined(early), joined.embed(joined.tokens(early)))
    assert told[1] < told[0]

"""Fusion lays streams side by side, has nothing of a stream that is not given, and knows time."""

import pytest
import torch
from torch import nn

from mainspring.pretexts.fusion import Fusion

DIMS = {"video": 5, "audio": 3}


def build(how: str, layers: int) -> Fusion:
    torch.manual_seed(0)
    return Fusion(DIMS, how, 8, layers, 2, 0.0).eval()


def frames(rows: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {s: torch.randn(rows, 6, dim, generator=generator) for s, dim in DIMS.items()}


@pytest.mark.parametrize("how", ["concat", "sum"])
@torch.no_grad()
def test_a_stream_that_is_not_given_is_zeros(how):
    fusion, seen = build(how, 0), frames()
    given = {"video": torch.tensor([True, True, False]), "audio": torch.tensor([True, False, True])}
    got = fusion(seen, given)
    norm, join = fusion.join
    for n in range(3):
        parts = {s: fusion.project[s](seen[s][n]) * float(given[s][n]) for s in DIMS}
        both = torch.cat([parts["audio"], parts["video"]], 1)
        if how == "sum":
            both = parts["audio"] + parts["video"]
        angle = torch.arange(6)[:, None] / 10_000 ** (torch.arange(0, 8, 2) / 8)
        waves = torch.stack([angle.sin(), angle.cos()], 2).flatten(1)
        expected = nn.functional.layer_norm(join(norm(both)) + waves, (8,))
        torch.testing.assert_close(got[n], expected)


@torch.no_grad()
def test_every_frame_knows_the_others_and_its_place():
    fusion, seen = build("concat", 1), frames()
    given = {stream: torch.ones(3, dtype=torch.bool) for stream in DIMS}
    before = fusion(seen, given)
    seen["audio"][:, 5] += 1
    assert (fusion(seen, given) != before).any(2).all()
    alike = {stream: values[:, :1].expand(-1, 6, -1) for stream, values in seen.items()}
    states = fusion(alike, given)
    assert not torch.allclose(states[:, 0], states[:, 3], atol=1e-3)

"""What a run ends with is in its newest checkpoint, whatever the last step met."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mainspring import api
from mainspring.training import loader


def test_a_last_step_whose_recordings_all_fail_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(8):
        np.save(data / f"{number}.npy", np.random.default_rng(number).normal(size=(60, 1)))
    read = loader.shares

    def failing(*given, **named):
        for step, share in enumerate(read(*given, **named), 1):
            yield share if step < 3 else loader.Share(None, [], 0.0)

    monkeypatch.setattr(loader, "shares", failing)
    small = {"series": {"width": 4, "depth": 2, "dim": 8}}
    api.pretrain(
        data, "forecast", out=tmp_path / "run", steps=3, batch=4, architecture=small,
        verdict=False, report=False,
    )  # fmt: skip
    (newest,) = (tmp_path / "run/checkpoints").glob("step-*.pt")
    state = torch.load(newest, weights_only=True)
    assert state["step"] == 3
    kept = load_file(tmp_path / "run/encoder/series/encoder.safetensors")
    for name, value in state["modules"]["encoder.series"].items():
        torch.testing.assert_close(kept[name], value)

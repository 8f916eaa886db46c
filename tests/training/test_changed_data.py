"""A run that is resumed on data that have changed since it began."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mainspring import api
from mainspring.errors import RunError
from mainspring.training import loop


def write(data: Path, count: int, channels: int) -> None:
    data.mkdir(exist_ok=True)
    for number in range(count):
        values = np.random.default_rng(number).normal(size=(60, channels))
        np.save(data / f"{number}.npy", values)


def train(data: Path) -> dict:
    return api.pretrain(
        data, "impute", out=data.parent / "run", steps=4, batch=4, checkpoint=0.0,
        architecture={"series": {"width": 4, "depth": 2, "dim": 8}}, verdict=False, report=False,
    )  # fmt: skip


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data of a run that was stopped after two steps."""
    data = tmp_path / "data"
    write(data, 8, 1)
    learn, calls = loop.learn, iter(range(4))

    def stopping(*given):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return learn(*given)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "learn", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(data)
    return data


def test_weights_that_do_not_fit_the_data_are_said(stopped: Path) -> None:
    write(stopped, 8, 2)
    with pytest.raises(RunError, match="other channels or lengths than when the run began"):
        train(stopped)
    write(stopped, 8, 1)
    assert train(stopped)["steps"] == 4
    assert "data have changed" not in (stopped.parent / "run/log.txt").read_text()


def test_another_number_of_recordings_is_said(stopped: Path) -> None:
    write(stopped, 9, 1)
    assert train(stopped)["steps"] == 4
    said = (stopped.parent / "run/log.txt").read_text()
    assert "there are 9 recordings to learn from, and were 8" in said


def test_what_was_set_aside_is_forgotten_where_another_took_its_row(stopped: Path) -> None:
    newest = stopped.parent / "run/checkpoints/step-00000002.pt"
    state = torch.load(newest, weights_only=True)
    broken = {row: f"{stopped / f'{row}.npy'}: it is cut off" for row in (6, 7)}
    torch.save(state | {"quarantined": broken}, newest)
    (stopped / "7.npy").unlink()
    write(stopped, 7, 1)
    assert train(stopped)["quarantined"] == {str(stopped / "6.npy"): broken[6]}

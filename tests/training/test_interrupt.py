"""Ctrl-C keeps what was learnt: the step in progress is finished and saved, and the same command
ends with the losses of a run that was never stopped."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mainspring import api
from mainspring.cli import main
from mainspring.training import loader, loop
from mainspring.training.interrupt import Interrupt
from mainspring.training.progress import Log

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _usual_handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_step_in_progress_is_finished_and_a_second_press_stops_at_once():
    with Interrupt(Log(quiet=True)) as interrupt:
        assert not interrupt.after_step(CPU)
        press()
        assert interrupt.after_step(CPU)
        with pytest.raises(KeyboardInterrupt):
            press()


def test_before_the_first_step_there_is_nothing_to_wait_for():
    with Interrupt(Log(quiet=True)), pytest.raises(KeyboardInterrupt):
        press()


def test_another_handler_and_other_threads_are_left_alone():
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    with Interrupt(Log(quiet=True)) as interrupt:
        press()
        assert not interrupt.after_step(CPU)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupt(Log(quiet=True)) as interrupt:
        press()
        assert not interrupt.after_step(CPU)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert heard == [1]

    def elsewhere() -> None:
        with Interrupt(Log(quiet=True)) as interrupt:
            heard.append(interrupt.after_step(CPU))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert heard == [1, False]


def test_reading_processes_do_not_hear_it():
    before = signal.getsignal(signal.SIGINT)
    try:
        loader._deaf(0)
        press()
    finally:
        signal.signal(signal.SIGINT, before)


def pretrain(data: Path, out: str) -> dict:
    return api.pretrain(
        data, "forecast", out=data.parent / out, steps=12, batch=8, verdict=False, report=False,
        precision="fp32", checkpoint=3600.0, optimiser={"ema": 0.9},
        architecture={"series": {"width": 8, "depth": 3, "dim": 16}},
    )  # fmt: skip


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


def test_stopped_in_the_middle_of_a_step_and_resumed_equals_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    data.mkdir()
    for number in range(12):
        wave = np.sin(np.arange(200) * rng.uniform(0.1, 0.3))[:, None]
        np.save(data / f"{number}.npy", wave + rng.normal(0, 0.05, (200, 1)))
    pretrain(data, "whole")

    learn, steps = loop.learn, []

    def pressed(*given):
        steps.append(1)
        if len(steps) == 5:
            press()  # gradients are not there yet
        return learn(*given)

    monkeypatch.setattr(loop, "learn", pressed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(data, "broken")
    assert len(losses(tmp_path / "broken")) == 5
    assert [p.name for p in (tmp_path / "broken/checkpoints").iterdir()] == ["step-00000005.pt"]
    monkeypatch.setattr(loop, "learn", learn)
    pretrain(data, "broken")
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    kept = [
        (tmp_path / name / "encoder/series/encoder.safetensors").read_bytes()
        for name in ("whole", "broken")
    ]
    assert kept[0] == kept[1]

    steps.clear()
    monkeypatch.setattr(loop, "learn", pressed)
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", str(data), "--pretext", "forecast", "--steps", "9", "--batch", "4",
              "--out", str(tmp_path / "cli")])  # fmt: skip
    assert stop.value.code == 130
    said = capsys.readouterr().err
    assert "Stopping after this step; Ctrl-C again stops at once." in said
    assert "The same command goes on from here." in said

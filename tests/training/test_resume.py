"""A run that is killed and started again ends with the losses of one that was never stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mainspring.api.training import pretrain
from mainspring.encoders import precision
from mainspring.training.run import Run

CONFIG = """
checkpoint = 0.0
batch = 8
precision = "fp32"

[optimiser]
ema = 0.9

[architecture.series]
width = 8
depth = 3
dim = 16
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(12):
        time_ = np.arange(200) * rng.uniform(0.1, 0.3)
        np.save(folder / f"{number}.npy", np.sin(time_)[:, None] + rng.normal(0, 0.05, (200, 1)))
    (tmp_path / "config.toml").write_text(CONFIG)
    return folder


def command(data: Path, out: str, steps: int = 30) -> list[str]:
    place = data.parent
    return [
        sys.executable, "-m", "mainspring", "pretrain", str(data), "--pretext", "forecast",
        "--out", str(place / out), "--steps", str(steps), "--config", str(place / "config.toml"),
    ]  # fmt: skip


def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


def test_killed_and_resumed_equals_never_stopped(data, tmp_path):
    whole = subprocess.run(
        command(data, "whole"), env=environment(tmp_path), capture_output=True, text=True
    )
    assert whole.returncode == 0, whole.stderr
    sheet = tmp_path / "broken" / "metrics.jsonl"
    killed_at = []
    for wanted in (4, 13):
        with subprocess.Popen(
            command(data, "broken"), env=environment(tmp_path), stderr=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                lines = sheet.read_text().count("\n") if sheet.exists() else 0
                if lines >= wanted or process.poll() is not None:
                    break
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        killed_at.append(lines)
    assert killed_at[0] < 30
    resumed = subprocess.run(
        command(data, "broken"), env=environment(tmp_path), capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "Resuming after step" in resumed.stderr
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    weights = [
        (tmp_path / name / "encoder/series/encoder.safetensors").read_bytes()
        for name in ("whole", "broken")
    ]
    assert weights[0] == weights[1]

    summary = tmp_path / "broken" / "summary.json"
    told = json.loads((tmp_path / "whole" / "summary.json").read_text())
    summary.unlink()  # as if it were stopped after its last step
    ended = subprocess.run(
        command(data, "broken"), env=environment(tmp_path), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    for name in ("loss", "answers", "alarms"):
        assert json.loads(summary.read_text())[name] == told[name]

    again = subprocess.run(
        command(data, "broken", steps=31), env=environment(tmp_path), capture_output=True, text=True
    )
    assert again.returncode == 1
    assert "steps: 30 -> 31" in again.stderr
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")


def test_a_run_goes_on_in_the_precision_that_it_began_with(data, tmp_path, monkeypatch):
    def settings(steps: int) -> dict[str, object]:
        optimiser = {"schedule": "constant", "warmup": 0.0}
        sizes = {"series": {"width": 8, "depth": 3, "dim": 16}}
        return {"steps": steps, "batch": 8, "optimiser": optimiser, "architecture": sizes}

    def taken(steps: int) -> str:
        out = tmp_path / "run"
        pretrain(data, "forecast", out=out, verdict=False, report=False, **settings(steps))
        return Run(out).config()["resolved"]["precision"]

    monkeypatch.setattr(precision, "faster_in_bf16", lambda device: True)
    assert taken(2) == "bf16"
    monkeypatch.setattr(precision, "faster_in_bf16", lambda device: False)
    assert taken(3) == "bf16"

"""What a budget comes to in steps."""

import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest

from mainspring import api
from mainspring.training import estimate, loader
from mainspring.training.plan import make_plan
from mainspring.training.settings import Settings, settle


def test_budgets_in_steps() -> None:
    def steps(recordings: int, seconds: float | None = None, **budget: float) -> int:
        return estimate.choose_steps(Settings(data="x", batch=8, **budget), recordings, seconds)

    assert steps(10, steps=7) == 7
    assert steps(100, epochs=1) == 13  # every recording is visited, the last batch included
    assert steps(4, epochs=0.1) == 1
    assert steps(100, 0.5, minutes=2) == 240
    assert steps(100, 60.0, minutes=0.1) == 1
    assert steps(10) == estimate.FEWEST_STEPS
    assert steps(80) == 2000  # 200 visits of 80 recordings, 8 a step
    assert steps(10_000) == estimate.MOST_STEPS


@pytest.mark.parametrize(("workers", "readers"), [(-1, 1), (0, 1), (2, 2)])
def test_minutes_are_those_of_the_slower_of_learning_and_reading(
    monkeypatch: pytest.MonkeyPatch, workers: int, readers: int
) -> None:
    clock = iter(np.cumsum([0.0, 6.0] + 6 * [1.0, 2.0]).tolist())  # reading 6 s, each step 2 s
    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr("mainspring.training.loader.cores", lambda: 9)
    small = {"series": {"width": 4, "depth": 2, "dim": 8}}
    asked = settle(
        {"data": "memory", "pretext": "forecast", "steps": 90, "batch": 4, "architecture": small}
        | {"loading": {"workers": workers}}
    )
    series = np.random.default_rng(0).normal(size=(8, 60, 1)).astype(np.float32)
    told = estimate.estimate(make_plan(asked, api.catalogue(series)))
    assert (told.read_seconds, told.step_seconds) == (6.0, 2.0)
    assert told.minutes == pytest.approx(90 * 6 / readers / 60)  # series: one thread unless asked


def test_each_core_but_one_reads_what_has_to_be_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainspring.training.loader.cores", lambda: 9)
    assert loader.processes(-1, ["video", "series"], cached=False) == 8
    assert loader.processes(-1, ["video", "series"], cached=True) == 0
    assert loader.processes(3, ["series"], cached=True) == 3
    monkeypatch.setattr("mainspring.training.loader.cores", lambda: 1)
    assert loader.processes(-1, ["audio"], cached=False) == 1


def test_a_process_that_may_start_no_others_reads_by_itself() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(loader.processes, (3, ["video"], False)) == 0
        assert pool.apply(loader.processes, (-1, ["video"], False)) == 0

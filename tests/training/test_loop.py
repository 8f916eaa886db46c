"""The loop is plain training: batch by batch what a few lines of torch do."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy import SPEC, ToyContrast, toy

from mainspring.encoders.encoder import Encoder
from mainspring.errors import DataError
from mainspring.pretexts.pretext import Batch, Features
from mainspring.recordings.catalogue import Catalogue, open_catalogue
from mainspring.recordings.reader import Reader
from mainspring.recordings.survey import survey
from mainspring.training import loader, loop
from mainspring.training.loop import open_fabric, train
from mainspring.training.plan import Plan
from mainspring.training.progress import Log
from mainspring.training.run import Run
from mainspring.training.schedule import Optimiser
from mainspring.training.settings import Loading, Settings

STEPS, BATCH = 10, 6


class Quiet(ToyContrast):
    """Without noise, whose draws depend on how a batch is cut; remembers what follows steps."""

    seen: list[list[int]]

    def encode(self, encoders: dict[str, Encoder], batch: Batch) -> Features:
        vectors = encoders["series"](*batch["series"].flat())
        return {
            "z": self.project(vectors).unflatten(0, (-1, 2)),
            "h": vectors.unflatten(0, (-1, 2)),
        }

    def after_step(self, encoders: dict[str, Encoder], batch: Batch, features: Features) -> None:
        assert len(features["z"]) == len(batch)
        self.seen.append(batch.recording.tolist())


def planned(folder: Path, dropout: float = 0.0, **settings: Any) -> Plan:
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for number in range(20):
        np.save(folder / f"{number:02}.npy", rng.normal(size=(40, 2)).astype(np.float32))
    found = survey(open_catalogue(str(folder)))
    asked = Settings(
        data=str(folder), seed=3, precision="fp32", batch=BATCH, loading=Loading(workers=0),
        **settings,
    )  # fmt: skip
    pretext, encoders = toy(dropout=dropout)
    pretext.__class__, pretext.seen = Quiet, []
    rows = np.arange(20)
    return Plan(
        asked, found.select(rows < 15), found.select(rows >= 15), {}, [], {"series": SPEC},
        encoders, pretext, Reader({"series": SPEC}), (False, 0),
    )  # fmt: skip


def trained(plan: Plan, folder: Path) -> loop.Finished:
    run = Run(folder)
    run.begin({})
    return train(plan, run, STEPS, Log(quiet=True), open_fabric(plan.settings))


def cosine(step: int) -> float:
    """Of a peak of 0.05 with two steps of warm-up."""
    if step < 2:
        return 0.05 * (step + 1) / 2
    return 0.05 * (1 + math.cos(math.pi * (step - 2) / (STEPS - 2))) / 2


@pytest.mark.parametrize(
    ("optimiser", "parts"),
    [
        (Optimiser(lr=0.05, warmup=0.2, weight_decay=0.1, ema=0.7), 1),
        (
            Optimiser(
                name="sgd", lr=0.05, warmup=0.0, schedule="constant", momentum=0.8, clip=0.01,
                weight_decay=0.1, mean=True,
            ),
            3,
        ),
    ],
)  # fmt: skip
def test_a_run_equals_plain_training(tmp_path: Path, optimiser: Optimiser, parts: int) -> None:
    plan = planned(tmp_path / "data", optimiser=optimiser, parts=parts)
    done = trained(plan, tmp_path / "run")

    pretext, encoders = toy()
    pretext.__class__, pretext.seen = Quiet, []
    encoder = encoders["series"]
    weights = [*pretext.parameters(), *encoder.parameters()]
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    plain: torch.optim.Optimizer = (
        torch.optim.SGD(groups, lr=0.05, momentum=0.8)
        if optimiser.name == "sgd"
        else torch.optim.AdamW(groups, lr=0.05)
    )
    draws = loader.Draws(plan.catalogue, plan.reader, pretext, 3, BATCH)
    history = [[p.detach().clone() for p in encoder.parameters()]]
    losses, rates, norms = [], [], []
    for step in range(STEPS):
        batch, _ = loader.collate([draws[step * BATCH + n] for n in range(BATCH)])
        assert batch is not None
        rates.append(0.05 if optimiser.schedule == "constant" else cosine(step))
        for group in plain.param_groups:
            group["lr"] = rates[-1]
        plain.zero_grad()
        loss = pretext(encoders, batch).loss
        loss.backward()
        norm = torch.cat([p.grad.flatten() for p in weights if p.grad is not None]).norm()
        norms.append(norm.item())
        if optimiser.clip and norm > optimiser.clip:
            for weight in weights:
                assert weight.grad is not None
                weight.grad *= optimiser.clip / norm
        plain.step()
        losses.append(loss.item())
        history.append([p.detach().clone() for p in encoder.parameters()])

    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=1e-4)
    assert [row["lr"] for row in rows] == pytest.approx(rates)
    assert [row["samples"] for row in rows] == [BATCH * (step + 1) for step in range(STEPS)]
    assert done.loss == rows[-1]["loss"]
    assert not optimiser.clip or min(norms) < optimiser.clip < max(norms)
    if optimiser.mean:
        averages = [torch.stack(list(each)).mean(0) for each in zip(*history, strict=True)]
    else:
        averages = history[0]
        for later in history[1:]:
            averages = [0.7 * a + 0.3 * b for a, b in zip(averages, later, strict=True)]
    for got, expected in zip(plan.encoders["series"].parameters(), averages, strict=True):
        torch.testing.assert_close(got.detach(), expected, rtol=1e-4, atol=1e-6)
    order = loader.Order(15, 3)
    assert isinstance(plan.pretext, Quiet)
    assert plan.pretext.seen == [
        [order[step * BATCH + n] for n in range(BATCH)] for step in range(STEPS)
    ]


def test_a_resumed_run_ends_with_the_mean_over_all_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mean = Optimiser(name="sgd", lr=0.05, mean=True)

    def fresh() -> Plan:
        return planned(tmp_path / "data", optimiser=mean, checkpoint=0.0, parts=2)

    whole, stopped, resumed = fresh(), fresh(), fresh()
    trained(whole, tmp_path / "whole")
    learn, steps = loop.learn, iter(range(STEPS))

    def stopping(*given: Any) -> Any:
        if next(steps) == 5:
            raise KeyboardInterrupt
        return learn(*given)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "learn", stopping)
        with pytest.raises(KeyboardInterrupt):
            trained(stopped, tmp_path / "broken")
    trained(resumed, tmp_path / "broken")
    pairs = zip(
        whole.encoders["series"].parameters(), resumed.encoders["series"].parameters(), strict=True
    )
    assert all(torch.equal(one, two) for one, two in pairs)


def test_a_run_that_is_opened_again_when_done_tells_what_it_told(tmp_path: Path) -> None:
    first = trained(planned(tmp_path / "data"), tmp_path / "run")
    again = trained(planned(tmp_path / "data"), tmp_path / "run")
    assert (again.loss, again.answers, again.alarms) == (first.loss, first.answers, first.alarms)


def test_a_batch_is_encoded_in_as_many_parts_as_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path / "data", parts=3)
    learn, sizes = loop.learn, []

    def watching(pretext: Any, encoders: Any, parts: list[Batch], *given: Any) -> Any:
        sizes.append([len(part) for part in parts])
        return learn(pretext, encoders, parts, *given)

    monkeypatch.setattr(loop, "learn", watching)
    trained(plan, tmp_path / "run")
    assert sizes == [[2, 2, 2]] * STEPS


def test_answers_at_the_end_are_on_recordings_kept_back_without_dropout(tmp_path: Path) -> None:
    plan = planned(tmp_path / "data", dropout=0.5, optimiser=Optimiser(lr=0.05))
    done = trained(plan, tmp_path / "run")
    assert done.held
    pretext, encoders = plan.pretext, plan.encoders
    encoders["series"].eval()

    def hits(recordings: Catalogue, seed: int) -> float:
        draws = loader.Draws(recordings, plan.reader, pretext, seed, 5)
        batches = [
            loader.collate([draws[5 * first + n] for n in range(5)])[0] for first in range(4)
        ]
        with torch.no_grad():
            outcomes = [pretext(encoders, batch) for batch in batches if batch is not None]
        return float(np.mean([outcome.answers["match"].accuracy.item() for outcome in outcomes]))

    want = hits(plan.held, 3 + 1)  # other draws than training's
    assert done.answers == {"match": (pytest.approx(want), pytest.approx(1 / 5))}
    assert want not in (hits(plan.held, 3), hits(plan.catalogue, 3 + 1))


def test_a_run_stops_where_most_recordings_fail(tmp_path: Path) -> None:
    plan = planned(tmp_path / "data")
    for number in range(8):
        (tmp_path / f"data/{number:02}.npy").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"8 of 15 recordings could not be read, too many"):
        trained(plan, tmp_path / "run")
    few = planned(tmp_path / "others")
    for number in range(7):
        (tmp_path / f"others/{number:02}.npy").write_bytes(b"broken")
    done = trained(few, tmp_path / "second")
    assert sorted(Path(name).name for name in done.quarantined) == [
        f"{number:02}.npy" for number in range(7)
    ]


def test_a_loss_that_is_no_number_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path / "data")
    learn, steps = loop.learn, iter(range(STEPS))

    def diverging(*given: Any) -> Any:
        outcome, features, facts = learn(*given)
        if next(steps) == 3:
            outcome.loss = outcome.loss * math.inf
        return outcome, features, facts

    monkeypatch.setattr(loop, "learn", diverging)
    with pytest.raises(loop.RunError, match="The loss is inf at step 4"):
        trained(plan, tmp_path / "run")
    for module in (plan.pretext, *plan.encoders.values()):
        assert all(p.isfinite().all() for p in nn.Module.parameters(module))

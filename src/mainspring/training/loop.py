"""The training loop.

One process, or many under torchrun: `torchrun --nproc-per-node 8 -m mainspring pretrain ...`.
It stops at its budget, and on Ctrl-C once the step in progress is done and kept. Started again with
the same settings it goes on from the newest checkpoint, and on one device its losses are bit for
bit those of a run that never stopped.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from mainspring.encoders import precision
from mainspring.errors import DataError, RunError
from mainspring.pretexts.pretext import Outcome
from mainspring.training import checkpoint, loader, schedule, unasked
from mainspring.training.interrupt import Interrupt
from mainspring.training.monitors import effective_rank, feature_spread
from mainspring.training.order import torch_seed
from mainspring.training.plan import Plan
from mainspring.training.progress import Alarms, Log, line
from mainspring.training.run import Run, unwritten
from mainspring.training.settings import Settings
from mainspring.training.step import learn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MOST_FAILING = 0.5
HELD_SAMPLES = 512
QUIET_STEPS = 20


@dataclass
class Finished:
    """What a run ends with.

    Attributes:
        steps: Steps taken in all.
        loss: Mean of the last tenth of the losses.
        answers: For each question its accuracy on recordings kept back (on the last training
            steps where none were) and chance.
        held: Whether the answers are on recordings kept back.
        alarms: Names of the alarms that were raised.
        seconds: Wall time of the loop, this time.
        waiting: Share of it spent waiting for data.
        speed: Samples a second.
        quarantined: Recordings that failed, with reasons.
    """

    steps: int
    loss: float
    answers: dict[str, tuple[float, float]]
    held: bool
    alarms: list[str]
    seconds: float
    waiting: float
    speed: float
    quarantined: dict[str, str]


def open_fabric(settings: Settings) -> Fabric:
    """Device and processes: a GPU where there is one, every process that torchrun started."""
    from lightning_fabric import Fabric  # a second or two, which what does not train is spared

    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=local,
        num_nodes=max(1, world // local),
        strategy="ddp" if world > 1 else "auto",
    )
    fabric.launch()
    return fabric


def train(plan: Plan, run: Run, steps: int, log: Log, fabric: Fabric) -> Finished:
    """Trains to the end of the budget, resuming where the run stopped.

    Args:
        plan: What to train on what.
        run: Where to write; opened and locked by the caller.
        steps: Steps of the whole run.
        log: Where to say it.
        fabric: Device and processes.

    Raises:
        DataError: If too many recordings fail to leave a training set, or nothing is asked of them.
        ConfigError: If there are more processes than recordings in a batch.
        RunError: If the loss is no longer finite, or the disk is full.
        KeyboardInterrupt: After Ctrl-C, once the step in progress is done and kept.
    """
    settings, device, lead = plan.settings, fabric.device, fabric.global_rank == 0
    pretext, encoders = plan.pretext.to(device), plan.encoders
    modules: dict[str, nn.Module] = {"pretext": pretext}
    chosen = precision.choose(settings.precision, device)
    for stream, encoder in encoders.items():
        encoders[stream] = precision.prepare(encoder.to(device), chosen)
        modules[f"encoder.{stream}"] = encoders[stream]
    parameters = [p for module in modules.values() for p in module.parameters()]
    optimiser = schedule.build(settings.optimiser, parameters, settings.batch)
    averages = {}
    if settings.optimiser.ema or settings.optimiser.mean:
        averages = {s: copy.deepcopy(e).requires_grad_(False) for s, e in encoders.items()}
        modules |= {f"average.{s}": e for s, e in averages.items()}
    joining = [schedule.Average(average, encoders[s]) for s, average in averages.items()]

    taken, before = checkpoint.restore(run.checkpoints, modules, optimiser, device)
    quarantined = {row: why for row, why in before.items() if _still(plan, row, why)}
    metrics = run.folder / "metrics.jsonl"
    if lead:
        checkpoint.rewind(metrics, taken)
        if taken:
            log.say(f"Resuming after step {taken} of {steps}.")
    for module in modules.values():
        module.train()

    draws = loader.Draws(plan.catalogue, plan.reader, plan.pretext, settings.seed, settings.batch)
    workers = loader.processes(settings.loading.workers, plan.clips, plan.cached[0])
    if workers:
        plan.catalogue.freeze(run.folder / "catalogue")  # workers map it instead of copying it
    ready = loader.shares(
        draws, settings.batch, taken, steps, fabric.global_rank, fabric.world_size, workers
    )
    alarms = Alarms(begin=max(QUIET_STEPS, steps // 5), idle=min(QUIET_STEPS, steps))
    peak = settings.optimiser.peak(settings.batch)
    idle, losses = 0, deque[float](maxlen=max(1, steps // 10))
    last: dict[str, tuple[float, float]] = {}
    for row in checkpoint.past(metrics, taken):
        losses.append(row["loss"])
        last = {name: (got, chance) for name, (got, chance) in row["answers"].items()}
        idle = idle + 1 if unasked.idle(row["loss"], last) else 0
        alarms.check(row["step"], {n: row[n] for n in ("rank", "spread") if n in row}, idle)
    alarms.begin = max(taken + QUIET_STEPS, alarms.begin)
    begun = saved = time.perf_counter()
    kept, waited = taken, 0.0
    recent: deque[tuple[float, float]] = deque(maxlen=20)

    place = metrics if lead else os.devnull
    with open(place, "ab", buffering=0) as sheet, Interrupt(log) as interrupt:
        for step in range(taken, steps):
            started = time.perf_counter()
            share = next(ready)
            new = [p for p in share.problems if p.row not in quarantined]
            problems, empty = _anywhere(new, share.batch is None, device, fabric.world_size)
            for problem in problems:
                if problem.row not in quarantined:
                    quarantined[problem.row] = f"{problem.name}: {problem.reason}"
                    log.say(f"Set aside {quarantined[problem.row]}")
            _enough(quarantined, plan)
            if share.batch is None or empty:
                log.say(f"Step {step + 1} is left out: no recording of a process can be read.")
                continue
            lr = schedule.rate(
                step, steps, peak, settings.optimiser.warmup, settings.optimiser.schedule
            )
            for group in optimiser.param_groups:
                group["lr"] = lr
            for parameter in parameters:
                parameter.grad = None
            parts = share.batch.to(device).split(settings.parts)
            key = (settings.seed, step * settings.batch)
            outcome, features, facts = learn(pretext, encoders, parts, key, chosen.autocast)
            loss = outcome.loss.item()
            if loss != loss or abs(loss) == float("inf"):
                raise RunError(_diverged(loss, step))
            if settings.optimiser.clip:
                nn.utils.clip_grad_norm_(parameters, settings.optimiser.clip)
            optimiser.step()
            for joined in joining:
                joined.join(settings.optimiser.keep(step))
            with torch.no_grad():
                pretext.after_step(encoders, facts, features)

            now = time.perf_counter()
            waited += share.waited
            recent.append((now - started, share.waited))
            losses.append(loss)
            spent, stood = (sum(values) for values in zip(*recent, strict=True))
            last = {n: (a.accuracy.item(), a.chance) for n, a in outcome.answers.items()}
            measured = {name: value.item() for name, value in outcome.metrics.items()}
            idle = idle + 1 if unasked.idle(loss, last) else 0
            if idle == step + 1 == QUIET_STEPS:
                raise DataError(_nothing(idle, settings.pretext, measured))
            health = _health(outcome)
            speed = len(recent) * settings.batch / spent
            row = {
                "step": step + 1,
                "samples": (step + 1) * settings.batch,
                "loss": loss,
                "lr": lr,
                "answers": last,
                **measured,
                **health,
                "speed": speed,
                "waiting": stood / spent,
            }
            if lead:
                try:
                    sheet.write(f"{json.dumps(row)}\n".encode())
                except OSError as error:
                    raise unwritten(metrics, error) from error
                log.update(
                    line(
                        step + 1,
                        steps,
                        loss,
                        last,
                        health.get("rank"),
                        speed,
                        stood / spent,
                        spent / len(recent) * (steps - step - 1),
                    ),
                    final=step + 1 == steps,
                )
                watched = {**health, "waiting": stood / spent}
                for alarm in alarms.check(step + 1, watched, idle):
                    log.say(alarm)
            stop = interrupt.after_step(device)
            if lead and (stop or step + 1 == steps or now - saved > settings.checkpoint):
                checkpoint.save(run.checkpoints, step + 1, modules, optimiser, quarantined)
                saved, kept = time.perf_counter(), step + 1
            if stop:
                raise KeyboardInterrupt
        if lead and kept < steps:  # all recordings of the last step failed
            checkpoint.save(run.checkpoints, steps, modules, optimiser, quarantined)
    spent = time.perf_counter() - begun
    if averages:
        for stream, average in averages.items():
            encoders[stream].load_state_dict(average.state_dict())
    answers = held_answers(plan, chosen.autocast, device)
    return Finished(
        steps=steps,
        loss=sum(losses) / len(losses) if losses else float("nan"),
        answers=answers or last,
        held=bool(answers),
        alarms=alarms.raised,
        seconds=spent,
        waiting=waited / spent,
        speed=(steps - taken) * settings.batch / spent,
        quarantined={plan.catalogue[row].name: why for row, why in quarantined.items()},
    )


def held_answers(plan: Plan, autocast: Any, device: torch.device) -> dict[str, tuple[float, float]]:
    """Each question's accuracy on recordings kept back, beside chance."""
    if len(plan.held) < 2:
        return {}
    total = min(HELD_SAMPLES, 4 * len(plan.held))
    size = min(plan.settings.batch, len(plan.held))
    draws = loader.Draws(plan.held, plan.reader, plan.pretext, plan.settings.seed + 1, size)
    for module in (plan.pretext, *plan.encoders.values()):
        module.eval()
    sums: dict[str, list[float]] = {}
    for first in range(0, total - size + 1, size):
        batch, _ = loader.collate([draws[n] for n in range(first, first + size)])
        if batch is None or len(batch) < 2:
            continue
        batch = batch.to(device)
        batch.generator.manual_seed(torch_seed(plan.settings.seed, first, 3))
        batch.common.manual_seed(torch_seed(plan.settings.seed, first, 4))
        with torch.no_grad(), autocast():
            features = plan.pretext.encode(plan.encoders, batch)
        exact = {n: v.float() if v.is_floating_point() else v for n, v in features.items()}
        with torch.no_grad():
            outcome = plan.pretext.ask(exact, batch.without_samples())
        for name, answer in outcome.answers.items():
            sums.setdefault(name, []).append(answer.accuracy.item())
            sums.setdefault(f"{name} chance", []).append(answer.chance)
    return {
        name: (sum(values) / len(values), sum(sums[f"{name} chance"]) / len(values))
        for name, values in sums.items()
        if not name.endswith(" chance")
    }


def _health(outcome: Outcome) -> dict[str, float]:
    """Effective rank and spread of the embeddings of the step."""
    if outcome.embedding is None or len(outcome.embedding) < 2:
        return {}
    vectors = outcome.embedding.float()
    return {"rank": float(effective_rank(vectors)), "spread": float(feature_spread(vectors))}


def _diverged(loss: float, step: int) -> str:
    """Why a run is stopped whose loss is no number."""
    if step:
        return (
            f"The loss is {loss} at step {step + 1}. The newest checkpoint is intact. Lower "
            "optimiser.lr or set optimiser.clip, in a new run folder."
        )
    return (
        f"The loss is {loss} at the first step, before anything was learnt: the values may be too "
        "large. Bring them to a size near 1, or let the encoder do it, as with normalise = "
        '"recording" under [architecture.series].'
    )


def _nothing(steps: int, pretext: str, shares: Mapping[str, float]) -> str:
    """Why a run that asks nothing is stopped."""
    why = " ".join(f"Last step: {line}" for line in unasked.said(shares))
    return (
        f"Nothing was asked in {steps} steps: {pretext} found no clip to ask about, so the loss is "
        f"0 and nothing can be learnt. {why or '`mainspring check` tells what streams hold.'}"
    )


def _anywhere(
    problems: list[loader.Problem], empty: bool, device: torch.device, world: int
) -> tuple[list[loader.Problem], bool]:
    """The problems that any process met at this step, and whether one of them is left without
    recordings; all keep the same account, and leave out the same steps."""
    if world == 1:
        return problems, empty
    some = torch.tensor([len(problems), empty], device=device)
    dist.all_reduce(some)
    met, without = some.tolist()
    every: list[list[loader.Problem]] = [[] for _ in range(world)]
    if met:
        dist.all_gather_object(every, problems)
    return [problem for own in every for problem in own], bool(without)


def _still(plan: Plan, row: int, why: str) -> bool:
    """Whether the recording that was set aside is still at its row: data may have changed since."""
    return row < len(plan.catalogue) and why.startswith(f"{plan.catalogue[row].name}: ")


def _enough(quarantined: dict[int, str], plan: Plan) -> None:
    total = len(plan.catalogue)
    if len(quarantined) > MOST_FAILING * total or total - len(quarantined) < 2:
        example = next(iter(quarantined.values()))
        raise DataError(
            f"{len(quarantined)} of {total} recordings could not be read, too many to go on. "
            f"The first: {example}. `mainspring check` lists them all."
        )

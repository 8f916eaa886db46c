"""From recordings to an encoder in a run folder."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.api.data import catalogue, counter
from mainspring.encoders import catalog as encoder_catalog
from mainspring.encoders import precision
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.joint import JointHead
from mainspring.encoders.saved import save_encoder, save_joint
from mainspring.errors import DataError
from mainspring.evaluate import report as reporting
from mainspring.evaluate import verdict as verdicts
from mainspring.evaluate.baselines import baselines
from mainspring.evaluate.embed import embed as embed_windows
from mainspring.recordings.catalogue import Catalogue
from mainspring.recordings.processes import cores
from mainspring.training import unasked
from mainspring.training.estimate import choose_steps, estimate
from mainspring.training.loop import open_fabric, train
from mainspring.training.order import seeded
from mainspring.training.plan import Plan, describe, make_plan
from mainspring.training.progress import Log
from mainspring.training.run import Run, plain
from mainspring.training.settings import Settings, settle

if TYPE_CHECKING:
    from lightning_fabric import Fabric

VERDICT_RECORDINGS = 200


def pretrain(
    data: Any,
    pretext: str = "taco",
    *,
    out: str | Path,
    verdict: bool = True,
    report: bool = True,
    log: Log | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Trains an encoder by asking a question of unlabelled recordings.

    The same call again resumes.

    Args:
        data: Recordings, as `catalogue` takes them.
        pretext: What is asked.
        out: Run folder.
        verdict: Compare the encoder with random weights and raw features at the end.
        report: Write report.html at the end.
        log: Where to say how far it is.
        settings: Fields of `mainspring.training.settings.Settings`.

    Returns:
        The run's summary, as in summary.json.

    Raises:
        DataError: If there is nothing to learn from.
        ConfigError: If settings are unknown or contradict each other.
        RunError: If `out` holds something else, or cannot be written.
    """
    named = data if isinstance(data, str | Path) else f"{type(data).__name__} in memory"
    asked = settle({"data": str(named), "pretext": pretext} | settings)
    fabric, run = open_fabric(asked), Run(out)
    lead = fabric.global_rank == 0
    with run.alone() if lead else contextlib.nullcontext():
        if lead:
            run.begin(plain(asked))
        fabric.barrier()
        done = run.read_json("summary.json")
        if done is not None:
            if lead:
                (log or Log(quiet=True)).say(f"{out} is finished: {done['steps']} steps.")
            return done
        told = (log or Log(quiet=True)).into(run.folder / "log.txt" if lead else None)
        found = catalogue(data, told)
        plan = _precise(make_plan(asked, found), fabric, run)
        for note in plan.notes:
            told.say(note)
        for reason, count in plan.aside.items():
            told.say(f"Set aside {count} recordings: {reason}.")
        if plan.problems:
            told.say(f"Set aside {len(plan.problems)} that cannot be used; check.json lists them.")
        steps = _steps(plan.settings, plan, found, run)
        if lead:
            before, now = run.read_json("check.json"), len(plan.catalogue)
            if before is not None and before["recordings"] != now:
                told.say(
                    f"The data have changed: there are {now} recordings to learn from, and were "
                    f"{before['recordings']}. The run goes on with those that there are."
                )
            run.write_json("check.json", describe(plan))
            run.resolve(
                {
                    "steps": steps,
                    "precision": plan.settings.precision,
                    "clips": plan.clips,
                    "encoders": {
                        s: {"name": _name(e), **e.settings} for s, e in plan.encoders.items()
                    },
                }
            )
        told.say(
            f"{pretext}: {len(plan.catalogue)} recordings, {len(plan.held)} kept back, "
            f"{steps} steps of {plan.settings.batch}."
        )
        if lead:
            _fill(plan, told)
        fabric.barrier()
        finished = train(plan, run, steps, told, fabric)
        summary: dict[str, Any] = {"pretext": pretext, "data": str(named), **asdict(finished)}
        if lead:
            for stream, encoder in plan.encoders.items():
                save_encoder(
                    run.encoder(stream), encoder.cpu(), plan.clips[stream], {"pretext": pretext}
                )
            for stream, head in plan.pretext.joint().items():
                assert isinstance(head, JointHead)
                save_joint(run.encoder(stream), head)
            left_out = unasked.means(run.folder / "metrics.jsonl")
            summary["left_out"] = left_out
            for line in unasked.said(left_out):
                told.say(line)
            summary["verdict"] = _verdict(plan, told) if verdict else ""
            if finished.quarantined:
                run.write_json("check.json", describe(plan) | {"quarantined": finished.quarantined})
            run.write_json("summary.json", summary)
            if report:
                reporting.write_report(run, verdict=summary["verdict"])
            if verdict:
                told.say(summary["verdict"])
        fabric.barrier()
    return summary


def _precise(plan: Plan, fabric: Fabric, run: Run) -> Plan:
    """The plan with a precision in place of "auto": that of before, where the run is resumed, and
    of the first process, where there are several, so that all compute alike."""
    before = run.config().get("resolved", {}).get("precision")
    chosen = before or precision.choose(plan.settings.precision, fabric.device).name
    agreed = fabric.broadcast(chosen)
    return replace(plan, settings=replace(plan.settings, precision=agreed))


def _steps(asked: Settings, plan: Plan, found: Catalogue, run: Run) -> int:
    """Steps of the run: as resolved before, or chosen now."""
    before = run.config().get("resolved", {}).get("steps")
    if before is not None:
        return int(before)
    if asked.minutes is None:
        return choose_steps(asked, len(plan.catalogue))
    spent = make_plan(replace(asked, loading=replace(asked.loading, cache_gb=0.0)), found)
    return estimate(spent).steps


def _fill(plan: Plan, log: Log) -> None:
    """Decodes what the cache does not hold yet; files that fail are met again when read."""
    if plan.reader.cache is not None:
        every = itertools.chain(plan.catalogue, plan.held)
        told = counter(log, "decoding")
        plan.reader.cache.build(every, plan.clips, cores(), told)


def _verdict(plan: Plan, log: Log) -> str:
    """The trained encoder beside random weights and raw features, without labels."""
    rows = seeded(plan.settings.seed, 0, 4).permutation(len(plan.catalogue))
    some = plan.catalogue.select(np.sort(rows[:VERDICT_RECORDINGS]))
    several = len(plan.encoders) > 1
    lines = []
    for stream, encoder in plan.encoders.items():
        clip, told = plan.clips[stream], counter(log, f"judging {stream}")
        try:
            vectors = embed_windows(
                encoder, clip, some, plan.reader, None, stamps={}, progress=told
            )
            others = baselines(encoder, clip, some, plan.reader, progress=told)
        except DataError as error:
            lines.append(f"No verdict on {stream}: {error}")
            continue
        results = {
            name: verdicts.unlabelled(v)
            for name, v in {verdicts.TRAINED: vectors, **others}.items()
        }
        lines += [f"Verdict on {stream}:"] if several else []
        lines.append(verdicts.verdict(results))
    return "\n".join(lines)


def _name(encoder: Encoder) -> str:
    """The name that `--encoder` knows it by."""
    return encoder_catalog.name_of(type(encoder))

"""The command line: one function a verb, one dataclass of flags a function.

Every verb takes --json (one JSON object with its results on stdout; progress goes to stderr) and
--config FILE (TOML with the same fields as the flags, and sections that are no flags).
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from mainspring.errors import ConfigError, DataError, MainspringError, unknown


@dataclass(frozen=True)
class Demo:
    """A generated world of videos with sound, and the whole path on it, on a laptop."""

    out: str = "runs/demo"
    """Folder of the demo."""
    recordings: int = 600
    """How many videos to generate."""
    minutes: float = 6.0
    """Time the whole may take."""
    seed: int = 0
    """Seed of everything."""
    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Check:
    """What is in DATA, what is broken, and what training would cost."""

    data: Positional[str]
    """Folder, glob, manifest or file."""
    pretext: str = "taco"
    """Pretext whose cost is measured."""
    encoder: tuple[str, ...] = ()
    """Encoders whose cost is measured; chosen by stream otherwise."""
    batch: int = 64
    """Recordings a step."""
    quick: bool = False
    """Only look at files; run no training steps."""
    config: Path | None = None
    """TOML file with the same fields, and those of pretrain."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Pretrain:
    """Trains an encoder by asking a question of unlabelled recordings. The same command resumes."""

    data: Positional[str]
    """Folder, glob, manifest or file."""
    out: str
    """Run folder."""
    pretext: str = "taco"
    """What is asked; `mainspring pretexts` lists them."""
    encoder: tuple[str, ...] = ()
    """One a stream; `mainspring encoders` lists them. Chosen by stream and device otherwise."""
    stream: tuple[str, ...] = ()
    """Streams to learn from (video, audio, series)."""
    steps: int | None = None
    """Budget in steps. One of steps, epochs and minutes; chosen from the data otherwise."""
    epochs: float | None = None
    """Budget in visits to every recording."""
    minutes: float | None = None
    """Budget in time on this machine."""
    batch: int = 64
    """Recordings a step over all processes."""
    seed: int = 0
    """Seed of everything."""
    start: Annotated[str | None, arg(name="from")] = None
    """Start from a run, an encoder folder or a file of weights."""
    config: Path | None = None
    """TOML file: these fields, and [question] [clip] [architecture] [optimiser] [loading]."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Embed:
    """One vector a window of every recording, as Parquet in RUN/embeddings. Restartable."""

    run: Positional[str]
    """Run folder."""
    data: Positional[str]
    """Folder, glob, manifest or file."""
    stream: str | None = None
    """Which encoder, where the run has several."""
    hop: float | None = None
    """Seconds from one window to the next; a clip's length otherwise."""
    batch: int = 64
    """Windows a forward pass."""
    out: str | None = None
    """Another folder for the vectors."""
    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Probe:
    """What the vectors are worth for a label, beside random weights and raw features."""

    run: Positional[str]
    """Run folder."""
    data: Positional[str]
    """Folder, glob, manifest or file."""
    labels: Path | None = None
    """CSV with uri and label; the catalogue's own labels otherwise."""
    column: str = "label"
    """Which column of that file is the label."""
    stream: str | None = None
    """Which encoder, where the run has several."""
    seeds: int = 3
    """How many grouped splits."""
    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Search:
    """The windows most like an example: a file, or a span of it as clip.mp4@2.0-4.0."""

    run: Positional[str]
    """Run folder."""
    query: Positional[str]
    """The example."""
    k: int = 10
    """How many windows."""
    data: str | None = None
    """What to search; otherwise what was embedded last."""
    stream: str | None = None
    """Which encoder, where the run has several."""
    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class List:
    """What there is, with citation."""

    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


def demo(flags: Demo, extra: dict[str, Any]) -> tuple[Any, str]:
    """Runs the demonstration."""
    from mainspring.demo import run_demo

    _no(extra, "demo")
    summary = run_demo(
        flags.out, recordings=flags.recordings, minutes=flags.minutes, seed=flags.seed, log=_log()
    )
    return summary, summary["text"]


def check(flags: Check, extra: dict[str, Any]) -> tuple[Any, str]:
    """Looks at data."""
    from mainspring import api
    from mainspring.recordings.survey import render

    report = api.check(
        flags.data,
        flags.pretext,
        cost=not flags.quick,
        log=_log(),
        encoder=flags.encoder,
        batch=flags.batch,
        **extra,
    )
    text = "\n".join([render(report), *_cost(report)])
    if not report["usable"]:
        print(json.dumps(report, default=str) if flags.json else text)
        raise DataError(f"Nothing in {flags.data} is usable; the reasons are above.")
    return report, text


def pretrain(flags: Pretrain, extra: dict[str, Any]) -> tuple[Any, str]:
    """Trains."""
    from mainspring import api

    given = {f.name: getattr(flags, f.name) for f in fields(flags)}
    for name in ("data", "out", "pretext", "config", "json"):
        given.pop(name)
    summary = api.pretrain(flags.data, flags.pretext, out=flags.out, log=_log(), **(extra | given))
    return summary, (
        f"The encoder is in {flags.out}/encoder, the report in {flags.out}/report.html.\n"
        f"Next: mainspring embed {flags.out} {flags.data}"
    )


def embed(flags: Embed, extra: dict[str, Any]) -> tuple[Any, str]:
    """Embeds."""
    from mainspring import api

    _no(extra, "embed")
    vectors = api.embed(
        flags.run,
        flags.data,
        stream=flags.stream,
        hop=flags.hop,
        batch=flags.batch,
        out=flags.out,
        log=_log(),
    )
    result = {
        "windows": len(vectors),
        "dim": int(vectors.matrix.shape[1]),
        "recordings": len(set(vectors.rows.tolist())),
        "problems": vectors.problems,
    }
    text = f"{len(vectors)} vectors of {result['dim']} numbers, {result['recordings']} recordings."
    if vectors.problems:
        text += f"\n{len(vectors.problems)} left out:" + "".join(
            f"\n  {name}: {why}" for name, why in vectors.problems.items()
        )
    return result, f"{text}\nNext: mainspring search {flags.run} FILE@START-END"


def probe(flags: Probe, extra: dict[str, Any]) -> tuple[Any, str]:
    """Probes."""
    from mainspring import api

    _no(extra, "probe")
    probed = api.probe(
        flags.run,
        flags.data,
        labels=flags.labels,
        column=flags.column,
        stream=flags.stream,
        seeds=tuple(range(flags.seeds)),
        log=_log(),
    )
    rows = [f"{'':16}{'probe':>8}{'interval':>16}{'1-NN':>8}{'R@1':>8}{'R@5':>8}"]
    for name, result in probed.results.items():
        rows.append(
            f"{name:16}{result.accuracy:8.1%}{f'{result.low:.1%}-{result.high:.1%}':>16}"
            f"{probed.neighbours[name][1]:8.1%}{probed.recall[name].values[1]:8.1%}"
            f"{probed.recall[name].values[5]:8.1%}"
        )
    return probed.to_dict(), "\n".join([*rows, probed.verdict, f"Report: {flags.run}/report.html"])


def search(flags: Search, extra: dict[str, Any]) -> tuple[Any, str]:
    """Searches."""
    from mainspring import api

    _no(extra, "search")
    hits = api.search(
        flags.run, flags.query, k=flags.k, data=flags.data, stream=flags.stream, log=_log()
    )
    lines = [f"{hit.score:6.3f}  {hit.uri}@{hit.start:.2f}-{hit.end:.2f}" for hit in hits]
    return {"hits": [vars(hit) for hit in hits]}, "\n".join(lines)


def pretexts(flags: List, extra: dict[str, Any]) -> tuple[Any, str]:
    """Lists pretexts."""
    from mainspring.pretexts import catalog

    _no(extra, "pretexts")
    found = {
        name: {
            "question": (kind := catalog.find(name)).question,
            "streams": list(kind.accepts),
            "citation": kind.citation,
        }
        for name in catalog.names()
    }
    return found, "\n".join(
        f"{name}\n  {about['question']}\n  {', '.join(about['streams'])}; {about['citation']}"
        for name, about in found.items()
    )


def encoders(flags: List, extra: dict[str, Any]) -> tuple[Any, str]:
    """Lists encoders."""
    from mainspring.encoders import catalog

    _no(extra, "encoders")
    found: dict[str, dict[str, Any]] = {}
    for name in catalog.names():
        kind = catalog.find(name)
        built = kind()
        found[name] = {
            "stream": kind.stream,
            "dim": built.dim,
            "parameters": sum(p.numel() for p in built.parameters()),
            "citation": kind.citation,
        }
    return found, "\n".join(
        f"{name:18}{about['stream']:8}{about['parameters'] / 1e6:8.2f} M weights  "
        f"{about['dim']:5} dims  {about['citation']}"
        for name, about in found.items()
    )


VERBS: dict[str, tuple[type, Callable[[Any, dict[str, Any]], tuple[Any, str]]]] = {
    "demo": (Demo, demo),
    "check": (Check, check),
    "pretrain": (Pretrain, pretrain),
    "embed": (Embed, embed),
    "probe": (Probe, probe),
    "search": (Search, search),
    "pretexts": (List, pretexts),
    "encoders": (List, encoders),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `mainspring`; exits with 2 for a wrong command, 1 for a failure."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        from mainspring import __version__

        print(__version__)
        return
    try:
        if words[0] not in VERBS:
            raise unknown("command", words[0], VERBS)
        kind, verb = VERBS[words[0]]
        flags, extra = _parse(kind, words[0], words[1:])
        result, text = verb(flags, extra)
    except ConfigError as error:
        sys.exit(_fail(error, 2))
    except MainspringError as error:
        sys.exit(_fail(error, 1))
    except KeyboardInterrupt:
        sys.exit(_fail("Stopped. The same command goes on from here.", 130))
    if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks for all
        print(json.dumps(result, default=str) if flags.json else text)


def _parse(kind: type, verb: str, words: list[str]) -> tuple[Any, dict[str, Any]]:
    """Flags over the file's fields over the defaults; what else the file has comes apart."""
    path = _config_path(words)
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text())
        except FileNotFoundError:
            raise ConfigError(f"There is no file {path} (--config).") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is no TOML: {error}.") from None
    values.pop("resolved", None)
    if "from" in values:
        values["start"] = values.pop("from")
    start: Any = object.__new__(kind)  # not through __init__: what is still missing is of no type
    for field in fields(kind):
        value = values.pop(field.name, field.default)
        value = tyro.MISSING if value is MISSING else value
        start.__dict__[field.name] = tuple(value) if isinstance(value, list) else value
    flags = tyro.cli(
        kind,
        args=words,
        prog=f"mainspring {verb}",
        default=start,
        description=kind.__doc__,
    )
    return flags, values


def _config_path(words: list[str]) -> Path | None:
    """The value of --config, which has to be known before the flags are read."""
    for index, word in enumerate(words):
        if word.startswith("--config="):
            return Path(word.removeprefix("--config="))
        if word == "--config" and index + 1 < len(words):
            return Path(words[index + 1])
    return None


def _no(extra: dict[str, Any], verb: str) -> None:
    """Refuses what a config file has and the verb does not take."""
    for key in extra:
        raise unknown(f"setting for {verb}", key, [f.name for f in fields(VERBS[verb][0])])


def _log() -> Any:
    from mainspring.training.progress import Log

    return Log()


def _cost(report: dict[str, Any]) -> list[str]:
    """What training would cost, in words."""
    cost = report.get("cost")
    if cost is None:
        return (
            [f"Cost of {report['pretext']}: {report['cost_problem']}"]
            if "cost_problem" in report
            else []
        )
    minutes = cost["minutes"]
    lines = [
        f"Training {report['pretext']} here: {cost['steps']} steps of {cost['step_seconds']:.2f} "
        f"s, about {minutes:.0f} min"
        + (f" ({minutes / 60:.1f} h)" if minutes >= 120 else "")
        + f"; {cost['parameters'] / 1e6:.2f} M weights, {cost['memory_gb']:.1f} GB of memory"
        + (f", {cost['device_gb']:.1f} GB on the device" if cost["device_gb"] else "")
        + f", {cost['disk_gb']:.2f} GB of disk for decoded samples."
    ]
    plan = report["plan"]
    lines += [f"Note: {note}" for note in plan["notes"]]
    lines += [f"Set aside {count}: {reason}" for reason, count in plan["set_aside"].items()]
    return lines


def _fail(error: object, code: int) -> int:
    """Says what went wrong, in plain words, and returns the exit status."""
    print(f"mainspring: {error}", file=sys.stderr)
    return code


def _help() -> str:
    rows = [
        f"  {name:10} {(kind.__doc__ or '').splitlines()[0]}" for name, (kind, _) in VERBS.items()
    ]
    return "\n".join(
        [
            "mainspring VERB ...: learns from unlabelled videos, sounds and time series.",
            "",
            *rows,
            "",
            "mainspring VERB --help lists a verb's flags.",
        ]
    )

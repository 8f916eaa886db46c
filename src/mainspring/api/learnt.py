"""The pretext of a finished run with the weights it learnt, to ask its question of recordings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mainspring.api.vectors import load
from mainspring.encoders.encoder import Encoder
from mainspring.errors import RunError
from mainspring.pretexts.catalog import find
from mainspring.pretexts.pretext import Pretext
from mainspring.training.run import Run
from mainspring.training.settings import make


@dataclass(frozen=True)
class Learnt:
    """A pretext and the encoders that it was trained with, all in evaluation mode on the CPU.

    Attributes:
        pretext: With the weights of the run's newest checkpoint. Its `clips` are the run's.
        encoders: One a stream, as `load` gives them.
    """

    pretext: Pretext
    encoders: dict[str, Encoder]


def learnt(run: str | Path, name: str) -> Learnt:
    """What a run has learnt to answer.

    Args:
        run: Run folder.
        name: The pretext that it has to be of.

    Raises:
        RunError: If it is of another pretext, is not finished, or its newest checkpoint is not
            there, damaged, or of another version.
    """
    place = Run(run)
    config = place.config()
    if config["pretext"] != name:
        raise RunError(
            f"{run} has learnt {config['pretext']}, and this takes a run of {name}. Train one: "
            f"`mainspring pretrain DATA --pretext {name} --out OTHER`."
        )
    if place.read_json("summary.json") is None:
        raise RunError(f"{run} is not finished. Give its pretrain command again to finish it.")
    saved = {stream: load(run, stream) for stream in place.streams()}
    kind = find(name)
    pretext = kind(
        {stream: one.clip for stream, one in saved.items()},
        {stream: one.encoder.dim for stream, one in saved.items()},
        place.read_json("check.json")["recordings"],
        make(kind.Config, config["question"], "question"),
    )
    _fill(pretext, place)
    return Learnt(pretext.eval(), {stream: one.encoder for stream, one in saved.items()})


def _fill(pretext: Pretext, place: Run) -> None:
    """Loads the weights of the newest checkpoint, which is of the last step."""
    files = sorted(place.checkpoints.glob("step-*.pt"))
    again = (
        f"It holds what the pretext has learnt. Remove {place.folder / 'summary.json'} and give "
        "the pretrain command again to make it anew."
    )
    if not files:
        raise RunError(f"{place.checkpoints} holds no checkpoint. {again}")
    try:
        state = torch.load(files[-1], map_location="cpu", weights_only=True)
        pretext.load_state_dict(state["modules"]["pretext"])
    except Exception as error:  # a damaged file can raise anything
        raise RunError(
            f"{files[-1]} cannot be read ({type(error).__name__}); remove it. {again}"
        ) from error

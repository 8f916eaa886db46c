"""Encoders on disk: what was learnt, how to build it again, and where in time it looked.

A folder holds `encoder.safetensors` and `encoder.json`. The description in the JSON file also
stands in the header of the weights, which are replaced in one step, so that the two cannot
disagree when a process is killed between them: `load_encoder` reads the header, people the JSON.

A head into the space that streams share lies beside them as `joint.safetensors`, and names in its
header the encoder that it was trained with: with any other it is no head of it and is not read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from mainspring.clips import ClipSpec
from mainspring.encoders.catalog import find, name_of
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.joint import Joined, JointHead
from mainspring.encoders.weights import WEIGHTS, LoadReport, load_weights, read_safetensors
from mainspring.errors import ConfigError, RunError

__all__ = [
    "LoadReport",
    "Saved",
    "has_joint",
    "load_encoder",
    "load_weights",
    "save_encoder",
    "save_joint",
    "stamp_of",
]

DESCRIPTION = "encoder.json"
JOINT = "joint.safetensors"


@dataclass(frozen=True)
class Saved:
    """An encoder read back.

    Attributes:
        encoder: In evaluation mode.
        clip: How clips were cut in training.
        stamp: Hash of weights and settings; the same for the same function, wherever it lies.
        extra: What the writer added.
        joint: The head into the space that the run's streams share, in evaluation mode; None where
            training made none.
    """

    encoder: Encoder
    clip: ClipSpec
    stamp: str
    extra: dict[str, Any]
    joint: JointHead | None = None

    def shared(self) -> Saved:
        """The encoder with its head as one, and a stamp of both.

        Raises:
            RunError: If there is no head.
        """
        if self.joint is None:
            raise RunError(
                f"The encoder for {self.encoder.stream} has no head into a space that it shares "
                f"with other streams: it was not trained across streams."
            )
        joined = Joined(self.encoder, self.joint)
        return replace(self, encoder=joined, stamp=stamp_of(joined))


def stamp_of(encoder: Encoder) -> str:
    """16 hexadecimal digits that change with the architecture, its settings or any weight."""
    return _stamp(name_of(type(encoder)), encoder.settings, encoder.state_dict())


def save_encoder(
    folder: Path, encoder: Encoder, clip: ClipSpec, extra: Mapping[str, Any] | None = None
) -> str:
    """Writes an encoder to `folder`, replacing what was there in one step.

    Args:
        folder: Made if need be.
        encoder: Of any memory format and device; its weights are read back as float32, as
            samples are.
        clip: How clips were cut in training.
        extra: Anything that JSON can hold.

    Returns:
        The stamp.

    Raises:
        RunError: If the folder cannot be written.
    """
    name = name_of(type(encoder))
    weights = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in encoder.state_dict().items()
    }
    stamp = _stamp(name, encoder.settings, weights)
    description = {
        "name": name,
        "stream": encoder.stream,
        "settings": encoder.settings,
        "clip": asdict(clip),
        "dim": encoder.dim,
        "stamp": stamp,
        "mainspring": version("mainspring"),
        "extra": dict(extra or {}),
    }
    text = json.dumps(description, indent=2)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / WEIGHTS, save(weights, metadata={"mainspring": text}))
        _replace(folder / DESCRIPTION, text.encode() + b"\n")
    except OSError as error:
        raise RunError(f"The encoder could not be written to {folder}: {error}.") from error
    return stamp


def save_joint(folder: Path, head: JointHead) -> None:
    """Writes the head of the encoder that `save_encoder` wrote to `folder`, replacing the old one
    in one step.

    Args:
        folder: The encoder's.
        head: Trained with it; of any device.

    Raises:
        RunError: If there is no encoder, or one of another width, or nothing can be written.
    """
    path = folder / WEIGHTS
    description = json.loads(_read(path)[1]["mainspring"])
    if description["dim"] != head.dim:
        raise RunError(
            f"The head takes embeddings of {head.dim} numbers, but the encoder in {folder} gives "
            f"{description['dim']}. Save the encoder that it was trained with first."
        )
    weights = {k: v.detach().cpu().contiguous() for k, v in head.state_dict().items()}
    header = {
        "settings": head.settings,
        "encoder": description["stamp"],
        "stamp": _stamp("joint", head.settings, weights),
    }
    try:
        _replace(folder / JOINT, save(weights, metadata={"mainspring": json.dumps(header)}))
    except OSError as error:
        raise RunError(f"The joint head could not be written to {folder}: {error}.") from error


def has_joint(folder: Path) -> bool:
    """Whether an encoder's folder holds a head into a space that streams share."""
    return (folder / JOINT).is_file()


def load_encoder(folder: Path) -> Saved:
    """Reads what `save_encoder` wrote, and the head of `save_joint` if there is one.

    Raises:
        RunError: If the folder holds no encoder, or one that is damaged or that this version
            cannot build.
    """
    path = folder / WEIGHTS
    weights, metadata = _read(path)
    description = json.loads(metadata["mainspring"])
    if _stamp(description["name"], description["settings"], weights) != description["stamp"]:
        raise RunError(f"{path} is damaged: its weights do not have the stamp of its header.")
    try:
        encoder = find(description["name"])(**description["settings"])
        encoder.load_state_dict(weights)
    except (ConfigError, TypeError, RuntimeError) as error:
        raise RunError(
            f"{path} was written by mainspring {description['mainspring']} and cannot be built by "
            f"{version('mainspring')}: {error}"
        ) from error
    encoder.eval()
    return Saved(
        encoder,
        ClipSpec(**description["clip"]),
        description["stamp"],
        description["extra"],
        _load_joint(folder / JOINT, description["stamp"]),
    )


def _load_joint(path: Path, encoder: str) -> JointHead | None:
    """The head at `path` if there is one and it was trained with the encoder of that stamp."""
    if not path.is_file():
        return None
    weights, metadata = _read(path)
    header = json.loads(metadata["mainspring"])
    if header["encoder"] != encoder:
        return None  # left from before the encoder was written anew
    if _stamp("joint", header["settings"], weights) != header["stamp"]:
        raise RunError(f"{path} is damaged: its weights do not have the stamp of its header.")
    head = JointHead(**header["settings"])
    head.load_state_dict(weights)
    return head.eval()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights and header of a file that this module wrote."""
    if not path.is_file():
        raise RunError(f"{path.parent} holds no encoder: {path.name} is not there.")
    try:
        weights, metadata = read_safetensors(path)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is not a complete safetensors file: {error}.") from error
    if "mainspring" not in metadata:
        raise RunError(
            f"{path} holds weights but no description of their encoder. Build the encoder and "
            f"read the weights into it with load_weights."
        )
    return weights, metadata


def _stamp(name: str, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps([name, settings], sort_keys=True).encode())
    for key in sorted(weights):
        value = weights[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _replace(path: Path, content: bytes) -> None:
    """The old content or the new one, never a part, whenever the process is killed."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)

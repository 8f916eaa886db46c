"""Checkpoints: everything a run needs to go on as if it had never stopped.

Order and randomness are functions of (seed, samples seen), so the state is weights, optimiser
state and a step number. Files hold plain tensors and are read without unpickling code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mainspring.errors import RunError
from mainspring.training.run import write

KEEP = 2


def save(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    quarantined: Mapping[int, str],
) -> None:
    """Writes the state after `step` steps, then removes all but the newest two.

    Raises:
        RunError: If it cannot be written; earlier checkpoints stay.
    """
    state = {
        "step": step,
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimiser": optimiser.state_dict(),
        "quarantined": dict(quarantined),
    }
    write(folder / f"step-{step:08d}.pt", lambda file: torch.save(state, file))
    for old in sorted(folder.glob("step-*.pt"))[:-KEEP]:
        old.unlink(missing_ok=True)


def restore(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    device: torch.device,
) -> tuple[int, dict[int, str]]:
    """Loads the newest readable checkpoint into modules and optimiser.

    Returns:
        Steps taken (0 without a checkpoint) and the rows in quarantine with their reasons.

    Raises:
        RunError: If checkpoints exist but none can be read, or the newest is of other weights.
    """
    files = sorted(folder.glob("step-*.pt"), reverse=True)
    for path in files:
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except Exception:  # a damaged file can raise anything; an older one may be whole
            continue
        try:
            for name, module in modules.items():
                module.load_state_dict(state["modules"][name])
            optimiser.load_state_dict(state["optimiser"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise RunError(
                f"{path} holds other weights than these data and this version of Mainspring give: "
                "the series may have other channels or lengths than when the run began, or there "
                "are more or fewer recordings. Repeat the command with the data as they were, or "
                "give --out a new folder."
            ) from error
        _lay_out(optimiser)
        return state["step"], dict(state["quarantined"])
    if files:
        raise RunError(
            f"None of the {len(files)} checkpoints in {folder} can be read. Remove them to start "
            "again from the first step."
        )
    return 0, {}


def _lay_out(optimiser: torch.optim.Optimizer) -> None:
    """Gives the optimiser's averages the strides of their weights, which another version or device
    may have laid out otherwise: a fused optimiser goes through both side by side."""
    for weight, kept in optimiser.state.items():
        for name, value in kept.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                kept[name] = torch.empty_like(weight).copy_(value)


def rewind(metrics: Path, step: int) -> None:
    """Cuts metrics.jsonl back to the steps that a checkpoint covers (a half-written last line
    included), so that resumed steps are not listed twice."""
    if metrics.exists():
        write(metrics, "".join(line + "\n" for line, _ in _whole(metrics, step)).encode())


def past(metrics: Path, step: int) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl up to a step."""
    return [row for _, row in _whole(metrics, step)] if metrics.exists() else []


def _whole(metrics: Path, step: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in metrics.read_text().splitlines():
        try:
            row = json.loads(line)
            if row["step"] > step:
                return
        except (json.JSONDecodeError, KeyError):
            return
        yield line, row

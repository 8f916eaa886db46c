"""The run folder: where everything a run makes is kept, and how it is found again.

```
config.toml      complete and resolved; the same command again resumes
check.json       what the data held, what was set aside and why
metrics.jsonl    one line a step
log.txt          what was said
checkpoints/     weights and optimiser, the newest two
encoder/         safetensors and JSON
embeddings/      Parquet, one row a window
plots/, report.html, summary.json
```
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO

import tomli_w

from mainspring.errors import RunError
from mainspring.training.settings import BUDGETS

LOCK = ".lock"
_PARTS = ("checkpoints", "encoder", "embeddings", "plots")


class Run:
    """One run folder.

    Args:
        folder: Where it is, or is to be.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def checkpoints(self) -> Path:
        """Weights and optimiser states."""
        return self.folder / "checkpoints"

    @property
    def embeddings(self) -> Path:
        """Shards of embeddings."""
        return self.folder / "embeddings"

    @property
    def plots(self) -> Path:
        """Pictures."""
        return self.folder / "plots"

    def encoder(self, stream: str) -> Path:
        """The folder of a stream's encoder."""
        return self.folder / "encoder" / stream

    def streams(self) -> list[str]:
        """The streams that the run has encoders for."""
        return sorted(p.name for p in (self.folder / "encoder").glob("*") if p.is_dir())

    def begin(self, config: Mapping[str, Any]) -> bool:
        """Opens the folder for training: new, or the same configuration as before, or the same
        with more steps where the learning rate does not depend on how many there are.

        Returns:
            True if there is something to resume.

        Raises:
            RunError: If the folder holds something else, or a run with another configuration.
        """
        path = self.folder / "config.toml"
        try:
            if path.exists():
                before = self.config()
                if _goes_on(before, plain(config)):
                    (self.folder / "summary.json").unlink(missing_ok=True)
                    chosen = before.get("resolved", {})
                    chosen.pop("steps", None)
                    longer = plain(config) | ({"resolved": chosen} if chosen else {})
                    write(path, tomli_w.dumps(longer).encode())
                else:
                    self._compare(before, plain(config))
                return True
            if any(item.name != LOCK for item in self.folder.glob("*")):
                raise RunError(
                    f"{self.folder} is not empty and holds no run (no config.toml). "
                    "Give --out a new folder, or empty this one yourself."
                )
            for part in _PARTS:
                (self.folder / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._useless(error) from None
        write(path, tomli_w.dumps(plain(config)).encode())
        return False

    def resolve(self, resolved: Mapping[str, Any]) -> None:
        """Adds what was chosen (steps, encoders, clips) to config.toml under [resolved]."""
        config = self.config() | {"resolved": plain(resolved)}
        write(self.folder / "config.toml", tomli_w.dumps(config).encode())

    def config(self) -> dict[str, Any]:
        """The resolved configuration.

        Raises:
            RunError: If there is no run here.
        """
        path = self.folder / "config.toml"
        if not path.exists():
            raise RunError(
                f"{self.folder} is no run folder: it has no config.toml. Give the folder that "
                "`mainspring pretrain --out` wrote."
            )
        return tomllib.loads(path.read_text())

    def learnt_from(self, data: Any) -> bool:
        """Whether these are the very data, by their path, that the run is trained on, or lie within
        them. Data in memory have no path."""
        named = self.config().get("data")
        if not named or not isinstance(data, str | Path):
            return False
        return Path(os.path.abspath(data)).is_relative_to(os.path.abspath(named))

    def _compare(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        old.pop("resolved", None)
        before, after = flat(old), flat(new)
        changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
        if not changed:
            return
        lines = "\n".join(
            f"  {key}: {before.get(key, '(none)')!r} -> {after.get(key, '(none)')!r}"
            for key in changed
        )
        longer = (
            " A finished run goes on for more steps only with optimiser.schedule constant and "
            "optimiser.warmup 0: other learning rates depend on how many steps there are."
        )
        raise RunError(
            f"{self.folder} holds a run with another configuration. Changed:\n{lines}\n"
            "Repeat the command with the old values to resume it, or give --out a new folder."
            + (longer if set(changed) <= set(BUDGETS) else "")
        )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the folder for one writer; the lock goes with the process, however it ends.

        Raises:
            RunError: If another process is writing to it, or it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / LOCK).touch()
        except OSError as error:
            raise self._useless(error) from None
        with open(self.folder / LOCK, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(
                    f"Another process is writing to {self.folder}. Wait for it, or give --out "
                    "another folder."
                ) from None
            yield

    def _useless(self, error: OSError) -> RunError:
        return RunError(
            f"Cannot use {self.folder} as a run folder: {error.strerror}. Give --out another."
        )

    def write_json(self, name: str, value: Any) -> Path:
        """Writes a JSON file into the folder, whole or not at all."""
        path = self.folder / name
        write(path, json.dumps(plain(value), indent=2).encode())
        return path

    def read_json(self, name: str) -> Any:
        """Reads a JSON file of the folder; None if it is not there."""
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else None


def _goes_on(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether all that is asked of a run is more steps, and they are what they would have been
    had it been asked for so many at once."""
    before, after = flat(old), flat(new)
    same = all(
        before.get(key) == after.get(key)
        for key in before.keys() | after.keys()
        if key not in BUDGETS and not key.startswith("resolved.")
    )
    steady = after.get("optimiser.schedule") == "constant" and not after.get("optimiser.warmup")
    taken = before.get("resolved.steps", before.get("steps", math.inf))
    return same and steady and after.get("steps", 0) > taken


def write(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Writes a file whole or not at all, and makes sure that it is on the disk.

    Args:
        path: Where it will be.
        content: Its bytes, or a function that writes them to an open file.

    Raises:
        RunError: If the disk is full or the place cannot be written; what was there stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        # torch.save stumbles over what it could not write.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if not isinstance(cause, OSError):
            raise
        raise unwritten(path, cause) from error


def unwritten(path: Path, error: OSError) -> RunError:
    """The error for a file that cannot be written."""
    reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
    return RunError(
        f"Cannot write {path}: {reason}. What was already written is intact; make room or "
        "choose another folder, then repeat the same command to go on."
    )


def plain(value: Any) -> Any:
    """Dataclasses, paths, tuples and numpy scalars as dicts, lists and values; None is dropped."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return value


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found

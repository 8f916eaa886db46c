"""The command line: one file a verb, with its flags as a dataclass and a function that runs it.

Every verb takes --json (one JSON object with its results on stdout; progress goes to stderr) and
--config FILE (TOML with the same fields as the flags, and sections that are no flags). A new verb
is a new file here, with a class `Flags` and a function `run`; nothing else lists it.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import tyro

from mainspring import __version__
from mainspring.errors import ConfigError, MainspringError, unknown

ORDER = ("demo", "check", "pretrain", "embed", "probe", "search")
"""The verbs of a first day, which help lists first."""
HELPERS = ("extra", "shares")
PATIENCE = 10.0
"""Seconds in which the first process under torchrun may tell of an error before another does."""


def verbs() -> list[str]:
    """All verbs."""
    there = [m.name for m in pkgutil.iter_modules(__path__) if m.name not in HELPERS]
    return [v for v in ORDER if v in there] + sorted(v for v in there if v not in ORDER)


def _verb(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `mainspring`; exits with 2 for a wrong command, 1 for a failure."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        print(__version__)
        return
    try:
        if words[0] not in verbs():
            raise unknown("command", words[0], verbs())
        verb = _verb(words[0])
        with _heard():  # help
            flags, extra = _parse(verb.Flags, words[0], words[1:])
        result, text = verb.run(flags, extra)
    except ConfigError as error:
        sys.exit(_fail(error, 2))
    except MainspringError as error:
        sys.exit(_fail(error, 1))
    except KeyboardInterrupt:
        sys.exit(_fail("Stopped. The same command goes on from here.", 130) if _first() else 130)
    if _first():
        from mainspring.training.run import plain

        with _heard():
            print(json.dumps(result, default=plain) if flags.json else text)


@contextmanager
def _heard() -> Iterator[None]:
    """For what is printed: a reader that has seen enough, such as `head`, is no failure."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _parse(kind: type, verb: str, words: list[str]) -> tuple[Any, dict[str, Any]]:
    """Flags over the file's fields over the defaults; what else the file has comes apart."""
    path = _config_path(words)
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"There is no file {path} (--config).") from None
        except OSError as error:
            raise ConfigError(f"Cannot read {path} (--config): {error.strerror}.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is no TOML: {error}.") from None
    values.pop("resolved", None)
    if "from" in values:
        values["start"] = values.pop("from")
    start: Any = object.__new__(kind)  # not through __init__: what is still missing is of no type
    hints = get_type_hints(kind)
    for field in fields(kind):
        given, hint = field.name in values, hints[field.name]
        value = values.pop(field.name, field.default)
        value = tyro.MISSING if value is MISSING else value
        value = tuple(value) if isinstance(value, list) else value
        if given and not _of(hint, value):
            said = hint.__name__ if isinstance(hint, type) and not get_args(hint) else hint
            raise ConfigError(f"{path}: {field.name} is {value!r}, where {said} was expected.")
        start.__dict__[field.name] = value
    flags = tyro.cli(
        kind,
        args=words,
        prog=f"mainspring {verb}",
        default=start,
        description=inspect.cleandoc(kind.__doc__ or ""),
        console_outputs=_first(),
    )
    return flags, values


def _of(hint: Any, value: Any) -> bool:
    """Whether a value of a file is of a flag's type."""
    from mainspring.training.settings import fits  # takes a second, which flags alone are spared

    return fits(value, hint)


def _config_path(words: list[str]) -> Path | None:
    """The value of --config, which has to be known before the flags are read."""
    for index, word in enumerate(words):
        if word.startswith("--config="):
            return Path(word.removeprefix("--config="))
        if word == "--config" and index + 1 < len(words):
            return Path(words[index + 1])
    return None


def _first() -> bool:
    """Whether this is the process that, under torchrun, speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def _fail(error: object, code: int) -> int:
    """Says what went wrong, in plain words, and returns the exit status.

    Most errors are met by all processes under torchrun, which ends the others as soon as the first
    has failed. So they wait for it, and speak where the error is theirs alone.
    """
    if not _first():
        time.sleep(PATIENCE)
    print(f"mainspring: {error}", file=sys.stderr)
    return code


def _help() -> str:
    rows = [f"  {name:10} {_verb(name).Flags.__doc__.splitlines()[0]}" for name in verbs()]
    return "\n".join(
        [
            "mainspring VERB ...: learns from unlabelled videos, sounds and time series.",
            "",
            *rows,
            "",
            "mainspring VERB --help lists a verb's flags.",
        ]
    )

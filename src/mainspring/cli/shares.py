"""Lines of tables that set a share beside chance, with its interval, and of what was left out."""

from __future__ import annotations

from typing import Any

WIDE = 36
SHOWN = 10
"""Recordings of a list that are printed."""


def head(title: str, found: str) -> str:
    """The first line."""
    return f"{title:{WIDE}}{found:>8}{'interval':>18}{'chance':>9}"


def row(name: str, share: dict[str, Any]) -> str:
    """A share."""
    interval = _interval(share, "{:.1%}")
    return f"{name:{WIDE}}{share['value']:8.1%}{interval:>18}{share['chance']:9.1%}"


def off_by(name: str, error: dict[str, Any]) -> str:
    """An error in seconds."""
    interval = _interval(error, "{:.2f}", " s")
    return f"{name:{WIDE}}{error['value']:6.2f} s{interval:>18}{error['chance']:7.2f} s"


def footnotes(result: dict[str, Any]) -> list[str]:
    """What was left out, and whether the data were seen before."""
    lines = []
    if result["silent"]:
        lines.append(f"{result['silent']} moments left out: nothing is heard in them.")
    lines += left_out(result["problems"])
    if result["seen"]:
        lines.append("The run was trained on these recordings; unseen ones say more.")
    return lines


def left_out(problems: dict[str, str]) -> list[str]:
    """Recordings that could not be used: a line each of the first."""
    if not problems:
        return []
    lines = [f"  {name}: {why}" for name, why in [*problems.items()][:SHOWN]]
    rest = len(problems) - len(lines)
    more = [f"  and {rest} more; --json lists them all."] if rest else []
    return [f"{len(problems)} recordings left out:", *lines, *more]


def few_groups(result: dict[str, Any]) -> list[str]:
    """Why there are no intervals, if so."""
    from mainspring.evaluate.intervals import FEWEST_GROUPS

    if result["groups"] >= FEWEST_GROUPS:
        return []
    return [
        f"No intervals: the recordings are of {result['groups']} group(s), and fewer than "
        f"{FEWEST_GROUPS} cannot tell how sure the numbers are."
    ]


def _interval(value: dict[str, Any], form: str, unit: str = "") -> str:
    """From low to high; nothing where there are too few groups."""
    if "interval" not in value:
        return ""
    return "-".join(form.format(end) for end in value["interval"]) + unit

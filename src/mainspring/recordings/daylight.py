"""Clocks that were set to summer time and back: local times that skip an hour, or say one twice.

Stamps without a zone do not tell that their clock was set, but they show it: on one of the Sundays
on which clocks are set, at night, a whole hour is absent or occurs twice, to the row.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

_HOUR, _DAY = 3600.0, 86400.0
_NIGHT = 3  # hours of a Sunday within which clocks are set
# First days of the weeks whose Sunday it is: in Europe, America, Australia and New Zealand.
_FORWARD = {(3, 25), (3, 8), (10, 1), (9, 24)}
_BACK = {(10, 25), (11, 1), (4, 1)}


def unset(seconds: Float64[np.ndarray, "row"]) -> Float64[np.ndarray, "row"] | None:
    """The stamps as of a clock that was never set; None if nothing shows that it was.

    Args:
        seconds: Local times since 1970, all known, from oldest to newest or the other way.
    """
    step = np.diff(seconds)
    moved = step[step != 0]
    if not len(moved):
        return None
    usual = abs(float(np.median(moved)))
    if usual > _HOUR:
        return None
    turn = slice(None, None, -1 if np.median(moved) < 0 else 1)
    before, after = seconds[turn][:-1], seconds[turn][1:]
    step = after - before
    near = 1.5 * usual
    twice = np.floor(after / _HOUR) * _HOUR  # the hour that occurs again
    back = (step <= usual / 4) & (after - twice < usual)
    back &= (before >= twice + _HOUR - near) & (before < twice + _HOUR)
    back &= _is_when(twice, back, _BACK)
    absent = np.floor(before / _HOUR) * _HOUR + _HOUR  # the hour that is skipped
    forward = (step >= _HOUR + usual / 2) & (absent - before <= near)
    forward &= (after >= absent + _HOUR) & (after < absent + _HOUR + usual)
    forward &= _is_when(absent, forward, _FORWARD)
    if not (back.any() or forward.any()):
        return None
    shift = np.cumsum(_HOUR * (back.astype(np.float64) - forward))
    return (seconds[turn] + np.concatenate([[0.0], shift]))[turn]


def _is_when(
    hours: Float64[np.ndarray, "pair"],
    possible: Bool[np.ndarray, "pair"],
    weeks: set[tuple[int, int]],
) -> Bool[np.ndarray, "pair"]:
    """Whether clocks are set at an hour; looked up only where that is possible."""
    found = np.zeros(len(hours), dtype=bool)
    for at in np.flatnonzero(possible):
        days = hours[at] // _DAY
        date = np.datetime64(int(days), "D").item()
        sunday, night = date.isoweekday() == 7, hours[at] % _DAY < _NIGHT * _HOUR
        week = any(date.month == month and 0 <= date.day - day < 7 for month, day in weeks)
        found[at] = sunday and night and week
    return found

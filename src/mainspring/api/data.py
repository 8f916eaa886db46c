"""What is there: recordings with their facts, and what training on them would cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.errors import DataError, MainspringError, RunError
from mainspring.recordings.catalogue import Catalogue, open_catalogue
from mainspring.recordings.series import layout_of
from mainspring.recordings.store import default_cache
from mainspring.recordings.survey import report as survey_report
from mainspring.recordings.survey import survey
from mainspring.training.estimate import estimate
from mainspring.training.plan import describe, make_plan
from mainspring.training.progress import Log
from mainspring.training.run import plain
from mainspring.training.settings import settle


def catalogue(data: Any, log: Log | None = None) -> Catalogue:
    """The catalogue of a folder, glob, manifest, file, list of paths, array or list of arrays, with
    the facts of every file filled in and the unusable ones marked.

    Raises:
        DataError: If there is nothing there.
    """
    told = counter(log, "looking at files")
    return survey(open_catalogue(data), store=default_cache() / "facts", progress=told)


def usable(data: Any, log: Log | None = None) -> tuple[Catalogue, dict[str, str]]:
    """The recordings that can be used, and of each other one its name and the reason.

    Raises:
        DataError: If there is none that can.
    """
    found = catalogue(data, log)
    reasons = found.column("problem")
    problems = {found[int(row)].name: reasons[row] for row in np.flatnonzero(reasons != None)}  # noqa: E711
    kept = found.usable()
    if not len(kept):
        why = "; ".join(f"{name}: {reason}" for name, reason in [*problems.items()][:3])
        raise DataError(f"None of the {len(found)} recordings of {named(data)} can be used. {why}")
    return kept, problems


def named(data: Any) -> str:
    """What data are called in a sentence."""
    return str(data) if isinstance(data, str | Path) else f"the {type(data).__name__}"


def check(
    data: Any, pretext: str = "taco", *, cost: bool = True, log: Log | None = None, **settings: Any
) -> dict[str, Any]:
    """What is there, what is broken, and what training would cost, measured by a few steps.

    Returns:
        The survey's report, with "times" (for how many recordings what was done to rows that are
        not at equal distances in time) and "cost"; where training could not start, "cost" is None
        and "cost_problem" says why.
    """
    found = catalogue(data, log)
    result = survey_report(found) | {"pretext": pretext, "times": _times(found.usable())}
    if not cost:
        return result
    try:
        asked = settle({"data": str(data), "pretext": pretext} | settings)
        plan = make_plan(asked, found)
        return result | {"plan": plain(describe(plan)), "cost": asdict(estimate(plan))}
    except MainspringError as error:
        return result | {"cost": None, "cost_problem": str(error)}


@contextmanager
def sparing(log: Log | None, what: str) -> Iterator[None]:
    """Writes into the folder of a run where that can be written, and says so where it cannot, so
    that what was measured is not lost for it."""
    try:
        yield
    except RunError as error:
        (log or Log()).say(f"{what} was left as it is. {error}")


def counter(log: Log | None, doing: str) -> Callable[[int, int], None]:
    """Says how far something is on the log's moving line."""

    def told(done: int, total: int) -> None:
        if log is not None:
            log.update(f"{doing}: {done} of {total}", final=done == total)

    return told


def _times(good: Catalogue) -> dict[str, int]:
    """For how many recordings what was done to rows that are not at equal distances in time; the
    notes of `mainspring.recordings.timestamps`. Every table is opened, once."""
    apart = good.column("series.uri")
    uris = np.where(apart.astype(bool), apart, good.column("uri"))
    counts: Counter[str] = Counter()
    for uri, count in Counter(uris[np.isfinite(good.column("series.length"))]).items():
        if uri.lower().endswith((".csv", ".tsv", ".parquet", ".pq")):
            layout = layout_of(uri)
            counts.update(dict.fromkeys(layout.notes, count) if layout is not None else ())
    return dict(counts.most_common())

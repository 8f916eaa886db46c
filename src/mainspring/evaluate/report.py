"""The report of a run: one page that opens from disk and says what was found, in words first.

    write_report(Run("runs/first"))                                   # after training
    write_report(Run("runs/first"), vectors=vectors, probes={"motion": results}, reader=reader,
                 catalogue=catalogue, verdict=verdict(results))       # after a probe

Sections without material are left out. Each picture is also a PNG under RUN/plots.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tomli_w

from mainspring.errors import ConfigError, DataError
from mainspring.evaluate import page
from mainspring.evaluate import report_run as told
from mainspring.evaluate.drawing import percent
from mainspring.evaluate.embed import Reads, Recordings
from mainspring.evaluate.gallery import retrieval_gallery
from mainspring.evaluate.maps import MOST_CLASSES
from mainspring.evaluate.page import Section
from mainspring.evaluate.plots import arms as draw_arms
from mainspring.evaluate.plots import confusion, label_curve, map_2d, subject
from mainspring.evaluate.probe import ProbeResult
from mainspring.evaluate.vectors import Vectors, known
from mainspring.evaluate.verdict import TRAINED, margins
from mainspring.training.run import Run, write

MAPS = {
    "pca": ("map", "The two directions in which the vectors differ most (PCA)."),
    "umap": ("map-umap", "Near points stay near (UMAP); long distances mean little."),
}


def write_report(
    run: Run,
    *,
    vectors: Vectors | None = None,
    probes: Mapping[str, Mapping[str, ProbeResult]] | None = None,
    reader: Reads | None = None,
    catalogue: Recordings | None = None,
    arms: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    verdict: str = "",
) -> Path:
    """Writes RUN/report.html and the pictures in it under RUN/plots.

    Args:
        run: The run; its config, check, metrics and summary are read from its folder.
        vectors: Embeddings, with labels where they are known: for the map and the gallery.
        probes: For each label the probes of "trained", "random weights", ...
        reader: With `catalogue` and `vectors`: shows what lies near what.
        catalogue: What `vectors.rows` are rows of.
        arms: For each arm and label the accuracy with its interval ("low", "high") and "chance".
        verdict: What it all means; the summary's unless given.

    Returns:
        Where the page is.

    Raises:
        RunError: If the folder holds no run, or the disk is full.
    """
    config = run.config()
    settings = page.preformatted(tomli_w.dumps(config))
    summary = run.read_json("summary.json") or {}
    check = run.read_json("check.json") or {}
    several = len(config.get("resolved", {}).get("encoders", {})) > 1
    stream = vectors.stream if vectors is not None and several else ""
    if verdict and stream:
        verdict = f"Verdict on {stream}:\n{verdict}"
    sections = [
        told.verdict(verdict or summary.get("verdict", ""), summary),
        told.asked(config),
        _arms(run, arms),
        told.data(check, summary, vectors),
        told.training(run, summary),
        *(_probed(run, at, stream, *item) for at, item in enumerate((probes or {}).items())),
        _map(run, vectors),
        _gallery(run, vectors, reader, catalogue),
        Section("Configuration", page.details("config.toml", settings)),
        told.stamps(vectors),
    ]
    subtitle = f"{config.get('pretext', '')} on {config.get('data', '')}".strip()
    content = page.render(
        f"{run.folder.absolute().name}: what was learnt",
        subtitle,
        [section for section in sections if section is not None],
    )
    path = run.folder / "report.html"
    write(path, content)
    return path


def _arms(run: Run, arms: Mapping[str, Mapping[str, Mapping[str, float]]] | None) -> Section | None:
    if not arms:
        return None
    return Section(
        "The question asked decides what is learnt",
        page.paragraphs(
            "What was trained differs only in what it was asked. All are frozen and probed with "
            "the same straight cut for each label: a bar is the share told correctly, the line on "
            "it the 95 % interval, the dashed line what guessing gives."
        )
        + told.picture(run, "arms", draw_arms(arms), "Accuracy of a linear probe, arm beside arm."),
    )


def _probed(
    run: Run, at: int, stream: str, label: str, results: Mapping[str, ProbeResult]
) -> Section:
    """What the vectors (of a stream, if named) know of a label: table, labels needed, mistakes."""
    tail = f"-{page.slug(label)}" if at else ""
    name = subject(results)
    one = results[name]
    return Section(
        f"What the vectors{stream and f' of {stream}'} know of {label}",
        page.paragraphs(
            "A straight cut through frozen vectors (logistic regression) tells the label of "
            "recordings from groups it never saw. What training is worth is the distance to random "
            "weights and raw features, not to chance."
        )
        + _probe_table(label, results, name)
        + page.paragraphs(*(f"Note: {note}." for note in one.notes), kind="quiet")
        + told.picture(
            run, f"labels{tail}", label_curve(results),
            "Accuracy with few labels; bars are one standard deviation over draws of the labels "
            "and folds. The distances between amounts are not to scale.",
        )
        + told.picture(
            run, f"confusion{tail}", confusion(one),
            f"{name}: each row is a true class and adds up to 100 %; off the diagonal are "
            "mistakes.",
        ),
    )  # fmt: skip


def _probe_table(label: str, results: Mapping[str, ProbeResult], name: str) -> str:
    one = results[name]
    amounts = {p.labels: None for r in results.values() for p in r.curve if p.labels is not None}
    ahead = margins(results) if TRAINED in results else {}
    rows = []
    for who, result in results.items():
        few = {point.labels: percent(point.accuracy, 1) for point in result.curve}
        row = [who, percent(result.accuracy, 1)]
        row.append(f"{100 * result.low:.1f} to {percent(result.high, 1)}")
        row += [percent(result.balanced_accuracy, 1), *(few.get(k, "-") for k in sorted(amounts))]
        if ahead:
            by = ahead.get(who)
            row.append(
                "-"
                if by is None
                else f"{100 * by.mean:+.1f} ({100 * by.low:+.1f} to {100 * by.high:+.1f})"
            )
        rows.append(row)
    head = ["vectors", "accuracy", "95 % interval", "mean over classes"]
    head += [f"{k} label{'s' if k > 1 else ''} a class" for k in sorted(amounts)]
    head += ["trained is ahead by, in points"] if ahead else []
    splits = "1 split" if len(one.seeds) == 1 else f"{len(one.seeds)} splits"
    caption = (
        f"{label}: {one.rows} rows of {len(one.classes)} classes in {len(one.tally.groups)} "
        f"groups, {one.folds} folds, {splits}. Chance: "
        f"{percent(one.chance_majority, 1)} by always saying the commonest class, "
        f"{percent(one.chance_uniform, 1)} by guessing."
    )
    return page.table(rows, head, caption, subject=name)


def _map(run: Run, vectors: Vectors | None) -> Section | None:
    """Principal components, and UMAP where it is installed."""
    if vectors is None:
        return None
    colours, by = None, ""
    for names, what in ((vectors.groups, "group"), (vectors.labels, "label")):
        count = len(set(names[known(names)]))
        if count > 1 and (what == "label" or count <= MOST_CLASSES):
            colours, by = names, f" Colours are the {what}s, which training never saw."
    parts = []
    for method, (name, how) in MAPS.items():
        try:
            figure = map_2d(vectors, colours, method)
        except (DataError, ConfigError):  # too few to draw; not installed
            continue
        parts.append(told.picture(run, name, figure, how + by))
    if not parts:
        return None
    return Section(
        "A map of the embeddings",
        page.paragraphs(
            "Points that lie together are alike to the encoder; what overlaps here may still be "
            "apart in other directions."
        )
        + "\n".join(parts),
    )


def _gallery(
    run: Run, vectors: Vectors | None, reader: Reads | None, catalogue: Recordings | None
) -> Section | None:
    if vectors is None or reader is None or catalogue is None:
        return None
    try:
        figure = retrieval_gallery(vectors, reader, catalogue)
    except (DataError, ConfigError):  # one group alone; a stream without pictures
        return None
    caption = "Left the query, then its nearest with their cosine similarity."
    if known(vectors.labels).any():
        caption += " Green and a tick: of the query's label; orange and a cross: of another."
    shown = {
        "video": "Four frames of each, in reading order.",
        "audio": "Spectrograms: time to the right, low tones at the bottom.",
        "series": "Each channel a line, on its own scale.",
    }
    return Section(
        "What the encoder finds alike",
        page.paragraphs(
            "For a few drawn by lot, the nearest from other groups (other files where no group is "
            "known): what they share is what the encoder looks at."
        )
        + told.picture(run, "gallery", figure, f"{caption} {shown[vectors.stream]}"),
    )

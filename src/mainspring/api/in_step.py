"""Whether sound and picture are in step, and by how much tracks have slipped.

What a run of `av_sync` has learnt, asked of other recordings. At a few moments of each, one clip is
paired with its sound at every offset of a grid, early and late alike, and the pretext scores how
far each pair counts as in step.

The sign of an offset, here and in sync.csv: positive if the sound that goes with a picture is of a
*later* time in its track. The sound comes so many seconds late, and played so much sooner it is in
step. A negative offset means that the sound comes early.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

from mainspring.api.data import catalogue, counter, sparing
from mainspring.api.learnt import learnt
from mainspring.api.vectors import reader_of
from mainspring.clips import NOTHING, Draw, Timeline
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, DataError
from mainspring.evaluate.embed import Recordings
from mainspring.evaluate.forward import Reads, ahead
from mainspring.evaluate.intervals import FEWEST_GROUPS
from mainspring.evaluate.sync import Sync
from mainspring.evaluate.sync import sync as against_offset
from mainspring.pretexts.audiovisual import STREAMS
from mainspring.pretexts.batch import Batch, Views
from mainspring.pretexts.crossmodal.av_sync import AvSync
from mainspring.recordings.recording import Recording
from mainspring.training.order import seeded
from mainspring.training.progress import Log
from mainspring.training.run import Run, write

OFFSETS = (0.1, 0.25, 0.5, 0.75, 1.0)
MOMENTS = 3
SOUNDS = 256
"""Sounds read and encoded at a time, which bounds memory."""
TRIES = 20
"""Places drawn for each moment asked for, until so many different ones are found."""


@dataclass(frozen=True)
class Slip:
    """The offset at which a recording seems in step.

    Attributes:
        uri: Its file.
        start: Seconds into the file at which it begins.
        offset_seconds: Of the grid; positive if the sound comes late, 0 if it is in step.
        score: Mean over moments of the score at that offset.
        score_in_step: Mean of the score at offset 0 over the same moments.
        moments: How many these are.
    """

    uri: str
    start: float
    offset_seconds: float
    score: float
    score_in_step: float
    moments: int

    @property
    def gain(self) -> float:
        """By how much the offset beats none; 0 for a recording in step."""
        return self.score - self.score_in_step


@dataclass(frozen=True)
class InStep:
    """What a run knows of the timing of recordings.

    Attributes:
        accuracy: How well it tells the pair in step from those at each offset, a row a moment.
            It takes the recordings to be in step.
        slips: One a recording that was asked about.
        moments: How many moments were asked about in all.
        problems: For each recording left out, its name and the reason.
        silent: Moments left out because no sound is heard in step, or none at another offset.
        seen: The run was trained on these very recordings.
    """

    accuracy: Sync
    slips: list[Slip]
    moments: int
    problems: dict[str, str]
    silent: int
    seen: bool

    @property
    def groups(self) -> int:
        """What intervals resample: groups of recordings, or files where none are known."""
        return len(self.accuracy.best.groups)

    def out_of_step(self) -> list[Slip]:
        """Recordings that another offset suits better than none, those most so first."""
        moved = [slip for slip in self.slips if slip.offset_seconds != 0]
        return sorted(moved, key=lambda slip: -slip.gain)

    def to_dict(self, seed: int = 0) -> dict[str, Any]:
        """Plain JSON values, with 95 % intervals from resampling groups where there are five."""
        told = self.accuracy.to_dict(np.random.default_rng(seed))
        if self.groups < FEWEST_GROUPS:
            for value in (*told["accuracy"].values(), told["best"], told["error_seconds"]):
                del value["interval"]
        return {
            "recordings": len(self.slips),
            "groups": self.groups,
            "moments": self.moments,
            **told,
            "out_of_step": [
                {"uri": s.uri, "start": s.start, "offset_seconds": s.offset_seconds, "by": s.gain}
                for s in self.out_of_step()
            ],
            "problems": self.problems,
            "silent": self.silent,
            "seen": self.seen,
        }

    def to_csv(self) -> str:
        """One line a recording: uri, start, offset_seconds, score, score_in_step, moments."""
        text = io.StringIO(newline="")
        rows = csv.writer(text)
        rows.writerow(field.name for field in fields(Slip))
        rows.writerows(astuple(slip) for slip in self.slips)
        return text.getvalue()


def sync(
    run: str | Path,
    data: Any,
    *,
    offsets: Sequence[float] = OFFSETS,
    moments: int = MOMENTS,
    log: Log | None = None,
) -> InStep:
    """How well a run of `av_sync` tells sound in step from sound that is not, and which offset
    suits each recording; writes sync.json and, a line a recording, sync.csv.

    Args:
        run: Run folder.
        data: Recordings with picture and sound, best ones that the run was not trained on. Those
            that lack one, are silent, cannot be read, or are too short are left out. Of a shorter
            one those offsets are used that fit both ways.
        offsets: Seconds, each above 0 and taken both ways, to the nearest whole frame of the
            run's clips.
        moments: Moments a recording, drawn anew in the same way each time; fewer where it has not
            so many different ones.
        log: Where to say how far it is.

    Raises:
        RunError: If the run is of another pretext or not finished.
        ConfigError: If an offset is below one frame, two are of the same frame, or there is no
            moment.
        DataError: If no recording is left.
    """
    place, known = Run(run), learnt(run, "av_sync")
    assert isinstance(known.pretext, AvSync)
    sizes = _frames(offsets, known.pretext.offsets.rate)
    if moments < 1:
        raise ConfigError(f"moments is {moments}; a recording is asked about at 1 at least.")
    found = catalogue(data, log)
    result = measured(
        known.pretext,
        known.encoders,
        found,
        reader_of(known.pretext.clips, found.usable()),
        sizes,
        moments,
        seen=place.learnt_from(data),
        progress=counter(log, "listening"),
    )
    with sparing(log, "sync.json"):
        write(place.folder / "sync.csv", result.to_csv().encode())
        place.write_json("sync.json", result.to_dict())
    return result


def measured(
    pretext: AvSync,
    encoders: Mapping[str, Encoder],
    found: Recordings,
    reader: Reads,
    sizes: Int64[np.ndarray, "size"],
    moments: int = MOMENTS,
    seen: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> InStep:
    """All that is measured, from a pretext that is ready to score.

    Args:
        pretext: Draws and scores.
        encoders: One a stream, in evaluation mode.
        found: The recordings.
        reader: Reads video and audio.
        sizes: Offsets in frames, each above 0, in ascending order.
        moments: Moments a recording.
        seen: Whether the run was trained on these recordings.
        progress: Told how many recordings of how many are done.

    Raises:
        DataError: If no recording is left.
    """
    shifts = np.concatenate([-sizes[::-1], [0], sizes])
    seconds = np.round(shifts / pretext.offsets.rate, 3)
    scores: dict[int, list[np.ndarray]] = {}
    problems: dict[int, str] = {}
    with closing(ahead(_pieces(pretext, found, reader, shifts, moments))) as pieces:
        for row, piece in pieces:
            try:
                if isinstance(piece, str):
                    raise DataError(piece)
                scored = pretext.scores(encoders, piece)
            except DataError as error:
                problems[row] = str(error)
            else:
                scores.setdefault(row, []).append(scored.double().numpy())
            if progress is not None:
                progress(row + 1, len(found))
    slips: list[Slip] = []
    kept, groups, silent = [], [], 0
    for row in sorted(scores.keys() - problems.keys()):
        recording, mine = found[row], np.concatenate(scores[row])
        there = ~np.isnan(mine)
        asked = there[:, seconds == 0][:, 0] & (there.sum(axis=1) > 1)
        silent += int((~asked).sum())
        if not asked.any():
            problems[row] = f"nothing is heard at {len(mine)} moments of it"
            continue
        slips.append(_slip(recording, mine[asked], seconds))
        kept.append(mine[asked])
        groups += [recording.group or recording.uri] * int(asked.sum())
    named = {found[row].name: problems[row] for row in sorted(problems)}
    if not kept:
        why = "; ".join(f"{name}: {reason}" for name, reason in [*named.items()][:3])
        raise DataError(
            f"None of the {len(found)} recordings can be asked about. {why.rstrip('.')}."
        )
    return InStep(
        against_offset(np.concatenate(kept), seconds, np.array(groups, object)),
        slips,
        len(groups),
        named,
        silent,
        seen,
    )


def _frames(offsets: Sequence[float], rate: float) -> Int64[np.ndarray, "size"]:
    """Offsets in whole frames, in ascending order.

    Raises:
        ConfigError: If there is none, one is below a frame, or two are of the same frame.
    """
    given = ", ".join(f"{offset:g}" for offset in offsets) or "nothing"
    frame = f"a frame of this run is {1 / rate:.3g} s"
    sizes = np.asarray(offsets, np.float64)
    if not len(sizes) or not np.isfinite(sizes).all() or (sizes * rate < 1 - 1e-6).any():
        raise ConfigError(
            f"offsets are {given}; expected seconds of one frame or more, which are taken early "
            f"and late ({frame}). 0 is always among them."
        )
    frames = np.unique(np.floor(sizes * rate + 0.5).astype(np.int64))
    if len(frames) < len(sizes):
        raise ConfigError(
            f"offsets are {given}; expected each to be another whole number of frames ({frame})."
        )
    return frames


def _pieces(
    pretext: AvSync,
    found: Recordings,
    reader: Reads,
    shifts: Int64[np.ndarray, "offset"],
    moments: int,
) -> Iterator[tuple[int, Batch | str]]:
    """Row and moments of one recording after the other, so many moments at a time as memory is to
    hold; in their place the reason if it cannot be asked about, or not beyond what was read."""
    most = max(1, SOUNDS // len(shifts))
    for row in range(len(found)):
        recording = found[row]
        if recording.problem is not None:
            yield row, recording.problem
            continue
        try:
            timeline = reader.timeline(recording)
            draws = _draws(pretext, timeline, shifts, moments, seeded(0, row))
            for at in range(0, len(draws), most):
                yield row, _read(reader, recording, row, draws[at : at + most])
        except (DataError, OSError, ValueError) as error:
            yield row, str(error)


def _draws(
    pretext: AvSync,
    timeline: Timeline,
    shifts: Int64[np.ndarray, "offset"],
    moments: int,
    rng: np.random.Generator,
) -> list[dict[str, Draw]]:
    """Different moments, each a clip and a sound at every offset; padding at those that do not fit
    into the recording both ways.

    Raises:
        DataError: If it lacks a stream, or not even the smallest offset fits.
    """
    for stream in STREAMS:
        if stream not in timeline or timeline[stream].length < 1:
            there = ", ".join(name for name in STREAMS if name in timeline)
            raise DataError(f"no {stream}, only {there or 'other streams'}")
    fits = 2 * np.abs(shifts) <= pretext.offsets.room(timeline)
    if fits.sum() < 2:
        room = 2 * int(np.abs(shifts[shifts != 0]).min())
        raise DataError(
            "too short: the smallest offset, both ways, takes "
            + " and ".join(
                f"{pretext.offsets.needs(stream, room) / timeline[stream].rate:.3g} s of {stream}"
                for stream in STREAMS
            )
        )
    drawn: dict[int, dict[str, Draw]] = {}
    for _ in range(TRIES * moments):
        one = pretext.at_offsets(timeline, shifts[fits] / pretext.offsets.rate, rng)
        sounds = np.full((len(shifts), one["audio"].clips.shape[1]), NOTHING)
        sounds[fits] = one["audio"].clips
        drawn.setdefault(int(one["video"].clips[0, 0]), one | {"audio": Draw(sounds, {})})
        if len(drawn) == moments:
            break
    return list(drawn.values())


def _read(reader: Reads, recording: Recording, row: int, draws: list[dict[str, Draw]]) -> Batch:
    """Moments of a recording side by side, as `scores` takes them."""
    clips = {stream: np.stack([draw[stream].clips for draw in draws]) for stream in STREAMS}
    samples = reader.read(
        recording, {stream: cut.reshape(-1, cut.shape[2]) for stream, cut in clips.items()}
    )
    streams = {
        stream: Views(
            torch.from_numpy(samples[stream]).unflatten(0, cut.shape[:2]),
            torch.from_numpy(cut != NOTHING),
            {},
        )
        for stream, cut in clips.items()
    }
    return Batch(streams, torch.full((len(draws),), row), torch.Generator())


def _slip(
    recording: Recording,
    scores: Float64[np.ndarray, "moment offset"],
    seconds: Float64[np.ndarray, "offset"],
) -> Slip:
    """The offset with the highest mean score. Where some moments are silent at an offset, the score
    in step is taken over the others too; silent at more than half, it is no candidate. Among
    equals the smallest offset is taken."""
    there = ~np.isnan(scores)
    none = scores[:, seconds == 0]
    count = there.sum(axis=0)
    gains = np.where(there, scores - none, 0).sum(axis=0) / np.maximum(count, 1)
    gains[2 * count < len(scores)] = -np.inf
    order = np.argsort(np.abs(seconds), kind="stable")
    best = int(order[np.argmax(gains[order])])
    heard = there[:, best]
    return Slip(
        recording.uri,
        recording.start,
        float(seconds[best]),
        float(scores[heard, best].mean()),
        float(none[heard].mean()),
        int(heard.sum()),
    )

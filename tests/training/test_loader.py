"""Batches are functions of (seed, sample number), however they are read; nothing piles up."""

import gc
import os
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from toy import SPEC, ToyContrast, toy

from mainspring import clips
from mainspring.clips import Draw
from mainspring.errors import ConfigError, RunError
from mainspring.recordings.catalogue import Catalogue, open_catalogue
from mainspring.recordings.reader import Reader
from mainspring.recordings.survey import survey
from mainspring.training import loader


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    rng = np.random.default_rng(0)
    for number in range(20):
        np.save(tmp_path / f"{number:02}.npy", rng.normal(size=(40, 2)).astype(np.float32))
    return survey(open_catalogue(str(tmp_path)))


def draws(catalogue: Catalogue) -> loader.Draws:
    pretext, _ = toy()
    return loader.Draws(catalogue, Reader({"series": SPEC}), pretext, seed=3, batch=6)


def samples(shares) -> list[torch.Tensor]:
    return [share.batch["series"].samples for share in shares]


def test_resuming_continues_the_same_batches(catalogue):
    whole = samples(loader.shares(draws(catalogue), 6, 0, 7, 0, 1, 0))
    rest = samples(loader.shares(draws(catalogue), 6, 4, 7, 0, 1, 0))
    assert len(whole) == 7
    for one, two in zip(whole[4:], rest, strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(whole[0], whole[1])


def test_a_recording_is_drawn_anew_at_each_visit_and_with_another_seed(catalogue):
    pretext, _ = toy()
    reader = Reader({"series": SPEC})

    def visits(seed: int) -> list[tuple[int, bytes]]:
        given = loader.Draws(catalogue, reader, pretext, seed=seed, batch=6)
        given.order = loader.Order(20, 0)
        read = [given[n] for n in range(60)]
        return [(item.row, item.streams["series"][0].tobytes()) for item in read]

    one, other = visits(3), visits(4)
    assert one == visits(3)
    assert len(set(one)) > 55  # of 25 * 25 pairs of windows a visit
    assert len(set(one) & set(other)) < 5


class Excerpts(ToyContrast):
    """Takes what there is of a short recording."""

    def draw(self, timeline, rng):
        rows = [clips.excerpt(timeline["series"].length, 16, 1, rng) for _ in range(2)]
        return {"series": Draw(np.stack(rows), {})}


def test_what_is_padding_is_not_present(tmp_path):
    for number, length in enumerate((9, 40)):
        np.save(tmp_path / f"{number}.npy", np.ones((length, 2), np.float32))
    pretext, _ = toy()
    pretext.__class__ = Excerpts
    found = survey(open_catalogue(str(tmp_path)))
    given = loader.Draws(found, Reader({"series": SPEC}), pretext, seed=0, batch=2)
    batch, _ = loader.collate([given[0], given[1]])
    length = torch.tensor([9, 40])[batch.recording]
    there = batch["series"].present
    assert torch.equal(there.sum(-1), length.clamp(max=16)[:, None].expand(2, 2))
    assert batch["series"].samples[there].eq(1).all()


def test_no_recording_stands_in_a_batch_twice_where_recordings_are_told_apart(catalogue):
    pretext, _ = toy()
    reader = Reader({"series": SPEC})
    repeated = {}
    for apart in (False, True):
        pretext.apart = apart
        order = loader.Draws(catalogue, reader, pretext, seed=3, batch=13).order
        batches = [[order[n] for n in numbers] for numbers in loader.Numbers(13, 0, 60, 0, 1)]
        repeated[apart] = sum(len(set(rows)) < 13 for rows in batches)
        assert {row for rows in batches for row in rows} == set(range(20))
    assert repeated[False] > 10  # batches that reach into the next epoch
    assert repeated[True] == 0


def test_processes_read_what_the_thread_reads(catalogue):
    threaded = samples(loader.shares(draws(catalogue), 6, 0, 3, 0, 1, 0))
    read = samples(loader.shares(draws(catalogue), 6, 0, 3, 0, 1, 2))
    for one, two in zip(threaded, read, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_a_batch_without_gap_or_overlap(catalogue, world):
    whole = samples(loader.shares(draws(catalogue), 7, 0, 2, 0, 1, 0))
    shares = [
        samples(loader.shares(draws(catalogue), 7, 0, 2, rank, world, 0)) for rank in range(world)
    ]
    for step in range(2):
        assert torch.equal(whole[step], torch.cat([share[step] for share in shares]))


def test_a_batch_smaller_than_the_processes_is_refused(catalogue):
    with pytest.raises(ConfigError, match="batch of 2 recordings cannot be shared by 3 processes"):
        next(loader.shares(draws(catalogue), 2, 0, 1, 0, 3, 0))


def test_a_broken_recording_is_left_out_and_named(catalogue, tmp_path):
    (tmp_path / "07.npy").write_bytes(b"broken")
    seen = []
    for share in loader.shares(draws(catalogue), 5, 0, 4, 0, 1, 0):
        seen += share.problems
        assert len(share.batch) + len(share.problems) == 5
    assert len(seen) == 1
    assert "07.npy" in seen[0].name


def test_all_broken_ones_are_named_too(catalogue, tmp_path):
    for path in tmp_path.iterdir():
        path.write_bytes(b"broken")
    (share,) = loader.shares(draws(catalogue), 6, 0, 1, 0, 1, 0)
    assert share.batch is None
    assert len(share.problems) == 6


class Dying(loader.Draws):
    """Ends the process that reads it."""

    def __getitem__(self, sample: int) -> loader.Example | loader.Problem:
        os._exit(1)


def test_a_reading_process_that_dies_tells_of_the_guard(catalogue):
    pretext, _ = toy()
    dying = Dying(catalogue, Reader({"series": SPEC}), pretext, seed=3, batch=6)
    with pytest.raises(RunError, match=r'has died.*if __name__ == "__main__"'):
        next(loader.shares(dying, 6, 0, 1, 0, 1, 1))


def test_a_light_pretext_draws_the_same_without_its_weights(catalogue):
    pretext, _ = toy()
    light = pretext.light()
    assert not list(light.parameters())
    assert list(pretext.parameters())
    timeline = Reader({"series": SPEC}).timeline(catalogue[0])
    one = pretext.draw(timeline, np.random.default_rng(1))["series"].clips
    np.testing.assert_array_equal(
        one, light.draw(timeline, np.random.default_rng(1))["series"].clips
    )


def test_memory_does_not_grow_over_epochs(catalogue):
    process, ready = psutil.Process(), draws(catalogue)
    used = []
    for step, _ in enumerate(loader.shares(ready, 20, 0, 600, 0, 1, 0)):
        if step in (200, 599):
            gc.collect()
            used.append(process.memory_info().rss)
    assert used[1] - used[0] < 8e6

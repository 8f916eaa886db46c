import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from little_world import SERIES, MeanEncoder, SeriesReader, number, recordings

from mainspring.clips import NOTHING, ClipSpec
from mainspring.errors import ConfigError, DataError, RunError
from mainspring.evaluate.embed import embed
from mainspring.evaluate.vectors import Vectors
from mainspring.recordings.catalogue import open_catalogue
from mainspring.recordings.reader import Reader

STAMPS = {"encoder": {"name": "mean", "step": 100}}


def run(reader, items, out, **more):
    more = {"stamps": STAMPS, "shard": 3, "batch": 4} | more
    return embed(MeanEncoder(), SERIES, items, reader, out, **more)


def slow_reference(reader, items):
    """One window after the other, in float64."""
    rows = []
    for row, item in enumerate(items):
        length = reader.lengths[row]
        starts = list(range(0, max(1, length - 7), 8))
        if length > 8 and starts[-1] + 8 < length:
            starts.append(length - 8)
        for start in starts:
            at = np.arange(start, min(start + 8, length), dtype=np.float64)
            vector = [100 * row + at.mean(), -at.mean(), len(at)]
            seconds = (item.start + start / 4, item.start + (start + len(at)) / 4)
            rows.append((item.uri, *seconds, row, item.group, item.label, vector))
    return rows


def test_equals_one_window_after_the_other_on_disk_and_in_memory(tmp_path: Path) -> None:
    items = recordings(8)
    reader = SeriesReader([8, 20, 3, 16, 50, 9, 1, 24])
    expected = slow_reference(reader, items)
    for out in (None, tmp_path / "e"):
        vectors = run(reader, items, out)
        assert len(vectors) == len(expected)
        columns = (vectors.uris, vectors.starts, vectors.ends, vectors.rows, vectors.groups)
        got = zip(*columns, vectors.labels, vectors.matrix, strict=True)
        for (*facts, vector), (*wanted, reference) in zip(got, expected, strict=True):
            assert facts == wanted
            np.testing.assert_allclose(vector, reference, rtol=1e-6)
        assert vectors.stream == "series"
        assert vectors.problems == {}
        assert vectors.stamps["encoder"] == STAMPS["encoder"]
        assert vectors.stamps["reader"] == {"decoder": "arithmetic 1"}
        assert vectors.stamps["preprocessing"]["clip"]["length"] == 8
    assert len(list((tmp_path / "e").glob("part-*.parquet"))) == 3


def test_the_shards_are_plain_parquet(tmp_path: Path) -> None:
    run(SeriesReader([20, 8]), recordings(2), tmp_path)
    table = pq.read_table(tmp_path / "part-00000.parquet")
    names = ["uri", "start", "end", "stream", "row", "group", "label", "vector"]
    assert table.column_names == names
    assert str(table.schema.field("vector").type) == "fixed_size_list<element: float>[3]"
    assert b"mainspring" in pq.read_metadata(tmp_path / "part-00000.parquet").metadata


def test_hop_gives_overlapping_windows() -> None:
    vectors = run(SeriesReader([16]), recordings(1), None, hop_seconds=1.0)
    np.testing.assert_array_equal(vectors.starts, [0, 1, 2])
    with pytest.raises(ConfigError, match="positive and finite, not 0"):
        run(SeriesReader([16]), recordings(1), None, hop_seconds=0.0)


def test_again_reads_nothing_and_gives_the_same(tmp_path: Path) -> None:
    reader = SeriesReader([20] * 7)
    before = run(reader, recordings(7), tmp_path)
    reads = reader.reads
    after = run(reader, recordings(7), tmp_path)
    assert reader.reads == reads
    np.testing.assert_array_equal(before.matrix, after.matrix)


def test_other_stamps_are_an_error_that_says_what_differs(tmp_path: Path) -> None:
    reader = SeriesReader([20] * 4)
    run(reader, recordings(4), tmp_path)
    with pytest.raises(RunError, match=r"encoder\.step: 100 → 200.*Delete the part.*another"):
        run(reader, recordings(4), tmp_path, stamps={"encoder": {"name": "mean", "step": 200}})
    with pytest.raises(RunError, match=r"preprocessing\.hop_seconds: None → 1\.0"):
        run(reader, recordings(4), tmp_path, hop_seconds=1.0)


def test_other_recordings_are_an_error(tmp_path: Path) -> None:
    reader = SeriesReader([20] * 6)
    items = recordings(6)
    run(reader, items, tmp_path)
    items[4] = replace(items[4], label="c")
    with pytest.raises(RunError, match="rows 3 to 5 were added, removed, relabelled or modified"):
        run(reader, items, tmp_path)


def test_bad_recordings_are_left_out_with_the_reason(tmp_path: Path) -> None:
    items = recordings(5)
    items[3] = replace(items[3], problem="zero bytes")
    reader = SeriesReader([8, -1, 8, 8, 0])
    expected = {
        items[1].name: "data/1.csv is no series",
        items[3].name: "zero bytes",
        items[4].name: "its series stream is empty",
    }
    for out in (None, tmp_path):
        vectors = run(reader, items, out)
        assert vectors.rows.tolist() == [0, 2]
        assert vectors.problems == expected
    again = run(reader, items, tmp_path)
    assert again.problems == expected


def test_vectors_that_are_not_finite_are_problems() -> None:
    class Overflowing(MeanEncoder):
        def forward(self, samples, present=None):
            vectors = super().forward(samples, present)
            return torch.where(vectors[:, :1] > 100, torch.inf, vectors)

    vectors = embed(Overflowing(), SERIES, recordings(2), SeriesReader([8, 8]), None, stamps=STAMPS)
    assert vectors.rows.tolist() == [0]
    assert list(vectors.problems.values()) == ["the encoder gave a vector with NaN or infinity"]


def test_nothing_usable_is_an_error() -> None:
    with pytest.raises(DataError, match=r"None of the 2 recordings could be .*is no series"):
        run(SeriesReader([-1, -1]), recordings(2), None)
    with pytest.raises(DataError, match="catalogue is empty"):
        run(SeriesReader([]), [], None)


def test_the_wrong_stream_is_told() -> None:
    class Listener(MeanEncoder):
        stream = "audio"

    with pytest.raises(DataError, match="no audio stream to embed; its streams: series"):
        embed(Listener(), SERIES, recordings(1), SeriesReader([8]), None, stamps=STAMPS)


def test_progress_ends_at_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run(
        SeriesReader([20] * 7), recordings(7), tmp_path,
        progress=lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    assert seen[-1] == (7, 7)
    assert seen == sorted(seen)


def test_the_encoder_keeps_its_mode() -> None:
    encoder = MeanEncoder().train()
    embed(encoder, SERIES, recordings(1), SeriesReader([8]), None, stamps=STAMPS)
    assert encoder.training


def test_video_is_cropped_at_the_centre_and_held_at_its_last_frame() -> None:
    class Reader(SeriesReader):
        def timeline(self, recording):
            found = super().timeline(recording)
            return type(found)({"video": found["series"]})

        def read(self, recording, draws):
            clips = draws["video"]
            assert (clips != NOTHING).all()
            frames = np.zeros((*clips.shape, 6, 6, 3), np.uint8)
            frames[:, :, 1:5, 1:5] = clips[..., None, None, None]
            return {"video": frames}

    class Eye(MeanEncoder):
        stream = "video"

        def forward(self, samples, present=None):
            assert samples.shape[2:] == (4, 4, 3)
            assert bool(present.all())
            return samples[:, [0, 2, 3], 0, 0, 0].float()

    clip = ClipSpec(length=4, size=6, crop=4)
    vectors = embed(Eye(), clip, recordings(1), Reader([3]), None, stamps=STAMPS)
    np.testing.assert_array_equal(vectors.matrix, [[0, 2, 2]])
    assert vectors.ends.tolist() == [0.75]


def test_recordings_that_the_encoder_refuses_are_problems() -> None:
    class Reader(SeriesReader):
        def read(self, recording, draws):
            found = super().read(recording, draws)["series"]
            return {"series": found[..., :1] if number(recording) in (1, 3) else found}

    class Strict(MeanEncoder):
        def forward(self, samples, present=None):
            if samples.shape[-1] != 2:
                raise DataError("one channel is too few")
            return super().forward(samples, present)

    items = recordings(5)
    vectors = embed(Strict(), SERIES, items, Reader([20] * 5), None, stamps=STAMPS)
    assert vectors.rows.tolist() == [0] * 3 + [2] * 3 + [4] * 3
    assert vectors.problems == dict.fromkeys(
        (items[1].name, items[3].name), "one channel is too few"
    )


def test_with_the_reader_and_catalogue_of_the_house(tmp_path: Path) -> None:
    values = np.arange(120, dtype=np.float32).reshape(5, 24, 1).repeat(2, axis=2)
    values[2, 3:5] = np.nan
    np.save(tmp_path / "series.npy", values)
    catalogue = open_catalogue(tmp_path / "series.npy")
    vectors = embed(
        MeanEncoder(), SERIES, catalogue, Reader({"series": SERIES}), None, stamps=STAMPS
    )
    assert len(vectors) == 15
    assert vectors.uris[0] == f"{tmp_path / 'series.npy'}#0"
    expected = np.nan_to_num(values).reshape(5, 3, 8, 2).mean(2).reshape(15, 2)
    np.testing.assert_allclose(vectors.matrix[:, :2], expected, rtol=1e-6)


def test_killed_while_embedding_loses_nothing(tmp_path: Path) -> None:
    program = """
from pathlib import Path
import sys
from little_world import *
from mainspring.evaluate.embed import embed
embed(MeanEncoder(), SERIES, recordings(12), SeriesReader([20] * 12, pause=0.1),
      Path(sys.argv[1]), batch=4, stamps={"encoder": {"name": "mean", "step": 100}}, shard=3)
"""
    here = str(Path(__file__).parent)
    out = tmp_path / "embeddings"
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(out)],
        env=os.environ | {"PYTHONPATH": here, "OMP_NUM_THREADS": "1"},
    )
    second = out / "part-00001.parquet"
    patience = time.monotonic() + 60
    while not second.exists() or not list(out.glob(".part-00002*.tmp")):
        assert child.poll() is None
        assert time.monotonic() < patience
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list(out.glob("*.tmp")) or list(out.glob(".*.tmp"))
    with pytest.raises(RunError, match=r"incomplete: 2 of 4 shards.*same embed"):
        Vectors.load(out)
    written = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}

    reader = SeriesReader([20] * 12)
    resumed = run(reader, recordings(12), out)
    assert reader.reads == 6
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())
    assert not list(out.glob(".*"))
    whole = run(SeriesReader([20] * 12), recordings(12), None)
    np.testing.assert_array_equal(resumed.matrix, whole.matrix)
    np.testing.assert_array_equal(resumed.uris, whole.uris)


def test_no_room_on_the_disk_is_told_and_finished_shards_stay(tmp_path: Path) -> None:
    lengths = [8] * 3 + [8 * 400] * 3
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limit[1]))
    try:
        with pytest.raises(RunError, match=r"Cannot write .*part-00001.*File too large.*intact"):
            run(SeriesReader(lengths), recordings(6), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000.parquet"]
    reader = SeriesReader(lengths)
    assert len(run(reader, recordings(6), tmp_path)) == 1203


def test_fewer_recordings_than_before_are_an_error(tmp_path: Path) -> None:
    reader = SeriesReader([8] * 9)
    run(reader, recordings(9), tmp_path)
    with pytest.raises(RunError, match=r"more recordings than there are now \(part-00002"):
        run(reader, recordings(6), tmp_path)
    (tmp_path / "part-00000.parquet").unlink()
    reads = reader.reads
    with pytest.raises(RunError, match="rows 3 to 5"):
        run(reader, [*recordings(5), *recordings(9)[6:]], tmp_path)
    assert reader.reads == reads, "nothing is computed before all shards were looked at"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="may write"):
        run(SeriesReader([8]), recordings(1), tmp_path / "e")


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "e").write_text("mine")
    with pytest.raises(RunError, match=r"Cannot use .*File exists.*may write"):
        run(SeriesReader([8]), recordings(1), tmp_path / "e")
    assert (tmp_path / "e").read_text() == "mine"


def test_a_broken_shard_is_told(tmp_path: Path) -> None:
    run(SeriesReader([8] * 4), recordings(4), tmp_path)
    (tmp_path / "part-00001.parquet").write_bytes(b"PAR1 broken")
    for attempt in (lambda: Vectors.load(tmp_path),
                    lambda: run(SeriesReader([8] * 4), recordings(4), tmp_path)):  # fmt: skip
        with pytest.raises(RunError, match=r"part-00001\.parquet is not .*delete it.*another"):
            attempt()
    with pytest.raises(RunError, match="holds no embeddings"):
        Vectors.load(tmp_path / "elsewhere")

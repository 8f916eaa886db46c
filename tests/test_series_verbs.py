"""The verbs on series: numbers that mean something, files where they are said to be."""

import csv
import json
import shutil
import tomllib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch

import mainspring as ms
from mainspring import cli
from mainspring.api import anomalies, classes, data, forecasts
from mainspring.api.series import vectors_of
from mainspring.cli import main
from mainspring.clips import ClipSpec
from mainspring.encoders.patch_transformer import PatchTransformer
from mainspring.evaluate import patch_forecast as patches
from mainspring.evaluate import per_step
from mainspring.evaluate.calendar import calendar_features
from mainspring.evaluate.forecasting import Splits, chronological, standardise
from mainspring.evaluate.forecasting import forecast as forecast_steps
from mainspring.evaluate.patch_forecast import PATCH_PENALTIES, patch_forecast
from mainspring.recordings import series as files
from mainspring.recordings.catalogue import open_catalogue
from mainspring.recordings.series import moments
from mainspring.training import plan
from mainspring.training.settings import settle

SMALL = {"series": {"width": 8, "depth": 3, "dim": 16}}
SMALL_PATCHES = {
    "series": {"patch": 4, "dim": 8, "depth": 1, "heads": 2, "hidden": 16, "context": 32}
}


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> tuple[Path, Path]:
    """Two UCR files of two classes: slow and fast waves of any phase."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("ucr")
    paths = []
    for part, count in (("TRAIN", 20), ("TEST", 30)):
        kind = np.arange(count) % 2
        phase = rng.uniform(0, 2 * np.pi, (count, 1))
        waves = np.sin(phase + np.arange(48) * (0.25 + 0.35 * kind)[:, None])
        waves += rng.normal(0, 0.1, waves.shape)
        lines = ["\t".join(map(str, [k + 1, *row])) for k, row in zip(kind, waves, strict=True)]
        paths.append(folder / f"Waves_{part}.tsv")
        paths[-1].write_text("\n".join(lines) + "\n")
    return paths[0], paths[1]


@pytest.fixture(scope="module")
def run(labelled, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "waves"
    ms.pretrain(
        labelled[0], "forecast", out=out, steps=3, batch=4, verdict=False, report=False,
        architecture=SMALL, clip={"series": {"length": 32}},
    )  # fmt: skip
    return out


def said(capsys, *words) -> dict:
    capsys.readouterr()
    main([*map(str, words), "--json"])
    return json.loads(capsys.readouterr().out)


def fails(capsys, *words, code: int = 1) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words)])
    assert stop.value.code == code
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return told.err


def test_verbs_are_small_and_take_json_and_config():
    for verb in ("classify", "forecast", "anomaly", "cluster"):
        names = [field.name for field in fields(cli._verb(verb).Flags)]
        assert len(names) <= 12
        assert {"json", "config"} <= set(names)
        assert hasattr(ms, verb)


def test_classify_compares_all_arms(capsys, run, labelled):
    found = said(capsys, "classify", run, *labelled)
    arms = found["arms"]
    assert (found["train"], found["test"]) == (20, 30)
    for arm in ("trained", "random weights"):
        assert set(arms[arm]) == {"svm", "logistic", "1-NN"}
    assert arms["trained"]["svm"]["chance"] == 0.5
    # Slow and fast waves are told apart by anything that looks at them.
    assert arms["trained"]["logistic"]["accuracy"] >= 0.8
    assert arms["MiniRocket"]["ridge"]["accuracy"] >= 0.9
    assert arms["DTW"]["1-NN"]["accuracy"] >= 0.9
    assert arms["raw values"]["1-NN"]["accuracy"] >= 0.7
    assert json.loads((run / "classify.json").read_text())["test"] == 30


def test_classify_prints_a_table_and_takes_a_config(capsys, run, labelled, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text("quick = true\n")
    main(["classify", str(run), *map(str, labelled), "--config", str(config)])
    text = capsys.readouterr().out
    assert "trained, svm" in text
    assert "MiniRocket" not in text
    config.write_text("quik = true\n")
    error = fails(capsys, "classify", run, *labelled, "--config", config, code=2)
    assert "Did you mean 'quick'" in error


def test_classify_needs_labels(capsys, run, labelled, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 20, 1)))
    assert "has a label" in fails(capsys, "classify", run, tmp_path / "a.npy", labelled[1])


def test_raw_values_are_stretched_to_the_longest():
    short, long = np.array([[0.0], [1.0]], np.float32), np.zeros((5, 1), np.float32)
    rows = classes._stretched([short, long])
    np.testing.assert_allclose(rows, [[0, 0.25, 0.5, 0.75, 1], [0, 0, 0, 0, 0]])


def test_vectors_of_patches_are_means_over_windows():
    torch.manual_seed(0)
    encoder = PatchTransformer(**SMALL_PATCHES["series"]).eval()
    clip = PatchTransformer.clip.__class__(length=32)
    series = np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32)
    with torch.inference_mode():
        both = encoder(torch.from_numpy(series.reshape(2, 32, 1)))
    told = vectors_of(encoder, clip, [series, series[:32]])
    np.testing.assert_allclose(told[0], both.mean(0).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(told[1], both[0].numpy(), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Path:
    """A daily season, hour by hour, with dates and two missing values."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("long")
    at = np.arange(480)
    values = 5 + np.sin(2 * np.pi * at / 24) + rng.normal(0, 0.05, 480)
    stamps = np.datetime64("2020-01-01T00:00:00") + at.astype("timedelta64[h]")
    rows = [f"{str(t).replace('T', ' ')},{v:.4f}" for t, v in zip(stamps, values, strict=True)]
    rows[50] = rows[50].split(",")[0] + ","
    (folder / "load.csv").write_text("date,load\n" + "\n".join(rows) + "\n")
    return folder / "load.csv"


def test_forecast_beside_baselines(capsys, run, long):
    found = said(
        capsys, "forecast", run, long, "--horizons", 6, 24, "--context", 30, "--period", 24
    )
    arms = found["arms"]
    assert set(arms) >= {"trained", "random weights", "persistence", "seasonal naive",
                         "mean of train", "ridge on raw values"}  # fmt: skip
    assert set(arms["trained"]) == {"6", "24"}
    # The same origins everywhere; a season known helps, and the mean has variance one.
    assert len({by["24"]["origins"] for by in arms.values()}) == 1
    assert arms["seasonal naive"]["24"]["mse"] < 0.1
    assert arms["mean of train"]["24"]["mse"] == pytest.approx(1, abs=0.15)
    assert arms["trained"]["6"]["mse"] < 1
    assert found["notes"] == []


@pytest.mark.parametrize("scale", [False, True])
def test_forecast_is_the_protocol_on_causal_vectors(run, long, scale, monkeypatch):
    """Vectors of 20 steps and their own, and none of train's first 20."""
    values = files.read_series(str(long))[None].astype(np.float32)
    splits = chronological(480)
    inputs = standardise(values, splits.train)[0].astype(np.float32) if scale else values
    vectors = per_step.steps(ms.load(run, "series").encoder, list(inputs), context=20)
    expected = forecast_steps(np.stack(vectors), values, splits, (6,), drop=20)
    steps = per_step.steps

    def spy(encoder, series, **options):
        np.testing.assert_array_equal(series, inputs)
        return steps(encoder, series, **options)

    monkeypatch.setattr(per_step, "steps", spy)
    found = ms.forecast(
        run, long, horizons=(6,), context=20, period=7, scale=scale, quick=True
    )  # fmt: skip
    assert found.arms["trained"][6].mse == pytest.approx(expected[6].mse, rel=1e-6)
    assert found.arms["seasonal naive"][6].mse > 0.5, "the period given is not the day"


def test_forecast_takes_counts_and_says_what_does_not_fit(capsys, run, long, tmp_path):
    found = said(capsys, "forecast", run, long, "--parts", 200, 60, 60, "--horizons", 12,
                 "--context", 20, "--quick")  # fmt: skip
    assert found["arms"]["trained"]["12"]["origins"] == 60 - 12
    error = fails(capsys, "forecast", run, long, "--parts", 400, 60, 60, code=2)
    assert "at most 480" in error
    (tmp_path / "two").mkdir()
    for name, steps in (("a", 100), ("b", 120)):
        np.save(tmp_path / "two" / f"{name}.npy", np.arange(steps)[:, None] % 7)
    assert "--parts 600" in fails(capsys, "forecast", run, tmp_path / "two")
    assert "--horizons" in fails(capsys, "forecast", run, long, "--parts", 200, 20, 20, code=2)


def test_the_future_does_not_reach_a_forecast(run, long):
    """Changing what lies after validation changes no penalty and no scaler."""
    text = long.read_text().splitlines()
    other = long.with_name("other.csv")
    head, cut = text[: 1 + 384], text[1 + 384 :]
    other.write_text("\n".join(head + [f"{line.split(',')[0]},99" for line in cut]) + "\n")
    a, b = (
        ms.forecast(run, path, horizons=(6,), context=20, quick=True).arms for path in (long, other)
    )
    assert a["trained"][6].penalty == b["trained"][6].penalty
    assert a["mean of train"][6].mse != b["mean of train"][6].mse


def test_a_run_on_the_same_data_is_noted(long, tmp_path):
    out = tmp_path / "same"
    ms.pretrain(
        np.random.default_rng(0).normal(size=(4, 64, 8)).astype(np.float32), "forecast", out=out,
        steps=2, batch=2, verdict=False, report=False, architecture=SMALL,
        clip={"series": {"length": 32}},
    )  # fmt: skip
    assert forecasts._learnt_from(out, long) == []
    config = (out / "config.toml").read_text()
    named = tomllib.loads(config)["data"]
    (out / "config.toml").write_text(config.replace(f'"{named}"', f'"{long}"', 1))
    assert "the test part included" in forecasts._learnt_from(out, str(long))[0]
    # The same run reads seven calendar channels beside the value.
    found = ms.forecast(out, str(long), horizons=(6,), context=10, calendar=True, quick=True)
    assert np.isfinite(found.arms["trained"][6].mse)


def test_a_calendar_follows_spans_and_stride(tmp_path):
    hours = np.datetime64("2020-01-01T00:00:00") + np.arange(200).astype("timedelta64[h]")
    lines = [f"{str(hour).replace('T', ' ')},1" for hour in hours]
    (tmp_path / "a.csv").write_text("date,x\n" + "\n".join(lines) + "\n")
    (tmp_path / "m.csv").write_text(f"uri,start,end\na.csv,{50 * 3600},{110 * 3600}\n")
    found = ms.catalogue(tmp_path / "m.csv")
    told = forecasts._calendar(found, ClipSpec(length=10, stride=2), 30, slice(0, 20))
    expected = calendar_features(hours[50:110:2], slice(0, 20))
    np.testing.assert_allclose(told[0], expected, atol=1e-6)


def test_numbers_of_steps_are_checked(capsys, run, long, pumps):
    for words in (["--horizons", 0], ["--horizons", 6, "--period", 0]):
        assert "at least 1" in fails(capsys, "forecast", run, long, *words, code=2)
    for flag in ("--past", "--delay", "--difference"):
        assert "negative" in fails(capsys, "anomaly", run, pumps[0], flag, -1, code=2)
    assert said(capsys, "anomaly", run, pumps[0], "--past", 0)["steps"] == 300


def test_moments_of_a_table_with_absent_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("date,x\n2020-01-01 00:00,1\n2020-01-01 01:00,2\n2020-01-01 04:00,3\n"
                    "2020-01-01 05:00,3\n2020-01-01 06:00,3\n")  # fmt: skip
    expected = np.datetime64("2020-01-01T00:00:00") + np.arange(7).astype("timedelta64[h]")
    assert (moments(str(path)) == expected).all()
    path.write_text("time,x\n0,1\n1,2\n")
    with pytest.raises(ms.DataError, match="no column of dates"):
        moments(str(path))


def slow_patch_forecast(encoder, values, splits, horizon, window, penalty):
    """Window by window, channel by channel, by the normal equations."""
    train = values[splits.train]
    z = (values - train.mean(0)) / train.std(0)
    rows, targets = [], []

    def look(t, channel):
        past = z[t - window + 1 : t + 1]
        with torch.inference_mode():
            tokens = encoder.channel_tokens(torch.tensor(past[None], dtype=torch.float32))
        return tokens[0, channel].double().numpy(), past[:, channel].mean(), past[:, channel].std()

    for t in range(window - 1, splits.train.stop - horizon):
        for channel in range(z.shape[1]):
            x, mean, scale = look(t, channel)
            rows.append(x)
            targets.append((z[t + 1 : t + 1 + horizon, channel] - mean) / scale)
    x, y = np.array(rows), np.array(targets)
    centre, level = x.mean(0), y.mean(0)
    x = x - centre
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (y - level))
    errors = []
    for t in range(splits.test.start, splits.test.stop - horizon):
        for channel in range(z.shape[1]):
            own, mean, scale = look(t, channel)
            told = ((own - centre) @ weights + level) * scale + mean
            errors.append(told - z[t + 1 : t + 1 + horizon, channel])
    return float((np.array(errors) ** 2).mean()), float(np.abs(errors).mean())


def test_patches_are_forecast_by_one_map_for_all_channels():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(120, 2)).cumsum(0).astype(np.float32) * [1, 30]
    torch.manual_seed(0)
    encoder = PatchTransformer(**SMALL_PATCHES["series"], channels=2)
    splits = chronological(120, (0.6, 0.2, 0.2))
    told = patch_forecast(encoder.train(), values.astype(np.float32)[None], splits, (3,), 16)[3]
    assert encoder.training, "as it came"
    encoder.eval()
    mse, mae = slow_patch_forecast(encoder, values, splits, 3, 16, told.penalty)
    assert told.mse == pytest.approx(mse, rel=1e-3)
    assert told.mae == pytest.approx(mae, rel=1e-3)
    # The penalty is the best one of the validation part.
    known = Splits(splits.train, splits.valid, splits.valid)
    scores = []
    for penalty in PATCH_PENALTIES:
        mse, mae = slow_patch_forecast(encoder, values, known, 3, 16, penalty)
        scores.append(np.sqrt(mse) + mae)
    assert told.penalty == PATCH_PENALTIES[int(np.argmin(scores))]


def test_windows_of_patches_are_drawn_from_the_whole_part(monkeypatch):
    values = np.random.default_rng(0).normal(size=(1, 600, 1)).astype(np.float32)
    encoder, ends = PatchTransformer(**SMALL_PATCHES["series"]), []
    whole = patches._patches

    def spy(encoder, values, instances, steps, window):
        ends.extend(steps.tolist())
        return whole(encoder, values, instances, steps, window)

    monkeypatch.setattr(patches, "_patches", spy)
    monkeypatch.setattr(patches, "PATCH_ROWS", 40)
    patch_forecast(encoder, values, chronological(600), (3,), 16)
    for drawn, first, last in ((ends[:40], 15, 356), (ends[40:50], 360, 476)):
        assert first <= min(drawn) < max(drawn) <= last
        assert len(set(drawn)) == len(drawn)
        assert max(drawn) - min(drawn) > (last - first) / 2


def test_patches_without_a_known_validation_part_are_refused():
    values = np.random.default_rng(0).normal(size=(1, 120, 1)).astype(np.float32)
    values[:, 72:96] = np.nan
    encoder = PatchTransformer(**SMALL_PATCHES["series"])
    with pytest.raises(ms.DataError, match="validation part is followed by 3 steps"):
        patch_forecast(encoder, values, chronological(120), (3,), 16)


def test_forecast_by_a_run_of_patches(tmp_path, long):
    out = tmp_path / "patches"
    ms.pretrain(
        np.random.default_rng(0).normal(size=(4, 64, 1)).astype(np.float32), "forecast", out=out,
        encoder=("patch_transformer",), steps=2, batch=2, verdict=False, report=False,
        architecture=SMALL_PATCHES, clip={"series": {"length": 32}},
    )  # fmt: skip
    found = ms.forecast(out, long, horizons=(6, 12), period=24, quick=True)
    assert found.arms["trained"][6].mse < 1.0
    assert found.arms["trained"][12].origins == found.arms["persistence"][12].origins
    with pytest.raises(ms.ConfigError, match="calendar would change nothing"):
        ms.forecast(out, long, horizons=(6,), calendar=True)


@pytest.fixture(scope="module")
def pumps(tmp_path_factory) -> tuple[Path, Path]:
    """Quiet noise with a spike in the second half of each series, and where it is."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("pumps")
    lines = ["uri,label,start,end"]
    for name, at in (("a", 200), ("b", 230)):
        values = np.sin(np.arange(300) * 0.3) + rng.normal(0, 0.02, 300)
        values[at : at + 3] += 9
        np.save(folder / f"{name}.npy", values[:, None])
        lines += [f"{name}.npy,spike,{at},{at + 3}", f"{name}.npy,normal,0,100"]
    labels = folder / "labels.csv"
    labels.write_text("\n".join(lines) + "\n")
    (folder / "all.csv").write_text("uri\na.npy\nb.npy\n")
    return folder / "all.csv", labels


@pytest.mark.parametrize("cold", [False, True])
def test_anomalies_are_scored_and_stored(capsys, run, pumps, tmp_path, cold):
    out = tmp_path / "scores.parquet"
    words = ["anomaly", run, pumps[0], "--labels", pumps[1], "--past", 20, "--out", out]
    found = said(capsys, *words, *(["--cold"] if cold else []))
    assert found["steps"] == 2 * (270 if cold else 150)
    assert set(found["scores"]) == {"trained", "random weights", "change from the step before"}
    change = found["scores"]["change from the step before"]
    assert change["recall"] == 1
    assert change["f1"] > change["chance"]
    table = pyarrow.parquet.read_table(out)
    assert table.num_rows == 600
    assert table.column("label").to_numpy().sum() == 6
    steps = table.column("step").to_numpy()
    label = table.column("label").to_numpy()
    assert steps[label].tolist() == [200, 201, 202, 230, 231, 232]
    assert found["hits"] == table.column("hit").to_numpy().sum()
    # Nothing is reported of what a threshold was taken from.
    assert not table.column("hit").to_numpy()[steps < (30 if cold else 150)].any()
    # The step that jumps is what a mask changes most.
    error = table.column("error").to_numpy()[:300]
    assert error[200:204].max() > np.median(error[150:200])


@pytest.mark.parametrize(("cold", "before"), [(False, 150), (True, 30)])
def test_units_are_those_of_what_lies_before_the_search(run, pumps, tmp_path, monkeypatch, cold,
                                                        before):  # fmt: skip
    given, whole = [], anomalies.anomalies.masking_errors

    def spy(encode, values, past):
        given.append(values[:before])
        return whole(encode, values, past)

    monkeypatch.setattr(anomalies.anomalies, "masking_errors", spy)
    ms.anomaly(run, pumps[0], past=5, cold=cold, out=tmp_path / "scores.parquet")
    np.testing.assert_allclose([(x.mean(), x.std()) for x in given], [(0, 1)] * 2, atol=1e-5)


def test_anomaly_without_labels_and_with_series_too_short(capsys, run, pumps):
    found = said(capsys, "anomaly", run, pumps[0], "--past", 10)
    assert found["scores"] == {}
    assert Path(found["path"]) == run / "anomaly.parquet"
    np.save(pumps[0].parent / "short.npy", np.arange(8.0)[:, None])
    assert "could be searched" in fails(capsys, "anomaly", run, pumps[0].parent / "short.npy")


def test_series_that_stand_still_in_train_are_scored_too(run, tmp_path):
    values = np.zeros((300, 1))
    values[200:203] = 4
    np.save(tmp_path / "still.npy", values)
    (tmp_path / "labels.csv").write_text("uri,label,start,end\nstill.npy,jump,200,203\n")
    found = ms.anomaly(
        run, tmp_path / "still.npy", labels=tmp_path / "labels.csv", past=20,
        out=tmp_path / "scores.parquet",
    )  # fmt: skip
    assert found.problems == {}
    assert found.scores["change from the step before"].recall == 1


def test_hidden_steps_have_no_influence(run):
    """With the last step masked, its value does not reach the vector; without, it does."""
    encode = anomalies._hiding(ms.load(run, "series").encoder)
    windows = np.random.default_rng(0).normal(size=(3, 12, 1)).astype(np.float32)
    windows[0, :5] = np.nan
    other = windows.copy()
    other[:, -1] += 5
    np.testing.assert_array_equal(encode(windows, True), encode(other, True))
    assert np.abs(encode(windows, False) - encode(other, False)).max() > 1e-3


def test_clusters_are_written_and_compared(capsys, run, labelled):
    found = said(capsys, "cluster", run, labelled[0], "--k", 2)
    arm = found["arms"]["trained"]
    assert arm["k"] == 2
    assert arm["rows"] == 20
    assert set(arm["chance"]) == {"nmi", "ari", "purity"}
    rows = list(csv.DictReader(Path(found["path"]).read_text().splitlines()))
    assert len(rows) == 20
    assert {row["label"] for row in rows} == {"1", "2"}
    assert {row["cluster"] for row in rows} == {"0", "1"}


def test_clusters_choose_k_alike_and_take_labels_from_a_file(capsys, run, labelled, tmp_path):
    labels = tmp_path / "labels.csv"
    rows = [f"{labelled[0]}#{row},{'xy'[row % 2]}" for row in range(20)]
    labels.write_text("uri,kind\n" + "\n".join(rows) + "\n")
    words = ["cluster", run, labelled[0], "--labels", labels, "--column", "kind"]
    found = said(capsys, *words, "--out", tmp_path / "c.csv")
    assert found["arms"]["trained"]["k"] == found["arms"]["random weights"]["k"]
    text = (tmp_path / "c.csv").read_text()
    assert ",x" in text
    told = ms.cluster(run, labelled[0], out=tmp_path / "d.csv")
    rows = list(csv.DictReader(told.path.read_text().splitlines()))
    assert [int(r["cluster"]) for r in rows] == told.clusterings["trained"].assigned.tolist()
    assert "k must lie" in fails(capsys, *words, "--k", 99, code=2)


def test_clusters_take_labels_of_spans(run, tmp_path):
    steps = np.arange(640)
    waves = np.sin(steps * np.where(steps // 40 % 2, 0.2, 1.2))[:, None]
    np.save(tmp_path / "a.npy", waves)
    spans = [f"a.npy,{at},{at + 40},{'fs'[at // 40 % 2]}" for at in range(0, 640, 40)]
    (tmp_path / "m.csv").write_text("uri,start,end,kind\n" + "\n".join(spans) + "\n")
    found = ms.cluster(
        run, tmp_path / "m.csv", labels=tmp_path / "m.csv", column="kind", k=2,
        out=tmp_path / "c.csv",
    )  # fmt: skip
    labels = [row["label"] for row in csv.DictReader(found.path.read_text().splitlines())]
    assert labels == ["f", "s"] * 8
    # What is written can be read as labels.
    again = ms.cluster(
        run, tmp_path / "m.csv", labels=found.path, column="cluster", k=2, out=tmp_path / "d.csv"
    )
    rows = list(csv.DictReader(again.path.read_text().splitlines()))
    assert all(row["label"] == row["cluster"] for row in rows)


def test_check_says_what_was_done_to_irregular_times(capsys, tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, stamps in {
        "regular": [0, 1, 2, 3, 4, 5],
        "absent": [0, 1, 2, 5, 6, 7],
        "irregular": [0, 1, 2.3, 3.5, 4.2, 9.9],
        "twice": [0, 1, 1, 2, 3, 4],
    }.items():
        lines = [f"{t},{n}" for n, t in enumerate(stamps)]
        (folder / f"{name}.csv").write_text("time,x\n" + "\n".join(lines) + "\n")
    found = said(capsys, "check", folder, "--quick")
    assert found["times"] == {
        "laid on a regular grid, with absent rows missing": 1,
        "resampled to a regular grid": 1,
        "averaged where rows have one stamp": 1,
    }
    main(["check", str(folder), "--quick"])
    assert "1 recording resampled to a regular grid" in capsys.readouterr().out


def test_check_surveys_once_and_opens_a_table_of_many_spans_once(capsys, tmp_path, monkeypatch):
    surveyed, opened = [], []
    survey, layout_of = data.survey, data.layout_of
    monkeypatch.setattr(data, "survey", lambda *a, **k: surveyed.append(1) or survey(*a, **k))
    monkeypatch.setattr(data, "layout_of", lambda uri: opened.append(uri) or layout_of(uri))
    rows = [f"{n * n / 10},{n}" for n in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(["time,x", *rows]))
    np.save(tmp_path / "b.npy", np.zeros((40, 1), np.float32))
    spans = [f"{name},{n},{n + 8}" for n in range(0, 30, 3) for name in ("a.csv,", "b.npy,a.csv")]
    (tmp_path / "m.csv").write_text("\n".join(["uri,series_uri,start,end", *spans]))
    found = said(capsys, "check", tmp_path / "m.csv", "--quick")
    assert found["times"] == {"resampled to a regular grid": 20}
    assert len(surveyed) == len(opened) == 1


def test_groups_of_series_stay_on_one_side(tmp_path):
    lines = ["uri,group"]
    for number in range(40):
        np.save(tmp_path / f"{number}.npy", np.random.default_rng(number).normal(size=(64, 1)))
        lines.append(f"{number}.npy,machine {number // 5}")
    manifest = tmp_path / "all.csv"
    manifest.write_text("\n".join(lines) + "\n")
    asked = settle({"data": str(manifest), "pretext": "forecast", "loading": {"holdout": 0.25}})
    seen, kept = plan._hold_out(open_catalogue(manifest), asked, [])
    assert len(kept) == 10
    assert len(seen) == 30
    assert not set(seen.column("group")) & set(kept.column("group"))


def test_irregular_files_train(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for number in range(4):
        stamps = np.cumsum(rng.exponential(1.0, 80))
        lines = [f"{t:.4f},{np.sin(t):.4f}" for t in stamps]
        (tmp_path / f"{number}.csv").write_text("time,x\n" + "\n".join(lines) + "\n")
    for way, channels in (("resample", 1), ("gap", 2)):
        monkeypatch.setenv("MAINSPRING_IRREGULAR", way)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / way))
        values = files.read_series(str(tmp_path / "0.csv"))
        assert values.shape[1] == channels
        ms.pretrain(
            tmp_path, "forecast", out=tmp_path / f"run-{way}", steps=2, batch=2, verdict=False,
            report=False, architecture=SMALL, clip={"series": {"length": 32}},
        )  # fmt: skip
        encoder = ms.load(tmp_path / f"run-{way}", "series").encoder
        assert encoder.settings["channels"] == channels


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """Six labelled series, a sound without a series and a file that cannot be read."""
    folder, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    lines = ["uri,label"]
    for at in range(6):
        values = np.sin(np.arange(120) * (0.2 + 0.3 * (at % 2))) + rng.normal(0, 0.1, 120)
        (folder / f"{at}.csv").write_text("\n".join(["x", *map(str, values)]) + "\n")
        lines.append(f"{at}.csv,{'ab'[at % 2]}")
    soundfile.write(folder / "hum.wav", rng.normal(0, 0.1, 8000), 8000)
    (folder / "words.csv").write_text("x\nno\nnumbers\n")
    table = folder / "all.csv"
    table.write_text("\n".join([*lines, "hum.wav,a", "words.csv,b"]) + "\n")
    return table


@pytest.mark.parametrize(
    "words",
    [
        ("classify", "DATA", "DATA", "--quick"),
        ("cluster", "DATA", "--k", "2"),
        ("anomaly", "DATA", "--past", "8"),
        ("forecast", "DATA", "--horizons", "4", "--context", "8", "--quick"),
    ],
)
def test_recordings_without_a_series_are_left_out_and_named(capsys, run, mixed, words):
    verb, *rest = (mixed if word == "DATA" else word for word in words)
    problems = said(capsys, verb, run, *rest)["problems"]
    assert {Path(name).name for name in problems} == {"hum.wav", "words.csv"}
    assert "its streams: audio" in str(problems)
    main([verb, str(run), *map(str, rest)])
    assert "2 recordings left out:" in capsys.readouterr().out


def test_data_without_any_series_say_what_they_have(capsys, run, mixed):
    error = fails(capsys, "cluster", run, mixed.parent / "hum.wav")
    assert "has a series to read" in error
    assert "its streams: audio" in error


def test_classify_promises_only_labels_that_are_read(capsys, run, mixed):
    folder = mixed.parent / "classes"
    for name in "ab":
        (folder / name).mkdir(parents=True)
        (folder / name / "0.csv").write_text((mixed.parent / "0.csv").read_text())
    error = fails(capsys, "classify", run, folder, mixed)
    assert "has a label" in error
    assert "folder a class" not in error


def test_classify_of_one_class_is_json_without_nan(capsys, run, labelled, tmp_path):
    lines = labelled[1].read_text().splitlines()
    (tmp_path / "One_TEST.tsv").write_text("\n".join(x for x in lines if x[0] == "1") + "\n")
    main(
        ["classify", *map(str, (run, labelled[0], tmp_path / "One_TEST.tsv")), "--json", "--quick"]
    )
    text = capsys.readouterr().out
    assert "NaN" not in text + (run / "classify.json").read_text()
    assert json.loads(text)["arms"]["trained"]["svm"]["auprc"] is None


@pytest.mark.parametrize(
    "words",
    [
        ("classify", "DATA", "DATA", "--quick"),
        ("cluster", "DATA", "--k", "2"),
        ("anomaly", "DATA", "--past", "8"),
        ("forecast", "DATA", "--horizons", "4", "--context", "8", "--quick"),
    ],
)
def test_what_was_measured_is_told_where_it_cannot_be_kept(capsys, run, mixed, tmp_path, words):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / f"{words[0]}.json").unlink(missing_ok=True)
    (copy / f"{words[0]}.json").mkdir()  # in the way, whoever asks
    verb, *rest = (str(mixed) if word == "DATA" else word for word in words)
    capsys.readouterr()
    main([verb, str(copy), *rest, "--json"])
    told = capsys.readouterr()
    assert "problems" in json.loads(told.out)
    assert f"{verb}.json was left as it is. Cannot write" in told.err

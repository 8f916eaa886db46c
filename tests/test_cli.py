"""What a user meets: wrong words, broken data, folders in the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mainspring.cli import main


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def series(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    folder = tmp_path / "series"
    folder.mkdir()
    for number in range(8):
        kind = number % 2
        wave = np.sin(np.arange(160) * (0.1 + 0.2 * kind))[:, None]
        np.save(folder / f"{'ab'[kind]}{number}.npy", wave + rng.normal(0, 0.05, (160, 2)))
    return folder


SMALL = """
batch = 4
[architecture.series]
width = 8
depth = 3
dim = 16
"""


def fails(capsys: pytest.CaptureFixture, *words: str, code: int = 1) -> str:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return said.err + said.out


def trained(series: Path, tmp_path: Path) -> Path:
    config = tmp_path / "small.toml"
    config.write_text(SMALL)
    out = tmp_path / "run"
    main(["pretrain", str(series), "--pretext", "forecast", "--out", str(out), "--steps", "3",
          "--config", str(config)])  # fmt: skip
    return out


def test_help_names_every_verb(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for verb in ("demo", "check", "pretrain", "embed", "probe", "search", "pretexts", "encoders"):
        assert verb in text


@pytest.mark.parametrize(
    ("verb", "wanted"),
    [
        ("search", "RUN EXAMPLE"),
        ("classify", "RUN TRAIN TEST"),
        ("pretrain", "DATA"),
        ("across", "RUN DATA"),
    ],
)
def test_help_names_what_has_to_be_given(capsys, verb, wanted):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    text = capsys.readouterr().out
    assert f"[OPTIONS] {wanted}\n" in text
    about = text.split("positional arguments")[0].splitlines()[:-1]
    assert not any(line.startswith(" ") for line in about)


@pytest.mark.parametrize("words", [["pretexts"], ["pretexts", "--help"]])
def test_a_reader_that_has_seen_enough_is_no_failure(words):
    code = "import sys; from mainspring.cli import main; main(sys.argv[1:])"
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], stdout=closed, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_verb_is_suggested(capsys):
    assert "Did you mean 'pretrain'" in fails(capsys, "pretrian", "x", code=2)


def test_a_wrong_flag_is_suggested(capsys, series):
    said = fails(capsys, "pretrain", str(series), "--pretex", "taco", "--out", "x", code=2)
    assert "--pretext" in said


def test_a_wrong_pretext_is_suggested(capsys, series, tmp_path):
    said = fails(
        capsys,
        "pretrain",
        str(series),
        "--pretext",
        "forcast",
        "--out",
        str(tmp_path / "r"),
        code=2,
    )
    assert "Did you mean 'forecast'" in said


def test_a_config_that_cannot_be_read(capsys, tmp_path):
    assert "Is a directory" in fails(capsys, "search", "r", "q", "--config", str(tmp_path), code=2)
    path = tmp_path / "latin.toml"
    path.write_bytes('stream = "s\xe9rie"'.encode("latin-1"))
    assert "is no TOML" in fails(capsys, "search", "r", "q", "--config", str(path), code=2)


@pytest.mark.parametrize(
    ("verb", "line", "wanted"),
    [
        ("search", 'k = "ten"', "k is 'ten', where int was expected"),
        ("embed", "hop = true", "hop is True, where float | None was expected"),
        ("forecast", "parts = [0.5, 0.5]", "parts is (0.5, 0.5), where tuple[float, float, float]"),
        ("forecast", 'quick = "no"', "quick is 'no', where bool was expected"),
        ("forecast", "horizons = 24", "horizons is 24, where tuple[int, ...] was expected"),
    ],
)
def test_a_config_value_of_another_type_is_refused(capsys, tmp_path, verb, line, wanted):
    path = tmp_path / "c.toml"
    path.write_text(line)
    assert wanted in fails(capsys, verb, "run", "data", "--config", str(path), code=2)


def test_a_wrong_setting_is_suggested(capsys, series, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text("[optimiser]\nlearning_rat = 1\n")
    said = fails(
        capsys, "pretrain", str(series), "--out", str(tmp_path / "r"), "--config", str(config),
        code=2,
    )  # fmt: skip
    assert "learning_rat" in said
    config.write_text("bacth = 3\n")
    said = fails(
        capsys, "pretrain", str(series), "--out", str(tmp_path / "r"), "--config", str(config),
        code=2,
    )  # fmt: skip
    assert "Did you mean 'batch'" in said


def test_two_budgets_are_refused(capsys, series, tmp_path):
    said = fails(
        capsys, "pretrain", str(series), "--out", str(tmp_path / "r"), "--steps", "3",
        "--minutes", "2", code=2,
    )  # fmt: skip
    assert "one budget" in said


@pytest.mark.parametrize("verb", ["check", "pretrain"])
def test_an_empty_folder_says_so(capsys, tmp_path, verb):
    empty = tmp_path / "empty"
    empty.mkdir()
    out = ["--out", str(tmp_path / "r")] if verb == "pretrain" else []
    said = fails(capsys, verb, str(empty), *out)
    assert str(empty) in said


def test_data_that_is_not_there(capsys, tmp_path):
    assert "nowhere" in fails(capsys, "check", str(tmp_path / "nowhere"))


def test_check_of_nothing_usable_exits_with_one(capsys, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.mp4").write_text("this is no video")
    (tmp_path / "d" / "b.mp4").write_bytes(b"")
    said = fails(capsys, "check", str(tmp_path / "d"))
    assert "Nothing" in said


def test_recordings_too_short_are_counted(capsys, tmp_path):
    folder = tmp_path / "short"
    folder.mkdir()
    for number in range(3):
        np.save(folder / f"{number}.npy", np.zeros((2, 1)))
    said = fails(
        capsys, "pretrain", str(folder), "--pretext", "forecast", "--out", str(tmp_path / "r")
    )
    assert "3" in said


def test_an_out_folder_with_other_things_is_left_alone(capsys, series, tmp_path):
    out = tmp_path / "taken"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    said = fails(capsys, "pretrain", str(series), "--pretext", "forecast", "--out", str(out))
    assert "not empty" in said
    assert (out / "thesis.txt").read_text() == "precious"


def test_the_whole_path_on_series(capsys, series, tmp_path):
    out = trained(series, tmp_path)
    for name in ("config.toml", "check.json", "metrics.jsonl", "log.txt", "summary.json",
                 "report.html"):  # fmt: skip
        assert (out / name).exists(), name
    capsys.readouterr()
    main(["embed", str(out), str(series), "--json"])
    embedded = json.loads(capsys.readouterr().out)
    assert embedded["recordings"] == 8
    labels = tmp_path / "labels.csv"
    rows = [f"{p},{p.name[0]},{'xy'[i % 4 // 2]}" for i, p in enumerate(sorted(series.iterdir()))]
    labels.write_text("uri,label,other\n" + "\n".join(rows))
    main(["probe", str(out), str(series), "--labels", str(labels), "--seeds", "1", "--json"])
    probed = json.loads(capsys.readouterr().out)
    assert set(probed) == {"trained", "random weights", "raw features", "verdict", "problems"}
    assert probed["raw features"]["probe"]["accuracy"] >= 0.7
    main(["probe", str(out), str(series), "--labels", str(labels), "--seeds", "1"])
    luck = next(row for row in capsys.readouterr().out.splitlines() if row.startswith("chance"))
    assert luck.split() == ["chance", "50.0%", "50.0%", "100.0%"]  # half of any gallery matches
    main(["probe", str(out), str(series), "--labels", str(labels), "--column", "other",
          "--seeds", "1", "--json"])  # fmt: skip
    other = json.loads(capsys.readouterr().out)
    assert other["trained"]["probe"]["classes"] == ["x", "y"]
    query = sorted(series.iterdir())[0]
    main(["search", str(out), f"{query}@0-40", "--k", "3", "--json"])
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert len(hits) == 3
    assert hits[0]["score"] >= hits[1]["score"]


def test_a_run_that_was_moved_is_searched(capsys, series, tmp_path, monkeypatch):
    run = trained(series, tmp_path)
    monkeypatch.chdir(tmp_path)
    main(["embed", run.name, str(series)])
    (tmp_path / "away").mkdir()
    run.rename(tmp_path / "away" / "moved")
    monkeypatch.chdir(tmp_path / "away")
    capsys.readouterr()
    main(["search", "moved", str(series / "a0.npy"), "--k", "2"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    fails(capsys, "search", "moved", str(series / "a0.npy"), "--k", "0", code=2)
    assert "no seeds" in fails(capsys, "probe", "moved", str(series), "--seeds", "0", code=2)
    assert "batch is 0" in fails(
        capsys, "embed", "moved", str(series), "--batch", "0", "--hop", "9", code=2
    )
    assert "not inf" in fails(capsys, "embed", "moved", str(series), "--hop", "inf", code=2)


def test_files_that_cannot_be_read_are_named_by_every_verb(capsys, series, tmp_path):
    run = trained(series, tmp_path)
    (series / "bad.npy").write_bytes(b"no array")
    capsys.readouterr()
    main(["embed", str(run), str(series), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["recordings"] == 8
    assert list(found["problems"]) == [str(series / "bad.npy")]
    labels = tmp_path / "labels.csv"
    rows = [f"{path},{path.name[0]}" for path in sorted(series.iterdir())]
    labels.write_text("uri,label\n" + "\n".join(rows))
    main(["probe", str(run), str(series), "--labels", str(labels), "--seeds", "1"])
    told = capsys.readouterr().out
    assert "1 recordings left out:" in told
    assert "bad.npy" in told
    said = fails(capsys, "embed", str(run), str(series / "bad.npy"))
    assert "None of the 1 recordings" in said
    assert "bad.npy: " in said


def test_recordings_that_were_relabelled_are_probed(capsys, series, tmp_path):
    run, table = trained(series, tmp_path), tmp_path / "all.csv"
    main(["embed", str(run), str(series)])
    paths = sorted(series.iterdir())
    for at in (0, 1):  # by name, and by turns
        rows = [f"{path},{(path.name[0], 'ab'[i // 2 % 2])[at]}" for i, path in enumerate(paths)]
        table.write_text("uri,label\n" + "\n".join(rows))
        capsys.readouterr()
        main(["probe", str(run), str(table), "--seeds", "1", "--json"])
        accuracy = json.loads(capsys.readouterr().out)["raw features"]["probe"]["accuracy"]
        assert (accuracy > 0.9) == (at == 0)


def test_a_probe_says_that_labels_of_spans_are_none_of_recordings(capsys, series, tmp_path):
    run, labels, config = (tmp_path / name for name in ("run", "spans.csv", "short.toml"))
    config.write_text(SMALL + "[clip.series]\nlength = 40\n")
    main(["pretrain", str(series), "--pretext", "forecast", "--out", str(run), "--steps", "2",
          "--config", str(config)])  # fmt: skip
    rows = [f"{path},{path.name[0]},0,160" for path in sorted(series.iterdir())]
    torn = [row.replace(",0,160", ",0,80") for row in rows]
    labels.write_text("uri,label,start,end\n" + "\n".join(torn))
    said = fails(capsys, "probe", str(run), str(series), "--labels", str(labels))
    assert "8 recordings whose windows have different labels" in said
    labels.write_text("uri,label,start,end\n" + "\n".join([*torn[:1], *rows[1:]]))
    main(["probe", str(run), str(series), "--labels", str(labels), "--seeds", "1"])
    assert "Note: 1 recordings whose windows have different labels" in capsys.readouterr().out


def test_a_run_without_encoder_or_embeddings_says_what_to_do(capsys, series, tmp_path):
    said = fails(capsys, "embed", str(tmp_path), str(series))
    assert "no run folder" in said
    out = trained(series, tmp_path)
    said = fails(capsys, "search", str(out), str(sorted(series.iterdir())[0]))
    assert "mainspring embed" in said


def test_json_keeps_stdout_to_one_object(capsys, series, tmp_path):
    main(["check", str(series), "--pretext", "forecast", "--batch", "4", "--json"])
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["usable"] == 8
    assert report["cost"]["steps"] >= 500


@pytest.mark.parametrize(
    ("verb", "wanted"),
    [
        ("pretexts", ["taco", "arrow_of_time", "forecast"]),
        ("encoders", ["r3d18", "r2plus1d18", "slow18", "slow50", "logmel", "dilated"]),
    ],
)
def test_lists_say_what_there_is(capsys, verb, wanted):
    main([verb, "--json"])
    found = json.loads(capsys.readouterr().out)
    for name in wanted:
        assert found[name]["citation"]


def test_presets_are_listed_with_their_pretext(capsys):
    main(["pretexts", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["av_sync"]["presets"] == ["avts", "offset"]
    assert found["forecast"]["presets"] == []
    main(["pretexts"])
    listed = capsys.readouterr().out.split("\n\n")[0].splitlines()
    at = listed.index("av_sync")
    assert listed[at + 3] == "  --preset avts, offset"


def test_what_is_named_next_can_be_typed(capsys, tmp_path):
    folder = tmp_path / "both"
    folder.mkdir()
    rows = ["uri,caption"]
    for number in range(4):
        path = folder / f"{number}.npy"
        np.save(path, np.random.default_rng(number).normal(size=(200, 2)))
        rows.append(f"{path},a word")
    (tmp_path / "both.csv").write_text("\n".join(rows))
    config = tmp_path / "small.toml"
    config.write_text(SMALL + "[architecture.text]\nbuckets = 64\nwidth = 4\ndim = 8\n")
    data, out = str(tmp_path / "both.csv"), str(tmp_path / "run")
    main(["pretrain", data, "--pretext", "clip", "--stream", "text", "series", "--out", out,
          "--steps", "1", "--config", str(config)])  # fmt: skip
    said = capsys.readouterr()
    assert "Verdict on text:\n" in said.err
    assert "Verdict on series:\n" in said.err
    words = said.out.split("Next: mainspring ")[1].splitlines()
    assert words[1].strip().startswith(f"mainspring across {out} DATA")
    main(words[0].split("   (")[0].split())
    said = capsys.readouterr().out
    assert said.splitlines()[-1].endswith("FILE@START-END --stream series")
    main(["embed", out, data, "--stream", "text", "--joint"])
    assert capsys.readouterr().out.splitlines()[-1].endswith("FILE@START-END --among text")
    main(["embed", out, data, "--stream", "text"])
    assert capsys.readouterr().out.splitlines()[-1].endswith('"WORDS" --stream text')


def test_every_public_name_is_what_it_says_whatever_was_imported_before():
    # A function named like a package would be replaced by it as soon as that is imported.
    import importlib
    import pkgutil

    import mainspring

    packages = {module.name for module in pkgutil.iter_modules(mainspring.__path__)}
    assert not packages & set(mainspring.__all__)
    for name in packages - {"__main__"}:
        importlib.import_module(f"mainspring.{name}")
    assert all(callable(getattr(mainspring, name)) for name in mainspring.__all__)


def test_help_does_not_wait_for_torch():
    import subprocess
    import sys

    code = "import sys, mainspring.cli as c; c._help(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("verb", ["pretrain", "check"])
@pytest.mark.parametrize("line", ["log = 'x'", "cost = true", "verdict = false"])
def test_what_is_no_setting_is_refused_whatever_python_calls_it(
    capsys, series, tmp_path, verb, line
):
    config = tmp_path / "odd.toml"
    config.write_text(line + "\n")
    out = ["--out", str(tmp_path / "r")] if verb == "pretrain" else []
    said = fails(capsys, verb, str(series), *out, "--config", str(config), code=2)
    assert f"Unknown setting {line.split()[0]!r}" in said


def test_check_takes_a_config_of_pretrain(capsys, series, tmp_path):
    config = tmp_path / "all.toml"
    config.write_text(f"pretext = 'forecast'\nout = '{tmp_path / 'r'}'\n" + SMALL)
    main(["check", str(series), "--config", str(config)])
    text = capsys.readouterr().out
    assert "Training forecast here" in text
    assert not (tmp_path / "r").exists()


def test_a_run_with_a_space_in_its_name_is_quoted_in_what_comes_next(capsys, series, tmp_path):
    (tmp_path / "my series").mkdir()
    run = trained(series, tmp_path / "my series")
    said = capsys.readouterr().out + fails(capsys, "search", str(run), str(series / "a0.npy"))
    main(["embed", str(run), str(series)])
    said += capsys.readouterr().out
    assert said.count(f"'{run}'") == 3

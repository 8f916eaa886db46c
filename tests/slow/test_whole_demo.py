"""`mainspring demo`, made small: every stage runs and the summary holds what it promises."""

import json

import pytest

from mainspring.cli import main


@pytest.mark.slow
def test_the_demo_runs_and_says_what_it_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "demo"
    main(["demo", "--out", str(out), "--recordings", "64", "--minutes", "1.5", "--json"])
    summary = json.loads(capsys.readouterr().out)
    written = json.loads((out / "summary.json").read_text())["probe"]
    for label in ("motion", "appearance"):
        arms = summary["probe"][label]
        assert set(arms) == {
            "contrast only", "task only", "both", "random weights", "raw features",
        }  # fmt: skip
        for arm, result in arms.items():
            # The file leaves out what is None, such as curves for which there are too few labels.
            assert written[label][arm]["confusion"] == result["confusion"]
            assert 0 <= result["low"] <= result["accuracy"] <= result["high"] <= 1
    assert summary["peak_memory_gb"] < 3.2
    assert (out / "task-only" / "report.html").exists()
    assert len(summary["search"]["hits"]) == 5

"""What is not asked about is said: silence, absence, steps without a question."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mainspring import api
from mainspring.errors import DataError
from mainspring.training import unasked
from mainspring.training.progress import Alarms, Log

LITTLE = {
    "architecture": {"audio": {"width": 4}, "series": {"width": 8, "depth": 2, "dim": 16}},
    "verdict": False,
    "report": False,
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def sounds(folder: Path, silent: int, loud: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(silent + loud):
        sound = rng.normal(0, 0.1, 24000) * (number >= silent)
        soundfile.write(folder / f"{number:02}.wav", sound.astype(np.float32), 16000)
    return folder


def test_a_step_is_idle_if_its_loss_is_zero_and_there_was_no_choice():
    assert unasked.idle(0.0, {})
    assert unasked.idle(0.0, {"contrast": (0.0, 0.0), "sound": (1.0, 1.0)})
    assert not unasked.idle(0.1, {})
    assert not unasked.idle(0.0, {"contrast": (1.0, 0.25)})  # a hinge loss that is satisfied


def test_data_in_which_nothing_can_be_asked_stop_the_run(tmp_path):
    data = sounds(tmp_path / "silent", 6, 0)
    with pytest.raises(DataError, match=r"Nothing was asked in 20 steps: gdt .*silent: 100 %"):
        api.pretrain(data, "gdt", out=tmp_path / "run", steps=30, batch=4, **LITTLE)
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) < 21


def test_a_short_run_without_a_question_raises_the_alarm(tmp_path):
    data = sounds(tmp_path / "silent", 6, 0)
    said = api.pretrain(data, "gdt", out=tmp_path / "run", steps=3, batch=4, **LITTLE)
    assert said["alarms"] == ["unasked"]


def test_steps_without_question_later_in_a_run_raise_it_once():
    alarms = Alarms(begin=1000)
    texts = [alarms.check(step, {"spread": 0.5}, idle=step - 5) for step in range(5, 60)]
    said = [(step, text) for step, some in enumerate(texts, 5) for text in some]
    assert [step for step, _ in said] == [25]
    assert "nothing was asked in 20 steps" in said[0][1]


def test_shares_of_a_run_are_means_over_its_steps_and_said_above_zero(tmp_path):
    sheet = tmp_path / "metrics.jsonl"
    rows = [{"step": 1, "silent": 0.2, "absent": 0.0, "loss": 1.0}, {"step": 2, "silent": 0.06}]
    sheet.write_text("".join(json.dumps(row) + "\n" for row in rows))
    means = unasked.means(sheet)
    assert means == {"silent": pytest.approx(0.13), "absent": 0.0}
    assert [line.split(" sound")[0] for line in unasked.said(means)] == ["silent: 13 % of"]
    assert "less than 1 %" in unasked.said({"absent": 0.001})[0]


def test_a_run_says_what_it_left_out(tmp_path):
    data = sounds(tmp_path / "some", 3, 5)
    log = tmp_path / "run" / "log.txt"
    said = api.pretrain(
        data, "gdt", out=tmp_path / "run", steps=4, batch=6, log=Log(quiet=True), **LITTLE
    )
    assert 0 < said["left_out"]["silent"] < 1
    assert "of sound clips were not asked about" in log.read_text()


def test_series_that_some_recordings_lack_have_the_shape_of_the_others(tmp_path):
    data = sounds(tmp_path / "sounds", 0, 6)
    rows = ["uri,series_uri"]
    for number in range(6):
        other = ""
        if number % 2:
            other = str(tmp_path / f"{number}.csv")
            values = np.random.default_rng(number).normal(size=(300, 3))
            table = np.column_stack([np.arange(300) / 200, values])
            np.savetxt(other, table, delimiter=",", header="time,a,b,c", comments="")
        rows.append(f"{data / f'{number:02}.wav'},{other}")
    manifest = tmp_path / "both.csv"
    manifest.write_text("\n".join(rows))
    said = api.pretrain(
        manifest, "gdt", out=tmp_path / "run", steps=2, batch=6, stream=("audio", "series"),
        **LITTLE,
    )  # fmt: skip
    assert said["quarantined"] == {}
    assert said["left_out"]["absent"] == pytest.approx(0.25)

"""The run folder refuses what would lose something and says the way out."""

import errno
import io
import json
import resource
import subprocess
import sys

import pytest
import torch
from torch import nn

from mainspring.clips import ClipSpec
from mainspring.errors import ConfigError, RunError
from mainspring.training import checkpoint
from mainspring.training.progress import Alarms, Log, clock, line
from mainspring.training.run import Run, plain, write
from mainspring.training.schedule import Optimiser
from mainspring.training.settings import Loading, Settings, make, with_clip


def test_a_new_folder_gets_its_parts_and_config(tmp_path):
    run = Run(tmp_path / "run")
    assert run.begin(plain(Settings(data="x", steps=3))) is False
    assert run.checkpoints.is_dir()
    config = run.config()
    assert config["steps"] == 3
    assert config["optimiser"]["name"] == "adamw"
    assert run.begin(plain(Settings(data="x", steps=3))) is True


def test_a_run_knows_its_data_however_their_path_is_written(tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    run.begin(plain(Settings(data=str(tmp_path / "world"), steps=3)))
    monkeypatch.chdir(tmp_path)
    for same in ("world", "world/", "./run/../world", tmp_path / "world"):
        assert run.learnt_from(same)
    assert run.learnt_from("world/a.csv")
    assert not run.learnt_from("worlds")
    assert not run.learnt_from(".")
    assert not run.learnt_from(torch.zeros(3))


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(RunError, match="not empty and holds no run"):
        Run(tmp_path).begin({})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]


def test_a_place_that_can_be_no_folder_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match=r"Cannot use .* as a run folder.*"), Run(place).alone():
            pass


def test_a_changed_config_names_the_keys_and_both_ways_out(tmp_path):
    run = Run(tmp_path / "run")
    run.begin(plain(Settings(data="x")))
    run.resolve({"steps": 100})
    with pytest.raises(RunError) as error:
        run.begin(plain(Settings(data="x", batch=32, loading=Loading(workers=3))))
    text = str(error.value)
    assert "batch: 64 -> 32" in text
    assert "loading.workers: -1 -> 3" in text
    assert "seed" not in text
    assert "resume" in text
    assert "--out" in text


def test_more_steps_go_on_where_the_rate_does_not_depend_on_their_number(tmp_path):
    steady = Optimiser(schedule="constant", warmup=0.0)
    run = Run(tmp_path / "run")
    run.begin(plain(Settings(data="x", epochs=2, optimiser=steady)))
    run.resolve({"steps": 100})
    run.write_json("summary.json", {"steps": 100})
    for fewer in (50, 100):
        with pytest.raises(RunError, match=r"epochs: 2 -> .\(none\)"):
            run.begin(plain(Settings(data="x", steps=fewer, optimiser=steady)))
    with pytest.raises(RunError, match=r"batch: 64 -> 32"):
        run.begin(plain(Settings(data="x", steps=200, batch=32, optimiser=steady)))
    assert run.read_json("summary.json") == {"steps": 100}

    assert run.begin(plain(Settings(data="x", steps=200, optimiser=steady))) is True
    assert run.config()["steps"] == 200
    assert "resolved" not in run.config()
    assert run.read_json("summary.json") is None

    for other in (Optimiser(schedule="cosine", warmup=0.0), Optimiser(schedule="constant")):
        run = Run(tmp_path / f"{other.schedule}")
        run.begin(plain(Settings(data="x", steps=100, optimiser=other)))
        with pytest.raises(RunError, match=r"steps: 100 -> 200[\s\S]*schedule constant"):
            run.begin(plain(Settings(data="x", steps=200, optimiser=other)))


def test_two_writers_are_refused(tmp_path):
    run = Run(tmp_path / "run")
    code = (
        "import sys, time\n"
        "from mainspring.training.run import Run\n"
        f"with Run({str(run.folder)!r}).alone():\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="Another process"), run.alone():
            pass
        other.kill()
    with run.alone():
        pass


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write(path, b"old")

    def full(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match="the disk is full"):
        write(path, full)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_on_a_full_disk_leaves_the_one_before(tmp_path):
    layer = nn.Linear(300, 300)
    parts, optimiser = {"layer": layer}, torch.optim.SGD(layer.parameters())
    checkpoint.save(tmp_path, 1, parts, optimiser, {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"Cannot write .*step-00000002\.pt"):
            checkpoint.save(tmp_path, 2, parts, optimiser, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]


def test_no_run_here(tmp_path):
    with pytest.raises(RunError, match="no run folder"):
        Run(tmp_path).config()


def modules() -> tuple[dict[str, nn.Module], torch.optim.Optimizer]:
    layer = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    return {"layer": layer}, torch.optim.AdamW(layer.parameters())


def test_checkpoints_restore_weights_optimiser_and_quarantine(tmp_path):
    parts, optimiser = modules()
    for step in range(1, 5):
        parts["layer"](torch.randn(4, 2)).square().sum().backward()
        optimiser.step()
        checkpoint.save(tmp_path, step, parts, optimiser, {3: "bad.mp4: no frames"})
    assert len(list(tmp_path.glob("*.pt"))) == checkpoint.KEEP
    fresh, other = modules()
    step, quarantined = checkpoint.restore(tmp_path, fresh, other, torch.device("cpu"))
    assert step == 4
    assert quarantined == {3: "bad.mp4: no frames"}
    for name, value in parts["layer"].state_dict().items():
        assert torch.equal(value, fresh["layer"].state_dict()[name])
    assert torch.equal(
        optimiser.state_dict()["state"][0]["exp_avg"], other.state_dict()["state"][0]["exp_avg"]
    )


def test_averages_are_laid_out_as_the_weights_they_are_restored_to(tmp_path):
    def learner(turned: bool) -> tuple[dict[str, nn.Module], torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        if turned:
            layer.weight.data = layer.weight.data.T.contiguous().T
        return {"layer": layer}, torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)

    def step(parts, optimiser) -> None:
        optimiser.zero_grad()
        parts["layer"](torch.arange(12.0).view(4, 3)).square().sum().backward()
        optimiser.step()

    before, after = learner(False), learner(True)
    step(*before)
    checkpoint.save(tmp_path, 1, *before, {})
    checkpoint.restore(tmp_path, *after, torch.device("cpu"))
    step(*before)
    step(*after)
    torch.testing.assert_close(after[0]["layer"].weight, before[0]["layer"].weight)


def test_a_broken_checkpoint_falls_back_to_the_one_before(tmp_path):
    parts, optimiser = modules()
    for step in (1, 2):
        checkpoint.save(tmp_path, step, parts, optimiser, {})
    (tmp_path / "step-00000002.pt").write_bytes(b"half")
    assert checkpoint.restore(tmp_path, parts, optimiser, torch.device("cpu"))[0] == 1
    (tmp_path / "step-00000001.pt").write_bytes(b"")
    with pytest.raises(RunError, match="None of the 2 checkpoints"):
        checkpoint.restore(tmp_path, parts, optimiser, torch.device("cpu"))


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path):
    sheet = tmp_path / "metrics.jsonl"
    sheet.write_text("".join(json.dumps({"step": s}) + "\n" for s in range(1, 6)) + '{"st')
    checkpoint.rewind(sheet, 3)
    assert [json.loads(row)["step"] for row in sheet.read_text().splitlines()] == [1, 2, 3]


def test_a_half_written_line_after_the_checkpoint_is_cut_off(tmp_path):
    sheet = tmp_path / "metrics.jsonl"
    whole = "".join(json.dumps({"step": s}) + "\n" for s in range(1, 4))
    for half in ('{"st', "{}"):
        sheet.write_text(whole + half)
        assert [row["step"] for row in checkpoint.past(sheet, 3)] == [1, 2, 3]
        checkpoint.rewind(sheet, 3)
        assert sheet.read_text() == whole


def test_settings_reject_typos_and_contradictions():
    with pytest.raises(ConfigError, match="Did you mean 'weight_decay'"):
        make(Settings, {"data": "x", "optimiser": {"weight_decy": 1}}, "config")
    with pytest.raises(ConfigError, match="steps and minutes"):
        Settings(data="x", steps=1, minutes=1.0)
    with pytest.raises(ConfigError, match="must be positive"):
        Settings(data="x", steps=0)
    with pytest.raises(ConfigError, match="parts"):
        Settings(data="x", batch=4, parts=5)
    with pytest.raises(ConfigError, match="Did you mean 'stride'"):
        with_clip(ClipSpec(8), {"stide": 2}, "video")


def test_settings_survive_the_file():
    settings = make(Settings, {"data": "x", "encoder": ["a"], "optimiser": {"lr": 0.1}}, "config")
    assert settings.encoder == ("a",)
    assert make(Settings, plain(settings), "config") == settings


def test_alarms_are_raised_once_each():
    alarms = Alarms()
    said = [alarms.check(s, {"spread": 0.002, "rank": 3.0, "waiting": 0.9}) for s in range(60)]
    texts = [text for texts in said for text in texts]
    assert len(texts) == 2
    assert "collapsed" in texts[0]
    assert "waits for data" in texts[1]
    patient = Alarms(begin=50)
    said = [patient.check(s, {"spread": 0.002}) for s in range(1, 100)]
    assert [s for s, texts in enumerate(said, 1) if texts] == [70]
    healthy = Alarms()
    assert not any(
        healthy.check(s, {"spread": 0.9, "rank": 9.0, "waiting": 0.05}) for s in range(60)
    )


@pytest.mark.parametrize("collapsed", [{"spread": 0.0, "rank": 9.0}, {"spread": 0.9, "rank": 1.1}])
def test_a_collapse_is_told_as_soon_as_twenty_steps_in_a_row_show_it(collapsed):
    alarms = Alarms()
    for step in range(1, 101):
        assert not alarms.check(step, {"spread": 0.9, "rank": 9.0})
    told = [step for step in range(101, 140) if alarms.check(step, collapsed)]
    # A mean rank below 1.5 takes all but one of twenty at 1.1; a mean spread, all of them.
    assert told == [119 if collapsed["rank"] < 2 else 120]
    assert alarms.raised == ["collapsed"]


def test_progress_line_says_everything(tmp_path):
    text = line(5, 10, 1.25, {"direction": (0.8, 0.5)}, 7.4, 120.0, 0.04, 75)
    for part in (
        "5/10",
        "50%",
        "1.2500",
        "direction 80% (chance 50%)",
        "rank 7.4",
        "120 samples/s",
        "waiting 4%",
        "left 1:15",
    ):
        assert part in text
    assert clock(3725) == "1:02:05"
    out = io.StringIO()
    log = Log(tmp_path / "log.txt", out=out, every=3600)
    log.say("hello")
    log.update("one")
    log.update("two")
    log.update("three", final=True)
    assert out.getvalue() == "hello\none\nthree\n"
    assert (tmp_path / "log.txt").read_text() == "hello\none\nthree\n"

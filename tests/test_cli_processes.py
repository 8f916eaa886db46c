"""What several processes say: one speaks for all, and nothing that only another knows is lost."""

import os
import subprocess
import sys

import pytest

from mainspring import cli


@pytest.mark.parametrize(("rank", "waits"), [("0", []), ("1", [cli.PATIENCE])])
def test_another_process_gives_the_first_time_to_tell(
    rank: str,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    slept: list[float] = []
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(cli.time, "sleep", slept.append)
    with pytest.raises(SystemExit) as ended:
        cli.main(["pretrian"])
    assert ended.value.code == 2
    assert slept == waits
    assert "Did you mean 'pretrain'?" in capsys.readouterr().err


def test_a_wrong_flag_is_told_by_the_first_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank, said in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as ended:
            cli.main(["pretrain", "data", "--out", "run", "--stepz", "3"])
        assert ended.value.code == 2
        assert ("stepz" in capsys.readouterr().err) == said


def test_under_torchrun_an_error_is_told_once() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "mainspring", "pretrian"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    assert done.stderr.count("Did you mean 'pretrain'?") == 1, done.stderr
    assert "exitcode  : 2" in done.stderr

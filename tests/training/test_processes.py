"""What all processes of a run must agree on."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from mainspring.training import estimate, loop, step
from mainspring.training.loader import Problem

CPU = torch.device("cpu")
BROKEN = Problem(7, "07.npy", "it is cut off")


def _rank(rank: int, world: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=world)
    told = {
        "seconds": estimate._slowest(0.1 * (rank + 1), CPU),
        "rows": [p.row for p in loop._anywhere([BROKEN] if rank else [], False, CPU, world)[0]],
        "none": loop._anywhere([], False, CPU, world),
        "left_out": loop._anywhere([], rank == 1, CPU, world),  # known to be broken, all of them
    }
    norm = nn.BatchNorm1d(3)
    norm(torch.tensor([[1.0], [3.0]]).expand(2, 3) * (rank + 1))
    step.average_statistics([nn.Sequential(nn.Linear(3, 3), norm)], world)
    told |= {"mean": norm.running_mean.tolist(), "variance": norm.running_var.tolist()}
    torch.save(told, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_processes_agree_on_the_time_of_a_step_and_on_what_is_broken(tmp_path):
    mp.spawn(_rank, args=(2, 31500 + os.getpid() % 2000, str(tmp_path)), nprocs=2)
    for rank in range(2):
        told = torch.load(tmp_path / f"{rank}.pt")
        # A tenth of the batch's joins the running statistics: means 2 and 4, variances 2 and 8.
        assert told.pop("mean") == pytest.approx(3 * [0.1 * (2 + 4) / 2])
        assert told.pop("variance") == pytest.approx(3 * [0.9 + 0.1 * (2 + 8) / 2])
        assert told == {
            "seconds": 0.2, "rows": [7], "none": ([], False), "left_out": ([], True)
        }  # fmt: skip


def test_one_process_agrees_with_itself():
    assert estimate._slowest(0.1, CPU) == 0.1
    assert loop._anywhere([BROKEN], False, CPU, 1) == ([BROKEN], False)

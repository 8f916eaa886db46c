"""A batch in parts or over processes gives the gradients of the whole batch."""

import contextlib
import itertools
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from toy import toy, toy_batch

from mainspring.errors import ConfigError
from mainspring.training.step import frozen_statistics, learn


def gradients(parts: int, count: int = 12, silent: bool = True) -> tuple[float, dict]:
    pretext, encoders = toy()
    if silent:
        still(pretext)
    outcome, features, facts = learn(
        pretext, encoders, toy_batch(count).split(parts), (0, 0), contextlib.nullcontext
    )
    assert len(facts) == count
    assert features["z"].shape[0] == count
    named = [*pretext.named_parameters(), *encoders["series"].named_parameters()]
    return outcome.loss.item(), {name: p.grad.clone() for name, p in named}


def still(pretext) -> None:
    """Without the noise, whose draws depend on how the batch is cut."""
    encode = pretext.encode

    def quiet(encoders, batch):
        with torch.random.fork_rng():
            real = torch.randn
            torch.randn = lambda shape, generator: torch.zeros(shape)
            try:
                return encode(encoders, batch)
            finally:
                torch.randn = real

    pretext.encode = quiet


def plain(count: int = 12) -> tuple[float, dict]:
    pretext, encoders = toy()
    still(pretext)
    outcome = pretext(encoders, toy_batch(count))
    outcome.loss.backward()
    named = [*pretext.named_parameters(), *encoders["series"].named_parameters()]
    return outcome.loss.item(), {name: p.grad.clone() for name, p in named}


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 12])
def test_parts_equal_the_whole_batch(parts):
    loss, expected = plain()
    got, grads = gradients(parts)
    assert got == pytest.approx(loss, abs=1e-6)
    for name, grad in expected.items():
        torch.testing.assert_close(grads[name], grad, atol=1e-8, rtol=1e-4)


def test_plain_accumulation_would_not_be_equal():
    """The test above can fail: the mean of micro-batch gradients is another gradient."""
    _, expected = plain()
    pretext, encoders = toy()
    still(pretext)
    for part in toy_batch(12).split(3):
        (pretext(encoders, part).loss / 3).backward()
    got, whole = pretext.project.weight.grad, expected["project.weight"]
    assert (got - whole).norm() > 0.2 * whole.norm()


def test_second_pass_draws_the_same_dropout_and_noise():
    pretext, encoders = toy(dropout=0.5)
    pretext.train()
    losses, grads = [], []
    for _ in range(2):
        pretext.zero_grad()
        encoders["series"].zero_grad()
        outcome, _, _ = learn(
            pretext, encoders, toy_batch(8).split(2), (3, 4), contextlib.nullcontext
        )
        losses.append(outcome.loss.item())
        grads.append(encoders["series"].body[0].weight.grad.clone())
    assert losses[0] == losses[1]
    assert torch.equal(grads[0], grads[1])


def drawn(parts: int, key: tuple[int, ...]) -> tuple[list, list]:
    """What `learn` lets each encoding and each asking draw: own noise, dropout, common noise."""
    pretext, encoders = toy()
    encode, ask, encoded, asked = pretext.encode, pretext.ask, [], []

    def encoding(given, batch):
        common = torch.rand(1, generator=batch.common).item()
        own = torch.rand(1, generator=batch.generator).item()
        encoded.append((own, torch.rand(1).item(), common))
        return encode(given, batch)

    def asking(features, batch):
        asked.append((torch.rand(1, generator=batch.generator).item(), torch.rand(1).item()))
        return ask(features, batch)

    pretext.encode, pretext.ask = encoding, asking
    learn(pretext, encoders, toy_batch(6).split(parts), key, contextlib.nullcontext)
    return encoded, asked


def test_randomness_belongs_to_seed_step_and_part():
    encoded, asked = drawn(3, (5, 12))
    assert encoded[:3] == encoded[3:]  # the second pass is through what the first one saw
    own, dropout, common = zip(*encoded[:3], strict=True)
    assert len(set(own)) == len(set(dropout)) == 3
    assert len(set(common)) == 1
    assert drawn(3, (5, 12)) == (encoded, asked)
    assert drawn(1, (5, 12))[1] == asked
    later, other = drawn(3, (5, 18))
    assert not {*itertools.chain(*encoded, *asked)} & {*itertools.chain(*later, *other)}


def test_parts_are_remembered_once_by_batch_normalisation():
    pretext, encoders = toy()
    norm = encoders["series"].body[1] = nn.BatchNorm1d(16)  # over the steps of a clip
    batch = toy_batch(12)
    learn(pretext, encoders, batch.split(3), (0, 0), contextlib.nullcontext)
    assert norm.num_batches_tracked == 3


def test_low_precision_features_are_joined_in_float32():
    pretext, encoders = toy()
    outcome, features, _ = learn(
        pretext,
        encoders,
        toy_batch(6).split(2),
        (0, 0),
        lambda: torch.autocast("cpu", torch.bfloat16),
    )
    assert features["z"].dtype == torch.float32
    assert outcome.loss.isfinite()
    assert encoders["series"].body[0].weight.grad.abs().sum() > 0


def test_a_part_too_small_for_batch_statistics_says_what_to_change():
    pretext, encoders = toy()
    norm, encode = nn.BatchNorm1d(4), pretext.encode
    pretext.encode = lambda given, batch: {"z": norm(encode(given, batch)["z"][:, 0])}
    with pytest.raises(ConfigError, match="fewer parts or a larger batch"):
        learn(pretext, encoders, toy_batch(3).split(3), (0, 0), contextlib.nullcontext)


def test_statistics_are_counted_once():
    norm = nn.BatchNorm1d(3)
    with torch.no_grad(), frozen_statistics(norm):
        out = norm(torch.randn(8, 3) + 5)
    assert abs(out.mean().item()) < 1e-5
    assert norm.running_mean.eq(0).all()
    assert norm.num_batches_tracked == 0
    assert norm.track_running_stats


def _rank(rank: int, world: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    pretext, encoders = toy()
    still(pretext)
    for parameter in encoders["series"].parameters():
        if parameter.ndim == 2:  # as convolutions have the channels last
            parameter.data = parameter.data.T.contiguous().T
    pretext.idle = nn.Parameter(torch.ones(3))
    whole = toy_batch(12).split(4)
    mine = whole[:3] if rank == 0 else whole[3:]  # uneven shares
    encode, seeds = pretext.encode, []

    def encoding(given, batch):
        seeds.append((batch.generator.initial_seed(), batch.common.initial_seed()))
        return encode(given, batch)

    pretext.encode = encoding
    outcome, features, _ = learn(pretext, encoders, mine, (0, 0), contextlib.nullcontext)
    named = [*pretext.named_parameters(), *encoders["series"].named_parameters()]
    torch.save(
        {
            "loss": outcome.loss.item(),
            "rows": len(features["z"]),
            "seeds": seeds,
            "layouts": [(p.stride(), p.grad.stride()) for _, p in named if p.grad is not None],
        }
        | {name: p.grad for name, p in named},
        f"{folder}/{rank}.pt",
    )
    dist.destroy_process_group()


def test_two_processes_equal_one_with_the_joined_batch(tmp_path):
    loss, expected = plain()
    port = 29500 + os.getpid() % 2000
    mp.spawn(_rank, args=(2, port, str(tmp_path)), nprocs=2)
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt")
        assert got["rows"] == 12
        assert got["loss"] == pytest.approx(loss, abs=1e-6)
        assert any(weight[0] < weight[1] for weight, _ in got["layouts"] if len(weight) == 2)
        assert all(weight == grad for weight, grad in got["layouts"])  # fused optimisers ask it
        assert got["idle"] is None  # nor would it have decayed on one process
        for name, grad in expected.items():
            torch.testing.assert_close(got[name], grad, atol=1e-8, rtol=1e-4)
    seeds = [torch.load(tmp_path / f"{rank}.pt")["seeds"] for rank in range(2)]
    assert len({own for own, _ in seeds[0] + seeds[1]}) == 4
    assert len({common for _, common in seeds[0] + seeds[1]}) == 1

"""Sentences become vectors by their words, and by their order only where that is asked for."""

import json

import numpy as np
import pytest
import torch

from mainspring.clips import ClipSpec
from mainspring.encoders.catalog import find
from mainspring.encoders.saved import load_encoder, save_encoder
from mainspring.encoders.words import Words
from mainspring.errors import ConfigError, DataError
from mainspring.recordings.text import number, numbers


def small(**settings) -> Words:
    torch.manual_seed(0)
    return Words(**{"buckets": 997, "width": 12, "dim": 16, **settings}).eval()


def say(*sentences: str, length: int = 8) -> torch.Tensor:
    return torch.from_numpy(np.stack([numbers(sentence, length) for sentence in sentences]))


@torch.no_grad()
def test_it_is_the_papers_formula():
    encoder = small()
    sentence = "two grey balls meet and part"
    table, weight = encoder.vectors.weight, encoder.layer.weight[:, :, 0]
    vectors = [table[number(word) % 997] for word in sentence.split()]
    layer = [torch.relu(weight @ vector + encoder.layer.bias) for vector in vectors]
    want = [max(float(word[d]) for word in layer) for d in range(16)]
    torch.testing.assert_close(encoder(say(sentence))[0], torch.tensor(want))


def test_it_is_found_by_its_name_and_its_defaults_are_gdts_but_for_the_width():
    encoder = find("words")()
    assert encoder.stream == "text"
    assert encoder.clip == ClipSpec(length=20)
    assert encoder.vectors.weight.shape == (16384, 300)
    assert encoder(say("a ball falls")).shape == (1, 512)
    assert Words(dim=2048).dim == 2048


def test_order_is_seen_with_context_only():
    forwards, backwards = (
        say("the red ball meets the blue one"),
        say("one blue the meets ball red the"),
    )
    blind, sees = small(), small(context=3)
    assert not blind.ordered
    assert sees.ordered
    torch.testing.assert_close(blind(forwards), blind(backwards))
    assert not torch.allclose(sees(forwards), sees(backwards))
    with torch.no_grad():  # of each word alone, the two are the same encoder
        sees.vectors.weight.copy_(blind.vectors.weight)
        sees.layer.weight.zero_()
        sees.layer.weight[:, :, 1] = blind.layer.weight[:, :, 0]
        sees.layer.bias.copy_(blind.layer.bias)
    torch.testing.assert_close(sees(forwards), blind(forwards))


@pytest.mark.parametrize("context", [1, 5])
def test_padding_and_what_is_not_present_have_no_influence(context):
    encoder = small(context=context)
    short = say("a ball falls", length=3)
    long = say("a ball falls", length=8)
    torch.testing.assert_close(encoder(long), encoder(short))
    present = torch.arange(8)[None] < 3
    further = say("a ball falls upon its head", length=8)
    torch.testing.assert_close(encoder(further, present), encoder(short))
    assert not torch.allclose(encoder(further), encoder(short))
    assert not encoder.tokens(long)[:, 3:].any()


@pytest.mark.parametrize("context", [1, 3])
def test_a_sentence_without_words_is_zeros_and_learns_nothing(context):
    encoder = small(context=context)
    silent = encoder(torch.zeros(2, 8, dtype=torch.int64))
    assert torch.equal(silent, torch.zeros(2, 16))
    absent = encoder(say("a ball"), torch.zeros(1, 8, dtype=torch.bool))
    assert torch.equal(absent, torch.zeros(1, 16))
    (silent.sum() + absent.sum()).backward()
    assert all(not weight.grad.any() for weight in encoder.parameters())
    assert all(weight.grad.isfinite().all() for weight in encoder.parameters())


def test_words_that_share_a_bucket_look_the_same():
    one, other = 5, 5 + 997
    encoder = small()
    torch.testing.assert_close(encoder(torch.tensor([[one]])), encoder(torch.tensor([[other]])))
    assert not torch.allclose(encoder(torch.tensor([[one]])), encoder(torch.tensor([[6]])))
    assert encoder(torch.tensor([[2**62 - 1, 997]])).isfinite().all()  # bucket 0 is a word too
    assert encoder.tokens(torch.tensor([[997]])).any()


def file_of(tmp_path, kind: str, entries: dict[str, np.ndarray]):
    path = tmp_path / f"vectors.{kind}"
    if kind == "npz":
        np.savez(path, words=np.array(list(entries)), vectors=np.stack(list(entries.values())))
        return str(path)
    lines = [f"{word} {' '.join(map(repr, v.tolist()))}" for word, v in entries.items()]
    if kind == "vec":
        lines.insert(0, f"{len(entries)} {len(next(iter(entries.values())))}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("kind", ["txt", "vec", "npz"])
def test_vectors_of_a_file_are_where_their_words_are(tmp_path, kind):
    rng = np.random.default_rng(0)
    names = ["ball", "Falls", "FALLS", "new_york", "ünder", "</s>"]
    entries = {name: rng.normal(size=12).astype(np.float32) for name in names}
    encoder = small(vectors=file_of(tmp_path, kind, entries))
    for name, source in {"ball": "ball", "falls": "Falls", "ünder": "ünder"}.items():
        bucket = number(name) % 997
        assert np.array_equal(encoder.vectors.weight[bucket].detach().numpy(), entries[source])
    one_word = {number(name) % 997 for name in ("ball", "falls", "ünder", "s")}
    untouched = sorted(set(range(997)) - one_word)
    assert torch.equal(encoder.vectors.weight[untouched], small().vectors.weight[untouched])
    assert encoder.read == len(one_word)
    assert small().read == 0


def test_of_two_words_in_a_bucket_the_first_of_the_file_wins(tmp_path):
    entries = {f"w{i}": np.full(12, float(i)) for i in range(40)}
    encoder = small(buckets=4, vectors=file_of(tmp_path, "txt", entries))
    first: dict[int, int] = {}
    for i in range(40):
        first.setdefault(number(f"w{i}") % 4, i)
    assert encoder.vectors.weight[:, 0].tolist() == [first[bucket] for bucket in range(4)]


def test_it_is_built_again_from_settings_and_weights_without_the_file(tmp_path):
    path = file_of(tmp_path, "txt", {"ball": np.arange(12.0)})
    encoder = small(context=3, vectors=path)
    save_encoder(tmp_path / "run", encoder, ClipSpec(length=8))
    (tmp_path / "vectors.txt").unlink()
    again = load_encoder(tmp_path / "run").encoder
    sentence = say("the ball falls")
    assert torch.equal(again(sentence), encoder(sentence))
    assert again.ordered
    assert json.loads(json.dumps(encoder.settings)) == encoder.settings


def test_files_that_hold_something_else_are_named(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        small(vectors=str(tmp_path / "none.txt"))
    with pytest.raises(DataError, match=r"3 numbers for 'ball'.*width=3"):
        small(vectors=file_of(tmp_path, "txt", {"ball": np.arange(3.0)}))
    with pytest.raises(DataError, match="no vector of a single word"):
        small(vectors=file_of(tmp_path, "txt", {"new_york": np.arange(12.0)}))
    (tmp_path / "prose.txt").write_text("It was a dark night.\n")
    with pytest.raises(DataError, match="word2vec's text format"):
        small(vectors=str(tmp_path / "prose.txt"))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match=r"broken\.npz cannot be read as word vectors"):
        small(vectors=str(tmp_path / "broken.npz"))
    np.savez(tmp_path / "other.npz", embeddings=np.zeros((2, 12)))
    with pytest.raises(DataError, match="words"):
        small(vectors=str(tmp_path / "other.npz"))


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match="odd number, so that it has a middle, not 4"):
        small(context=4)
    with pytest.raises(ConfigError, match="dim 0"):
        small(dim=0)


def test_it_learns_which_words_matter():
    """Sentences of random words: does one of them name a colour?"""
    rng = np.random.default_rng(0)
    filler, colours = [f"filler{i}" for i in range(30)], ["red", "green", "blue"]

    def draw(count: int):
        truth = rng.integers(2, size=count)
        lines = [[*rng.choice(filler, 5), rng.choice(colours if t else filler)] for t in truth]
        return say(*(" ".join(rng.permutation(line)) for line in lines)), torch.from_numpy(truth)

    encoder, head = small().train(), torch.nn.Linear(16, 2)
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 0.02)
    for _ in range(60):
        sentences, truth = draw(64)
        loss = torch.nn.functional.cross_entropy(head(encoder(sentences)), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    sentences, truth = draw(200)
    assert (head(encoder(sentences)).argmax(1) == truth).float().mean() > 0.9

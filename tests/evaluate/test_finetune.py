from dataclasses import replace

import numpy as np
import pytest
import torch

from mainspring.clips import NOTHING, ClipSpec, Extent, Timeline
from mainspring.encoders.dilated import Dilated
from mainspring.encoders.encoder import Encoder
from mainspring.errors import DataError
from mainspring.evaluate.finetune import finetune
from mainspring.recordings.recording import Recording, StreamInfo
from mainspring.training.order import seed_torch

CLIP = ClipSpec(length=16)
WAVES = {"slow": 0.2, "fast": 1.2}


class Waves:
    """Series that swing slowly or fast, by their names; the reader of these tests."""

    def timeline(self, recording):
        return Timeline({"series": Extent(48, 1.0)})

    def read(self, recording, draws):
        word, number = recording.uri.split("-")
        rng = np.random.default_rng(int(number))
        whole = np.sin(WAVES[word] * np.arange(48) + rng.uniform(0, 6)) + rng.normal(0, 0.1, 48)
        clips = draws["series"]
        values = np.where(clips == NOTHING, np.nan, whole[clips])
        return {"series": values[:, :, None].astype(np.float32)}

    def stamp(self):
        return {}


def recordings(first, count):
    info = {"series": StreamInfo("series", 48, 1.0, 48.0, channels=1)}
    return [
        Recording(f"{word}-{number}", streams=info, label=word)
        for number in range(first, first + count)
        for word in WAVES
    ]


def encoder():
    torch.manual_seed(0)
    return Dilated(1, width=8, depth=2, dim=8)


def test_what_labels_say_is_learnt_and_the_encoder_stays_as_it_was():
    net, train, test = encoder(), recordings(0, 10), recordings(50, 10)
    before = [value.clone() for value in net.state_dict().values()]
    tuned = finetune(net, CLIP, train, test, Waves(), steps=40, batch=8, lr=5e-3)
    assert tuned > 0.9
    for old, new in zip(before, net.state_dict().values(), strict=True):
        assert torch.equal(old, new)
    again = finetune(net, CLIP, train, test, Waves(), steps=40, batch=8, lr=5e-3)
    assert again == tuned


def test_labels_without_meaning_are_not_learnt():
    rng = np.random.default_rng(0)
    names = list(WAVES)
    lie = [replace(r, label=names[int(rng.integers(2))]) for r in recordings(0, 20)]
    truth = [replace(r, label=names[int(rng.integers(2))]) for r in recordings(50, 20)]
    assert finetune(encoder(), CLIP, lie, truth, Waves(), steps=30, batch=8) < 0.8


@pytest.mark.parametrize("label", [None, "other"])
def test_a_label_that_is_missing_or_unknown_is_refused(label):
    train, test = recordings(0, 2), recordings(50, 2)
    test[1] = replace(test[1], label=label)
    with pytest.raises(DataError, match=r"fast, slow"):
        finetune(encoder(), CLIP, train, test, Waves(), steps=1)


def test_an_answer_is_the_mean_of_all_windows_without_dropout():
    net, train, test = encoder(), recordings(0, 2), recordings(50, 20)
    for seed in range(3):
        seed_torch(seed, 0)
        head = torch.nn.Linear(8, 2)  # as it is drawn, without a step of training
        right = 0
        for item in test:
            clips = np.arange(0, 33, 8)[:, None] + np.arange(16)
            samples = torch.from_numpy(Waves().read(item, {"series": clips})["series"])
            with torch.no_grad():
                odds = head(net.eval()(samples)).softmax(1).mean(0)
            right += ["fast", "slow"][int(odds.argmax())] == item.label
        net.train()
        assert finetune(net, CLIP, train, test, Waves(), steps=0, seed=seed) == right / 40


def test_windows_are_half_a_clip_apart():
    read = []

    class Spy(Waves):
        def read(self, recording, draws):
            read.append(draws["series"])
            return super().read(recording, draws)

    finetune(encoder(), CLIP, recordings(0, 1), recordings(50, 1), Spy(), steps=0)
    assert len(read) == 4
    for clips in read:
        np.testing.assert_array_equal(clips, np.arange(0, 33, 8)[:, None] + np.arange(16))


def test_the_encoder_learns_and_its_layer_ten_times_as_fast(monkeypatch):
    rates, seen = [], []

    class Spy(torch.optim.AdamW):
        def step(self):
            rates.append([group["lr"] for group in self.param_groups])
            seen[:] = [sum(p.numel() for p in group["params"]) for group in self.param_groups]
            super().step()

    monkeypatch.setattr(torch.optim, "AdamW", Spy)
    net = encoder()
    finetune(net, CLIP, recordings(0, 2), recordings(50, 1), Waves(), steps=20, batch=2, lr=0.01)
    assert seen == [sum(p.numel() for p in net.parameters()), 8 * 2 + 2]
    of_encoder, of_layer = np.array(rates).T
    np.testing.assert_allclose(of_layer, 10 * of_encoder)
    assert of_encoder.max() == pytest.approx(0.01)
    assert of_encoder[0] < 0.01 > of_encoder[-1]


class Middles(Encoder):
    """Sees pictures; keeps the least and the largest value it was shown."""

    stream = "video"
    citation = "none"

    def __init__(self):
        super().__init__()
        self.dim = 1
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.shown = []

    def forward(self, samples, present=None):
        if not self.training:
            self.shown.append((tuple(samples.shape[2:4]), int(samples.max())))
        return self.weight * samples.float().mean((1, 2, 3, 4))[:, None]


class Frames:
    """Black pictures of 8 x 8 with an edge of white, two pixels wide."""

    def timeline(self, recording):
        return Timeline({"video": Extent(4, 1.0)})

    def read(self, recording, draws):
        pictures = np.full((*draws["video"].shape, 8, 8, 3), 255, np.uint8)
        pictures[:, :, 2:6, 2:6] = 0
        return {"video": pictures}

    def stamp(self):
        return {}


def test_pictures_are_tested_at_their_middle(monkeypatch):
    net = Middles()
    monkeypatch.setattr("copy.deepcopy", lambda kept: kept)
    info = {"video": StreamInfo("video", 4, 1.0, 4.0)}
    items = [Recording(f"{n}.mp4", streams=info, label="ab"[n % 2]) for n in range(4)]
    clip = ClipSpec(length=4, size=8, crop=4)
    finetune(net, clip, items[:2], items[2:], Frames(), steps=1, batch=2)
    assert {shape for shape, _ in net.shown} == {(4, 4)}
    assert max(largest for _, largest in net.shown) == 0

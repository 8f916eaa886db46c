from dataclasses import replace

import numpy as np
import pytest
import torch

from mainspring.clips import NOTHING, ClipSpec, Extent, Timeline
from mainspring.encoders.dilated import Dilated
from mainspring.errors import DataError
from mainspring.evaluate.finetune import finetune
from mainspring.recordings.recording import Recording, StreamInfo

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

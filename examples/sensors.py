"""Sensor data with few labels, from raw recordings to a model that runs on the machine."""

# %% [markdown]
# # Which machine is about to fail? Sensor data with few labels
#
# Twenty-four machines were watched by three sensors (vibration, temperature, current). Recordings
# differ in length, some values are missing, and somebody has looked at four machines only and
# written down what was wrong with them. The encoder learns from all sixteen machines of the
# training side without labels; eight machines that it never saw are the test.
#
# Runs in well under a minute on one processor core: `python examples/sensors.py`.

# %% A made-up factory
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mainspring import Embedder
from mainspring.encoders.dilated import Dilated
from mainspring.encoders.streaming import Stream
from mainspring.evaluate import per_step
from mainspring.evaluate.raw import raw_features

STATES = ("healthy", "loose", "bearing", "pump")
MACHINES, RECORDINGS = 24, 24
LABELLED, TEST = range(4), range(16, 24)


@dataclass
class Recording:
    """What one machine did for a while."""

    machine: int
    state: str
    values: np.ndarray  # (time, channel), NaN where missing


def record(machine: int, state: str, rng: np.random.Generator) -> Recording:
    """A few minutes of a machine; its speed and its sensors' gains are its own."""
    own = np.random.default_rng(1000 + machine)
    pace, gain = own.uniform(0.3, 0.36), own.uniform(0.9, 1.1, 3)
    steps = np.arange(rng.integers(120, 260))
    turn = pace * steps + rng.uniform(0, 2 * np.pi)
    vibration, current = np.sin(turn), 0.5 * np.sin(turn + 1)
    if state == "bearing":  # rings once a turn
        vibration += np.exp(-((turn + 2) % (2 * np.pi))) * np.cos(2.5 * steps)
    if state == "loose":  # knocks at both ends of a turn
        vibration = np.sign(vibration) * np.sqrt(np.abs(vibration))
    if state == "pump":  # works against the motor every other turn
        current *= 1 + 0.8 * np.sin(turn / 2)
    load = 1 + 0.5 * np.sin(steps / rng.uniform(8, 30) + rng.uniform(0, 2 * np.pi))
    vibration, current = load * vibration, load * current
    vibration += rng.normal(0, 0.2, len(steps))
    current += rng.normal(0, 0.2, len(steps))
    temperature = 1 - np.exp(-steps / 60) + rng.normal(0, 0.1, len(steps))
    values = np.stack([vibration, temperature, current], 1) * gain
    values[rng.random(values.shape) < 0.05] = np.nan  # lost packets
    start = rng.integers(len(steps) - 20)
    values[start : start + 20, rng.integers(3)] = np.nan  # a sensor that was away
    return Recording(machine, state, values.astype(np.float32))


rng = np.random.default_rng(0)
recordings = [
    record(machine, STATES[i % len(STATES)], rng)
    for machine in range(MACHINES)
    for i in range(RECORDINGS)
]
train = [r for r in recordings if r.machine not in TEST]
labelled = [r for r in recordings if r.machine in LABELLED]
test = [r for r in recordings if r.machine in TEST]
print(f"{len(train)} recordings to learn from, {len(labelled)} with a label, {len(test)} to test")

# %% [markdown]
# Scale is set once, by the training side: each sensor's mean and deviation. Machines never stand on
# both sides: a model could otherwise know a machine by its gains rather than its state.

# %%
every = np.concatenate([r.values for r in train])
mean, deviation = np.nanmean(every, 0), np.nanstd(every, 0)


def series(some: list[Recording]) -> list[np.ndarray]:
    """Recordings on one scale."""
    return [(r.values - mean) / deviation for r in some]


def states(some: list[Recording]) -> list[str]:
    """What was wrong with each."""
    return [r.state for r in some]


# %% Learning without labels
# A causal encoder, so that it can run on the machine later, and a small one, so that this page is
# quick. TS2Vec's own size and number of steps are the defaults.
embedder = Embedder(
    "ts2vec",
    steps=150,
    settings={
        "architecture": {"series": {"causal": True, "width": 24, "depth": 5, "dim": 48}},
    },
)
embedder.fit(series(train))
print(f"loss {np.mean(embedder.losses_[:20]):.2f} -> {np.mean(embedder.losses_[-20:]):.2f}")


# %% [markdown]
# What are the vectors worth? Print random weights and raw features beside them, always: on little
# data they come close, and where they are better, training asked the wrong question of the data.


# %%
def raw(some: list[np.ndarray]) -> np.ndarray:
    """Moments, autocorrelation and shape of each sensor."""
    return np.concatenate(
        [raw_features("series", one[None], np.ones((1, len(one)), bool)) for one in some]
    )


def random_weights(seed: int) -> FunctionTransformer:
    """The same encoder before it learnt anything."""
    torch.manual_seed(seed)
    untrained = Dilated(**embedder.encoder_.settings).eval()
    return FunctionTransformer(partial(per_step.whole, untrained))


inputs = {
    "trained": [embedder],
    "random weights": [random_weights(seed) for seed in range(3)],
    "raw features": [FunctionTransformer(raw)],
}
scores = {}
for name, transformers in inputs.items():
    found = []
    for transformer in transformers:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        model.fit(transformer.transform(series(labelled)), states(labelled))
        told = model.predict(transformer.transform(series(test)))
        found.append(balanced_accuracy_score(states(test), told))
    scores[name] = float(np.mean(found))
    print(f"{name:15} {scores[name]:.2f}   (chance {1 / len(STATES):.2f})")

# %% [markdown]
# In one pipeline the embedder is fitted on what the classifier is fitted on, the labelled machines
# alone. Its settings can be searched like any other.

# %%
pipeline = make_pipeline(
    clone(embedder).set_params(steps=50),
    StandardScaler(),
    LogisticRegression(C=0.1, max_iter=1000),
)
pipeline.fit(series(labelled), states(labelled))
print(f"labelled machines alone: {pipeline.score(series(test), states(test)):.2f}")

# %% Which recordings are most like this one?
library = embedder.transform(series(train))
nearest = NearestNeighbors(n_neighbors=3, metric="cosine").fit(library)
_, rows = nearest.kneighbors(embedder.transform(series(test[:4])))
for query, found in zip(test[:4], rows, strict=True):
    print(f"{query.state:8} is like", ", ".join(train[row].state for row in found))

# %% On the machine: one sample at a time
# The stream remembers what it needs, and gives the tokens of the whole series.
arriving = torch.from_numpy(series(test[:1])[0])
stream = Stream(embedder.encoder_)
tokens = torch.stack([stream.push(sample) for sample in arriving])
embedder.set_params(pool="steps")
at_once = embedder.transform([arriving.numpy()])[0]
gap = float(np.abs(tokens.numpy() - at_once).max())
print(f"{len(tokens)} samples streamed; largest difference from the whole series {gap:.1e}")

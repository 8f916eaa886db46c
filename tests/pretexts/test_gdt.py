"""GDT draws what its paper says, equals Eq. 1, and leaves out what is not there."""

import contextlib
import itertools
import math
import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny import TinyEncoder, gradients, part
from torch import nn

from mainspring.clips import NOTHING, ClipSpec, Extent, Timeline
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.logmel import LogMel
from mainspring.errors import ConfigError, DataError
from mainspring.pretexts.crossmodal.gdt import Gdt, GdtConfig
from mainspring.pretexts.pretext import Batch, Features, Views
from mainspring.training.step import learn

SPECS = {
    "video": ClipSpec(length=16, rate=10.0, size=4),
    "audio": ClipSpec(length=64, rate=40.0),
    "text": ClipSpec(length=5),
    "series": ClipSpec(length=32, rate=20.0),
}
SECONDS, SENTENCES = 6, 6
TAU = 0.07
PLAIN = {"flip": 0.0, "jitter": 0.0, "dropout": 0.0, "norm": False}


class TinyWords(Encoder):
    """A vector a word; with `ordered` it also sees which word comes before which."""

    stream, clip, citation = "text", SPECS["text"], "none"

    def __init__(self, dim: int = 32, ordered: bool = False) -> None:
        super().__init__()
        self.dim, self.settings, self.ordered = dim, {"dim": dim, "ordered": ordered}, ordered
        self.vectors = nn.Embedding(64, dim)
        self.near = nn.Conv1d(dim, dim, 2 if ordered else 1)

    def tokens(self, samples, present=None):
        vectors = self.vectors(samples % 64) * (samples != 0)[..., None]
        return self.near(vectors.transpose(1, 2)).relu().transpose(1, 2)


def build(*streams: str, **settings) -> Gdt:
    torch.manual_seed(0)
    specs = {stream: SPECS[stream] for stream in streams}
    return Gdt(specs, dict.fromkeys(streams, 32), 100, GdtConfig(**settings))


def preset(name: str, **settings) -> Gdt:
    chosen = Gdt.presets[name]
    return build(*chosen["stream"], **{**chosen["question"], **settings})


def encoders_for(pretext: Gdt, ordered: bool = True) -> dict[str, Encoder]:
    torch.manual_seed(1)
    made = {
        "video": lambda: TinyEncoder(channels=48),
        "audio": TinyEncoder,
        "series": TinyEncoder,
        "text": lambda: TinyWords(ordered=ordered),
    }
    return {stream: made[stream]() for stream in pretext.clips}


class World:
    """Recordings with two traits that all streams tell of, and in which something grows: a colour,
    a loudness, a word. So a view tells of its recording, its time and its direction."""

    def __init__(self, count: int = 60) -> None:
        rng = np.random.default_rng(0)
        self.count = count
        self.traits = rng.uniform(0, 1, (count, 2))
        self.mix = rng.normal(size=(3, 48))

    def state(self, row: int, seconds: np.ndarray) -> np.ndarray:
        """The traits and how far it has grown, each from 0 to 1, (..., 3)."""
        traits = np.broadcast_to(self.traits[row], (*seconds.shape, 2))
        return np.concatenate([traits, seconds[..., None] / SECONDS], -1)

    def timeline(self, *lacking: str) -> Timeline:
        extents = {
            stream: Extent(int(SECONDS * spec.rate), spec.rate)
            for stream, spec in SPECS.items()
            if spec.rate is not None
        }
        words = SENTENCES * SPECS["text"].length
        extents["text"] = Extent(words, words / SECONDS)
        return Timeline({k: v for k, v in extents.items() if k not in lacking})

    def read(self, stream: str, row: int, clips: np.ndarray) -> np.ndarray:
        there = clips != NOTHING
        if stream == "text":
            state = self.state(row, (clips // 5 + 0.5) * SECONDS / SENTENCES)
            word = 1 + np.floor(8 * state) + 10 * np.arange(3)
            which = np.minimum(clips % 5, 2)[..., None]
            spoken = np.take_along_axis(word, which, -1)[..., 0]
            return np.where(there & (clips % 5 < 3), spoken, 0).astype(np.int64)
        state = self.state(row, clips / SPECS[stream].rate)
        if stream == "video":
            frames = np.clip(128 + 60 * (state - 0.5) @ self.mix, 0, 255) * there[..., None]
            return frames.astype(np.uint8).reshape(*clips.shape, 4, 4, 3)
        tone = np.sin(2 * np.pi * (2 + 6 * state[..., 0]) * clips / SPECS[stream].rate)
        sound = (0.2 + state[..., 1]) * tone + state[..., 2]
        if stream == "audio":
            return np.where(there, sound, 0).astype(np.float32)
        return np.where(there, sound, np.nan).astype(np.float32)[..., None]

    def batch(self, pretext: Gdt, rows, seed: int = 0, lacking: dict[int, str] | None = None):
        """What the loader would make of these rows."""
        rng = np.random.default_rng(seed)
        lacking = lacking or {}
        rows = np.asarray(rows)
        draws = [pretext.draw(self.timeline(*lacking.get(i, "").split()), rng) for i in rows]
        streams = {}
        for stream in pretext.clips:
            clips = np.stack([draw[stream].clips for draw in draws])
            samples = np.stack(
                [self.read(stream, i, d[stream].clips) for i, d in zip(rows, draws, strict=True)]
            )
            factors = {
                name: torch.from_numpy(np.stack([draw[stream].factors[name] for draw in draws]))
                for name in draws[0][stream].factors
            }
            streams[stream] = Views(
                torch.from_numpy(samples), torch.from_numpy(clips != NOTHING), factors
            )
        generator = torch.Generator().manual_seed(seed)
        return Batch(streams, torch.from_numpy(rows.astype(np.int64)), generator)


WORLD = World()


def equation_1(pretext: Gdt, features: Features, batch: Batch, edges: bool = False) -> float:
    """The mean of Eq. 1 over its pairs, by loops in float64, from the tuples T."""
    views = []
    for stream in pretext.clips:
        factors = batch[stream].factors
        for i, k in itertools.product(range(len(batch)), range(features[stream].shape[1])):
            if features[f"{stream}.there"][i, k]:
                values = {name: int(factors[name][i, k]) for name in ("shift", "direction")}
                vector = features[stream][i, k].detach().double().numpy()
                views.append((int(batch.recording[i]), stream, values, vector))
    told = [f for f in ("shift", "direction") if getattr(pretext.config, f) == "tell_apart"]
    total, pairs = 0.0, 0

    def w(t, other):
        square = t[0] == other[0] and all(t[2][f] != other[2][f] for f in t[2])
        if edges and square:
            return False
        return t[1] != other[1] if len(pretext.clips) > 1 else t is not other

    def c(t, other):
        return t[0] == other[0] and all(t[2][f] == other[2][f] for f in told)

    for t in views:
        keys = [other for other in views if w(t, other)]
        logits = [float(t[3] @ other[3]) / TAU for other in keys]
        below = math.log(sum(math.exp(each) for each in logits)) if keys else 0.0
        for other, logit in zip(keys, logits, strict=True):
            if c(t, other):
                total += below - logit
                pairs += 1
    return total / pairs


TABLES = {  # 1 and 2 of the paper: direction and shift, of which i is ignored and d told apart
    "video": {"a": "..", "b": "i.", "c": ".i", "d": "ii", "vt-a": ".."},
    "video audio": {
        "e": "..", "f": "i.", "g": ".i", "h": "ii", "i": "d.", "j": ".d", "k": "di", "l": "id",
        "m": "dd",
    },
    "video text": {
        "vt-b": "..", "vt-c": "d.", "vt-d": ".d", "vt-e": "di", "vt-f": "id", "vt-g": "dd",
    },
}  # fmt: skip


def test_presets_are_the_rows_of_the_papers_tables():
    names = {"ignore": "i", "tell_apart": "d", "": "."}
    found: dict[str, dict[str, str]] = {streams: {} for streams in TABLES}
    for name, chosen in Gdt.presets.items():
        question = chosen["question"]
        row = names[question["direction"]] + names[question["shift"]]
        found[" ".join(chosen["stream"])][name] = row
    assert found == TABLES
    best = Gdt.presets["l"]["question"]
    assert (GdtConfig().direction, GdtConfig().shift) == (best["direction"], best["shift"])


@pytest.mark.parametrize("name", Gdt.presets)
def test_loss_is_equation_1_for_every_row(name):
    pretext = preset(name, **PLAIN)
    encoders = encoders_for(pretext)
    pretext.attach(encoders)
    batch = WORLD.batch(pretext, range(4))
    features = pretext.encode(encoders, batch)
    outcome = pretext.ask(features, batch.without_samples())
    assert outcome.loss.item() == pytest.approx(equation_1(pretext, features, batch), rel=1e-5)


@pytest.mark.parametrize("streams", [("video", "audio"), ("video", "audio", "series")])
@pytest.mark.parametrize("edges", [False, True])
def test_loss_is_equation_1_where_streams_are_missing(streams, edges):
    pretext = build(*streams, **PLAIN, edges=edges)
    encoders = encoders_for(pretext)
    batch = WORLD.batch(pretext, range(5), lacking={1: "audio", 3: "video"})
    batch["audio"].samples[4] = 0.0
    features = pretext.encode(encoders, batch)
    found = features["audio.there"].any(1).tolist()
    assert found == [True, False, True, True, False]
    assert features["audio.silent"].any(1).tolist() == [False, False, False, False, True]
    outcome = pretext.ask(features, batch.without_samples())
    expected = equation_1(pretext, features, batch, edges)
    assert outcome.loss.item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(outcome.embedding, features["embedding"][[0, 1, 2, 4]])  # who has a picture


@pytest.mark.parametrize("name", Gdt.presets)
def test_a_recording_gives_the_product_of_its_levels(name):
    pretext = preset(name)
    config = pretext.config
    shifts, directions = 1 + (config.shift != ""), 1 + (config.direction != "")
    augmentations = 2 if len(pretext.clips) == 1 else 1
    draws = pretext.draw(WORLD.timeline(), np.random.default_rng(0))
    for stream, draw in draws.items():
        assert len(draw.clips) == shifts * directions * augmentations
        values = [draw.factors[f].tolist() for f in ("shift", "direction", "augmentation")]
        expected = itertools.product(range(shifts), range(directions), range(augmentations))
        assert list(zip(*values, strict=True)) == list(expected)
        for k, clip in enumerate(draw.clips):
            steps = set(np.diff(clip).tolist())
            assert steps == {-1 if draw.factors["direction"][k] else 1}, stream


def test_views_of_all_streams_start_at_the_same_times_apart():
    pretext = build("video", "audio", "series", "text", shifts=3, gap=0.8)
    for seed in range(50):
        draws = pretext.draw(WORLD.timeline(), np.random.default_rng(seed))
        first = {s: d.clips.min(1) for s, d in draws.items()}
        seconds = first["video"] / 10
        np.testing.assert_allclose(first["audio"] / 40, seconds, atol=0.5 / 40)
        np.testing.assert_allclose(first["series"] / 20, seconds, atol=0.5 / 20)
        np.testing.assert_array_equal(first["text"] // 5, np.floor(seconds + 0.8 + 1e-9))
        starts = np.unique(seconds)
        assert len(starts) == 3
        assert np.diff(starts).min() >= 1.0 - 1e-9  # a sentence lasts longer than the gap
        for stream, draw in draws.items():
            assert draw.clips.min() >= 0
            assert draw.clips.max() < WORLD.timeline()[stream].length


def test_needs_leaves_room_for_all_shifts_and_less_is_absent():
    pretext = build("video", "audio", shifts=3, gap=0.5)
    assert pretext.needs("video") == 16 + 2 * 5
    assert pretext.needs("audio") == 64 + 2 * 20
    just = Timeline({"video": Extent(26, 10.0), "audio": Extent(104, 40.0)})
    draws = pretext.draw(just, np.random.default_rng(0))
    assert sorted(set(draws["video"].clips.min(1).tolist())) == [0, 5, 10]
    assert sorted(set(draws["audio"].clips.min(1).tolist())) == [0, 20, 40]
    short = Timeline({"video": Extent(26, 10.0), "audio": Extent(103, 40.0)})
    draws = pretext.draw(short, np.random.default_rng(0))
    assert (draws["audio"].clips == NOTHING).all()
    assert draws["audio"].clips.shape == (6, 64)
    assert build("video", "audio", shift="").needs("video") == 16


def test_times_that_cannot_differ_are_an_error():
    pretext = build("video", "audio", gap=0.0)
    assert pretext.needs("video") == 17
    same = Timeline({"video": Extent(17, 10.0), "audio": Extent(65, 40.0)})
    with pytest.raises(DataError, match="2 different times do not fit"):
        pretext.draw(same, np.random.default_rng(0))


def test_a_worker_can_draw_without_the_weights():
    pretext = build("video", "text")
    drawn = pretext.light().draw(WORLD.timeline(), np.random.default_rng(1))
    expected = pretext.draw(WORLD.timeline(), np.random.default_rng(1))
    for stream in ("video", "text"):
        assert (drawn[stream].clips == expected[stream].clips).all()


@pytest.mark.parametrize("streams", [("video", "audio"), ("video", "text"), ("video",)])
def test_micro_batches_equal_the_whole_batch(streams):
    pretext = build(*streams, **PLAIN)
    encoders = encoders_for(pretext)
    lacking = {2: "audio", 3: "text"} if len(streams) > 1 else {}
    batch = WORLD.batch(pretext, range(6), lacking=lacking)

    def loss(parts: list[slice]) -> torch.Tensor:
        features = [pretext.encode(encoders, part(batch, rows)) for rows in parts]
        joined: Features = {k: torch.cat([f[k] for f in features]) for k in features[0]}
        return pretext.ask(joined, batch.without_samples()).loss

    whole = loss([slice(0, 6)])
    whole.backward()
    expected = gradients(pretext, *encoders.values())
    joined = loss([slice(0, 3), slice(3, 6)])
    joined.backward()
    torch.testing.assert_close(joined, whole)
    for mine, theirs in zip(gradients(pretext, *encoders.values()), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def _rank(rank: int, world: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    pretext = build("video", "audio", **PLAIN)
    encoders = encoders_for(pretext)
    batch = WORLD.batch(pretext, range(7), lacking={2: "audio"})
    mine = part(batch, slice(0, 4) if rank == 0 else slice(4, 7))
    outcome, _, _ = learn(pretext, encoders, [mine], (0, 0), contextlib.nullcontext)
    slopes = gradients(pretext, *encoders.values())
    torch.save((outcome.loss.item(), slopes), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one_with_the_joined_batch(tmp_path):
    pretext = build("video", "audio", **PLAIN)
    encoders = encoders_for(pretext)
    loss = pretext(encoders, WORLD.batch(pretext, range(7), lacking={2: "audio"})).loss
    loss.backward()
    expected = gradients(pretext, *encoders.values())
    mp.spawn(_rank, args=(2, 31500 + os.getpid() % 2000, str(tmp_path)), nprocs=2)
    for rank in range(2):
        got, slopes = torch.load(tmp_path / f"{rank}.pt")
        assert got == pytest.approx(loss.item(), abs=1e-5)
        for mine, theirs in zip(slopes, expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_sound_that_is_absent_or_silent_has_no_influence():
    pretext = build("video", "audio", **{**PLAIN, "norm": True})  # batch statistics would tell
    encoders = encoders_for(pretext)
    lacking = {1: "audio", 4: "audio"}

    def look(noise: float) -> tuple[float, list[torch.Tensor], dict]:
        batch = WORLD.batch(pretext, range(6), lacking=lacking)
        batch["audio"].samples[[1, 4]] = noise
        batch["audio"].samples[5] = noise / 1e5  # some 80 dB below full scale
        outcome = pretext(encoders, batch)
        outcome.loss.backward()
        return outcome.loss.item(), gradients(pretext, *encoders.values()), outcome.metrics

    quiet, clean, metrics = look(0.0)
    loud, other, _ = look(7.0)
    assert loud == quiet
    for mine, theirs in zip(other, clean, strict=True):
        assert (mine == theirs).all()
    assert metrics["silent"].item() == pytest.approx(1 / 6)
    assert metrics["absent"].item() == pytest.approx(2 / 12)


def test_a_batch_without_any_sound_costs_nothing():
    pretext = build("video", "audio")
    encoders = encoders_for(pretext)
    batch = WORLD.batch(pretext, range(3), lacking=dict.fromkeys(range(3), "audio"))
    features = pretext.encode(encoders, batch)
    for value in features.values():
        if value.is_floating_point() and not value.requires_grad:
            value.requires_grad_()
    outcome = pretext.ask(features, batch.without_samples())
    assert outcome.loss.item() == 0
    outcome.loss.backward()


def test_one_sound_alone_breaks_no_batch_statistics():
    pretext = build("video", "audio", shift="", direction="")
    encoders = encoders_for(pretext)
    batch = WORLD.batch(pretext, range(3), lacking={0: "audio", 2: "audio"})
    assert pretext(encoders, batch).loss.item() == 0


@pytest.mark.parametrize("name", Gdt.presets)
def test_every_row_trains_and_leaves_no_weight_idle(name):
    pretext = preset(name)
    encoders = encoders_for(pretext)
    pretext.attach(encoders)
    weights = [w for module in (pretext, *encoders.values()) for w in module.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=1e-3)
    for seed in range(3):
        outcome = pretext(encoders, WORLD.batch(pretext, range(8), seed))
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
        assert outcome.loss.isfinite()
    answer = outcome.answers["contrast"]
    views, crossing = pretext.views, len(pretext.clips) > 1
    told = [f for f in ("shift", "direction") if getattr(pretext.config, f) == "tell_apart"]
    alike = views // 2 ** len(told)
    chance = alike / (8 * views) if crossing else (alike - 1) / (8 * views - 1)
    assert answer.chance == pytest.approx(chance)
    assert outcome.embedding.shape == (8, 32)
    assert all(w.grad is not None and w.grad.any() for w in weights)


def test_heads_give_unit_vectors_in_one_space():
    pretext = build("video", "audio", width=48)
    assert set(pretext.joint()) == {"video", "audio"}
    features = pretext.encode(encoders_for(pretext), WORLD.batch(pretext, range(4)))
    for stream in ("video", "audio"):
        assert features[stream].shape == (4, 4, 48)
        torch.testing.assert_close(features[stream].norm(dim=2), torch.ones(4, 4))
        head = pretext.joint()[stream]
        assert head.settings.items() >= {
            "dim": 32, "width": 48, "hidden": 512, "dropout": 0.3, "norm": True
        }.items()  # fmt: skip


def test_direction_is_not_asked_of_who_cannot_see_it():
    pretext = preset("vt-g")
    with pytest.raises(ConfigError, match="TinyWords, the encoder of text, does not know order"):
        pretext.attach(encoders_for(pretext, ordered=False))
    pretext.attach(encoders_for(pretext, ordered=True))
    preset("vt-f").attach(encoders_for(preset("vt-f"), ordered=False))
    blind, backwards = TinyWords(), torch.tensor([[3, 4, 5, 6, 7], [7, 6, 5, 4, 3]])
    forwards, turned = blind(backwards)
    torch.testing.assert_close(forwards, turned)  # the reason


def test_one_sentence_cannot_tell_times_apart():
    pretext = build("video", "text", **PLAIN)
    one = Timeline({**WORLD.timeline().extents, "text": Extent(5, 5 / SECONDS)})
    draw = pretext.draw(one, np.random.default_rng(0))["text"]
    assert draw.factors["shift"].tolist() == [0, 0, 1, 1]
    assert draw.factors["counts"].tolist() == [1, 1, 0, 0]
    batch = WORLD.batch(pretext, range(4))
    batch["video"].factors["counts"][2] = batch["text"].factors["counts"][2] = torch.tensor(
        [1, 1, 0, 0]
    )
    encoders = encoders_for(pretext)
    features = pretext.encode(encoders, batch)
    outcome = pretext.ask(features, batch.without_samples())
    assert outcome.metrics["same_sentence"].item() == pytest.approx(1 / 8)
    for stream in ("video", "text"):
        features[f"{stream}.there"][2, 2:] = False
    assert outcome.loss.item() == pytest.approx(equation_1(pretext, features, batch), rel=1e-5)
    ignored = build("video", "text", shift="ignore").draw(one, np.random.default_rng(0))
    assert ignored["text"].factors["counts"].all()


def test_a_sentence_is_one_part():
    heads = build("video", "text", steps=4).joint()
    assert (heads["video"].steps, heads["text"].steps) == (4, 1)


def test_masks_are_drawn_anew_for_each_view_of_the_prepared_sound():
    spec = ClipSpec(length=1600, rate=1600)
    settings = {"mels": 12, "rate": 1600, "width": 4}
    encoder = LogMel(**settings).eval()
    clips = {"video": SPECS["video"], "audio": spec}

    def look(frames: int, bands: int) -> torch.Tensor:
        torch.manual_seed(0)
        config = GdtConfig(mask_frames=frames, mask_bands=bands, shift="", **PLAIN)
        pretext = Gdt(clips, {"video": 32, "audio": encoder.dim}, 10, config)
        sound = torch.randn(1, 1, 1600, generator=torch.Generator().manual_seed(1))
        factors = {k: torch.zeros(1, 4, dtype=torch.int64) for k in (*pretext.table, "counts")}
        batch = WORLD.batch(pretext, [0])
        batch.streams["audio"] = Views(
            sound.expand(1, 4, 1600), torch.ones(1, 4, 1600, dtype=torch.bool), factors
        )
        both = {"video": TinyEncoder(channels=48), "audio": encoder}
        return pretext.encode(both, batch)["audio"][0].detach()

    bare = look(0, 0)
    torch.testing.assert_close(bare, bare[:1].expand(4, -1))
    masked = look(25, 3)
    assert len(masked.round(decimals=5).unique(dim=0)) == 4


def test_what_the_released_code_does_is_an_option():
    batch = WORLD.batch(build("video", "audio"), range(4))

    def slope(**settings) -> torch.Tensor:
        pretext = build("video", "audio", **PLAIN, **settings)
        batch.generator.manual_seed(0)
        pretext(encoders_for(pretext), batch).loss.backward()
        return torch.cat([w.grad.flatten() for w in pretext.parameters()])

    paper = slope()
    for settings in ({"edges": True}, {"keys_learn": False}):
        assert not torch.allclose(slope(**settings), paper, rtol=0.01), settings


def test_streams_are_chosen_by_what_there_is():
    config = GdtConfig()
    assert Gdt.wants(config, {"video": 5, "audio": 3, "text": 9}) == ["video", "audio"]
    assert Gdt.wants(config, {"video": 5, "text": 9}) == ["video", "text"]
    assert Gdt.wants(config, {"series": 5}) == ["series"]
    assert Gdt.wants(config, {}) == []


def test_settings_that_contradict_each_other_are_named():
    with pytest.raises(ConfigError, match=r"Requirement \(ii\).*Draw 2 augmentations"):
        build("video", direction="")
    with pytest.raises(ConfigError, match=r"Requirement \(i\)"):
        build("video", "audio", augmentations=0)
    with pytest.raises(ConfigError, match="Did you mean 'tell_apart'"):
        build("video", "audio", shift="tell apart")
    with pytest.raises(ConfigError, match="shifts is 1"):
        build("video", "audio", shifts=1)
    with pytest.raises(ConfigError, match="gap"):
        build("video", "audio", gap=-1.0)


@pytest.mark.parametrize("name", ["d", "l", "vt-f"])
def test_questions_are_learnt(name):
    pretext = preset(name, hidden=64, width=32, dropout=0.0)
    encoders = encoders_for(pretext)
    weights = [w for module in (pretext, *encoders.values()) for w in module.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=3e-3)
    rng = np.random.default_rng(0)
    late = []
    for step in range(70):
        rows = rng.choice(WORLD.count, 24, replace=False)
        outcome = pretext(encoders, WORLD.batch(pretext, rows, step))
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
        if step >= 60:
            late.append(outcome.answers["contrast"].accuracy.item())
    assert np.mean(late) > 10 * outcome.answers["contrast"].chance


@pytest.mark.parametrize(
    "wrong", [{"mask_frames": -5}, {"mask_bands": -1}, {"temperature": 0.0}, {"gap": float("inf")}]
)
def test_settings_that_would_have_no_effect_or_no_loss_are_refused(wrong):
    clips = {"video": ClipSpec(8, 10.0, 1, 32, 32), "audio": ClipSpec(8000, 16000.0)}
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Gdt(clips, {"video": 8, "audio": 8}, 4, GdtConfig(**wrong))

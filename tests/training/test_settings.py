"""Settings of the wrong type or out of range are refused, by name, before anything is read."""

import pytest

from mainspring.clips import ClipSpec
from mainspring.errors import ConfigError
from mainspring.pretexts import catalog
from mainspring.training.schedule import Optimiser
from mainspring.training.settings import Loading, make, settle, with_clip


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("optimiser", {"lr": "1e-3"}),
        ("optimiser", 3),
        ("optimiser", {"mean": 1}),
        ("loading", {"workers": 1.5}),
        ("loading", {"cache_gb": True}),
        ("encoder", "logmel"),
        ("steps", 1e3),
        ("architecture", {"video": 3}),
        ("start", 7),
    ],
)
def test_a_value_of_another_type_is_named(section: str, value: object) -> None:
    name = next(iter(value)) if isinstance(value, dict) and section != "architecture" else section
    with pytest.raises(ConfigError, match=rf"{name} in settings.* where .* was expected"):
        settle({"data": "x", section: value})


def test_questions_have_types_too() -> None:
    kind = catalog.find("gdt").Config
    for wrong in ({"gap": "0.5"}, {"shifts": 2.5}, {"norm": "no"}, {"temperature": float("nan")}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} in question"):
            make(kind, wrong, "question")
    taken = make(kind, {"gap": 1}, "question")  # a whole number is a number
    assert taken.gap == 1


def test_defaults_recipes_and_presets_of_all_pretexts_are_of_their_types() -> None:
    for name in catalog.names():
        kind = catalog.find(name)
        make(kind.Config, vars(kind.Config()), "question")
        for preset in ("", *kind.presets):
            asked = settle({"data": "x", "pretext": name, "preset": preset})
            make(kind.Config, asked.question, "question")


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -1e-3}, {"weight_decay": -0.1}, {"clip": -1.0}, {"momentum": 1.0}, {"ema": 1.5},
        {"ema": -0.1}, {"warmup": 5.0}, {"warmup": -0.1}, {"name": "adam"},
    ],
)  # fmt: skip
def test_optimisers_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)).replace("name", "optimiser")):
        Optimiser(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"workers": -2}, {"cache_gb": -1.0}, {"window": 0.0}, {"holdout": -0.1}, {"holdout": 1.0}],
)
def test_loading_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"loading.{next(iter(wrong))} is"):
        Loading(**wrong)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed must not be negative, and is -1"):
        settle({"data": "x", "seed": -1})


@pytest.mark.parametrize("section", ["clip", "architecture"])
def test_a_stream_that_there_is_not_is_suggested(section: str) -> None:
    with pytest.raises(ConfigError, match=f"stream in {section} 'vidoe'.*'video'"):
        settle({"data": "x", section: {"vidoe": {}}})


@pytest.mark.parametrize(
    "wrong",
    [
        {"length": -4}, {"length": 0}, {"length": 8.5}, {"stride": 0}, {"rate": 0.0},
        {"rate": -1.0}, {"size": -1}, {"crop": -1}, {"crop": 200},
    ],
)  # fmt: skip
def test_clips_that_cannot_be_cut_are_refused(wrong: dict[str, float]) -> None:
    spec = ClipSpec(length=8, rate=25.0, stride=4, size=128, crop=112)
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        with_clip(spec, wrong, "video")
    assert with_clip(spec, {"size": 64, "crop": 64, "rate": 10}, "video").crop == 64


def test_what_is_asked_for_wins_over_preset_over_recipe_over_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = catalog.find("gdt")
    recipe = {
        "steps": 900, "batch": 8, "encoder": ["logmel"], "architecture": {"audio": {"mels": 20}},
        "clip": {"audio": {"length": 400}}, "optimiser": {"name": "sgd", "lr": 0.5},
    }  # fmt: skip
    presets = {"few": {"batch": 4, "optimiser": {"lr": 0.25, "momentum": 0.5}}}
    monkeypatch.setattr(kind, "recipe", recipe)
    monkeypatch.setattr(kind, "presets", presets)
    plain = settle({"data": "x", "pretext": "gdt"})
    assert (plain.steps, plain.batch, plain.encoder) == (900, 8, ("logmel",))
    assert (plain.optimiser.lr, plain.optimiser.momentum) == (0.5, 0.9)
    given = {"data": "x", "pretext": "gdt", "preset": "few", "optimiser": {"momentum": 0.25}}
    few = settle(given)
    assert (few.batch, few.optimiser.name) == (4, "sgd")
    assert (few.optimiser.lr, few.optimiser.momentum) == (0.25, 0.25)
    assert settle(given | {"batch": 6}).batch == 6
    assert settle(given | {"epochs": 2}).steps is None
    mine = settle(given | {"encoder": ["r3d18"]})
    assert (mine.encoder, mine.architecture, mine.clip) == (("r3d18",), {}, {})
    assert kind.recipe == recipe

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mainspring.clips import ClipSpec
from mainspring.encoders import catalog, precision
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.r2plus1d import R2Plus1DTiny
from mainspring.encoders.r3d import R3D18
from mainspring.encoders.saved import load_encoder, load_weights, save_encoder, stamp_of
from mainspring.errors import ConfigError, RunError

CLIP = ClipSpec(length=8, rate=12.5, stride=2, size=48, crop=40)


def tiny(seed: int = 0) -> R2Plus1DTiny:
    torch.manual_seed(seed)
    return R2Plus1DTiny(width=4)


def same(one: Encoder, other: Encoder) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", catalog.names())
def test_every_encoder_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    encoder = catalog.find(name)()
    stamp = save_encoder(tmp_path / "new" / "encoder", encoder, encoder.clip, {"steps": 7})
    back = load_encoder(tmp_path / "new" / "encoder")
    assert type(back.encoder) is type(encoder)
    assert same(back.encoder, encoder)
    assert (back.clip, back.stamp, back.extra) == (encoder.clip, stamp, {"steps": 7})
    assert not back.encoder.training
    assert stamp_of(back.encoder) == stamp


def test_the_description_is_readable_and_nothing_else_is_left(tmp_path: Path) -> None:
    stamp = save_encoder(tmp_path, tiny(), CLIP)
    told = json.loads((tmp_path / "encoder.json").read_text())
    assert (told["name"], told["dim"], told["stamp"]) == ("r2plus1d_tiny", 32, stamp)
    assert ClipSpec(**told["clip"]) == CLIP
    assert R2Plus1DTiny(**told["settings"]).dim == 32
    assert sorted(os.listdir(tmp_path)) == ["encoder.json", "encoder.safetensors"]


def test_the_stamp_follows_weights_and_settings_but_not_memory_layout() -> None:
    stamp = stamp_of(tiny())
    assert stamp_of(precision.prepare(tiny(), precision.Precision("none", bf16=False))) == stamp
    assert stamp_of(tiny(seed=1)) != stamp
    changed = tiny()
    changed.settings["temporal_stride"] = 1
    assert stamp_of(changed) != stamp


def test_a_save_that_fails_leaves_the_old_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = save_encoder(tmp_path, tiny(), CLIP)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        save_encoder(tmp_path, tiny(seed=1), CLIP)
    assert load_encoder(tmp_path).stamp == stamp
    assert sorted(os.listdir(tmp_path)) == ["encoder.json", "encoder.safetensors"]


def test_killed_between_the_two_files_the_weights_still_describe_themselves(tmp_path: Path) -> None:
    save_encoder(tmp_path, tiny(), CLIP)
    old = (tmp_path / "encoder.json").read_bytes()
    stamp = save_encoder(tmp_path, tiny(seed=1), CLIP)
    (tmp_path / "encoder.json").write_bytes(old)
    assert load_encoder(tmp_path).stamp == stamp


def test_missing_truncated_and_altered_encoders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no encoder"):
        load_encoder(tmp_path)
    save_encoder(tmp_path, tiny(), CLIP)
    path = tmp_path / "encoder.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(RunError, match="not a complete safetensors file"):
        load_encoder(tmp_path)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunError, match="is damaged"):
        load_encoder(tmp_path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(RunError, match="no description"):
        load_encoder(tmp_path)


def test_a_public_checkpoint_loads_whole_and_its_classifier_is_reported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, target = R3D18(), R3D18()
    classifier = {"fc.weight": torch.zeros(400, 512), "fc.bias": torch.zeros(400)}
    torch.save(source.state_dict() | classifier, tmp_path / "r3d_18.pth")
    report = load_weights(target, tmp_path / "r3d_18.pth")
    assert same(source, target)
    assert report.unexpected == ("fc.weight", "fc.bias")
    assert report.missing == ()
    assert report.mismatched == {}
    assert not report.complete
    assert "Not part of the encoder, left out: fc.weight, fc.bias." in str(report)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "encoder.", "module.encoder_q."])
@pytest.mark.parametrize("entry", [None, "state_dict", "model"])
def test_prefixes_and_entries_are_found_and_reported(
    prefix: str, entry: str | None, tmp_path: Path
) -> None:
    source, target = tiny(0), tiny(1)
    named = {prefix + key: value for key, value in source.state_dict().items()}
    torch.save(named if entry is None else {"epoch": 3, entry: named}, tmp_path / "w.pt")
    report = load_weights(target, tmp_path / "w.pt")
    assert same(source, target)
    assert report.complete
    assert (report.prefix, report.entry) == (prefix, entry or "")
    assert (repr(prefix) in str(report)) == bool(prefix)


def test_what_does_not_fit_is_listed_with_shapes_and_left_alone(tmp_path: Path) -> None:
    target, before = tiny(1), tiny(1).state_dict()
    weights = tiny(0).state_dict()
    del weights["layer1.0.conv1.1.bias"]
    weights["layer4.0.downsample.1.weight"] = torch.zeros(33)
    weights["queue"] = torch.zeros(2)
    save_file(weights, tmp_path / "w.safetensors")
    report = load_weights(target, tmp_path / "w.safetensors")
    assert report.missing == ("layer1.0.conv1.1.bias",)
    assert report.unexpected == ("queue",)
    assert report.mismatched == {"layer4.0.downsample.1.weight": ((33,), (32,))}
    assert "layer4.0.downsample.1.weight (33,) in the file, (32,) here" in str(report)
    after = target.state_dict()
    for key in after:
        fits = key in report.loaded
        assert fits != (key in report.missing or key in report.mismatched)
        assert torch.equal(after[key], weights[key] if fits else before[key])
    with pytest.raises(ConfigError, match="does not fit R2Plus1DTiny exactly"):
        load_weights(tiny(1), tmp_path / "w.safetensors", strict=True)


@pytest.mark.parametrize(
    "change", [{"queue": torch.zeros(2)}, {"layer4.0.downsample.1.weight": torch.zeros(33)}]
)
def test_strict_refuses_a_name_or_a_shape_too_many(
    change: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(tiny(0).state_dict() | change, tmp_path / "w.safetensors")
    target = tiny(1)
    with pytest.raises(ConfigError, match="does not fit R2Plus1DTiny exactly"):
        load_weights(target, tmp_path / "w.safetensors", strict=True)
    assert same(target, tiny(1))
    assert not load_weights(target, tmp_path / "w.safetensors").complete


def test_a_folder_of_ours_is_a_source(tmp_path: Path) -> None:
    save_encoder(tmp_path, tiny(0), CLIP)
    target = tiny(1)
    assert load_weights(target, tmp_path, strict=True).complete
    assert same(target, tiny(0))


def test_weights_of_another_architecture_are_refused_with_names_of_both(tmp_path: Path) -> None:
    save_file({"patch_embed.proj.weight": torch.zeros(2)}, tmp_path / "vit.safetensors")
    with pytest.raises(ConfigError, match=r"No weight of .*patch_embed\.proj\.weight.*stem\.0"):
        load_weights(tiny(), tmp_path / "vit.safetensors")


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def test_pickled_objects_are_never_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": tiny().state_dict(), "args": Payload()}, "bad.pth")
    with pytest.raises(ConfigError, match="never executed"):
        load_weights(tiny(), Path("bad.pth"))
    assert not Path("executed").exists()


@pytest.mark.parametrize("name", ["gone.pth", "text.pth", "text.safetensors", "number.pt"])
def test_unreadable_sources_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("no weights at all, but long enough to be a header")
    if name.startswith("number"):
        torch.save(3, path)
    with pytest.raises(ConfigError, match=name if "number" not in name else "named tensors"):
        load_weights(tiny(), path)

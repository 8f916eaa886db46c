"""Settings that could not be meant are refused by the pretexts of video and sound."""

import pytest

from mainspring.clips import ClipSpec
from mainspring.errors import ConfigError
from mainspring.pretexts import catalog

CLIPS = {"video": ClipSpec(16, 12.5, 1, 32, 32), "audio": ClipSpec(25600, 16000.0)}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("av_match", {"compare": "fused", "width": 0}),
        ("av_sync", {"easy_steps": -1}),
        ("av_sync", {"far": float("inf")}),
        ("sound_source", {"apart": float("inf")}),
        ("av_hubert", {"audio_span": 0.0}),
        ("av_hubert", {"video_span": -1.0}),
        ("av_hubert", {"clusters": (-1,)}),
        ("taco", {"noise": -1.0}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, wrong: dict[str, object]) -> None:
    kind = catalog.find(name)
    clips = {s: spec for s, spec in CLIPS.items() if name != "taco" or s == "video"}
    with pytest.raises(ConfigError, match=list(wrong)[-1]):
        kind(clips, dict.fromkeys(clips, 8), 4, kind.Config(**wrong))

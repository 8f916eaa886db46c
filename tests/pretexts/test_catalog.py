"""Pretexts are found by the names of their files."""

import dataclasses

import pytest

from mainspring.errors import ConfigError
from mainspring.pretexts import catalog
from mainspring.pretexts.pretext import Pretext


def test_every_name_finds_a_pretext_that_says_what_it_is():
    assert {"arrow_of_time", "taco"} <= set(catalog.names())
    for name in catalog.names():
        pretext = catalog.find(name)
        assert issubclass(pretext, Pretext)
        assert pretext.__module__.endswith(f".{name}")
        assert pretext.question.endswith("?")
        assert pretext.citation
        assert pretext.accepts
        assert dataclasses.is_dataclass(pretext.Config)
        pretext.Config()


def test_every_setting_is_documented():
    for name in catalog.names():
        config = catalog.find(name).Config
        for field in dataclasses.fields(config):
            assert f"    {field.name}: " in (config.__doc__ or ""), f"{name}: {field.name}"


def test_a_typo_gets_a_suggestion():
    with pytest.raises(ConfigError, match=r"Unknown pretext 'tacco'\. Did you mean 'taco'\?"):
        catalog.find("tacco")


def test_shared_modules_are_no_pretexts():
    assert not {"heads", "transformations", "content", "pretext", "catalog"} & set(catalog.names())

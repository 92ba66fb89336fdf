from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

import pytest

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.settings import JudgeOverrides, JudgeSettings, Settings


def test_every_setting_says_what_it_is():
    sections = [field.annotation for field in Settings.model_fields.values()]
    for model in (Settings, *sections):
        for name, field in getattr(model, "model_fields", {}).items():
            assert field.description, f"{model.__name__}.{name}"


def test_overrides_of_one_run_are_settings_of_the_judge_of_the_same_type():
    of_run, of_home = get_type_hints(JudgeOverrides), get_type_hints(JudgeSettings)
    for field in fields(JudgeOverrides):
        assert field.default is None
        assert of_run[field.name] == of_home[field.name] | None, field.name


def test_overrides_are_described_as_the_settings_that_they_replace():
    described = JudgeOverrides.described()
    assert list(described) == [field.name for field in fields(JudgeOverrides)]
    assert (
        described["budget_usd"].description
        == "The most that one run may spend, together with the runs that retry it."
    )
    size = JudgeSettings.model_fields["llm_batch_size"]
    assert described["llm_batch_size"].annotation == size.annotation
    assert described["llm_batch_size"].metadata == size.metadata


def test_overrides_replace_what_is_set_and_leave_the_rest():
    settings = Settings().with_judge(profile="cheap", budget_usd=3.0)
    judge = settings.with_judge(JudgeOverrides(budget_usd=0.0, skip_high_confidence=False)).judge
    assert (judge.profile, judge.budget_usd, judge.skip_high_confidence) == ("cheap", 0.0, False)


def test_an_override_out_of_range_is_refused_with_its_name():
    with pytest.raises(ConfigurationError, match=r"^llm_batch_size: "):
        Settings().with_judge(JudgeOverrides(llm_batch_size=0))

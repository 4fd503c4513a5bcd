"""What is told of each setting is what the config takes: its default, its choices and both ends of its range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from trainer.config import Config, MergedLora, Multires, Preserve, SamplePrompt, Source
from trainer.config_allowed import Schema, forms_of
from trainer.config_facts import Setting, every_setting, section_in, settings_of
from ui.fields import CONFIG_FIELDS

SETTINGS = list(every_setting(Config))
BY_NAME = {setting.name: setting for setting in SETTINGS}
SURROUNDINGS: dict[str, Any] = {
    "dataset.sources.*": {"path": "p"},
    "lora.merge_before_training.*": {"path": "p"},
    "loss.preserve": {"class_word": "dog"},
}
"""What else must be given where a setting is given."""


def names_in(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The names of all settings, found without what is tested: of sections only what is in them."""
    for name, info in model.model_fields.items():
        inner = section_in(info.annotation)
        if inner is not info.annotation:
            yield f"{prefix}{name}"
        if inner is not None:
            star = "*." if "list[" in str(info.annotation) else ""
            yield from names_in(inner, f"{prefix}{name}.{star}")


def test_every_setting_is_there_once() -> None:
    assert sorted(setting.name for setting in SETTINGS) == sorted(names_in(Config))
    assert len(BY_NAME) == len(SETTINGS) > len(CONFIG_FIELDS) > 100


@pytest.mark.parametrize(
    ("prefix", "model"),
    [
        ("dataset.sources.*", Source),
        ("samples.prompts.*", SamplePrompt),
        ("lora.merge_before_training.*", MergedLora),
        ("loss.multires_noise", Multires),
        ("loss.preserve", Preserve),
    ],
)
def test_entries_of_lists_and_optional_sections_are_told(prefix: str, model: type[BaseModel]) -> None:
    inside = [setting.name for setting in SETTINGS if setting.name.rpartition(".")[0] == prefix]
    assert inside == [f"{prefix}.{name}" for name in model.model_fields]
    assert BY_NAME[prefix.removesuffix(".*")].inner == prefix
    assert BY_NAME[prefix.removesuffix(".*")].entries is model


def test_the_form_has_all_that_can_be_chosen() -> None:
    fixed = [setting.name for setting in settings_of(Config) if setting.fixed]
    assert fixed == ["version", "output.formats"]
    shown = [field.name for field in CONFIG_FIELDS]
    assert shown == [setting.name for setting in settings_of(Config) if not setting.fixed]


def given(name: str, value: Any) -> dict[str, Any]:
    """Plain settings that hold one value, and what must be there beside it."""
    parent, _, last = name.rpartition(".")
    values = {**SURROUNDINGS.get(parent, {}), last: value}
    while parent:
        above, _, key = parent.removesuffix(".*").rpartition(".")
        values = {key: [values] if parent.endswith(".*") else values}
        parent = above
    return values


def refusals(name: str, value: Any) -> list[str]:
    """Why the value itself is refused; what other settings have to say of it does not count."""
    try:
        Config.model_validate(given(name, value))
    except ValidationError as error:
        own = [detail for detail in error.errors() if detail["type"] != "value_error"]
        return [str(detail["type"]) for detail in own]
    return []


def probes(form: Schema) -> Iterator[tuple[Any, bool]]:
    """Numbers at the ends of a range and just outside, and whether each should be taken."""
    whole = form["type"] == "integer"
    step = form.get("multipleOf", 1) if whole else 1e-6
    for limit, outward in (("minimum", -1), ("maximum", 1)):
        exclusive = f"exclusive{limit.capitalize()}"
        if exclusive in form:
            yield form[exclusive], False
            yield form[exclusive] - outward * step, True
        elif limit in form:
            yield form[limit], True
            yield form[limit] + outward * step, False
    if "multipleOf" in form:
        yield form["minimum"] + 1, False


NUMBERS = [
    (setting.name, form)
    for setting in SETTINGS
    if len(forms_of(setting.schema)) == 1
    for form in forms_of(setting.schema)
    if form.get("type") in ("integer", "number") and not setting.choices
]


@pytest.mark.parametrize(("name", "form"), NUMBERS, ids=[name for name, _ in NUMBERS])
def test_ranges_end_where_the_config_ends_them(name: str, form: Schema) -> None:
    tried = list(probes(form))
    assert tried, "a number without limits"
    assert {value: not refusals(name, value) for value, _ in tried} == dict(tried)
    if form["type"] == "integer":
        assert refusals(name, form.get("minimum", 0) + 0.5)


def test_steps_or_a_share_are_taken_as_told() -> None:
    for name in ("train.lr_warmup_steps", "train.lr_decay_steps"):
        whole, share = forms_of(BY_NAME[name].schema)
        assert (whole["minimum"], share["exclusiveMinimum"], share["exclusiveMaximum"]) == (0, 0, 1)
        for value in (0, 7, 0.5):
            Config.model_validate(given(name, value))
        for value in (-1, -0.1, 1.5):
            with pytest.raises(ValidationError):
                Config.model_validate(given(name, value))


@pytest.mark.parametrize("setting", [each for each in SETTINGS if each.choices], ids=lambda each: each.name)
def test_each_choice_is_taken_and_no_other(setting: Setting) -> None:
    listed = forms_of(setting.schema)[0].get("type") == "array"
    for choice in setting.choices:
        assert not refusals(setting.name, [choice] if listed else choice)
    assert refusals(setting.name, ["none of them"] if listed else "none of them")


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: each.name)
def test_null_and_defaults_are_taken_as_told(setting: Setting) -> None:
    assert bool(refusals(setting.name, None)) != setting.optional
    if setting.required:
        parent = setting.name.rpartition(".")[0].removesuffix(".*")
        assert "missing" in refusals(parent, [{}] if setting.name.count("*") else {})
    else:
        assert not refusals(setting.name, setting.default)


TEXTS = [each for each in SETTINGS if {"pattern", "minLength", "maxLength"} & set(forms_of(each.schema)[0])]


@pytest.mark.parametrize("setting", TEXTS, ids=lambda each: each.name)
def test_limits_of_texts_are_the_configs(setting: Setting) -> None:
    form = forms_of(setting.schema)[0]
    assert refusals(setting.name, "no such: form/\n" if "pattern" in form else "")
    if "maxLength" in form:
        assert refusals(setting.name, "x" * (form["maxLength"] + 1))
        assert not refusals(setting.name, "x" * form["maxLength"])


def test_sections_of_other_models_are_told_too() -> None:
    names = [setting.name for setting in settings_of(Source, "row.")]
    assert names == [f"row.{name}" for name in Source.model_fields]

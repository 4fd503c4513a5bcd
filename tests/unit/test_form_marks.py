"""What is told beside settings: differences from the preset as they are shown, and why a setting has no effect."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.config import Config
from ui.fields import CONFIG_FIELDS
from ui.form_marks import MISSING, Mark, as_data, get_value, marks, text_of

BY_NAME = {field.name: field for field in CONFIG_FIELDS}


def told(values: dict[str, Any], base: dict[str, Any], own: set[str] | None = None) -> dict[str, Mark]:
    plain, before = (Config.model_validate(each).model_dump(mode="json") for each in (values, base))
    return {mark.name: mark for mark in marks(CONFIG_FIELDS, plain, before, own or set())}


def differing(values: dict[str, Any], base: dict[str, Any], own: set[str] | None = None) -> dict[str, tuple[str, str]]:
    return {name: (mark.now, mark.before) for name, mark in told(values, base, own).items() if mark.differs}


def test_only_what_differs_is_told_with_both_values() -> None:
    values = {"lora": {"rank": 8, "target": "full"}, "train": {"ema": 0.99, "gradient_checkpointing": True}}
    assert differing(values, {"lora": {"rank": 8}}) == {
        "lora.target": ("full", "attention_ff"),
        "train.gradient_checkpointing": ("all", "off"),
        "train.ema": ("0.99", "empty"),
    }


def test_what_is_the_users_own_is_not_compared() -> None:
    values = {"name": "mine", "dataset": {"sources": [{"path": "/a"}]}}
    assert differing(values, {}, {"name", "dataset.sources"}) == {}
    assert differing(values, {}) == {"name": ("mine", "my-lora"), "dataset.sources": ("1 folder", "0 folders")}


def test_another_spelling_is_no_difference() -> None:
    """As a form holds it before it is checked: 16 for 16.0, a prompt without its defaults."""
    base = Config.model_validate({"samples": {"prompts": ["a cat"]}}).model_dump(mode="json")
    plain = {
        **base,
        "lora": {**base["lora"], "alpha": 16},
        "samples": {**base["samples"], "prompts": [{"prompt": "a cat"}]},
    }
    assert [mark for mark in marks(CONFIG_FIELDS, plain, base, set()) if mark.differs] == []


def test_what_cannot_be_read_differs() -> None:
    base = Config().model_dump(mode="json")
    plain = {**base, "train": {name: value for name, value in base["train"].items() if name != "optimizer_args"}}
    [mark] = [mark for mark in marks(CONFIG_FIELDS, plain, base, set()) if mark.differs]
    assert (mark.name, mark.now, mark.before) == ("train.optimizer_args", "not readable", "empty")


@pytest.mark.parametrize(
    ("values", "name", "sentence"),
    [
        ({"train": {"epochs": 5}}, "train.max_steps", "No effect while Epochs is 5."),
        ({}, "train.lr_power", "No effect while Learning rate schedule is cosine, not polynomial."),
        ({}, "loss.huber_c", "No effect while Loss is l2."),
        ({}, "train.prior_loss_weight", "No effect while no folder has Regularization."),
        ({}, "validation.noises", "No effect while Validation share is 0 and Validation folder is empty."),
        ({}, "loss.unmasked_weight", "No effect while Masked loss is off."),
    ],
)
def test_why_a_setting_has_no_effect(values: dict[str, Any], name: str, sentence: str) -> None:
    assert told(values, {})[name].idle == sentence


def test_an_idle_setting_that_somebody_changed_stays_to_be_seen() -> None:
    found = told({"train": {"epochs": 5, "max_steps": 77}}, {"train": {"max_steps": 77}})
    assert found["train.max_steps"].changed and not found["train.max_steps"].differs
    assert not found["train.lr_power"].changed


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("train.seed", 7, "7"),
        ("lora.include", ["a", "b"], "a / b"),
        ("train.epochs", None, "empty"),
        ("output.description", "x" * 99, "x" * 59 + "…"),
        ("dataset.sources", [{}, {}], "2 folders"),
        ("loss.masked", False, "off"),
        ("train.seed", MISSING, "not readable"),
    ],
)
def test_values_in_a_few_words(name: str, value: Any, text: str) -> None:
    assert text_of(BY_NAME[name], value) == text


def test_values_are_found_by_dotted_names() -> None:
    assert get_value({"a": {"b": None}}, "a.b") is None
    assert get_value({"a": 5}, "a.b") is MISSING


def test_the_page_gets_plain_data() -> None:
    data = as_data(list(told({"lora": {"rank": 8}}, {}).values()), "SD 1.5 <style>", can_undo=True)
    assert data["against"] == "SD 1.5 <style>" and data["undo"] is True
    assert {"name": "lora.rank", "label": "Rank", "differs": True, "now": "8", "before": "16"}.items() <= next(
        mark for mark in data["marks"] if mark["name"] == "lora.rank"
    ).items()

"""What the Train form says of pictures and captions, for showing what training would see. No Gradio."""

from __future__ import annotations

import contextlib
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from trainer.config import DatasetSettings, ModelSettings
from trainer.errors import UserError
from ui.context import AppContext
from ui.fields import CONFIG_FIELDS, put_value
from ui.train_view import read_last_form

T = TypeVar("T", bound=BaseModel)


def dataset_settings(context: AppContext) -> DatasetSettings:
    """Resolution, buckets and captions as the form has them; where they are wrong, the defaults."""
    return _parsed(DatasetSettings, _section(context, "dataset", without=("dataset.sources",)))


def model_settings(context: AppContext) -> ModelSettings:
    """The model as the form has it; where that is wrong, the default."""
    return _parsed(ModelSettings, _section(context, "model"))


def _parsed(model: type[T], values: dict[str, Any]) -> T:
    try:
        return model.model_validate(values)
    except ValidationError:
        return model()


def _section(context: AppContext, section: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of a section as nested values, without its own name; fields that cannot be read are left out."""
    form = read_last_form(context)
    values: dict[str, Any] = {}
    for field in CONFIG_FIELDS:
        shown = form.get(field.name)
        if field.section != section or field.name in without or not isinstance(shown, list) or len(shown) != 1:
            continue
        with contextlib.suppress(UserError, ValueError, TypeError):
            put_value(values, field.name, field.read(shown[0]))
    return values.get(section, {})

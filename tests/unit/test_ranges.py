"""What numbers may be is told in words, read from the same limits that the config checks."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field, create_model

from trainer.config_base import Probability, Size
from ui.fields import CONFIG_FIELDS
from ui.ranges import range_of


@pytest.mark.parametrize(
    ("annotation", "limits", "words"),
    [
        (int, {"ge": 1, "le": 1024}, "From 1 to 1024."),
        (int, {"ge": 0}, "0 or more."),
        (int, {"ge": 0, "lt": 2**63}, "0 or more."),
        (int, {"ge": 1, "le": 10_000_000}, "1 or more."),
        (float, {"gt": 0}, "Above 0."),
        (float, {"gt": 0, "lt": 1}, "Above 0, below 1."),
        (float | None, {"gt": 0, "le": 1000}, "Above 0, up to 1000."),
        (float, {"le": 5}, "Up to 5."),
        (float, {"lt": 5}, "Below 5."),
        (Annotated[float, Field(ge=0, lt=1)], {}, "From 0, below 1."),
        (Probability, {"lt": 1}, "From 0, below 1."),
        (Size, {}, "From 64 to 4096, a multiple of 8."),
        (Size | None, {}, "From 64 to 4096, a multiple of 8."),
        (float, {}, ""),
    ],
)
def test_limits_in_words(annotation: Any, limits: dict[str, Any], words: str) -> None:
    model = create_model("Model", value=(annotation, Field(**limits)))
    assert range_of(model.model_fields["value"]) == words


def test_only_numbers_that_explain_themselves_have_no_range() -> None:
    told = {field.name for field in CONFIG_FIELDS if field.kind == "number" and not field.allowed}
    assert told == {"train.lr_warmup_steps", "train.lr_decay_steps"}

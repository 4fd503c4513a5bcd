"""What a number may be, in words for its tooltip. No Gradio."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic.fields import FieldInfo

_ENDLESS = 100_000
"""A limit from here on only keeps mistakes out: nobody has to be told."""


def range_of(info: FieldInfo) -> str:
    """``From 64 to 4096, a multiple of 8.``; empty where nothing is to be told."""
    limits = [*info.metadata, *_in_type(info.annotation)]
    above, low = _limit(limits, Gt, "gt"), _limit(limits, Ge, "ge")
    below, high = _limit(limits, Lt, "lt"), _limit(limits, Le, "le")
    below = below if below is not None and below < _ENDLESS else None
    high = high if high is not None and high < _ENDLESS else None
    text = _words(above, low, below, high)
    step = _limit(limits, MultipleOf, "multiple_of")
    text += f", a multiple of {step:g}" if text and step is not None else ""
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _words(above: float | None, low: float | None, below: float | None, high: float | None) -> str:
    if below is None and high is None:
        return f"above {above:g}" if above is not None else f"{low:g} or more" if low is not None else ""
    end = f"below {below:g}" if below is not None else f"{high:g}"
    if above is not None:
        return f"above {above:g}, {end}" if below is not None else f"above {above:g}, up to {end}"
    if low is None:
        return end if below is not None else f"up to {end}"
    return f"from {low:g}, {end}" if below is not None else f"from {low:g} to {end}"


def _in_type(annotation: Any) -> list[Any]:
    """The limits that stand in the type itself, such as those of ``Size``; of a choice of types, the only one's."""
    if get_origin(annotation) is Annotated:
        found: list[Any] = []
        for limit in get_args(annotation)[1:]:
            found += limit.metadata if isinstance(limit, FieldInfo) else [limit]
        return found
    forms = [form for form in get_args(annotation) if form is not type(None)]
    return _in_type(forms[0]) if len(forms) == 1 else []


def _limit(limits: list[Any], kind: type, name: str) -> float | None:
    return next((getattr(limit, name) for limit in limits if isinstance(limit, kind)), None)

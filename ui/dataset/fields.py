"""Form fields as the panels of the Dataset tab use them."""

from __future__ import annotations

from typing import Any

import gradio as gr

FIELD: dict[str, Any] = {"interactive": True, "elem_classes": ["field"]}


def folded(label: str, elem_id: str) -> gr.Accordion:
    """A panel that is closed at first."""
    return gr.Accordion(label, open=False, elem_id=elem_id, elem_classes=["card", "as-text"])


def text(label: str, elem_id: str, info: str | None = None, placeholder: str | None = None) -> gr.Textbox:
    """A field for one line."""
    return gr.Textbox(
        label=label,
        info=info,
        placeholder=placeholder,
        lines=1,
        max_lines=1,
        elem_id=elem_id,
        min_width=180,
        **FIELD,
    )


def switch(label: str, elem_id: str, value: bool, info: str | None = None) -> gr.Checkbox:
    """A field for yes or no."""
    return gr.Checkbox(value, label=label, info=info, elem_id=elem_id, **FIELD)


def choice(
    label: str, elem_id: str, choices: list[tuple[str, Any]], value: Any, info: str | None = None
) -> gr.Dropdown:
    """A field for one of a few."""
    return gr.Dropdown(choices, value=value, label=label, info=info, filterable=False, elem_id=elem_id, **FIELD)

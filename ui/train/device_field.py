"""Beside Start training: what a run is queued for."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.remote.hosts import host_devices
from ui.context import AppContext
from ui.runs.waiting import device_choices


def device_field(context: AppContext) -> gr.Dropdown:
    """The choice of a device; nobody sees it where there is none. Its value is empty for any GPU that is free.

    Other machines that were added meanwhile are there when the page is opened again.
    """

    def offered() -> dict[str, Any]:
        choices = device_choices(host_devices(context.workspace))
        names = [(f"Train on {name}", value) for value, name in choices] or [("Train here", "")]
        return {"choices": names, "visible": bool(choices)}

    field = gr.Dropdown(
        **offered(),
        value="",
        show_label=False,
        label="Train on",
        interactive=True,
        filterable=False,
        min_width=180,
        elem_id="train-device",
    )
    context.page.load(lambda: [gr.update(**offered())], outputs=[field])
    return field

"""Beside Start training: what a run is queued for."""

from __future__ import annotations

import gradio as gr

from trainer.remote.hosts import host_devices
from trainer.runs.store import Workspace
from ui.runs.waiting import device_choices


def device_field(workspace: Workspace) -> gr.Dropdown:
    """The choice of a device; nobody sees it where there is none. Its value is empty for any GPU that is free."""
    choices = device_choices(host_devices(workspace))
    return gr.Dropdown(
        [(f"Train on {name}", value) for value, name in choices] or [("Train here", "")],
        value="",
        show_label=False,
        label="Train on",
        visible=bool(choices),
        interactive=True,
        filterable=False,
        min_width=180,
        elem_id="train-device",
    )

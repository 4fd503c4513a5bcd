"""Getting a LoRA from the Hugging Face Hub into the rows of a tab: by its name, or chosen from several."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.hub_names import HUB_ID, hub_file
from trainer.jobs import Job, job, jobs, start_job
from ui.context import AppContext
from ui.dataset.board import sent
from ui.job_progress import JobReader, told_job
from ui.messages import tells_problems
from ui.scripted import kept, scripted
from ui.wiring import QUIET, TELLING

COMMAND = "pull"
_SHOWN_S = 900.0
"""How long the last download is shown after its end."""


class HubPicker:
    """A field for the name of a LoRA on the hub, and how far its download is.

    Attributes:
        panel: its event ``use_model`` tells the ``model`` that a LoRA was made for.
        chosen: the name that a person wants to use.
        put: the event after which ``chosen`` holds it.
    """

    def __init__(self, context: AppContext, name: str, *, offers_model: bool) -> None:
        self._context = context
        self._reader = JobReader(context.workspace)
        self._offers_model = offers_model
        self.panel = scripted(
            f"{name}-hub",
            css=("runs/evaluation", "runs/share"),
            js=("dataset/dom", "job", "loras/hub"),
            value=self._shown(),
        )
        self.chosen = gr.Textbox("", visible=False)
        self.panel.get(tells_problems(self._get), None, None, **TELLING)
        self.panel.cancel(tells_problems(self._cancel), None, None, **TELLING)
        self.put = self.panel.put(self._named, None, self.chosen, **QUIET)
        seen = kept()
        context.page.poll(self._look, [seen], [seen, self.panel])

    def model_of(self, event: gr.EventData) -> str:
        """The model of ``use_model``."""
        model = str(sent(event, "model")["model"])
        return model if HUB_ID.fullmatch(model) else "demo"

    def _named(self, event: gr.EventData) -> str:
        return str(sent(event, "name")["name"])

    def _get(self, event: gr.EventData) -> None:
        get(self._context, str(sent(event, "name")["name"]))

    def _cancel(self, event: gr.EventData) -> None:
        found = job(self._context.workspace, str(sent(event, "job")["job"]))
        if found.command[0] != COMMAND:
            raise UserError("job.unknown", f"{found.id!r} gets no LoRA.", "Reload the page.")
        found.cancel()

    def _look(self, seen: str) -> list[Any] | None:
        now = self._shown()
        return None if str(now) == seen else [str(now), now]

    def _shown(self) -> dict[str, Any]:
        """What the panel's script takes."""
        latest = next((each for each in jobs(self._context.workspace) if f"-{COMMAND}-" in each.id), None)
        if latest is None:
            return {"job": None}
        info, progress = self._reader.read(latest)
        if info.ended is not None and time.time() - info.ended > _SHOWN_S:
            return {"job": None}
        model = info.result.get("base_model") if info.result and self._offers_model else None
        return {"job": {**told_job(info, progress), "name": info.command[1], "result": info.result, "model": model}}


def get(context: AppContext, name: str) -> Job:
    """Start to download a LoRA. Raises UserError for what is no name on the hub."""
    if hub_file(name) is None:
        hint = "Example: owner/name, owner/name/file.safetensors or owner/name@v2."
        raise UserError("lora.name", f"{name!r} does not name a LoRA on the Hugging Face Hub.", hint)
    return start_job(context.workspace, [COMMAND, name.strip()], f"Getting {name.strip()}")

"""Fields that name a LoRA file or a model, with the lists of those that are known; and bringing in a file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.files import atomic_path
from trainer.lora.contents import lora_contents
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.lora_choices import LoraShelf, known_models
from ui.lora_tools.desk import name_problems
from ui.lora_tools.panel import FIELD
from ui.messages import inform, tells_problems
from ui.scripted import kept
from ui.wiring import TELLING


def lora_picker(context: AppContext, tool: str, label: str = "LoRA") -> gr.Dropdown:
    """A field for one LoRA file. New ones join its list by themselves."""
    shelf = LoraShelf(context.workspace)
    field = gr.Dropdown(
        shelf.choices(),
        value=None,
        label=label,
        info="From the list, or the path of a file.",
        allow_custom_value=True,
        elem_id=f"{tool}-lora",
        **FIELD,
    )
    seen = kept()

    def poll(known: str) -> list[Any] | None:
        choices = shelf.choices()
        now = str(hash(tuple(choices)))
        return None if now == known else [now, gr.update(choices=choices)]

    context.page.poll(poll, [seen], [seen, field])
    return field


def model_picker(context: AppContext, name: str, label: str, value: str | None) -> gr.Dropdown:
    """A field for a model: the demo, a file, a folder or a hub id."""
    field = gr.Dropdown(
        known_models(context.workspace),
        value=value,
        label=label,
        info="A .safetensors file, a folder in diffusers layout, or a Hugging Face id.",
        allow_custom_value=True,
        elem_id=name,
        **FIELD,
    )
    context.page.load(lambda: [gr.update(choices=known_models(context.workspace))], outputs=[field])
    return field


def bring_button(context: AppContext, tool: str) -> None:
    """A button that takes LoRA files from the visitor's own disk into the workspace's list."""
    button = gr.UploadButton(
        "Bring LoRA files",
        size="sm",
        file_types=[".safetensors"],
        file_count="multiple",
        elem_id=f"{tool}-bring",
        elem_classes=["fold"],
    )

    @tells_problems
    def bring(uploaded: list[str] | None) -> None:
        names = [bring_lora(context.workspace, Path(path)).stem for path in uploaded or []]
        if names:
            inform(f"In the lists now: {', '.join(names)}.", seconds=10)

    button.upload(bring, button, None, **TELLING)


def bring_lora(workspace: Workspace, uploaded: Path) -> Path:
    """Copy an uploaded LoRA into the workspace. Raises UserError for no LoRA, or a name that is taken or wrong."""
    problems = name_problems(uploaded.stem)
    if problems:
        raise UserError.many(problems)
    lora_contents(uploaded)
    kept = workspace.models_dir / uploaded.name
    if kept.exists():
        raise UserError("lora.exists", f"{uploaded.name} is in the list already.", "Rename the file first.", "lora")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(kept) as temporary:
        shutil.copyfile(uploaded, temporary)
    return kept

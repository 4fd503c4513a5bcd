"""Presets on the Train tab: choosing one, and keeping, renaming, deleting and sharing one's own."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.blocks import Block
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from trainer.errors import Problem, UserError
from ui import presets, train_view
from ui.context import AppContext
from ui.form import SchemaForm, problems_html
from ui.messages import tells_problems
from ui.presets import Preset
from ui.wiring import IN_TURN

_REPLACE = "Replace "
_BRING_BACK = "Bring back "


class PresetPanel:
    """The card at the top of the form. Which preset is chosen is kept in the workspace.

    Attributes:
        choice: the list of presets.
        used: the one of them that the settings of this page are from.
    """

    def __init__(self, context: AppContext, form_problems: gr.HTML) -> None:
        """``form_problems``: where it is told that settings cannot be saved as they are."""
        self._context = context
        self._problems = form_problems
        with gr.Column(elem_classes=["card"]):
            with gr.Row(elem_classes=["preset-row"]):
                self.choice = gr.Dropdown(
                    self._choices(),
                    value=None,
                    label="Start from a preset",
                    info="Sets everything but your name and folders.",
                    elem_id="preset",
                    elem_classes=["field"],
                    interactive=True,
                    filterable=False,
                    scale=3,
                )
                self.used = gr.Textbox("", visible=False)
                self._name = gr.Textbox(
                    label="Keep these settings as", placeholder="My preset", elem_id="preset-name",
                    elem_classes=["field"], scale=2,
                )  # fmt: skip
                self._save = gr.Button("Save", scale=0, min_width=80, elem_id="save-preset")
            self._about = gr.HTML("", elem_id="preset-about", elem_classes=["quiet"], padding=False)
            with gr.Row(elem_classes=["actions", "preset-actions"]):
                self._replace = self._small("Replace", "replace-preset", visible=False, variant="primary")
                self._rename = self._small("Rename", "rename-preset", visible=False)
                self._delete = self._small("Delete", "delete-preset", visible=False)
                self._undo = self._small("Bring back", "undelete-preset", visible=False)
                self._import = gr.UploadButton(
                    "Add a preset file", size="sm", scale=0, min_width=60, file_types=[".yaml", ".yml"],
                    elem_id="import-preset", elem_classes=["fold"],
                )  # fmt: skip
        context.page.route("/atelier/presets/{key:path}", self._download)

    @property
    def outputs(self) -> list[Block]:
        """What ``shown`` gives updates for."""
        return [self.used, self.choice, self._about, self._replace, self._rename, self._delete, self._undo]

    def wire(self, form: SchemaForm) -> None:
        """Everything but choosing, which fills the form."""
        settings: set[Block] = {self._name, *form.components}
        outputs = [*self.outputs, self._problems]

        @tells_problems
        def save(values: Mapping[Any, Any]) -> dict[Block, Any]:
            return self._saved(form, values, values[self._name] or "", replace=False)

        @tells_problems
        def replace(values: Mapping[Any, Any]) -> dict[Block, Any]:
            """The button's own words count, not what has been typed since."""
            asked = str(values[self._replace]).removeprefix(_REPLACE)
            return self._saved(form, values, asked, replace=True)

        self._save.click(save, settings, outputs, **IN_TURN)
        self._replace.click(replace, {self._replace, *form.components}, outputs, **IN_TURN)
        self._rename.click(tells_problems(self._renamed), [self.choice, self._name], self.outputs, **IN_TURN)
        self._delete.click(tells_problems(self._deleted), self.choice, self.outputs, **IN_TURN)
        self._undo.click(tells_problems(self._brought_back), self._undo, self.outputs, **IN_TURN)
        self._import.upload(tells_problems(self._imported), self._import, self.outputs, **IN_TURN)

    def shown(self, preset: Preset | None, left_out: Sequence[Problem] = (), told: str = "") -> dict[Block, Any]:
        """Updates that show which preset is chosen.

        Args:
            left_out: settings of it that this version does not know.
            told: what to say in place of what the preset is about.
        """
        own = preset is not None and preset.is_own
        offered = self._offered(told)
        return {
            **offered,
            self.used: preset.key if preset else "",
            self.choice: offered[self.choice] | {"value": preset.key if preset else None},
            self._about: _about_html(preset, left_out, told),
            self._rename: gr.update(visible=own),
            self._delete: gr.update(visible=own),
        }

    def _offered(self, told: str, ask: str = "") -> dict[Block, Any]:
        """Updates of what there is to choose; what is chosen stays. ``ask``: a preset that would be replaced."""
        deleted = presets.last_deleted(self._context.workspace)
        return {
            self.choice: gr.update(choices=self._choices()),
            self._about: _about_html(None, (), told),
            self._replace: gr.update(visible=bool(ask), value=f"{_REPLACE}{ask}"),
            self._undo: gr.update(visible=bool(deleted), value=f"{_BRING_BACK}{deleted}"),
        }

    def _small(self, label: str, elem_id: str, *, visible: bool, variant: Any = "secondary") -> gr.Button:
        return gr.Button(
            label, size="sm", scale=0, min_width=60, visible=visible, variant=variant, elem_id=elem_id,
            elem_classes=[] if variant == "primary" else ["fold"],
        )  # fmt: skip

    def _choices(self) -> list[tuple[str, str]]:
        return [(preset.label, preset.key) for preset in presets.presets(self._context.workspace)]

    def _saved(self, form: SchemaForm, values: Mapping[Any, Any], name: str, *, replace: bool) -> dict[Block, Any]:
        try:
            config = form.collect(values)
        except UserError as error:
            return {self._problems: problems_html(error.problems)}
        try:
            preset = presets.save(self._context.workspace, name, config, replace=replace)
        except UserError as error:
            if error.problems[0].code != "preset.exists":
                raise
            return self._offered(error.problems[0].message, ask=name.strip())
        train_view.save_last_preset(self._context, preset.key)
        return {**self.shown(preset, told=f"Saved as {preset.title}."), self._problems: ""}

    def _renamed(self, key: str, name: str) -> dict[Block, Any]:
        workspace = self._context.workspace
        preset = presets.rename(workspace, presets.find_own(workspace, key), name or "")
        train_view.save_last_preset(self._context, preset.key)
        return self.shown(preset, told=f"Renamed to {preset.title}.")

    def _deleted(self, key: str) -> dict[Block, Any]:
        preset = presets.find_own(self._context.workspace, key)
        presets.delete(self._context.workspace, preset)
        return self.shown(None, told=f"Deleted {preset.title}. The settings in the form stay.")

    def _brought_back(self, label: str) -> dict[Block, Any]:
        preset = presets.bring_back(self._context.workspace, str(label).removeprefix(_BRING_BACK))
        return self._offered(f"{preset.title} is back in the list.")

    def _imported(self, path: str) -> dict[Block, Any]:
        preset = presets.import_file(self._context.workspace, Path(path))
        return self._offered(f"Added as {preset.title}: choose it in the list to use it.")

    def _download(self, request: Request) -> Response:
        try:
            preset = presets.find(self._context.workspace, request.path_params["key"])
        except UserError as error:
            raise HTTPException(404) from error
        return FileResponse(preset.path, filename=preset.path.name, media_type="application/yaml")


def _about_html(preset: Preset | None, left_out: Sequence[Problem], told: str) -> str:
    parts = [html.escape(told or (preset.about if preset else ""))]
    if preset is not None:
        address = f"/atelier/presets/{quote(preset.key)}"
        parts.append(f'<a href="{address}" download="{html.escape(preset.path.name, quote=True)}">Download it</a>')
    text = f"<p>{' '.join(filter(None, parts))}</p>" if any(parts) else ""
    if not left_out:
        return text
    items = "".join(f"<li>{html.escape(str(problem))}</li>" for problem in left_out)
    return f'{text}<p>Left out, as this version does not take it:</p><ul class="problems" role="alert">{items}</ul>'

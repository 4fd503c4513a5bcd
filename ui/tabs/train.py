"""The Train tab: preset, form, what it means, check, start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gradio as gr
import yaml
from gradio.blocks import Block

from trainer.config import Config, DatasetSettings, Source, ValidationSettings
from trainer.config_io import dump_config, parse_config, read_yaml
from trainer.config_loss import LossSettings
from trainer.curation.mask_files import masks_folder
from trainer.curation.splitting import VALIDATION, validation_folder
from trainer.errors import UserError
from trainer.runs.worker import enqueue
from ui import presets, train_view
from ui.context import AppContext
from ui.form import SchemaForm, problems_html
from ui.messages import tells_problems
from ui.plan.panel import PlanPanel

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class TrainTab:
    """What other parts of the page use.

    Attributes:
        form: the settings.
        run_started: id of the run just put into the queue; empty when the form had problems.
        start: its event; what follows a start is chained to it with ``.then``.
        handlers: ``fill(config)`` gives the updates that show a config, for ``filled`` as outputs.
    """

    form: SchemaForm
    run_started: gr.Textbox
    start: Any
    handlers: TrainHandlers


@dataclass(frozen=True)
class _Side:
    maths: gr.HTML
    problems: gr.HTML
    plan: PlanPanel
    start: gr.Button
    yaml: gr.Textbox
    apply: gr.Button
    file: gr.UploadButton
    command: gr.Textbox
    run_started: gr.Textbox


@dataclass(frozen=True)
class _Presets:
    choice: gr.Dropdown
    about: gr.HTML
    name: gr.Textbox
    save: gr.Button


def build(context: AppContext) -> TrainTab:
    """Lay the tab out and wire it."""
    with gr.Row(elem_classes=["two-columns"]):
        with gr.Column(scale=5, elem_classes=["main-column", "settings-form"]):
            choosing = _preset_row(context)
            form = SchemaForm()
        with gr.Column(scale=3, min_width=320, elem_classes=["side"]):
            side = _side(context)
    handlers = TrainHandlers(context, form, side, choosing)
    _wire_presets(choosing, form, side, handlers)
    _wire_form(context, form, side, handlers)
    start = _wire_start(form, side, handlers)
    return TrainTab(form, side.run_started, start, handlers)


def _preset_row(context: AppContext) -> _Presets:
    with gr.Column(elem_classes=["card"]):
        with gr.Row(elem_classes=["preset-row"]):
            choice = gr.Dropdown(
                _preset_choices(context),
                value=None,
                label="Start from a preset",
                info="Sets everything but your name and folders.",
                elem_id="preset",
                elem_classes=["field"],
                interactive=True,
                filterable=False,
                scale=3,
            )
            name = gr.Textbox(label="Save these settings as", placeholder="My preset", elem_classes=["field"], scale=2)
            save = gr.Button("Save", scale=0, min_width=80, elem_id="save-preset")
        about = gr.HTML("", elem_id="preset-about", elem_classes=["quiet"], padding=False)
    return _Presets(choice, about, name, save)


def _side(context: AppContext) -> _Side:
    plan = PlanPanel(context)
    with gr.Column(elem_classes=["card"]):
        maths = gr.HTML("", elem_id="step-maths", padding=False)
        problems = gr.HTML("", elem_id="train-problems", padding=False)
        with gr.Row(elem_classes=["actions"]):
            plan.check.render()
            start = gr.Button("Start training", variant="primary", elem_id="start")
        plan.render_report()
    with gr.Accordion("Settings as text", open=False, elem_classes=["card", "as-text"]):
        text = gr.Textbox(
            label="YAML",
            info="Exactly what will be trained. Change it, or paste settings, and use them.",
            lines=14,
            max_lines=30,
            buttons=["copy"],
            interactive=True,
            elem_id="yaml",
            elem_classes=["field", "mono"],
        )
        with gr.Row(elem_classes=["actions"]):
            apply = gr.Button("Use this text", size="sm", elem_id="apply-yaml")
            file = gr.UploadButton("Open a file", size="sm", file_types=[".yaml", ".yml"], elem_id="open-yaml")
        command = gr.Textbox(
            label="The same from a terminal",
            lines=2,
            buttons=["copy"],
            interactive=False,
            elem_id="command",
            elem_classes=["field", "mono"],
        )
    run_started = gr.Textbox(visible=False)
    return _Side(maths, problems, plan, start, text, apply, file, command, run_started)


def _wire_presets(choosing: _Presets, form: SchemaForm, side: _Side, handlers: TrainHandlers) -> None:
    changed = handlers.filled
    choosing.choice.input(
        handlers.use_preset, {choosing.choice, *form.components}, [*changed, choosing.about], show_progress="hidden"
    )
    side.apply.click(handlers.use_text, side.yaml, changed, show_progress="hidden")
    side.file.upload(handlers.use_file, side.file, changed, show_progress="hidden")
    choosing.save.click(
        handlers.save_preset, {choosing.name, *form.components}, [choosing.choice, choosing.about, side.problems]
    )


def _wire_form(context: AppContext, form: SchemaForm, side: _Side, handlers: TrainHandlers) -> None:
    shown = [side.maths, side.yaml, side.command, side.problems]
    gr.on(
        [component.input for component in form.components],  # type: ignore[attr-defined]
        handlers.changed,
        {side.problems, *form.components},
        shown,
        trigger_mode="always_last",
        concurrency_limit=None,
        **QUIET,
    )
    context.page.load(handlers.restore, outputs=[*handlers.filled, *handlers.chosen])


def _wire_start(form: SchemaForm, side: _Side, handlers: TrainHandlers) -> Any:
    side.plan.wire(form, side.problems, handlers.checked)
    return side.start.click(
        handlers.start, {*form.components}, [side.run_started, side.problems], show_progress="hidden"
    )


class TrainHandlers:
    """The tab's event handlers. They hold components and the context, no state."""

    def __init__(self, context: AppContext, form: SchemaForm, side: _Side, choosing: _Presets) -> None:
        self._context = context
        self._form = form
        self._side = side
        self._choosing = choosing

    @property
    def filled(self) -> list[Block]:
        """What ``fill`` gives updates for."""
        side = self._side
        return [*self._form.outputs, side.maths, side.yaml, side.command, side.problems]

    @property
    def chosen(self) -> list[Block]:
        """What tells which preset was chosen."""
        return [self._choosing.choice, self._choosing.about]

    def changed(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """Something was edited: keep it, and follow it with the maths and the YAML."""
        self.keep(values)
        try:
            config = self._form.collect(values)
        except UserError as error:
            shown = problems_html(error.problems, move=False) if values[self._side.problems] else ""
            return {self._side.maths: _count_of(error), self._side.problems: shown}
        return self._explained(config)

    def keep(self, values: Mapping[Any, Any]) -> None:
        """Remember what stands in the form."""
        train_view.save_last_form(self._context, self._form.snapshot(values))

    def restore(self) -> list[Any]:
        """The page was opened: show what stood in the form last, and what it means."""
        updates = self._form.restore(train_view.read_last_form(self._context))
        values = {component: updates.get(component, component.value) for component in self._form.components}
        try:
            updates |= self._explained(self._form.collect(values))
        except UserError as error:
            updates[self._side.maths] = _count_of(error)
        preset = train_view.last_preset(self._context)
        choices = _preset_choices(self._context)  # those saved since the program started, too
        updates[self._choosing.choice] = gr.update(choices=choices, value=preset.key if preset else None)
        updates[self._choosing.about] = preset.about if preset else ""
        return [updates.get(block, gr.skip()) for block in [*self.filled, *self.chosen]]

    def fill(self, config: Config) -> dict[Any, Any]:
        """Updates that show a config in the form, with what it means. It is there after a reload, too."""
        train_view.save_last_form(self._context, self._form.snapshot_of(config))
        return {**self._form.push(config), **self._explained(config)}

    @tells_problems
    def use_preset(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """Every setting from the preset; the name and the folders stay the user's unless the preset has its own."""
        preset = presets.find(self._context.workspace, values[self._choosing.choice])
        config = presets.load(preset)
        name, sources = self._own(values)
        named = read_yaml(preset.path)
        if "name" not in named and name:
            config.name = name
        if not config.dataset.sources:
            config = parse_config(_with_sources(config, sources))
        train_view.save_last_preset(self._context, preset.key)
        return {**self.fill(config), self._choosing.about: preset.about}

    def use_folder(self, values: Mapping[Any, Any], folder: str) -> dict[Any, Any]:
        """The form with this folder as its only one; the other settings stay as they are, right or wrong.

        Painted masks are used. Where validation pictures were split off the folder, they are the ones that are
        validated on.
        """
        masks = masks_folder(Path(folder))
        masked: Literal[False, "mask"] = "mask" if masks else False
        sources = [Source(path=folder, mask_path=str(masks) if masks else None)]
        held_back = validation_folder(Path(folder))
        try:
            config = self._form.collect(values)
        except UserError:
            config = Config(dataset=DatasetSettings(sources=sources), loss=LossSettings(masked=masked))
            config.validation = _validating_on(config.validation, held_back)
            shown = ["dataset.sources", *(["loss.masked"] if masked else [])]
            shown += ["validation.path", "validation.split"] if held_back else []
            return {block: update for name in shown for block, update in self._form.push_one(config, name).items()}
        config.dataset.sources = sources
        config.validation = _validating_on(config.validation, held_back)
        if masked or config.loss.masked == "mask":
            config.loss.masked = masked
        return self.fill(config)

    @tells_problems
    def use_text(self, text: str) -> dict[Any, Any]:
        """The YAML as it was edited or pasted."""
        return self._use(lambda: parse_config(_mapping(text)))

    @tells_problems
    def use_file(self, path: str) -> dict[Any, Any]:
        """A settings file of the user's machine."""
        return self._use(lambda: parse_config(read_yaml(Path(path))))

    @tells_problems
    def save_preset(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """Keep the settings as a preset of the workspace."""
        try:
            config = self._form.collect(values)
        except UserError as error:
            return {self._side.problems: problems_html(error.problems)}
        preset = presets.save(self._context.workspace, values[self._choosing.name] or "", config)
        train_view.save_last_preset(self._context, preset.key)
        gr.Info(f"Saved as {preset.title}.", duration=4)
        choices = gr.update(choices=_preset_choices(self._context), value=preset.key)
        return {self._choosing.choice: choices, self._choosing.about: "", self._side.problems: ""}

    @tells_problems
    def start(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """Put the run into the queue."""
        side = self._side
        try:
            run = enqueue(self._context.workspace, self.checked(values))
        except UserError as error:
            return {side.run_started: "", side.problems: problems_html(error.problems)}
        return {side.run_started: run.id, side.problems: ""}

    def checked(self, values: Mapping[Any, Any]) -> Config:
        """The form's config. Raises UserError, also for paths that are not there or not open to the page."""
        config = self._form.collect(values)
        train_view.check_paths(self._context, config)
        return config

    def _use(self, read: Any) -> dict[Any, Any]:
        try:
            return self.fill(read())
        except UserError as error:
            return {self._side.problems: problems_html(error.problems)}

    def _explained(self, config: Config) -> dict[Any, Any]:
        side = self._side
        return {
            side.maths: train_view.maths_html(config),
            side.yaml: dump_config(config),
            side.command: train_view.command_line(config, self._context.workspace.dir),
            side.problems: "",
        }

    def _own(self, values: Mapping[Any, Any]) -> tuple[str, list[Any]]:
        """The name and folders in the form, as they are."""
        try:
            config = self._form.collect(values)
        except UserError:
            return "", []
        return config.name, [source.model_dump() for source in config.dataset.sources]


def _preset_choices(context: AppContext) -> list[tuple[str, str]]:
    return [(preset.label, preset.key) for preset in presets.presets(context.workspace)]


def _with_sources(config: Config, sources: list[Any]) -> dict[str, Any]:
    values = config.model_dump(mode="json")
    values["dataset"]["sources"] = sources
    return values


def _validating_on(settings: ValidationSettings, held_back: Path | None) -> ValidationSettings:
    """The settings with this folder; without one, not with the pictures that were split off another dataset."""
    if held_back is not None:
        return settings.model_copy(update={"path": str(held_back), "split": 0.0})
    stale = settings.path is not None and Path(settings.path).name == VALIDATION
    return settings.model_copy(update={"path": None}) if stale else settings


def _mapping(text: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text or "")
    except yaml.YAMLError as error:
        raise UserError("config.yaml", "This text is not valid YAML.", "Check indentation and colons.") from error
    if values is not None and not isinstance(values, dict):
        raise UserError("config.not_a_mapping", "This text holds no settings.", "Write `name: value` lines.")
    return values or {}


def _count_of(error: UserError) -> str:
    count = len(error.problems)
    return f'<p class="maths">{count} setting{"s" if count > 1 else ""} need{"" if count > 1 else "s"} a look.</p>'

"""The Train tab: preset, form, what it means, check, start."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from gradio.blocks import Block

from trainer.config import Config, DatasetSettings, Source, ValidationSettings
from trainer.config_io import dump_config, parse_config, parse_yaml, read_yaml
from trainer.config_loss import LossSettings
from trainer.curation.mask_files import masks_folder
from trainer.curation.splitting import VALIDATION, validation_folder
from trainer.errors import UserError
from trainer.imports.base import Imported
from trainer.runs.gpus import devices_of
from trainer.runs.store import Run
from trainer.runs.worker import enqueue, expect_start
from ui import presets, train_view
from ui.context import AppContext
from ui.dataset.board import sent
from ui.fields import put_value
from ui.form import SchemaForm, problems_html
from ui.form_marks import as_data, get_value
from ui.messages import tells_problems
from ui.plan.panel import PlanPanel
from ui.theme import asset
from ui.train.device_field import device_field
from ui.train.import_panel import (
    ImportPanel,
    keep_report,
    last_report,
    missing_paths,
    settings_in_file,
    settings_in_text,
)
from ui.train.preset_panel import PresetPanel
from ui.train.text_panel import TextPanel
from ui.train.yaml_lines import with_lines
from ui.wiring import EVERY_TIME, IN_TURN, LAST_COUNTS, QUIET


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
    device: gr.Dropdown
    changes: gr.HTML
    text: TextPanel
    imports: ImportPanel
    run_started: gr.Textbox


def build(context: AppContext) -> TrainTab:
    """Lay the tab out and wire it."""
    with gr.Row(elem_classes=["two-columns"]):
        with gr.Column(scale=5, elem_classes=["main-column", "settings-form"]):
            problems = gr.HTML("", elem_id="train-problems", padding=False, render=False)
            choosing = PresetPanel(context, problems)
            form = SchemaForm()
        with gr.Column(scale=3, min_width=320, elem_classes=["side"]):
            side = _side(context, problems)
    handlers = TrainHandlers(context, form, side, choosing)
    _wire_presets(choosing, form, side, handlers)
    _wire_form(context, choosing, form, side, handlers)
    start = _wire_start(form, side, handlers)
    return TrainTab(form, side.run_started, start, handlers)


def _side(context: AppContext, problems: gr.HTML) -> _Side:
    plan = PlanPanel(context)
    with gr.Column(elem_classes=["card"]):
        maths = gr.HTML("", elem_id="step-maths", padding=False)
        problems.render()
        with gr.Row(elem_classes=["actions"]):
            plan.check.render()
            start = gr.Button("Start training", variant="primary", elem_id="start")
            device = device_field(context)
        changes = gr.HTML(
            {"text": ""},
            html_template="",
            js_on_load=asset("dataset/dom.js") + asset("form/marks.js"),
            padding=False,
            elem_id="changes",
        )
        plan.render_report()
    text = TextPanel()
    return _Side(maths, problems, plan, start, device, changes, text, ImportPanel(), gr.Textbox(visible=False))


def _wire_presets(choosing: PresetPanel, form: SchemaForm, side: _Side, handlers: TrainHandlers) -> None:
    chosen: set[Block] = {choosing.choice, choosing.used, *form.components}
    another = choosing.choice.change(handlers.use_preset, chosen, handlers.everything, **IN_TURN, **LAST_COUNTS)
    another.failure(lambda used: used or None, choosing.used, choosing.choice, **QUIET)
    choosing.choice.select(handlers.use_preset_again, chosen, handlers.everything, **IN_TURN)
    choosing.wire(form)
    with_report = [*handlers.filled, side.imports.report]
    side.text.apply.click(handlers.use_text, side.text.yaml, with_report, **IN_TURN)
    for button in (side.text.file, side.imports.file):
        button.upload(handlers.use_file, button, with_report, **IN_TURN)
    side.changes.revert(handlers.revert, handlers.given, handlers.filled, **IN_TURN, **EVERY_TIME)
    side.changes.before(handlers.bring_back, None, handlers.everything, **IN_TURN)


def _wire_form(
    context: AppContext, choosing: PresetPanel, form: SchemaForm, side: _Side, handlers: TrainHandlers
) -> None:
    shown = [side.maths, side.text.yaml, side.text.command, side.problems, side.changes]
    gr.on(
        [component.input for component in (*form.components, side.device)],  # type: ignore[attr-defined]
        handlers.changed,
        handlers.given,
        shown,
        concurrency_limit=None,
        **QUIET,
        **LAST_COUNTS,
    )
    context.page.load(handlers.restore, outputs=handlers.everything)
    context.page.load(lambda: [last_report(context)], outputs=[side.imports.report])
    context.page.poll(lambda: expect_start(context.workspace))  # while the tab is looked at


def _wire_start(form: SchemaForm, side: _Side, handlers: TrainHandlers) -> Any:
    side.plan.wire(form, side.problems, handlers)
    return side.start.click(
        handlers.start, {side.device, *form.components}, [side.run_started, side.problems], show_progress="hidden"
    )


class TrainHandlers:
    """The tab's event handlers. They hold components and the context, no state."""

    def __init__(self, context: AppContext, form: SchemaForm, side: _Side, choosing: PresetPanel) -> None:
        self._context = context
        self._form = form
        self._side = side
        self._choosing = choosing

    @property
    def given(self) -> set[Block]:
        """What handlers are given that take the form's values."""
        return {self._side.problems, self._side.device, *self._form.components}

    @property
    def everything(self) -> list[Block]:
        """What ``change_run`` gives updates for: ``filled``, and which preset is chosen."""
        return [*self.filled, *self._choosing.outputs]

    @property
    def filled(self) -> list[Block]:
        """What ``fill`` gives updates for."""
        side = self._side
        follow = [side.maths, side.text.yaml, side.text.command, side.problems, side.changes]
        return [*self._form.outputs, *follow]

    def changed(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """Something was edited: keep it, and follow it with the maths, the YAML and what differs from the preset."""
        snapshot = self._form.snapshot(values)
        train_view.save_last_form(self._context, snapshot)
        try:
            explained = self._explained(self._form.collect(values), values[self._side.device])
        except UserError as error:
            shown = problems_html(error.problems, move=False) if values[self._side.problems] else ""
            explained = {self._side.maths: _count_of(error), self._side.problems: shown}
        return {**explained, self._side.changes: self._compared(snapshot)}

    def restore(self) -> list[Any]:
        """The page was opened: show what stood in the form last, and what it means."""
        updates = self._with_meaning(self._form.restore(train_view.read_last_form(self._context)))
        updates |= self._choosing.shown(train_view.last_preset(self._context))
        return [updates.get(block, gr.skip()) for block in self.everything]

    def fill(self, config: Config, base: str | None = None) -> dict[Any, Any]:
        """Updates that show a config in the form, with what it means. It is there after a reload, too.

        ``base`` is the key of what it is compared with from then on; without, that stays as it is.
        """
        snapshot = self._form.snapshot_of(config)
        train_view.replace_form(self._context, snapshot, base)
        return {
            **self._form.push(config),
            **self._explained(config),
            self._side.changes: self._compared(snapshot),
        }

    @tells_problems
    def use_preset(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """Another preset is chosen, or the page shows which one its settings are from: then they stay."""
        if values[self._choosing.choice] in (None, values[self._choosing.used]):
            return {self._choosing.choice: gr.skip()}
        return self._preset(values)

    @tells_problems
    def use_preset_again(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """An entry of the list was pressed: when it is the one that was chosen before, all goes back to it."""
        if values[self._choosing.choice] != values[self._choosing.used]:
            return {self._choosing.choice: gr.skip()}
        return self._preset(values)

    def _preset(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """Every setting from the preset; name and folders, with what goes with them, stay unless it has its own."""
        preset = presets.find(self._context.workspace, values[self._choosing.choice])
        config, left_out = presets.load_what_fits(preset)
        config = self._with_own(config, values, presets.own_settings(preset))
        shown = self._choosing.shown(preset, left_out)
        return {**self.fill(config, preset.key), **shown, self._choosing.choice: gr.skip()}  # it may say another now

    @tells_problems
    def revert(self, values: Mapping[Any, Any], event: gr.EventData) -> dict[Any, Any]:
        """One setting, or all that differ, as the preset has them; the rest stays, right or wrong."""
        base, _, own = self._base()
        told = self._form.marks(self._form.snapshot(values), base, own)
        differing = [mark.name for mark in told if mark.differs]
        wanted = str(sent(event, "name")["name"])
        if not wanted:
            train_view.keep_before(self._context)
        return self._with_settings(base, [name for name in differing if wanted in ("", name)], values)

    def bring_back(self) -> list[Any]:
        """What stood in the form before a preset, a text or a run replaced it; doing it twice changes nothing."""
        snapshot = train_view.take_before(self._context)
        updates = self._with_meaning(self._form.restore(snapshot))
        train_view.save_last_form(self._context, {**train_view.read_last_form(self._context), **snapshot})
        updates |= self._choosing.shown(train_view.last_preset(self._context))
        return [updates.get(block, gr.skip()) for block in self.everything]

    def change_run(self, run: Run) -> dict[Any, Any]:
        """The settings of a run, to be changed: the form tells from then on what differs from them.

        Raises UserError when they cannot be read.
        """
        filled = self.fill(run.config(), train_view.key_of_run(run))
        return {**filled, **self._choosing.shown(None, told=f"The settings of the run {run.read().name}.")}

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
            train_view.keep_before(self._context)
            return self._with_settings(config, shown, values)
        config.dataset.sources = sources
        config.validation = _validating_on(config.validation, held_back)
        if masked or config.loss.masked == "mask":
            config.loss.masked = masked
        return self.fill(config)

    @tells_problems
    def use_text(self, text: str) -> dict[Any, Any]:
        """The YAML as it was edited or pasted; what is wrong in it is told at its field, with its line.

        Settings of other trainers, and command lines, may be pasted as well.
        """
        try:
            imported = settings_in_text(self._context, text or "", "What stands here")
            if imported is not None:
                return self._use(imported, "The text")
            return self.fill(parse_config(parse_yaml(text or "", "What stands here")))
        except UserError as error:
            return {self._side.problems: problems_html(tuple(with_lines(error.problems, text or "")))}

    @tells_problems
    def use_file(self, path: str) -> dict[Any, Any]:
        """A settings file of the user's machine, ours or another trainer's, or a LoRA that says how it was made."""
        file = Path(path)
        try:
            imported = settings_in_file(self._context, file, file.name)
            if imported is not None:
                return self._use(imported, file.name)
            return self.fill(parse_config(read_yaml(file)), train_view.key_beside_runs(self._context))
        except UserError as error:
            return {self._side.problems: problems_html(error.problems)}

    def _use(self, imported: Imported, name: str) -> dict[Any, Any]:
        """Fill the form with another trainer's settings; a report says what became of each, fields what is missing."""
        filled = self.fill(imported.config, train_view.key_beside_runs(self._context))
        missing = problems_html(missing_paths(self._context, imported.config), move=False)
        report = keep_report(self._context, imported.report, name)
        return {**filled, self._side.problems: missing, self._side.imports.report: report}

    @tells_problems
    def start(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """Put the run into the queue."""
        side = self._side
        try:
            origin = train_view.changed_run(self._context)
            run = enqueue(
                self._context.workspace,
                self.checked(values),
                device=values[side.device] or None,
                changed_from=origin.id if origin else None,
            )
        except UserError as error:
            return {side.run_started: "", side.problems: problems_html(error.problems)}
        return {side.run_started: run.id, side.problems: ""}

    def checked(self, values: Mapping[Any, Any]) -> Config:
        """The form's config. Raises UserError, also for paths that are not there or not open to the page."""
        config = self._form.collect(values)
        train_view.check_paths(self._context, config)
        return config

    def _explained(self, config: Config, device: str = "") -> dict[Any, Any]:
        """What a config means, trained on a device of the choice beside Start."""
        side = self._side
        return {
            side.maths: train_view.maths_html(config, len(devices_of(device))),
            side.text.yaml: dump_config(config),
            side.text.command: train_view.command_line(config, self._context.workspace.dir, device),
            side.problems: "",
        }

    def _with_meaning(self, updates: dict[Block, Any]) -> dict[Block, Any]:
        """Updates of the form, and what the form then says."""
        values = {component: component.value for component in self._form.components} | _plain_values(updates)
        try:
            updates |= self._explained(self._form.collect(values))
        except UserError as error:
            updates[self._side.maths] = _count_of(error)
        return {**updates, self._side.changes: self._compared(self._form.snapshot(values))}

    def _with_settings(self, config: Config, names: list[str], values: Mapping[Any, Any]) -> dict[Any, Any]:
        """Updates that show these settings of a config; the rest stays, right or wrong, and all of it is told anew."""
        updates = {block: update for name in names for block, update in self._form.push_one(config, name).items()}
        return {**updates, **self.changed({**values, **_plain_values(updates)})}

    def _compared(self, snapshot: Mapping[str, Any]) -> dict[str, str]:
        """What differs from the chosen preset or run and what has no effect, for the page's script."""
        base, against, own = self._base()
        told = self._form.marks(snapshot, base, own)
        return {"text": json.dumps(as_data(told, against, train_view.can_go_back(self._context)))}

    def _base(self) -> tuple[Config, str, set[str]]:
        """What the form is compared with, how it is called, and which settings are the user's own beside it."""
        run = train_view.changed_run(self._context)
        if run is not None:
            with contextlib.suppress(UserError, OSError):
                return run.config(), f"the run {run.read().name}", {"name"}
        preset = train_view.last_preset(self._context)
        if preset is not None:
            with contextlib.suppress(UserError):  # told when it is chosen
                return presets.load_what_fits(preset)[0], preset.label, presets.own_settings(preset)
        return Config(), "the defaults", {"name", "dataset.sources"}

    def _with_own(self, config: Config, values: Mapping[Any, Any], own: set[str]) -> Config:
        """The config with the user's own settings as the form has them, as far as they are right."""
        plain, _ = self._form.plain(self._form.snapshot(values))
        for name in sorted(own):
            changed = config.model_dump(mode="json")
            put_value(changed, name, get_value(plain, name))
            if name == "dataset.sources":
                _put_what_goes_with_folders(changed, plain)
            with contextlib.suppress(UserError):
                config = parse_config(changed)
        return config


def _put_what_goes_with_folders(changed: dict[str, Any], plain: Mapping[str, Any]) -> None:
    """What ``use_folder`` has set beside them: that their masks count, and that what was split off is validated on."""
    rows = get_value(plain, "dataset.sources") or []
    if get_value(plain, "loss.masked") == "mask" and any(row.get("mask_path") for row in rows):
        put_value(changed, "loss.masked", "mask")
    held_back = get_value(plain, "validation.path")
    if held_back and held_back in [str(validation_folder(Path(row.get("path") or ""))) for row in rows]:
        put_value(changed, "validation.path", held_back)
        put_value(changed, "validation.split", 0.0)


def _plain_values(updates: Mapping[Any, Any]) -> dict[Any, Any]:
    """What components hold once updates are made."""
    return {
        block: update["value"] if isinstance(update, dict) else update
        for block, update in updates.items()
        if not isinstance(update, dict) or "value" in update
    }


def _validating_on(settings: ValidationSettings, held_back: Path | None) -> ValidationSettings:
    """The settings with this folder; without one, not with the pictures that were split off another dataset."""
    if held_back is not None:
        return settings.model_copy(update={"path": str(held_back), "split": 0.0})
    stale = settings.path is not None and Path(settings.path).name == VALIDATION
    return settings.model_copy(update={"path": None}) if stale else settings


def _count_of(error: UserError) -> str:
    count = len(error.problems)
    return f'<p class="maths">{count} setting{"s" if count > 1 else ""} need{"" if count > 1 else "s"} a look.</p>'

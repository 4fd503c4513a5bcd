"""The check before the start: its button, the job that makes the plan, the plan as a report, and its fixes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import gradio as gr
from gradio.blocks import Block

from trainer import jobs
from trainer.config import Config
from trainer.config_io import save_config
from trainer.errors import Problem, UserError
from trainer.plan_fixes import changed, values_at
from ui.context import AppContext
from ui.form import SchemaForm, problems_html
from ui.messages import tells_problems
from ui.plan.pictures import PlanPictures
from ui.plan.report import measuring_html, report_html, running_html
from ui.scripted import kept
from ui.theme import asset
from ui.wiring import IN_TURN

NOTHING: dict[str, Any] = {"html": ""}
_LEFT_BEHIND_S = 3600.0


class FormHandlers(Protocol):
    """What the check needs of the Train form."""

    @property
    def filled(self) -> list[Block]:
        """What ``fill`` gives updates for."""

    def checked(self, values: Mapping[Any, Any]) -> Config:
        """The form's config with paths that the page may read. Raises UserError."""

    def fill(self, config: Config) -> dict[Any, Any]:
        """Updates that show a config in the form."""


class PlanPanel:
    """Components made where they stand, and the handlers of the check.

    Attributes:
        check: the button.
        report: the plan. Its value: ``html``, ``job`` (the job that made it), and ``busy`` while it is made anew.
    """

    def __init__(self, context: AppContext) -> None:
        self._context = context
        pictures = PlanPictures(context)

        def plan_pictures(asked: Any) -> dict[str, Any]:
            return pictures.answer(asked)

        self.check = gr.Button("Check", elem_id="check", render=False)
        self.report = gr.HTML(
            NOTHING,
            html_template="",
            css_template=asset("plan/plan.css"),
            js_on_load=asset("dataset/dom.js") + asset("plan/plan.js"),
            apply_default_css=False,
            padding=False,
            elem_id="plan-report",
            server_functions=[plan_pictures],
            render=False,
        )
        self._job = kept()
        self._undo = kept("[]")

    def render_report(self) -> None:
        """Put the report where it stands."""
        self.report.render()

    def wire(self, form: SchemaForm, problems: gr.HTML, handlers: FormHandlers) -> None:
        """Wire the button and what the report's script sends. ``problems`` shows what is wrong with the form."""
        shown = [self._job, self.report, problems, self._undo]

        def starting(html: str, *options: str) -> Callable[[Mapping[Any, Any]], list[Any]]:
            @tells_problems
            def start(values: Mapping[Any, Any]) -> list[Any]:
                try:
                    config = handlers.checked(values)
                except UserError as error:
                    return ["", NOTHING, problems_html(error.problems), "[]"]
                return [self._start(config, *options), {"html": html}, "", "[]"]

            return start

        @tells_problems
        def apply(values: Mapping[Any, Any], event: gr.EventData) -> dict[Any, Any]:
            label, changes = self._ordered(values, event)
            before = handlers.checked(values)
            undo = [*_read_undo(values[self._undo]), [label, values_at(before, changes)]]
            return self._changed(values, handlers, changed(before, changes), undo)

        @tells_problems
        def take_back(values: Mapping[Any, Any]) -> dict[Any, Any]:
            *rest, (_, before) = _read_undo(values[self._undo]) or [["", {}]]
            return self._changed(values, handlers, changed(handlers.checked(values), before), rest)

        inputs: set[Block] = {self.report, self._undo, *form.components}
        outputs = [*handlers.filled, self._job, self.report, self._undo]
        check, measure = starting(running_html()), starting(measuring_html(), "--measure")
        self.check.click(check, {*form.components}, shown, show_progress="hidden")
        self.report.measure(measure, {*form.components}, shown, **IN_TURN)
        self.report.cancel(self._cancel, self._job, None, **IN_TURN)
        self.report.apply(apply, inputs, outputs, **IN_TURN)
        self.report.undo(take_back, inputs, outputs, **IN_TURN)
        self._context.page.poll(self._poll, [self._job, self._undo], shown[:3])

    def _changed(
        self, values: Mapping[Any, Any], handlers: FormHandlers, config: Config, undo: Sequence[Any]
    ) -> dict[Any, Any]:
        """Show a config in the form and check it anew; the old plan stays until the new one is there."""
        report = {**values[self.report], "busy": True}
        return {
            **handlers.fill(config),
            self._job: self._start(config),
            self.report: report,
            self._undo: json.dumps(undo),
        }

    @tells_problems
    def _cancel(self, job_id: str) -> None:
        jobs.job(self._context.workspace, job_id).cancel()

    def _start(self, config: Config, *options: str) -> str:
        """Make the plan in a process of its own; returns the job's id."""
        workspace = self._context.workspace
        path = new_plan_file(workspace.dir / "tmp")
        save_config(config, path)
        command = ["plan", str(path), "--fit", "--pictures", "--workspace", str(workspace.dir), *options]
        return jobs.start_job(workspace, command, "Check").id

    def _ordered(self, values: Mapping[Any, Any], event: gr.EventData) -> tuple[str, dict[str, Any]]:
        """The change that was chosen in the shown plan, with its words. Raises UserError when it is not there."""
        plan = jobs.job(self._context.workspace, str(values[self.report].get("job"))).read().result or {}
        return ordered_change(plan, event._data or {})

    def _poll(self, job_id: str, undo: str) -> list[Any] | None:
        """Show the plan once its job has ended; problems that Start told meanwhile stay."""
        if not job_id:
            return None
        try:
            job = jobs.job(self._context.workspace, job_id)
            info = job.read()
        except UserError:  # cleared away meanwhile
            return ["", NOTHING, gr.skip()]
        if info.state == "running":
            return None
        forget_plan_file(self._context.workspace.dir / "tmp", job.command)
        if info.result is not None:
            undoable = _read_undo(undo)
            label = str(undoable[-1][0]) if undoable else ""
            return ["", {"html": report_html(info.result, label), "job": job_id}, gr.skip()]
        return ["", NOTHING, problems_html(tuple(map(_problem, info.error or [])))]


def new_plan_file(folder: Path) -> Path:
    """Where the settings of a check are written; those of pages that were closed before its end are cleared away."""
    for old in folder.glob("plan-*.yaml"):
        with suppress(FileNotFoundError):  # another page clears as well
            if time.time() - old.stat().st_mtime > _LEFT_BEHIND_S:
                old.unlink()
    return folder / f"plan-{time.time_ns()}.yaml"


def forget_plan_file(folder: Path, command: Sequence[str]) -> None:
    """Remove the settings that a check was made of, by its command."""
    for name in command:
        if Path(name).parent == folder and Path(name).match("plan-*.yaml"):
            Path(name).unlink(missing_ok=True)


def ordered_change(plan: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Words and changes of a fix, of the fit, or of a row of the what-if table, by their numbers in a plan.

    Raises UserError when the plan has no such thing.
    """
    try:
        if "fix" in asked:
            fix = plan["warnings"][asked["warning"]]["fixes"][asked["fix"]]
            return fix["label"], fix["changes"]
        if "row" in asked:
            row = plan["what_if"][asked["row"]]
            return f"batches of {row['batch_size']}, as in the table", row["changes"]
        return "fitted to the memory", plan["fitted"]["changes"]
    except (KeyError, IndexError, TypeError) as error:
        raise UserError("plan.gone", "This plan is no longer there.", "Check again.") from error


def _problem(told: Mapping[str, Any]) -> Problem:
    """A problem as a job told it; one that was not expected also names a log."""
    return Problem(told["code"], told["message"], told.get("hint", ""), told.get("field", ""))


def _read_undo(text: str) -> list[Any]:
    """What can be taken back: ``[label, values by dotted name]`` each, the latest last."""
    try:
        undo = json.loads(text or "[]")
    except ValueError:
        return []
    return [each for each in undo if isinstance(each, list) and len(each) == 2] if isinstance(undo, list) else []

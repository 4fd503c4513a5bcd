"""The check before the start: its button, the job that makes the plan, and the plan as a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from trainer import jobs
from trainer.config import Config
from trainer.config_io import save_config
from trainer.errors import Problem, UserError
from ui.context import AppContext
from ui.form import SchemaForm, problems_html
from ui.messages import tells_problems
from ui.plan.report import report_html, running_html

ReadForm = Callable[[Mapping[Any, Any]], Config]
"""The form's values as a config with paths that the page may read. Raises UserError."""


class PlanPanel:
    """Components made where they stand, and the handlers of the check.

    Attributes:
        check: the button.
        report: the plan.
    """

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self.check = gr.Button("Check", elem_id="check", render=False)
        self.report = gr.HTML("", elem_id="plan-report", padding=False, render=False)
        self._job = gr.Textbox(visible=False, render=False)

    def render_report(self) -> None:
        """Put the report where it stands."""
        self.report.render()
        self._job.render()

    def wire(self, form: SchemaForm, problems: gr.HTML, read_form: ReadForm) -> None:
        """Wire the button. ``problems`` shows what is wrong with the form."""
        shown = [self._job, self.report, problems]

        @tells_problems
        def check(values: Mapping[Any, Any]) -> list[Any]:
            try:
                config = read_form(values)
            except UserError as error:
                return ["", "", problems_html(error.problems)]
            return [self._start(config), running_html(), ""]

        self.check.click(check, {*form.components}, shown, show_progress="hidden")
        self._context.page.poll(self._poll, [self._job], shown)

    def _start(self, config: Config) -> str:
        """Make the plan in a process of its own; returns the job's id."""
        workspace = self._context.workspace
        path = workspace.dir / "tmp" / f"plan-{time.time_ns()}.yaml"
        save_config(config, path)
        return jobs.start_job(workspace, ["plan", str(path), "--workspace", str(workspace.dir)], "Check").id

    def _poll(self, job_id: str) -> list[Any] | None:
        """Show the plan once its job has ended."""
        if not job_id:
            return None
        try:
            info = jobs.job(self._context.workspace, job_id).read()
        except UserError:  # cleared away meanwhile
            return ["", "", ""]
        if info.state == "running":
            return None
        if info.result is not None:
            return ["", report_html(info.result), ""]
        return ["", "", problems_html(tuple(Problem(**problem) for problem in info.error or []))]

"""The evaluation of a run's checkpoints: starting it, following it, and what it found."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.checkpoint_folders import checkpoints, step_of
from trainer.errors import UserError
from trainer.evaluating.settings import parse_evaluation
from trainer.jobs import job, start_job
from trainer.runs.settings import change_settings, read_settings
from trainer.runs.store import Run
from ui.context import AppContext
from ui.dataset.board import sent
from ui.evaluation_view import EvaluationReader
from ui.messages import tells_problems
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import Shown
from ui.scripted import scripted
from ui.wiring import TELLING


def build(context: AppContext, board: RunsBoard) -> gr.HTML:
    """Lay the panel out, folded. Its event ``generate`` tells ``run`` and ``step``, for another tab to use."""
    reader = EvaluationReader(board.desk.workspace)
    with gr.Accordion("Evaluation", open=False, elem_classes=["card", "as-text"]):
        panel = scripted(
            "run-evaluation",
            css=("runs/evaluation",),
            js=("dataset/dom", "job", "runs/evaluation_figures", "runs/evaluation"),
        )

    def shown(seen: Shown) -> list[Any]:
        return [reader.shown(seen.run, seen.view.checkpoints)]

    @tells_problems
    def started(event: gr.EventData) -> None:
        start(context, reader, sent(event, "run", "model", "pictures", "metrics", "steps"))

    @tells_problems
    def cancelled(event: gr.EventData) -> None:
        cancel(context, sent(event, "job")["job"])

    board.add(Panel("evaluation", [panel], lambda seen: (reader.look(seen.run), seen.view.checkpoints), shown))
    board.then_refresh(panel.start(started, None, None, **TELLING))
    board.then_refresh(panel.cancel(cancelled, None, None, **TELLING))
    return panel


def start(context: AppContext, reader: EvaluationReader, asked: dict[str, Any]) -> None:
    """Start a job that evaluates a run. Raises UserError for odd values, and while one is at it."""
    workspace = context.workspace
    run = workspace.run(str(asked["run"]))
    wanted = {"model": str(asked["model"] or "").strip() or None}
    settings = parse_evaluation({**wanted, "pictures": asked["pictures"], "metrics": asked["metrics"]})
    chosen = _chosen(run, asked["steps"])
    model = context.allowed_model(settings.model) if settings.model else None
    if reader.look(run).running:
        raise UserError("evaluation.running", "This run is being evaluated already.", "Wait for its end, or cancel it.")
    if read_settings(workspace).looking_model != (settings.model or ""):
        change_settings(workspace, lambda now: now.model_copy(update={"looking_model": settings.model or ""}))
    command = ["evaluate", str(run.dir), f"--pictures={settings.pictures}"]
    command += [*([f"--model={model}"] if model else []), *chosen, "--metrics", *settings.metrics]
    start_job(workspace, command, f"Evaluation of {run.read().name}")


def _chosen(run: Run, steps: Any) -> list[str]:
    """Arguments that name the chosen checkpoints; none for all of them. Raises UserError for none, or an odd one."""
    there = {step_of(path) for path in checkpoints(run.checkpoints_dir)}
    wanted = {step for step in steps if type(step) is int} if isinstance(steps, list) else set()
    if not wanted & there:
        raise UserError("evaluation.none", "No checkpoint is chosen.", "Tick one or more of them.")
    return [] if wanted >= there else [f"--checkpoint={step}" for step in sorted(wanted & there)]


def cancel(context: AppContext, job_id: Any) -> None:
    """End an evaluation; what was measured stays. Raises UserError when there is no such job."""
    found = job(context.workspace, str(job_id))
    if found.command[0] != "evaluate":
        raise UserError("job.unknown", f"{job_id!r} is no evaluation.", "Reload the page.")
    found.cancel()

"""Sharing a finished run on the Hugging Face Hub: what would be sent is shown first, and sent as it was shown."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.commands.model_arguments import as_options
from trainer.config_io import parse_section
from trainer.errors import UserError
from trainer.jobs import Job, job, start_job
from trainer.runs.store import Run
from trainer.sharing.settings import ShareSettings
from ui.context import AppContext
from ui.dataset.board import sent
from ui.job_progress import JobReader, told_job
from ui.messages import tells_problems
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import Shown
from ui.scripted import scripted
from ui.wiring import TELLING

COMMAND = "push"
_LOOK = "--dry-run"


def build(context: AppContext, board: RunsBoard) -> None:
    """Lay the panel out, folded; it is there for runs that have a finished LoRA."""
    reader = JobReader(board.desk.workspace)
    with gr.Accordion("Share on the Hugging Face Hub", open=False, elem_classes=["card", "as-text"]) as fold:
        panel = scripted("run-share", css=("runs/evaluation", "runs/share"), js=("dataset/dom", "job", "runs/share"))

    def key(seen: Shown) -> Any:
        latest = reader.latest(seen.run.dir, [COMMAND])
        return seen.view.has_lora, None if latest is None else reader.read(latest)

    @tells_problems
    def asked(event: gr.EventData) -> None:
        look(context, sent(event, "run", *ShareSettings.model_fields))

    @tells_problems
    def agreed(event: gr.EventData) -> None:
        send(context, sent(event, "job")["job"])

    @tells_problems
    def cancelled(event: gr.EventData) -> None:
        _push_job(context, sent(event, "job")["job"]).cancel()

    def updates(seen: Shown) -> list[Any]:
        return [gr.update(visible=seen.view.has_lora), shown(reader, seen.run)]

    board.add(Panel("share", [fold, panel], key, updates))
    board.then_refresh(panel.look(asked, None, None, **TELLING))
    board.then_refresh(panel.send(agreed, None, None, **TELLING))
    board.then_refresh(panel.cancel(cancelled, None, None, **TELLING))


def shown(reader: JobReader, run: Run) -> dict[str, Any]:
    """What the panel's script takes: the run, what the form starts with, and the newest job."""
    latest = reader.latest(run.dir, [COMMAND])
    told = None
    if latest is not None:
        info, progress = reader.read(latest)
        told = {**told_job(info, progress), "looks": _LOOK in info.command, "result": info.result}
    output = run.config().output
    start = ShareSettings(repo=output.hub_repo, describe_dataset=output.describe_dataset)
    return {"run": run.id, **start.model_dump(), "job": told}


def look(context: AppContext, asked: dict[str, Any]) -> Job:
    """Find out what would be sent; nothing is. Raises UserError for odd values, and while a run is being sent."""
    run = context.workspace.run(str(asked.pop("run")))
    settings = parse_section(ShareSettings, asked)
    latest = JobReader(context.workspace).latest(run.dir, [COMMAND])
    if latest is not None and latest.read().state == "running":
        raise UserError("share.running", "This run is being sent already.", "Wait for its end, or cancel it.")
    command = [COMMAND, str(run.dir), *as_options(settings), _LOOK]
    return start_job(context.workspace, command, f"What would be sent of {run.read().name}")


def send(context: AppContext, job_id: Any) -> Job:
    """Send what a look has shown, to where it said. Raises UserError for another job, and one that has not ended."""
    looked = _push_job(context, job_id).read()
    if looked.state != "finished" or looked.result is None or _LOOK not in looked.command:
        raise UserError("share.unseen", "What would be sent has not been looked at.", "Look at it first.")
    options = [part for part in looked.command if part != _LOOK and not part.startswith("--repo=")]
    command = [*options, f"--repo={looked.result['repo']}", "--yes"]
    return start_job(context.workspace, command, looked.title.replace("What would be sent of", "Sending"))


def _push_job(context: AppContext, job_id: Any) -> Job:
    found = job(context.workspace, str(job_id))
    if found.command[0] != COMMAND:
        raise UserError("job.unknown", f"{job_id!r} sends nothing.", "Reload the page.")
    return found

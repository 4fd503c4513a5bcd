"""Looking a dataset over before training: the doctor, its findings with their pictures, and what mends them."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.config import Config
from trainer.curation.doctor import Finding
from trainer.curation.doctor.examination import recheck_captions
from trainer.curation.edit_log import Outcome
from trainer.curation.fixes.offers import FIXES, SAFE_TITLE
from trainer.curation.fixes.texts import text_edit, text_steps
from trainer.errors import UserError
from ui.dataset.board import IN_ORDER, Board, sent, tell
from ui.dataset.desk import DatasetDesk, Shown, View
from ui.dataset.fields import FIELD, folded
from ui.messages import tells_problems


def build(desk: DatasetDesk, board: Board) -> None:
    """Lay the panel out and wire it."""
    with folded("Check the pictures", "dataset-check"):
        with gr.Column(elem_classes=["fields"]):
            batch_size = gr.Number(
                Config().train.batch_size,
                label="Batch size to train with",
                info="Sizes with fewer pictures than that are reported.",
                precision=0,
                elem_id="check-batch-size",
                **FIELD,
            )
        with gr.Row(elem_classes=["actions"]):
            start = gr.Button("Check", elem_id="check-start", elem_classes=["fit"])
        board.findings.render()
    desk.tells("dataset", report)
    desk.tells("fix", fix_report)
    purpose = [board.resolution, batch_size]
    board.start(start, lambda view, *values: order(desk, view, *values), purpose)
    _wire(desk, board, purpose)


def _wire(desk: DatasetDesk, board: Board, purpose: list[gr.Number]) -> None:
    """Wire what the script of the findings sends."""

    @tells_problems
    def show(view: View, event: gr.EventData) -> list[Any]:
        number, _ = desk.diagnoses.read(desk.folder(view)).named(sent(event, "key")["key"])
        return board.updates(desk.turn(view, {"query": {"show": f"finding:{number}"}}))

    @tells_problems
    def leave(view: View, event: gr.EventData) -> list[Any]:
        folder = desk.folder(view)
        _, finding = desk.diagnoses.read(folder).named(sent(event, "key")["key"])
        desk.diagnoses.records(folder).leave_as_is(finding.code, finding.paths)
        return board.updates(desk.refresh(view))

    @tells_problems
    def again(view: View) -> list[Any]:
        desk.diagnoses.records(desk.folder(view)).tell_again()
        return board.updates(desk.refresh(view))

    def after(folder: str, shown: Shown | None) -> list[Any]:
        """The dataset as it is now, or the job that was started instead."""
        if shown is not None:
            return [*board.updates(shown), gr.skip(), gr.skip()]
        return [*board.unchanged(), *(board.job_updates(folder, "") or [gr.skip(), gr.skip()])]

    @tells_problems
    def fix(view: View, folder: str, resolution: Any, batch_size: Any, event: gr.EventData) -> list[Any]:
        asked = sent(event, "key", "fix", "keep", "background")
        return after(folder, order_fix(desk, view, asked, resolution, batch_size))

    @tells_problems
    def fix_safe(view: View, folder: str, resolution: Any, batch_size: Any) -> list[Any]:
        order_safe_fixes(desk, view, resolution, batch_size)
        return after(folder, None)

    everything = [*board.outputs, board.job, board.job_shown]
    board.findings.show(show, board.grid, board.outputs, **IN_ORDER)
    board.findings.leave(leave, board.grid, board.outputs, **IN_ORDER)
    board.findings.again(again, board.grid, board.outputs, **IN_ORDER)
    board.findings.fix(fix, [board.grid, board.folder, *purpose], everything, **IN_ORDER)
    board.findings.fix_safe(fix_safe, [board.grid, board.folder, *purpose], everything, **IN_ORDER)


def order(desk: DatasetDesk, view: View, resolution: int | None, batch_size: int | None) -> None:
    """Start the doctor on the open folder. Raises UserError for odd numbers, and when a job is running there."""
    desk.start(view, ["dataset"], "Check of", _options(desk, resolution, batch_size))


def order_fix(desk: DatasetDesk, view: View, asked: dict[str, Any], resolution: Any, batch_size: Any) -> Shown | None:
    """Mend a finding: captions at once, pictures by a job; None when that was started.

    Raises UserError when the finding is not told any more, or a job is running.
    """
    folder = desk.folder(view)
    _, finding = desk.diagnoses.read(folder).named(asked["key"])
    name = asked["fix"]
    if name not in finding.fixes or name not in FIXES:
        raise UserError("check.fix", "This finding has no such fix.", "Look at the list again.")
    keep = asked["keep"] if asked["keep"] in finding.paths else finding.keep
    names = [path for path in finding.paths if path != keep]
    if FIXES[name].kind == "texts":
        shown, outcome = _fix_captions(desk, view, finding, name)
        tell("Changed", outcome)
        return shown
    desk.refuse_while_busy(folder)
    names_path = desk.diagnoses.records(folder).write_names(names)
    options = [f"--fix={name}", f"--names={names_path}", *_options(desk, resolution, batch_size)]
    options += [f"--set=background={asked['background']}"] if asked["background"] else []
    desk.start(view, ["fix"], f"{FIXES[name].label} in", options)
    return None


def order_safe_fixes(desk: DatasetDesk, view: View, resolution: Any, batch_size: Any) -> None:
    """Start a job that makes all fixes that need no look first. Raises UserError when a job is running."""
    desk.start(view, ["fix"], f"{SAFE_TITLE.capitalize()} in", _options(desk, resolution, batch_size))


def _fix_captions(desk: DatasetDesk, view: View, finding: Finding, fix: str) -> tuple[Shown, Outcome]:
    folder = desk.folder(view)
    before = desk.diagnoses.read(folder)
    edit = text_edit(fix, finding.values)
    steps = text_steps(folder, finding.targets, edit) if edit is not None else []
    shown, outcome = desk.apply(view, FIXES[fix].label.lower(), steps)
    if before.report is None or before.stale:
        return shown, outcome
    recheck_captions(folder, before.report, desk.diagnoses.records(folder))
    return desk.refresh(view), outcome


def _options(desk: DatasetDesk, resolution: Any, batch_size: Any) -> list[str]:
    """What the pictures are for, as options. Raises UserError for numbers that cannot be."""
    desk.memory.train_at(resolution)
    if not batch_size or batch_size < 1:
        raise UserError(
            "check.batch_size",
            f"Batch size: {batch_size} is not a whole number from 1 on.",
            "1 is usual, 4 on a large GPU.",
            "batch_size",
        )
    numbers = [f"--resolution={desk.memory.resolution}", f"--batch-size={int(batch_size)}"]
    return [*numbers, f"--workspace={desk.workspace.dir}"]


def report(result: dict[str, Any]) -> str:
    """What the doctor's job answered, in a sentence."""
    count = len(result["findings"])
    return f"{result['pictures']} pictures looked at: {count or 'no'} {'finding' if count == 1 else 'findings'}."


def fix_report(result: dict[str, Any]) -> str:
    """What a job of fixes answered, in a sentence."""
    count = len(result["fixed"])
    left = f", {len(result['left'])} left alone" if result["left"] else ""
    return f"{count} {'file' if count == 1 else 'files'} fixed{left}. Undo brings the old state back."

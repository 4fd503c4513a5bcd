"""Opening a dataset: one of the workspace, a folder of this machine, or pictures added from the browser's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from trainer.curation.intake import Upload, dataset_folder, take_in
from trainer.curation.picture_sets import count_of
from trainer.curation.settling import Intake
from trainer.data.folders import repeats_folder
from trainer.errors import UserError
from ui.context import AppContext
from ui.dataset import importing
from ui.dataset.board import IN_ORDER, ONE_BY_ONE, QUEUE, Board, custom, sent
from ui.dataset.desk import DatasetDesk, Shown
from ui.dataset.fields import text
from ui.messages import inform, tells_problems, warn
from ui.wiring import LAST_COUNTS, QUIET, TELLING

_NAMED = 10
_NEW = "my-pictures"


def build(context: AppContext, desk: DatasetDesk, board: Board) -> None:
    """Lay the panel out and wire it."""
    with gr.Column(elem_classes=["card"]):
        with gr.Row(elem_classes=["open-dataset"]):
            board.choice.render()
            info = "Settings has the list of folders that may be opened."
            path = text("Or a folder on this machine", "dataset-path", info, "/path/to/pictures")
            open_button = gr.Button("Open", elem_id="dataset-open", scale=0, min_width=90)
        with gr.Accordion("Add pictures from this computer", open=False, elem_id="dataset-upload"):
            files = gr.File(
                label="Pictures, caption files (.txt) or a zip file",
                file_count="multiple",
                interactive=True,
                height=140,
                elem_id="dataset-files",
            )
            with gr.Row(elem_classes=["open-dataset"]):
                info = "A new one, or one you have: files are added to it, nothing is overwritten."
                name = text("Name of the dataset", "dataset-name", info, "my-cat")
                add = gr.Button("Add", variant="primary", elem_id="dataset-add", scale=0, min_width=90)
        importing.build(context, desk, board)
    drop = custom("dataset-drop", css=("drop",), js=("dom", "drop"))
    drop.render()

    @tells_problems
    def open_folder(path: str | None) -> list[Any]:
        return board.updates(desk.open(path or ""))

    def open_chosen(path: str | None, shown: str) -> list[Any]:
        return board.unchanged() if path in (None, "", shown) else open_listed(path)

    def open_again(path: str | None, shown: str) -> list[Any]:
        return open_listed(path) if path == shown else board.unchanged()

    def open_listed(path: str | None) -> list[Any]:
        """The list itself is left alone: it may say another one by now."""
        opened = zip(board.outputs, open_folder(path), strict=True)
        return [gr.skip() if output is board.choice else value for output, value in opened]

    def chosen_is(shown: str) -> str | None:
        return shown if shown in (folder for _, folder in desk.choices()) else None

    @tells_problems
    def add_files(files: list[str] | None, name: str) -> list[Any]:
        folder = dataset_folder(context.workspace.datasets_dir, name or "")
        shown, intake = upload(desk, [Upload(Path(file), Path(file).name) for file in files or []], folder)
        _tell_intake(intake)
        return [None, *board.updates(shown)]

    @tells_problems
    def add_dropped(folder: str, name: str, event: gr.EventData) -> list[Any]:
        uploads = dropped(sent(event, "files")["files"])
        shown, intake = upload(desk, unwrapped(uploads), drop_folder(context, uploads, folder, name))
        _tell_intake(intake)
        return board.updates(shown)

    @tells_problems
    def refused(event: gr.EventData) -> None:
        reason = str(sent(event, "reason")["reason"])
        raise UserError("upload.failed", f"The files did not arrive: {reason}.", "Try again, perhaps as one zip file.")

    def restore() -> list[Any]:
        shown = desk.remembered()
        if shown is not None:
            return board.updates(shown)
        choices = gr.update(choices=desk.choices(), value=None)
        return [choices if output is board.choice else gr.skip() for output in board.outputs]

    chosen = [board.choice, board.folder]
    another = board.choice.input(open_chosen, chosen, board.outputs, **ONE_BY_ONE, **LAST_COUNTS)
    another.failure(chosen_is, board.folder, board.choice, **QUIET)
    board.choice.select(open_again, chosen, board.outputs, **ONE_BY_ONE)
    open_button.click(open_folder, path, board.outputs, **ONE_BY_ONE)
    path.submit(open_folder, path, board.outputs, **ONE_BY_ONE)
    add.click(add_files, [files, name], [files, *board.outputs], api_visibility="private", **QUEUE)
    taken = drop.dropped(add_dropped, [board.folder, name], board.outputs, **IN_ORDER)
    for over in (taken.success, taken.failure):  # the page is covered until then
        over(lambda: {"done": time.time()}, None, drop, **TELLING)
    drop.refused(refused, None, None, **TELLING)
    context.page.load(restore, outputs=board.outputs)


def upload(desk: DatasetDesk, uploads: Sequence[Upload], folder: Path) -> tuple[Shown, Intake]:
    """Take files that the browser sent into the folder and open it. Their copies among the page's files go."""
    desk.refuse_while_busy(folder)
    intake = take_in(uploads, folder)
    for each in uploads:
        each.path.unlink(missing_ok=True)
    return desk.open(str(folder)), intake


def dropped(files: Any) -> list[Upload]:
    """Files that were dropped on the page, as its script tells them. Raises UserError for anything but uploads."""
    arrived = Path(get_upload_folder()).resolve()
    uploads = []
    for each in files if isinstance(files, list) else []:
        path, name = (each.get("path"), each.get("name")) if isinstance(each, dict) else (None, None)
        if not isinstance(path, str) or not isinstance(name, str) or not Path(path).resolve().is_relative_to(arrived):
            raise UserError("upload.unknown", "A file that was not uploaded is named.", "Reload the page.")
        place = Path(path).resolve()
        uploads.append(Upload(place, name))
    return uploads


def drop_folder(context: AppContext, uploads: Sequence[Upload], folder: str, name: str) -> Path:
    """Where dropped files go: the open dataset, or a new one, named by the form, the dropped folder or the zip file."""
    if folder:
        return context.allowed(folder)
    top = _only_folder(uploads)
    single = uploads[0].path.suffix.lower() == ".zip" and len(uploads) == 1 if uploads else False
    guess = top or (PurePosixPath(uploads[0].name).stem if single else _NEW)
    return dataset_folder(context.workspace.datasets_dir, (name or "").strip() or guess)


def unwrapped(uploads: Sequence[Upload]) -> list[Upload]:
    """The files without the one folder that all came in, unless its name says repeats: ``10_cat`` stays."""
    top = _only_folder(uploads)
    if not top or repeats_folder(top) is not None:
        return list(uploads)
    return [Upload(each.path, each.name.partition("/")[2]) for each in uploads]


def _only_folder(uploads: Sequence[Upload]) -> str:
    """The name of the folder that all files lie in; empty where there is none."""
    tops = {each.name.partition("/")[0] if "/" in each.name else "" for each in uploads}
    return tops.pop() if len(tops) == 1 else ""


def _tell_intake(intake: Intake) -> None:
    verb = "was" if len(intake.same) == 1 else "were"
    same = f" {count_of(len(intake.same), 'file')} {verb} there already." if intake.same else ""
    inform(f"{count_of(intake.added, 'file')} added.{same}", seconds=6)
    renamed = [f"{given} is now {name}" for given, name in intake.renamed]
    skipped = [f"{name}: {reason}" for name, reason in intake.skipped]
    for heading, lines in (("The name was taken", renamed), ("Left out", skipped), ("Good to know", intake.notes)):
        if lines:
            more = f" and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
            warn(f"{heading}: {'; '.join(lines[:_NAMED])}{more}.")

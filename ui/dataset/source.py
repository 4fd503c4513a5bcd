"""Opening a dataset: one of the workspace, a folder of this machine, or pictures added from the browser's."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.curation.intake import Upload, dataset_folder, take_in
from trainer.curation.picture_sets import count_of
from trainer.curation.settling import Intake
from ui.context import AppContext
from ui.dataset.board import QUICK, Board
from ui.dataset.desk import DatasetDesk, Shown
from ui.dataset.fields import text
from ui.messages import tells_problems

_NAMED = 10


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

    @tells_problems
    def open_folder(path: str | None) -> list[Any]:
        return board.updates(desk.open(path or ""))

    @tells_problems
    def add_files(files: list[str] | None, name: str) -> list[Any]:
        shown, intake = upload(desk, files or [], name)
        _tell_intake(intake)
        return [None, *board.updates(shown)]

    def restore() -> list[Any]:
        shown = desk.remembered()
        if shown is not None:
            return board.updates(shown)
        return [*board.unchanged()[:-1], gr.update(choices=desk.choices(), value=None)]

    board.choice.input(open_folder, board.choice, board.outputs, **QUICK)
    open_button.click(open_folder, path, board.outputs, **QUICK)
    path.submit(open_folder, path, board.outputs, **QUICK)
    add.click(add_files, [files, name], [files, *board.outputs], api_visibility="private")
    context.page.load(restore, outputs=board.outputs)


def upload(desk: DatasetDesk, files: list[str], name: str) -> tuple[Shown, Intake]:
    """Take files into the workspace's dataset of this name and open it."""
    folder = dataset_folder(desk.workspace.datasets_dir, name)
    intake = take_in([Upload(Path(file), Path(file).name) for file in files], folder)
    return desk.open(str(folder)), intake


def _tell_intake(intake: Intake) -> None:
    same = f" {count_of(len(intake.same), 'file')} were there already." if intake.same else ""
    gr.Info(f"{count_of(intake.added, 'file')} added.{same}", duration=6)
    renamed = [f"{given} is now {name}" for given, name in intake.renamed]
    skipped = [f"{name}: {reason}" for name, reason in intake.skipped]
    for heading, lines in (("The name was taken", renamed), ("Left out", skipped), ("Good to know", intake.notes)):
        if lines:
            more = f" and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
            gr.Warning(html.escape(f"{heading}: {'; '.join(lines[:_NAMED])}{more}."), duration=None)

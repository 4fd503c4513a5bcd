"""The parts of the Dataset tab that every event may change: the grid, undo and redo, the findings, the job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block

from trainer.curation.edit_log import Outcome
from trainer.errors import UserError
from ui.dataset.caption_orders import TRIGGER
from ui.dataset.desk import DatasetDesk, Shown, View
from ui.dataset.html import last_change_html
from ui.dataset.picture_facts import Question, questions
from ui.form import make_component
from ui.messages import inform, tells_problems, warn
from ui.scripted import kept, scripted
from ui.wiring import EVERY_TIME, IN_TURN, TELLING

QUEUE: dict[str, Any] = {"concurrency_id": "dataset", "concurrency_limit": 1}
ONE_BY_ONE: dict[str, Any] = {**IN_TURN, **QUEUE}
"""For all that answers with a view: a page shows what was saved before it, and no answer overtakes another."""
IN_ORDER: dict[str, Any] = {**ONE_BY_ONE, **EVERY_TIME}
"""For saving and paging: each press counts."""
EDITOR_SCRIPTS = ("caption", "chips", "overlay", "stage", "crop", "../paint/paint", "mask", "editor")
GRID_STYLES = ("grid", "editor", "stage", "../paint/paint")
GRID_SCRIPTS = ("dom", "query", "selection", "grid", *EDITOR_SCRIPTS, "keys", "main")
_NAMED = 5


class Board:
    """Components made before the panels are laid out, each rendered where it belongs.

    Attributes:
        grid: pages of pictures and the editor; as an input it gives the view that the desk takes.
        tools: holds the panels; hidden until a dataset is open.
        folder: the open dataset's folder; empty for none.
        resolution: pixels a side that the pictures are meant to be trained at.
        version: of the dataset's edits, as the page shows them.
        history: the list of edits.
        trigger: the dataset's trigger word, as the panel that writes captions shows it.
        tags: the table of tags; asks for its rows itself when it is open and the dataset has changed.
    """

    def __init__(self, desk: DatasetDesk) -> None:
        self._desk = desk
        self.grid = custom("dataset-grid", css=GRID_STYLES, js=GRID_SCRIPTS, asks=questions(desk))
        self.job = custom("dataset-job", css=("job",), js=("job",))
        self.tools = gr.Column(visible=False, elem_id="dataset-tools", render=False)
        self.train_on = gr.Button(
            "Train on these pictures", variant="primary", elem_id="dataset-train", elem_classes=["fit"], render=False
        )
        self.undo = gr.Button("Undo", interactive=False, elem_id="dataset-undo", elem_classes=["fit"], render=False)
        self.redo = gr.Button("Redo", interactive=False, elem_id="dataset-redo", elem_classes=["fit"], render=False)
        self.last = gr.HTML("", elem_id="dataset-last", elem_classes=["quiet", "fit"], padding=False, render=False)
        self.findings = custom("dataset-findings", css=("findings",), js=("dom", "findings"))
        self.choice = gr.Dropdown(
            desk.choices(),
            value=None,
            label="Your datasets",
            info="Pictures you added here, and those of the demo.",
            interactive=True,
            elem_id="dataset-choice",
            elem_classes=["field"],
            render=False,
        )
        self.resolution = gr.Number(
            desk.memory.resolution,
            label="Resolution to train at",
            precision=0,
            interactive=True,
            elem_id="dataset-resolution",
            elem_classes=["field", "fit"],
            render=False,
        )
        self.trigger = make_component(TRIGGER).unrender()
        self.folder = kept()
        self.version = kept()
        self.history = custom("dataset-history", css=("history",), js=("dom", "history"))
        self.tags = custom("dataset-tags", css=("tags",), js=("dom", "tags"))
        self.job_shown = kept()

    @property
    def outputs(self) -> list[Block]:
        """What ``updates`` gives values for."""
        return [
            self.grid,
            self.folder,
            self.version,
            self.tools,
            self.undo,
            self.redo,
            self.last,
            self.history,
            self.tags,
            self.findings,
            self.choice,
            self.trigger,
        ]

    def updates(self, shown: Shown) -> list[Any]:
        """Values for ``outputs`` that show a dataset. Only one that was opened just now is put where it is chosen."""
        choices = self._desk.choices()
        folder = shown.view["folder"]
        chosen = {"value": folder if folder in (value for _, value in choices) else None} if shown.opened else {}
        return [
            {**shown.view, "opened": shown.opened},
            folder if shown.opened else gr.skip(),
            shown.version,
            gr.update(visible=True),
            gr.update(interactive=bool(shown.undo)),
            gr.update(interactive=bool(shown.redo)),
            last_change_html(shown.undo, shown.redo),
            {"edits": [asdict(edit) for edit in shown.history]},
            {"folder": folder, "version": shown.version},
            self._desk.findings_panel(Path(folder)),
            gr.update(choices=choices, **chosen),
            gr.skip() if shown.trigger is None else shown.trigger,
        ]

    def unchanged(self) -> list[Any]:
        """Values for ``outputs`` that change nothing."""
        return [gr.skip() for _ in self.outputs]

    def job_updates(self, folder: str | None, seen: str | None) -> list[Any] | None:
        """Values for the job and ``job_shown``; None when ``seen`` is how the job stands."""
        panel = self._desk.job_panel(folder or "", seen or "")
        return None if panel is None else [panel, panel["key"]]

    def start(self, button: gr.Button, order: Callable[..., None], inputs: Sequence[Block]) -> None:
        """Wire a button that starts a job: ``order`` gets the view and the inputs' values, and may raise."""

        def start(view: View, folder: str, *values: Any) -> list[Any]:
            order(view, *values)
            return self.job_updates(folder, "") or [gr.skip(), gr.skip()]

        button.click(tells_problems(start), [self.grid, self.folder, *inputs], [self.job, self.job_shown], **TELLING)


def custom(elem_id: str, *, css: Sequence[str], js: Sequence[str], asks: Sequence[Question] = ()) -> gr.HTML:
    """An unrendered component made by scripts and style sheets of ``assets/dataset``, see ``scripted``."""
    return scripted(
        elem_id,
        css=[f"dataset/{name}" for name in css],
        js=[f"dataset/{name}" for name in js],
        asks=asks,
        render=False,
    )


def sent(event: gr.EventData, *names: str) -> dict[str, Any]:
    """What the page's script sent along with an event. Raises UserError when something is missing."""
    data: Mapping[str, Any] = event._data or {}
    if not set(names) <= set(data):
        raise UserError("dataset.event", "The page and the program do not fit together.", "Reload the page.")
    return {name: data[name] for name in names}


def tell(word: str, *outcomes: Outcome) -> None:
    """A note on what an edit did, and notes that stay on what it left alone, could not do, or stored differently."""
    written = sum(outcome.written for outcome in outcomes)
    inform(f"{word}: {_files(written)}." if written else "Nothing was changed.")
    conflicts = [name for outcome in outcomes for name in outcome.conflicts]
    failed = [f"{name} ({reason})" for outcome in outcomes for name, reason in outcome.failed]
    recoded = [f"{name} ({encoding})" for outcome in outcomes for name, encoding in outcome.recoded]
    notes = [
        (conflicts, "changed or moved elsewhere meanwhile and left alone"),
        (failed, "left alone because of a problem with the disk or its rights"),
        (recoded, "not plain UTF-8 and now are; if letters look wrong, undo brings the old files back"),
    ]
    for names, what in notes:
        if names:
            verb = "was" if len(names) == 1 else "were"
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            told = f"{_files(len(names))} {verb} {what}: {', '.join(names[:_NAMED])}{more}."
            warn(told)


def _files(count: int) -> str:
    return f"{count} {'file' if count == 1 else 'files'}"

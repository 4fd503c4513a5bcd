"""The Dataset tab's event handlers: from components to actions, and back to components."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block

from trainer.captioners import CAPTIONERS
from trainer.curation.caption_edits import replace_text
from trainer.curation.edit_log import Outcome
from trainer.errors import UserError
from ui.dataset_actions import CaptionOrder, DatasetActions, Shown, View, tag_edit
from ui.dataset_html import changes_html, findings_html, last_change_html
from ui.messages import tells_problems


class DatasetHandlers:
    """Event handlers: from components to actions and back."""

    def __init__(self, actions: DatasetActions, outputs: list[Block]) -> None:
        self._actions = actions
        self.outputs = outputs
        """What ``_updates`` gives values for: grid, folder, tools, undo, redo, last change, findings, choice."""

    @tells_problems
    def open(self, path: str | None) -> list[Any]:
        """A dataset was chosen, or a folder typed."""
        return self._updates(self._actions.open(path or ""))

    @tells_problems
    def upload(self, files: list[str] | None, name: str) -> list[Any]:
        """Files were added."""
        shown, added, skipped = self._actions.upload(files or [], name)
        gr.Info(f"{added} files added.", duration=4)
        if skipped:
            listing = "; ".join(f"{file}: {reason}" for file, reason in skipped[:10])
            more = f" and {len(skipped) - 10} more" if len(skipped) > 10 else ""
            gr.Warning(html.escape(f"Left out: {listing}{more}."), duration=None)
        return [None, *self._updates(shown)]

    def restore(self) -> list[Any]:
        """The page was opened: show the dataset that was open last."""
        shown = self._actions.remembered()
        if shown is not None:
            return self._updates(shown)
        choice = gr.update(choices=self._actions.choices(), value=None)
        return [*(gr.skip() for _ in self.outputs[:-1]), choice]

    @tells_problems
    def turn(self, view: View, event: gr.EventData) -> list[Any]:
        """Another page, search, filter or tag."""
        return self._updates(self._actions.turn(view, _sent(event, "page", "text", "show", "tag", "asked")))

    @tells_problems
    def save(self, view: View, event: gr.EventData) -> list[Any]:
        """The editor has a changed caption."""
        sent = _sent(event, "name", "before", "text", "asked")
        if not isinstance(sent["text"], str) or not isinstance(sent["before"], str | None):
            raise UserError("dataset.caption", "The caption is not text.", "Reload the page.")
        saved = self._actions.save({**view, "asked": sent["asked"]}, str(sent["name"]), sent["before"], sent["text"])
        return self._updates(saved)

    def refresh(self, view: View) -> list[Any]:
        """A job has written something: show it."""
        try:
            return self._updates(self._actions.refresh(view))
        except UserError:  # nothing is open, or it is gone: not what somebody just asked for
            return [gr.skip() for _ in self.outputs]

    @tells_problems
    def cancel(self, event: gr.EventData) -> None:
        """Cancel the job."""
        self._actions.cancel(str(_sent(event, "id")["id"]))

    @tells_problems
    def undo(self, view: View) -> list[Any]:
        """Take the last edit back."""
        shown, outcome = self._actions.undo(view)
        _tell("Taken back", outcome)
        return self._updates(shown)

    @tells_problems
    def redo(self, view: View) -> list[Any]:
        """Do it again."""
        shown, outcome = self._actions.redo(view)
        _tell("Done again", outcome)
        return self._updates(shown)

    def poll(self, folder: str | None, shown: str | None) -> list[Any] | None:
        """Follow the dataset's job."""
        panel = self._actions.job_panel(folder or "", shown or "")
        return None if panel is None else [panel, panel["key"]]

    def describe(self, captioner: str) -> list[Any]:
        """Another captioner: say what it does, and show the fields that it has."""
        kind = CAPTIONERS[captioner]
        model = gr.update(visible=bool(kind.model), info=f"Folder or Hugging Face id; empty for {kind.model}.")
        return [gr.update(info=kind.about), model, gr.update(visible=bool(kind.prompt), label=kind.prompt or "Prompt")]

    @tells_problems
    def start_captions(self, view: View, folder: str, *order: Any) -> list[Any]:
        """Start a caption job."""
        captioner, model, prompt, trigger, prefix, suffix, overwrite = order
        self._actions.start_captions(
            view,
            CaptionOrder(captioner, model or "", prompt or "", trigger or "", prefix or "", suffix or "", overwrite),
        )
        return self.poll(folder, "") or [gr.skip(), gr.skip()]

    @tells_problems
    def start_check(self, view: View, folder: str, resolution: int | None) -> list[Any]:
        """Start the doctor."""
        if not resolution or resolution < 1:
            raise UserError("check.resolution", "The resolution must be a number of pixels.", "512 is usual.")
        self._actions.start_check(view, resolution)
        return self.poll(folder, "") or [gr.skip(), gr.skip()]

    @tells_problems
    def preview(self, view: View, scope: str, find: str, replacement: str, regex: bool, case: bool) -> str:
        """Show what replacing would change."""
        edit = replace_text(find, replacement, regex=regex, match_case=case)
        return changes_html(self._actions.preview(view, scope, edit))

    @tells_problems
    def replace(self, view: View, scope: str, find: str, replacement: str, regex: bool, case: bool) -> list[Any]:
        """Replace."""
        edit = replace_text(find, replacement, regex=regex, match_case=case)
        shown, outcome = self._actions.edit(view, scope, f"replace {find}", edit)
        _tell("Changed", outcome)
        return ["", *self._updates(shown)]

    def tag_editor(self, kind: str) -> Callable[..., list[Any]]:
        """The handler of one of the tag buttons."""

        @tells_problems
        def edit_tags(view: View, scope: str, tag: str) -> list[Any]:
            title, edit = tag_edit(kind, tag)
            shown, outcome = self._actions.edit(view, scope, title, edit)
            _tell("Changed", outcome)
            return ["", *self._updates(shown)]

        return edit_tags

    @tells_problems
    def show_finding(self, view: View, event: gr.EventData) -> list[Any]:
        """Filter the grid by one of the doctor's findings."""
        return self._updates(self._actions.turn(view, {"show": f"finding:{_sent(event, 'finding')['finding']}"}))

    def _updates(self, shown: Shown) -> list[Any]:
        choices = self._actions.choices()
        folder = shown.view["folder"]
        chosen = folder if folder in (value for _, value in choices) else None
        return [
            shown.view,
            folder,
            gr.update(visible=True),
            gr.update(interactive=bool(shown.undo)),
            gr.update(interactive=bool(shown.redo)),
            last_change_html(shown.undo, shown.redo),
            findings_html(shown.findings, shown.checked),
            gr.update(choices=choices, value=chosen),
        ]


def _sent(event: gr.EventData, *names: str) -> dict[str, Any]:
    """What the page's script sent along with an event. Raises UserError when something is missing."""
    data: Mapping[str, Any] = event._data or {}
    if not set(names) <= set(data):
        raise UserError("dataset.event", "The page and the program do not fit together.", "Reload the page.")
    return {name: data[name] for name in names}


def _tell(word: str, outcome: Outcome) -> None:
    count = outcome.written
    gr.Info(f"{word}: {count} {'caption' if count == 1 else 'captions'}.", duration=4)
    if outcome.conflicts:
        names = ", ".join(Path(name).stem for name in outcome.conflicts[:5])
        gr.Warning(
            html.escape(f"{len(outcome.conflicts)} captions were changed elsewhere meanwhile and left alone: {names}."),
            duration=None,
        )

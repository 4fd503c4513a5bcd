"""Looking drafts of captions over: deciding, editing, writing them, and drafting one anew. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from trainer.captioners.drafts import Decision, DraftFile
from trainer.captioners.folder import write_drafts
from trainer.curation.edit_log import Outcome
from trainer.errors import UserError
from ui.dataset.caption_orders import CaptionRequest, start_for
from ui.dataset.desk import DatasetDesk, View
from ui.dataset.desk import Shown as ShownDataset
from ui.dataset.drafts_view import DraftQuery, Shown, drafts_view, key, query_in, undecided
from ui.dataset.library import Entry

_MOST_LETTERS = 100_000


@dataclass(frozen=True)
class Review:
    """A page of drafts: ``panel`` is what the browser shows, ``key`` names it."""

    panel: dict[str, Any]
    key: str


class ReviewDesk:
    """The drafts of the folder that is open."""

    def __init__(self, desk: DatasetDesk) -> None:
        self._desk = desk

    def poll(self, folder: str, shown_key: str) -> Review | None:
        """The page that is shown as it is now; None when nothing changed."""
        if not folder:
            return None if not shown_key else Review({}, "")
        drafts = self._drafts(self._desk.context.allowed(folder))
        query = query_in(shown_key, drafts.folder)
        now = key(drafts.folder, drafts.version, query)
        return None if now == shown_key else self._review(drafts, query)

    def turn(self, view: View, wanted: Mapping[str, Any]) -> Review:
        """Another page, or drafts in another state."""
        return self._review(self._drafts(self._desk.folder(view)), DraftQuery.of(wanted))

    def decide(self, view: View, query: Mapping[str, Any], name: str, decision: str, text: Any) -> Review:
        """Accept or reject one draft, with the text as it now is, for the caption that the file now holds.

        Raises UserError for a draft that is not there any more.
        """
        drafts = self._drafts(self._desk.folder(view))
        shown = {one.draft.name: one for one in self._shown(drafts)}.get(name)
        if shown is None:
            raise UserError("caption.draft_gone", f"There is no draft for {name!r} any more.", "Go on with the next.")
        if not isinstance(text, str) or len(text) > _MOST_LETTERS:
            raise UserError("caption.draft_text", "The caption is not text, or far too long.", "Shorten it.")
        own = shown.entry.own
        now = replace(shown.draft, before=own.stored, old=own.text) if shown.state == "conflict" else shown.draft
        drafts.add([replace(now, text=text.strip(), decision=_decision(decision))])
        return self._review(drafts, DraftQuery.of(query))

    def decide_many(self, view: View, query: Mapping[str, Any], decision: str, names: Any) -> Review:
        """Decide for drafts by name, or for all that are undecided when ``names`` is None."""
        drafts = self._drafts(self._desk.folder(view))
        meant = {name for name in names if isinstance(name, str)} if isinstance(names, list) else None
        chosen = [
            one.draft.decided(_decision(decision))
            for one in self._shown(drafts)
            if (one.state == "open" if meant is None else one.draft.name in meant and one.state != "conflict")
        ]
        if chosen:
            drafts.add(chosen)
        return self._review(drafts, DraftQuery.of(query))

    def write(self, view: View) -> tuple[ShownDataset, Outcome, Review]:
        """Write the accepted drafts as one edit. Raises UserError when there are none, and while a job is running."""
        folder = self._desk.folder(view)
        self._desk.refuse_while_busy(folder)
        drafts = self._drafts(folder)
        accepted = {one.draft.name: one.draft for one in self._shown(drafts) if one.state == "accepted"}
        if not accepted:
            raise UserError("caption.none_accepted", "No caption is accepted yet.", "Accept those you like first.")
        outcome = write_drafts(drafts, self._desk.log(folder), accepted)
        shown = self._desk.refresh(view)
        return shown, outcome, self._review(drafts, DraftQuery())

    def discard(self, view: View) -> Review:
        """Forget all drafts. Raises UserError while a job is running."""
        folder = self._desk.folder(view)
        self._desk.refuse_while_busy(folder)
        drafts = self._drafts(folder)
        drafts.drop(drafts.read())
        return self._review(drafts, DraftQuery())

    def again(self, view: View, request: CaptionRequest, name: str, prompt: str) -> None:
        """Start a job that drafts one caption anew, perhaps with another prompt. Raises UserError."""
        entry = self._desk.recent(self._desk.folder(view)).named(name)
        request = request.with_prompt(prompt) if prompt.strip() else request
        start_for(self._desk, view, request, [entry.name], ["--review", "--afresh"])

    def _drafts(self, folder: Path) -> DraftFile:
        return DraftFile.review(self._desk.workspace, folder)

    def _shown(self, drafts: DraftFile) -> list[Shown]:
        return undecided(drafts, self._desk.recent(drafts.folder)) if drafts.version else []

    def _review(self, drafts: DraftFile, query: DraftQuery) -> Review:
        version = drafts.version
        panel = drafts_view(self._shown(drafts), query, drafts.folder, lambda entries: self._thumbs(drafts, entries))
        return Review(panel, key(drafts.folder, version, replace(query, page=panel["page"])))

    def _thumbs(self, drafts: DraftFile, entries: Sequence[Entry]) -> list[str]:
        thumbnails = self._desk.thumbnails
        token = thumbnails.register(drafts.folder, [entry.name for entry in entries])
        return [thumbnails.address("thumb", token, number, entry.stamp[0]) for number, entry in enumerate(entries)]


def _decision(word: str) -> Decision:
    decisions: tuple[Decision, ...] = get_args(Decision)
    for decision in decisions:
        if decision == word:
            return decision
    raise UserError("caption.decision", f"{word!r} is no decision.", f"Known are {', '.join(decisions)}.")

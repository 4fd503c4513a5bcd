"""What is being drawn: progress and the picture as it comes, the pictures that are done, and what waits."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.studio import Answer, Queued
from ui.context import AppContext
from ui.dataset.board import sent
from ui.generate.album import Album
from ui.generate.cards import cards
from ui.generate.desk import GenerateDesk, Standing
from ui.media import live_url
from ui.messages import tells_problems
from ui.run_view import duration
from ui.scripted import kept, scripted
from ui.wiring import EVERY_TIME, IN_TURN, LAST_COUNTS, QUIET

_LONGEST_PROMPT = 120


class Work:
    """The panel beside the form.

    Attributes:
        refreshing: the event that shows at once what an order changed.
    """

    def __init__(self, desk: GenerateDesk, album: Album, context: AppContext) -> None:
        """Lay the panel out and keep it current."""
        self._desk = desk
        self._album = album
        self._workspace = context.workspace
        panel = scripted("generate-work", css=("generate/work",), js=("dataset/dom", "generate/work"))
        seen = kept()
        outputs = [seen, panel]
        self.refreshing: dict[str, Any] = {
            "fn": self._refresh,
            "inputs": seen,
            "outputs": outputs,
            **QUIET,
            **LAST_COUNTS,
        }
        context.page.poll(self._poll, [seen], outputs)
        panel.cancel(self._cancel, None, None, **IN_TURN, **EVERY_TIME).then(**self.refreshing)
        panel.front(self._front, None, None, **IN_TURN, **EVERY_TIME).then(**self.refreshing)

    def _poll(self, seen: str) -> list[Any] | None:
        standing = self._desk.standing()
        now = json.dumps([standing.answer.model_dump() if standing.answer else None, _waiting(standing.queue)])
        return None if now == seen else [now, self._told(standing)]

    def _refresh(self, seen: str) -> list[Any]:
        return self._poll(seen) or [gr.skip(), gr.skip()]

    @tells_problems
    def _cancel(self, event: gr.EventData) -> None:
        self._desk.cancel(str(sent(event, "id")["id"]))

    @tells_problems
    def _front(self, event: gr.EventData) -> None:
        self._desk.move_to_front(str(sent(event, "id")["id"]))

    def _told(self, standing: Standing) -> dict[str, Any]:
        answer = standing.answer
        if answer is None:
            return {"state": "", "cards": "[]", "queue": []}
        left = standing.seconds_left(time.time())
        return {
            "id": answer.id,
            "state": answer.state,
            "words": _words(answer, standing.queue),
            "share": answer.step / answer.steps if answer.steps else 0,
            "left": "" if left is None else f"about {duration(left)} left",
            "live": live_url(Path(answer.live)) if answer.live and answer.state == "running" else "",
            "cards": json.dumps(self._cards(answer)),
            "problems": [f"{each.get('message', '')} {each.get('hint', '')}".strip() for each in answer.error],
            "notes": answer.notes,
            "queue": _waiting(standing.queue),
        }

    def _cards(self, answer: Answer) -> list[dict[str, Any]]:
        pictures = []
        for path in answer.pictures:
            try:
                pictures.append(self._album.picture(Path(path).name))
            except UserError:
                continue  # deleted meanwhile
        return cards(self._album, self._workspace, pictures)


def _words(answer: Answer, queue: list[Queued]) -> str:
    if answer.state == "waiting":
        place = next((number for number, each in enumerate(queue) if each.request.id == answer.id), 0)
        return f"{place} before this one" if place else "Starting the picture process"
    if answer.state != "running":
        return "Cancelled." if answer.state == "cancelled" else ""
    return f"Drawing, step {answer.step} of {answer.steps}" if answer.what == "drawing" else answer.what.capitalize()


def _waiting(queue: list[Queued]) -> list[dict[str, Any]]:
    return [
        {
            "id": request.id,
            "prompt": request.settings.prompt[:_LONGEST_PROMPT],
            "count": request.settings.count,
            "running": answer.state == "running",
        }
        for request, answer in queue
    ]

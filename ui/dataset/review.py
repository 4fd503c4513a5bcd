"""The list of drafted captions: each beside its picture, to be accepted, edited, rejected or drafted anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.blocks import Block

from trainer.errors import UserError
from ui.dataset.board import IN_ORDER, Board, custom, sent, tell
from ui.dataset.caption_orders import CaptionRequest
from ui.dataset.desk import DatasetDesk, View
from ui.dataset.review_desk import Review, ReviewDesk
from ui.messages import tells_problems
from ui.scripted import kept
from ui.wiring import TELLING


def build(
    desk: DatasetDesk, board: Board, request_of: Callable[[Sequence[Any]], CaptionRequest], inputs: Sequence[Block]
) -> None:
    """Lay the list out and wire it.

    Args:
        desk: the open folder.
        board: what every event updates.
        request_of: what the fields of the caption panel ask for, from their values.
        inputs: these fields.
    """
    reviews = ReviewDesk(desk)
    panel = custom("dataset-review", css=("review",), js=("dom", "review"))
    panel.render()
    shown = kept()
    outputs = [panel, shown]

    @tells_problems
    def turn(view: View, event: gr.EventData) -> list[Any]:
        return _updates(reviews.turn(view, sent(event, "page", "show")))

    @tells_problems
    def decide(view: View, event: gr.EventData) -> list[Any]:
        one = sent(event, "name", "decision", "text", "page", "show")
        return _updates(reviews.decide(view, one, str(one["name"]), str(one["decision"]), one["text"]))

    @tells_problems
    def decide_many(view: View, event: gr.EventData) -> list[Any]:
        many = sent(event, "names", "decision", "page", "show")
        return _updates(reviews.decide_many(view, many, str(many["decision"]), many["names"]))

    @tells_problems
    def write(view: View) -> list[Any]:
        dataset, outcome, review = reviews.write(view)
        tell("Written", outcome)
        return [*_updates(review), *board.updates(dataset)]

    @tells_problems
    def discard(view: View) -> list[Any]:
        return _updates(reviews.discard(view))

    @tells_problems
    def again(view: View, folder: str, event: gr.EventData, *values: Any) -> list[Any]:
        wanted = sent(event, "name", "prompt")
        reviews.again(view, request_of(values), str(wanted["name"]), str(wanted["prompt"]))
        return board.job_updates(folder, "") or [gr.skip(), gr.skip()]

    def poll(folder: str, key: str) -> list[Any] | None:
        try:
            review = reviews.poll(folder, key)
        except UserError:  # the folder is gone, or no longer allowed: other parts tell
            return None
        return _updates(review) if review is not None else None

    panel.turn(turn, board.grid, outputs, **IN_ORDER)
    panel.decide(decide, board.grid, outputs, **IN_ORDER)
    panel.decidemany(decide_many, board.grid, outputs, **IN_ORDER)
    panel.write(write, board.grid, [*outputs, *board.outputs], **IN_ORDER)
    panel.discard(discard, board.grid, outputs, **IN_ORDER)
    panel.again(again, [board.grid, board.folder, *inputs], [board.job, board.job_shown], **TELLING)
    desk.context.page.poll(poll, [board.folder, shown], outputs)


def _updates(review: Review) -> list[Any]:
    return [review.panel, review.key]

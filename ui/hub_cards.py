"""Cards of the Settings tab: whose token of the Hugging Face Hub is on this machine, and what can be deleted."""

from __future__ import annotations

import html
import time
from typing import Any

import gradio as gr

from trainer.caches import caches, delete_caches
from trainer.errors import UserError
from trainer.hub_login import HOW_TO_LOG_IN, TokenPlace, account_name, token_place
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.messages import as_html, inform, tells_problems
from ui.run_view import file_size
from ui.wiring import IN_TURN, QUIET

_PLACES: dict[TokenPlace, str] = {
    "environment": "There is an access token in HF_TOKEN.",
    "login": "There is an access token of hf auth login.",
    "none": f"There is no access token. {HOW_TO_LOG_IN}",
}


def account_card(tab: gr.Tab) -> None:
    """Whether somebody is logged in, and, when asked, who. Tokens are neither taken nor shown here."""
    state = gr.HTML("", padding=False, elem_id="hub-account")
    ask = gr.Button("Ask the Hub who that is", elem_id="hub-whoami", size="sm", elem_classes=["fold"])
    tab.select(lambda: _paragraph(_PLACES[token_place()]), None, state, **QUIET)
    ask.click(whose, None, state, **IN_TURN)


def whose() -> str:
    """The account of the token, as the Hub knows it, or what is wrong with it; HTML."""
    try:
        return _paragraph(f"Logged in as {account_name()}.")
    except UserError as error:
        return as_html(error)


def cache_card(context: AppContext, tab: gr.Tab) -> None:
    """Downloads and caches with what they take of the disk; those that are ticked can be deleted."""
    workspace = context.workspace
    listing = gr.CheckboxGroup([], label="Ticked ones are deleted", elem_id="caches", interactive=True)
    delete = gr.Button("Delete what is ticked", elem_id="delete-caches", size="sm", scale=0, min_width=180)
    with gr.Row(visible=False, elem_classes=["confirm"]) as confirm:
        question = gr.HTML("", padding=False)
        yes = gr.Button("Delete", size="sm", variant="stop", scale=0, min_width=100, elem_id="delete-caches-yes")
        no = gr.Button("Keep", size="sm", scale=0, min_width=100)

    @tells_problems
    def ask(names: list[str]) -> list[Any]:
        if not names:
            raise UserError("cache.none", "Nothing is ticked.", "Tick what is to be deleted.")
        return [_paragraph(f"Delete {', '.join(names)}?"), gr.update(visible=True)]

    @tells_problems
    def agreed(names: list[str]) -> list[Any]:
        freed = delete_caches(workspace, names)
        inform(f"{file_size(freed)} freed.")
        return [gr.update(choices=choices(workspace), value=[]), gr.update(visible=False)]

    tab.select(lambda: gr.update(choices=choices(workspace), value=[]), None, listing, **IN_TURN)
    delete.click(ask, listing, [question, confirm], **IN_TURN)
    yes.click(agreed, listing, [listing, confirm], **IN_TURN)
    no.click(lambda: gr.update(visible=False), None, confirm, **QUIET)


def choices(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, name) of each cache that takes room."""
    rows = [cache for cache in caches(workspace) if cache.size_bytes]
    return [(f"{row.name} · {file_size(row.size_bytes)} · {row.about}{_used(row.last_used)}", row.name) for row in rows]


def _used(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime(", last used %d %b %Y", time.localtime(seconds))


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"

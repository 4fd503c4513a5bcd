"""What tabs add to the page beside components: pollers for the page's one timer, load handlers and routes.

One timer, because each further one is a request per open page and second; no streams and no ``gr.State``, because
each of those holds one of the browser's six connections for as long as the page is open.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse
from starlette.routing import Route

if TYPE_CHECKING:
    import gradio as gr
    from gradio.blocks import Block
    from gradio.components import Component
    from starlette.requests import Request
    from starlette.responses import Response

_LONGEST_NAME = 255
"""Bytes, in all usual file systems."""

LOG = logging.getLogger("lora_atelier")


@dataclass(frozen=True)
class Handler:
    """A function with the components it reads and writes, and the tab that it is for: empty for all."""

    function: Callable[..., Sequence[Any] | None]
    inputs: tuple[Component, ...]
    outputs: tuple[Block, ...]
    tab: str = ""


@dataclass
class Page:
    """Filled while the tabs are built, then wired by the shell.

    Attributes:
        may_serve: whether a file may be sent; a link in the workspace may lead anywhere.
        tab: id of the tab that is being built; empty outside of tabs.
    """

    may_serve: Callable[[Path], bool] = lambda path: True
    pollers: list[Handler] = field(default_factory=list)
    load_handlers: list[Handler] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    tab: str = ""
    tabs: gr.Tabs = field(init=False)
    """The row of tabs, set by the shell. As an output, ``gr.Tabs(selected="runs")`` switches; ids are module names."""

    def poll(
        self,
        function: Callable[..., Sequence[Any] | None],
        inputs: Sequence[Component] = (),
        outputs: Sequence[Block] = (),
    ) -> None:
        """Call ``function(*input values)`` every second or so while its tab is looked at, and when it comes into view.

        It returns one value per output, or None when nothing changed. What it last showed it keeps in an input that
        is an output too, made by ``ui.scripted.kept``, as all inputs are; it returns None quickly when that is current.
        Where all that changes are scripts and texts that are told directly (``ui.scripted``), an open page pays next to
        nothing for it; otherwise the function is called again by an event of Gradio, which sends the values.
        """
        self.pollers.append(Handler(function, tuple(inputs), tuple(outputs), self.tab))

    def load(
        self,
        function: Callable[..., Sequence[Any] | None],
        inputs: Sequence[Component] = (),
        outputs: Sequence[Block] = (),
    ) -> None:
        """Call ``function`` each time the page is opened or reloaded. It answers like a poller."""
        self.load_handlers.append(Handler(function, tuple(inputs), tuple(outputs)))

    def route(self, path: str, endpoint: Callable[[Request], Response]) -> None:
        """Serve ``path``, such as ``/thumbnails/{number:int}``, behind the same checks as the page itself."""

        def answer(request: Request) -> Response:
            if any(len(os.fsencode(str(part))) > _LONGEST_NAME for part in request.path_params.values()):
                raise HTTPException(404)  # nothing can be called that
            response = endpoint(request)
            if isinstance(response, FileResponse) and not self.may_serve(Path(response.path)):
                raise HTTPException(404)
            return response

        self.routes.append(Route(path, answer, methods=["GET"]))


def joined(handlers: Sequence[Handler], unchanged: Callable[[], Any]) -> Callable[..., list[Any]]:
    """Several handlers as one function over all their inputs, answering all their outputs.

    A handler that answers None leaves its outputs as they are (``unchanged()`` for each), and one that fails is
    logged and does the same: it must not stop the others.
    """

    def answer(*values: Any) -> list[Any]:
        answers: list[Any] = []
        start = 0
        for handler in handlers:
            end = start + len(handler.inputs)
            found = _call(handler, values[start:end])
            answers.extend(found if found is not None else [unchanged() for _ in handler.outputs])
            start = end
        return answers

    return answer


News = list[tuple[str, Any]]
"""Values for scripts, each with the key that its script is told by."""


def due(
    handlers: Sequence[Handler],
    tab: str,
    value_of: Callable[[Component], Any],
    key_of: Callable[[Block], str | None],
    unchanged: Any,
) -> list[tuple[int, News | None]]:
    """Which handlers have something new, of those for a tab and for the whole page, and their news.

    None in place of news where an output changes that only an event of Gradio can fill.

    Args:
        tab: id of the tab that is looked at.
        value_of: what an input holds in the browser.
        key_of: what the script of an output is told by; None where there is none.
        unchanged: the value that leaves an output as it is.
    """
    found = []
    for number, handler in enumerate(handlers):
        if handler.tab in ("", tab):
            values = _call(handler, tuple(map(value_of, handler.inputs)))
            if values is not None:
                found.append((number, _news(handler.outputs, values, key_of, unchanged)))
    return found


def _news(
    outputs: Sequence[Block], values: Sequence[Any], key_of: Callable[[Block], str | None], unchanged: Any
) -> News | None:
    news: News = []
    for part, value in zip(outputs, values, strict=True):
        if value == unchanged:
            continue
        key = key_of(part)
        if key is None or _is_update(value):
            return None
        news.append((key, value))
    return news


def _is_update(value: Any) -> bool:
    """Whether it changes more than a value, as ``gr.update(visible=False)``."""
    return isinstance(value, dict) and "__type__" in value


def _call(handler: Handler, values: tuple[Any, ...]) -> Sequence[Any] | None:
    try:
        found = handler.function(*values)
    except Exception:  # one tab's trouble must not freeze the rest of the page
        LOG.exception("%s failed", handler.function.__qualname__)
        return None
    if found is not None and len(found) != len(handler.outputs):
        LOG.error("%s gave %d values for %d outputs", handler.function.__qualname__, len(found), len(handler.outputs))
        return None
    return found

"""Events of Gradio that are kept from the program for a while, as on a slow line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from playwright.sync_api import Page, Route

EVENTS = "**/gradio_api/queue/join*"


@contextlib.contextmanager
def held(page: Page, text: str) -> Iterator[None]:
    """Keep events that hold this text from the server until the end, and let at least one come by then."""
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        if text in (route.request.post_data or ""):
            waiting.append(route)
        else:
            route.continue_()

    page.route(EVENTS, hold)
    yield
    while not waiting:
        page.wait_for_timeout(50)
    for route in waiting:
        route.continue_()
    page.unroute(EVENTS)


def event(name: str) -> str:
    """Which events have this sent along, by its name."""
    return f'"{name}":'

"""Events of Gradio that are kept from the program for a while, as on a slow line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from playwright.sync_api import Page, Route

QUEUED = "**/gradio_api/queue/join*"
AT_ONCE = "**/gradio_api/run/predict*"
"""Where the page sends its events, those that wait their turn and the others."""


@contextlib.contextmanager
def held(page: Page, text: str = "", address: str = QUEUED) -> Iterator[None]:
    """Keep events that hold this text from the server until the end, in their order; at least one comes by then."""
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        if text in (route.request.post_data or ""):
            waiting.append(route)
        else:
            route.continue_()

    page.route(address, hold)
    yield
    while not waiting:
        page.wait_for_timeout(50)
    for route in waiting:
        route.continue_()
    page.unroute(address)


def event(name: str) -> str:
    """Which events have this sent along, by its name."""
    return f'"{name}":'

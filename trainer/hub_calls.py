"""Calls to the Hugging Face Hub's library that wait where the hub asks for it, and say so. Never torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError

from trainer.hub_errors import wait_asked_s
from trainer.runs.events import EventSink

T = TypeVar("T")

BUSY = "hub.busy"
"""Code of the warning that a wait is told with."""
MOST_WAITED_S = 600
"""That is waited for between two requests; who is asked to wait longer is told so at once."""
_ATTEMPTS = 5
_TOO_MANY = 429


def patient(call: Callable[[], T], events: EventSink | None) -> T:
    """What ``call`` returns; it is called again where the hub refused for a time that it says (status 429).

    Each wait is told as a warning, those too that the library itself makes. Raises what the call raises.
    """
    with _waits_told(events):
        for _ in range(_ATTEMPTS - 1):
            try:
                return call()
            except HfHubHTTPError as error:
                seconds = _wait_of(error.response)
                if seconds is None:
                    raise
                time.sleep(seconds)
        return call()


def _wait_of(response: Any) -> int | None:
    if response.status_code != _TOO_MANY:
        return None
    seconds = wait_asked_s(response.headers)
    return seconds if seconds is not None and seconds <= MOST_WAITED_S else None


@contextmanager
def _waits_told(events: EventSink | None) -> Iterator[None]:
    def look(response: Any) -> None:
        seconds = _wait_of(response)
        if seconds is not None and events is not None:
            message = f"The hub takes no more requests from here for {seconds} s: that is waited for."
            events.emit("warning", code=BUSY, message=message, hint="Nothing is to be done.")

    client = get_session()
    before = client.event_hooks
    client.event_hooks = {**before, "response": [*before.get("response", []), look]}
    try:
        yield
    finally:
        client.event_hooks = before

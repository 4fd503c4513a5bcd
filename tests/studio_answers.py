"""Waiting for what the picture process answers."""

from __future__ import annotations

import time

from trainer.studio import Answer, Studio


def awaited(studio: Studio, request_id: str, timeout_s: float) -> Answer:
    """The answer once it is final, or as it stands after ``timeout_s``."""
    end = time.monotonic() + timeout_s
    while not (answer := studio.answer(request_id)).final and time.monotonic() < end:
        time.sleep(0.05)
    return answer

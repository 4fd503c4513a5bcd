"""What happened in a run, as sentences. No Gradio."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.runs.events import Event, EventTail
from trainer.runs.store import Run

MOST = 200
_STATES = {
    "starting": "Started",
    "preparing": "Prepares pictures and captions",
    "training": "Trains",
    "paused": "Paused: the device is free for other work",
    "stopping": "Saves and stops",
    "finished": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
}


@dataclass(frozen=True)
class Happening:
    """One line of the list: Unix seconds, optimizer steps done, ``warning``, ``error`` or ``plain``, the sentence."""

    time: float
    step: int
    kind: str
    text: str


class HappeningsReader:
    """Follows a run's events; keeps the last ``MOST`` sentences."""

    def __init__(self, run: Run) -> None:
        self._tail = EventTail(run.events_path, metrics=False)
        self._lock = threading.Lock()
        self._lines: deque[Happening] = deque(maxlen=MOST)
        self._read = 0

    def read(self) -> tuple[int, tuple[Happening, ...]]:
        """How many there have been so far, and the last of them, newest first."""
        with self._lock:
            for event in self._tail.read():
                self._take(event)
            return self._read, tuple(reversed(self._lines))

    def _take(self, event: Event) -> None:
        text = sentence(event)
        if not text:
            return
        step, seconds = event.get("step"), event.get("time")
        line = Happening(
            float(seconds) if isinstance(seconds, int | float) else 0.0,
            step if isinstance(step, int) else 0,
            event["type"] if event["type"] in ("warning", "error") else "plain",
            text,
        )
        if event["type"] == "sample" and self._lines and (self._lines[-1].step, self._lines[-1].text) == (step, text):
            return  # a picture for each prompt is one thing that happened
        self._lines.append(line)
        self._read += 1


def sentence(event: Event) -> str:
    """An event in words; empty for those that are no news, such as the numbers of a step."""
    match event.get("type"):
        case "state":
            return _STATES.get(str(event.get("state")), "")
        case "checkpoint":
            best = ", the best so far" if event.get("best") is True else ""
            return f"Saved {Path(str(event.get('path', 'a checkpoint'))).name}{best}"
        case "sample":
            return "Previews drawn"
        case "prompts":
            return f"Preview prompts changed: {_listed(event.get('prompts'))}"
        case "validation":
            return _validation(event)
        case "shared":
            return f"Sent to {event.get('url')}, {event.get('visibility')}"
        case "warning" | "error":
            return f"{event.get('message', '')} {event.get('hint', '')}".strip()
    return ""


def _validation(event: Event) -> str:
    loss = event.get("loss")
    number = f"{loss:.4f}" if isinstance(loss, int | float) else str(loss)
    return f"Validation loss {number}" + (", the best so far" if event.get("best") is True else "")


def _listed(prompts: Any) -> str:
    return " | ".join(str(prompt) for prompt in prompts) if isinstance(prompts, list) and prompts else "none"

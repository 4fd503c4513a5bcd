"""One tracker in a thread of its own, so that a slow disk or a missing network never holds a training step up."""

from __future__ import annotations

import os
import queue
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from trainer.data.image_files import open_picture
from trainer.errors import Problem
from trainer.tracking.backends import Backend, Start

MOST_WAITING = 20_000
"""Records that may wait for a tracker; one that is further behind is given up."""
END_SECONDS = 30.0
"""How long the end of a run waits for a tracker."""
_SECRET = re.compile(r"(?i)(key|token|secret|password)$")


@dataclass(frozen=True)
class Numbers:
    """Values of a step."""

    step: int
    values: dict[str, float]


@dataclass(frozen=True)
class Picture:
    """A preview of a step."""

    step: int
    name: str
    path: Path
    prompt: str


class Recorder:
    """Feeds a tracker. The first failure is kept as ``problem`` and ends it; nothing is raised.

    Attributes:
        problem: why it was given up; None while all is well.
    """

    def __init__(self, name: str, backend: Backend, start: Start) -> None:
        """Start at once, in the background."""
        self.problem: Problem | None = None
        self._name, self._backend, self._start = name, backend, start
        self._waiting: queue.Queue[Numbers | Picture | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def put(self, record: Numbers | Picture) -> None:
        """Have it recorded soon."""
        if self.problem is not None:
            return
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self._give_up("it is too slow")

    def close(self) -> None:
        """Record what is waiting and end the tracker, within ``END_SECONDS``."""
        if self.problem is None:
            try:
                self._waiting.put_nowait(None)
            except queue.Full:
                self._give_up("it is too slow")
        self._thread.join(END_SECONDS if self.problem is None else 0)
        if self._thread.is_alive() and self.problem is None:
            self._give_up(f"it did not finish within {END_SECONDS:.0f} s")

    def _run(self) -> None:
        try:
            tracker = self._backend.start(self._start)
            while self.problem is None and (record := self._waiting.get()) is not None:
                if isinstance(record, Numbers):
                    tracker.log(record.values, step=record.step)
                else:
                    with open_picture(record.path) as image:
                        picture = image.convert("RGB")
                    self._backend.log_picture(tracker, record.name, picture, record.prompt, record.step)
            tracker.finish()
        except BaseException as error:  # whatever a tracker does, the training goes on
            self._give_up(f"{type(error).__name__}: {without_secrets(str(error))}")

    def _give_up(self, reason: str) -> None:
        message = f"The tracker {self._name} was given up: {reason.rstrip('.')}."
        self.problem = Problem("tracker.failed", message, "All goes on without it.", "trackers")


def without_secrets(text: str) -> str:
    """A message without the values of environment variables that are called keys, tokens or passwords."""
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) > 4:
            text = text.replace(value, "***")
    return text.splitlines()[0] if text else ""

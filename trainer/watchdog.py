"""Notices that a run does nothing any more: a driver that hangs, a disk that is gone, a deadlock.

A run gives signs of life by what it does anyhow: it tells events, and looks for requests. A thread counts how long
there has been none. It counts in its own ticks, so that the time in which the machine sleeps, or the whole process is
held, does not count.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from trainer.errors import Problem

TICK_SECONDS = 5.0
COLD_SECONDS = 1800.0
"""Without a sign before the first step is done: a large model is read, and steps are compiled, without a word."""
STEADY_SECONDS = 600.0
"""From then on, at least."""
TIMES_THE_USUAL = 20
"""Nor is it said before so many times the longest time that passed without a sign while the run was steady."""
END_AFTER_TIMES = 3
"""A run is ended, where the settings want that, after so many times the time after which it was told, at least."""

HANGS, GOES_ON, HUNG = "run.hangs", "run.goes_on", "run.hung"

_NAME = "watchdog"
_WRITING_SECONDS = 30.0
_OWN_CODE = str(Path(__file__).resolve().parent)


class Watchdog:
    """An event sink that hears signs of life, and a thread that waits for them."""

    def __init__(self, log_path: Path, end_after_seconds: float | None) -> None:
        """Watch the calling thread.

        Args:
            log_path: where the stacks of all threads are written when there are no signs.
            end_after_seconds: of doing nothing until the run is ended; None for never.
        """
        self._log_path = log_path
        self._end_after = end_after_seconds
        self._thread = threading.get_ident()
        self._last = "the start"
        self._signs = self._seen = 0
        self._silent = self._longest = 0.0
        self._steady = self._told = False

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        """Hear what was done, by whatever thread: downloads have some. The watchdog's own words are no sign."""
        if threading.current_thread().name == _NAME:
            return
        if kind == "metric":
            self._steady, self._last = True, f"step {step}"
        elif kind in ("progress", "state"):
            self._last = f'"{fields["what" if kind == "progress" else "state"]}"'
        self.sign()

    def sign(self) -> None:
        """The thread that is watched is alive."""
        self._signs += 1

    @contextmanager
    def watching(self, warn: Callable[[str, str, str], None], end: Callable[[Problem], None]) -> Iterator[None]:
        """Watch meanwhile.

        Args:
            warn: told code, message and hint when the run hangs, and when it goes on after all.
            end: writes down that the run failed; the process ends afterwards, whether it could be written or not.
        """
        over = threading.Event()

        def watch() -> None:
            before = time.monotonic()
            while not over.wait(TICK_SECONDS):
                before, passed = time.monotonic(), time.monotonic() - before
                problem = self.tick(passed)
                if problem is not None and problem.code == HUNG:
                    _in_time(partial(end, problem))
                    os._exit(1)  # the thread that hangs cannot be ended otherwise
                if problem is not None and problem.code == HANGS:
                    _in_time(self._write_stacks)
                if problem is not None:
                    _in_time(partial(warn, problem.code, problem.message, problem.hint))

        thread = threading.Thread(target=watch, name=_NAME, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(_WRITING_SECONDS)

    def tick(self, seconds: float) -> Problem | None:
        """So much time has passed. Returns what there is to say: that the run HANGS, GOES_ON, or has HUNG long enough.

        More than two ticks at once are a machine that slept.
        """
        if self._signs != self._seen:
            return self._went_on()
        self._silent += min(seconds, 2 * TICK_SECONDS)
        limit = max(STEADY_SECONDS if self._steady else COLD_SECONDS, TIMES_THE_USUAL * self._longest)
        if self._silent >= limit and not self._told:
            self._told = True
            hint = f"{self._log_path.name} says where each thread is. {self._outlook}"
            return Problem(HANGS, self._words(), hint)
        if self._end_after is not None and self._silent >= max(self._end_after, END_AFTER_TIMES * limit):
            return Problem(HUNG, self._words(), "Resume goes on from the newest checkpoint.")
        return None

    def _went_on(self) -> Problem | None:
        silent, told = self._silent, self._told
        self._seen, self._silent, self._told = self._signs, 0.0, False
        if self._steady and not told:
            self._longest = max(self._longest, silent)
        return Problem(GOES_ON, f"The run goes on after {_minutes(silent)}.") if told else None

    def _words(self) -> str:
        place = _place_of(self._thread)
        return f"Nothing has been done for {_minutes(self._silent)} after {self._last}: the run hangs in {place}."

    @property
    def _outlook(self) -> str:
        if self._end_after is None:
            return "Where nothing changes, end its process and resume the run."
        return f"Where nothing changes, it is ended after {_minutes(self._end_after)}, and can be resumed."

    def _write_stacks(self) -> None:
        with self._log_path.open("a", encoding="utf-8") as log:
            log.write("The run hangs. Its threads:\n")
            log.flush()
            faulthandler.dump_traceback(log, all_threads=True)


def _in_time(write: Callable[[], None]) -> None:
    """Write something, unless that hangs too: it may be the disk."""
    writing = threading.Thread(target=write, name=_NAME, daemon=True)
    writing.start()
    writing.join(_WRITING_SECONDS)


def _place_of(thread: int) -> str:
    """The innermost function of this program's own that a thread is in: ``image_files.py, line 88 (read_rgb)``."""
    frame = sys._current_frames().get(thread)
    while frame is not None and not frame.f_code.co_filename.startswith(_OWN_CODE):
        frame = frame.f_back
    if frame is None:
        return "a library"
    return f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno} ({frame.f_code.co_name})"


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes != 1 else "1 minute"

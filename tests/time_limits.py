"""Ending what takes too long."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def in_time(seconds: float, *, of_processor: bool) -> Iterator[None]:
    """Raise TimeoutError in what takes longer, by the clock or in the processor's time.

    For the main thread, where there is SIGALRM, or SIGPROF for the latter.
    """
    timer, alarm = (signal.ITIMER_PROF, signal.SIGPROF) if of_processor else (signal.ITIMER_REAL, signal.SIGALRM)

    def give_up(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it takes more than {seconds:g} s")

    before = signal.signal(alarm, give_up)
    signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(alarm, before)

"""The other processes of a run: they prepare as the first one does, and then do what it calls, without a word."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from trainer.devices import pick_device
from trainer.processes import ending_signals
from trainer.ranks import Ranks
from trainer.runs import control
from trainer.runs.events import Events, EventSink
from trainer.runs.store import Run, State, Workspace
from trainer.session import Session, log_kept, open_session
from trainer.tracking.tracking import tracked

_log = logging.getLogger("trainer")


class Following(Session):
    """What the recipe sees of the world in these processes: nothing is asked of them, and they tell nothing."""

    def __init__(self, run: Run, ranks: Ranks) -> None:
        super().__init__(run, ranks.device() or pick_device(), None, Events())

    def enter(self, state: State, **changes: Any) -> None:
        """The first process tells it."""

    def check_stop(self) -> None:
        """The first process hears of it, and ends all."""

    def warn(self, code: str, message: str, hint: str = "") -> None:
        """The first process warns of it."""


@contextmanager
def following(run: Run, ranks: Ranks) -> Iterator[Following]:
    """Follow the first process of a run to its end; why this one could not is in the run's log.

    A signal that asks for an end is handed on to the first one, which may be on another machine, and answers it.
    """

    def hand_on() -> None:
        if ranks.lost() is None:  # a launcher sends it then, too
            with suppress(OSError):
                control.ask(run.control_dir, "stop")

    _hear_signals(hand_on)
    try:
        yield Following(run, ranks)
    except Exception:
        if ranks.lost() is None:
            with log_kept(run):
                _log.exception("Process %s of %s failed.", ranks.index + 1, ranks.size)
        raise


def _hear_signals(answer: Callable[[], None]) -> None:
    """Have ``answer`` called, in another thread, for each signal that asks for an end, up to this process's own.

    The main thread hears none while it waits for the first process, in a pause for days.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    asks = ending_signals()
    for number in asks:
        signal.signal(number, lambda number, frame: None)
    signal.set_wakeup_fd(told.detach(), warn_on_full_buffer=False)

    def listen() -> None:
        while number := heard.recv(1):
            if number[0] in asks:
                answer()

    threading.Thread(target=listen, name="signals", daemon=True).start()


@contextmanager
def session_of(
    run: Run, workspace: Workspace, events: EventSink, share_gpu: bool | None, ranks: Ranks
) -> Iterator[Session]:
    """This process's turn at a run, with its trackers: see ``open_session`` for the first process."""
    if not ranks.leads:
        with following(run, ranks) as follower:
            yield follower
        return
    with open_session(run, workspace, events, share_gpu, ranks) as session, tracked(session, run.config()):
        yield session

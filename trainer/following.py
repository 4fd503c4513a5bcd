"""The other processes of a run: they prepare as the first one does, and then do what it calls, without a word."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
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

    def hand_on(number: int, frame: object) -> None:
        if ranks.lost() is None:  # a launcher sends it then, too
            with suppress(OSError):
                control.ask(run.control_dir, "stop")

    for number in ending_signals():
        signal.signal(number, hand_on)
    try:
        yield Following(run, ranks)
    except Exception:
        if ranks.lost() is None:
            with log_kept(run):
                _log.exception("Process %s of %s failed.", ranks.index + 1, ranks.size)
        raise


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

"""A run that is trained on a host, as one of this machine's processes: its states, signals and end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from trainer.errors import StoppedOnRequest, UserError
from trainer.launching import outcome_of
from trainer.remote.hosts import Host
from trainer.remote.mirror import Mirror
from trainer.runs import control
from trainer.runs.events import EventSink
from trainer.runs.store import ENDED, Run, RunInfo, on_its_own


def train_elsewhere(run: Run, host: Host, events: EventSink) -> RunInfo:
    """Have a run trained on a host, and wait for its end; one that is under way there is followed.

    Ctrl+C asks the run to stop; what ends this process in another way, a second Ctrl+C too, leaves it to itself there.

    Raises:
        UserError: what the user gave is wrong, or the host cannot be reached before the run is there.
        StoppedOnRequest: stopped, or left to itself.
        JobFailed: anything else.
    """
    with run.only_process(), _interrupt_asks_to_stop(run):
        try:
            Mirror(run, host, events).follow()
        except BaseException as error:
            if run.read().host is None:
                stopped = isinstance(error, StoppedOnRequest | KeyboardInterrupt)
                state, code, words = ("stopped", 3, None) if stopped else ("failed", 2, str(error))
                run.update(state=state, ended=time.time(), exit_code=code, error=words, pid=None, host_words="")
                raise
            leave(run)
            if isinstance(error, Exception) and not isinstance(error, StoppedOnRequest):
                raise
            raise StoppedOnRequest(on_its_own(host.name)) from error
    return outcome_of(run, 0)


def leave(run: Run, *, for_good: bool = False) -> None:
    """Tell of a run that goes on there that nobody follows it here. It is followed again by itself unless ``for_good``.

    Raises UserError for a run that is on no host.
    """
    with run.lock():
        host = _host_of(run, run.read())
        interrupted = None if for_good else "process"
        words = on_its_own(host)
        run.update_locked(state="failed", pid=None, error=words, interrupted=interrupted, host_words="")


def give_up(run: Run) -> None:
    """Have a run be this machine's again, as it is here, whatever becomes of it on a host that may be gone for good.

    Raises UserError for a run that is on no host, and for one that is followed.
    """
    with run.lock():
        info = run.status_locked()
        host = _host_of(run, info)
        if info.state not in ENDED:
            message = f"The run {run.id} is followed, or about to be."
            raise UserError("run.alive", message, "`remote leave` ends that.")
        words = f"Given up on {host}. Resume goes on from what is here."
        control.clear(run.control_dir)
        run.update_locked(state="failed", host=None, error=words, interrupted=None, host_words="")


def _host_of(run: Run, info: RunInfo) -> str:
    if info.host is None:
        raise UserError("remote.not_there", f"The run {run.id} is on no other machine.", "`runs list` shows where.")
    return info.host


@contextmanager
def _interrupt_asks_to_stop(run: Run) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        control.ask(run.control_dir, "stop")

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

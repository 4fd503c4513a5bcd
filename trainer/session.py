"""One process's turn at a run: locks, states, requests, signals, the log, and how failures are told."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch

from trainer.devices import (
    accelerator,
    device_name,
    features_of,
    gpu_uuid,
    is_out_of_memory,
    lacks_determinism,
    pick_device,
    turn_on,
)
from trainer.errors import JobFailed, Problem, StoppedOnRequest, UserError
from trainer.processes import ending_signals
from trainer.ranks import ALONE, Ranks
from trainer.runs import control
from trainer.runs.control import Request
from trainer.runs.events import EventLog, Events, EventSink
from trainer.runs.settings import read_settings
from trainer.runs.store import Run, State, Workspace, this_process
from trainer.runs.turns import BUSY, WAITING_HINT, AllTurns, Holder, Turn, busy_words, wait_for
from trainer.terminal import TerminalEvents
from trainer.unfinished import clear_left
from trainer.watchdog import Watchdog

LOOK_SECONDS = 0.2
UPDATE_SECONDS = 1.0
ATTEMPT_SECONDS = 20.0
"""Between attempts to save while the disk is full."""

_log = logging.getLogger("trainer")
T = TypeVar("T")


class Session:
    """What the recipe sees of the world outside: states out, requests in.

    Attributes:
        run: the run folder.
        device: the device held.
        events: events go to the run's own file and to whoever started the process.
        sign: to be called now and then in work that tells no events, so that it is not taken for a run that hangs.
    """

    def __init__(
        self,
        run: Run,
        device: torch.device,
        turn: Turn | AllTurns | None,
        events: EventSink,
        waiting_hint: str = WAITING_HINT,
        sign: Callable[[], None] = lambda: None,
        ranks: Ranks = ALONE,
    ) -> None:
        """``turn`` None computes beside whatever has the device; ``waiting_hint`` is told while it is waited for."""
        self.run = run
        self.sign = sign
        self.device = device
        self.events = events
        self._turn = turn
        self._waiting_hint = waiting_hint
        self._ranks = ranks
        self._asked: set[Request] = set()
        self._signals = 0
        self._updated = 0.0
        self._begun_at: int | None = None
        info = run.read()
        self._step, self._epoch = info.step, info.epoch
        self._launched = info.launched or this_process()["pid_started"]

    def enter(self, state: State, **changes: Any) -> None:
        """Tell the run's new state, with other changes of ``run.json``."""
        self._updated = time.monotonic()
        if state == "training" and self._begun_at is None:
            self._begun_at = self._step
        self.run.update(state=state, step=self._step, epoch=self._epoch, **changes)
        self.events.emit("state", self._step, state=state)

    def at_step(self, step: int, epoch: int) -> None:
        """Note how far the run is; ``run.json`` hears of it about once a second, and when the first step is done.

        A disk that refuses is left to what has to be kept.
        """
        first, self._step, self._epoch = self._step == self._begun_at != step, step, epoch
        with contextlib.suppress(OSError):
            if first:
                self.run.update(durable=False, first_step_s=round(time.time() - self._launched, 3))
            if time.monotonic() - self._updated >= UPDATE_SECONDS:
                self._updated = time.monotonic()
                self.run.update(durable=False, step=step, epoch=epoch)

    @property
    def in_steps(self) -> bool:
        """Whether the preparations are over in this process."""
        return self._begun_at is not None

    def requests(self) -> set[Request]:
        """What has been asked for since the last call; a stop is told again and again."""
        asked, self._asked = self._look(), self._asked & {"stop"}
        return asked

    @property
    def stop_asked(self) -> bool:
        """Whether the run is to be stopped; other requests are kept for ``requests``."""
        return "stop" in self._look()

    def check_stop(self) -> None:
        """Raise StoppedOnRequest when a stop is asked for: between pieces of work that need no saving."""
        if self.stop_asked:
            raise StoppedOnRequest(f"stopped on request at step {self._step}")

    def hold_device(self) -> None:
        """Wait until no other job uses the device. Raises StoppedOnRequest when asked to stop meanwhile."""

        def tell(holder: Holder | None) -> None:
            self.warn(BUSY, busy_words(str(self.device), holder), self._waiting_hint)

        if self._turn is not None:
            wait_for(self._turn, tell, self.check_stop)

    def let_device_go(self) -> None:
        """Let other jobs have the device."""
        if self._turn is not None:
            self._turn.give_back()

    def wait_while_paused(self) -> None:
        """Let other jobs have the device until ``resume`` or ``stop`` is asked for; after a stop it is not held."""
        self.let_device_go()
        self.enter("paused")
        while not self._look() & {"resume", "stop"}:
            time.sleep(LOOK_SECONDS)
        self._asked -= {"resume", "pause"}
        if not self.stop_asked:
            self.enter("starting")  # others may have the device: no longer paused, and next in turn
            with contextlib.suppress(StoppedOnRequest):  # told by ``stop_asked``
                self.hold_device()

    def paused_until(self, attempt: Callable[[], T | None]) -> T:
        """Let other jobs have the device until an attempt succeeds: one now and then, and when ``resume`` is asked for.

        The device is not held afterwards.
        """
        self.let_device_go()
        with contextlib.suppress(OSError):  # the disk may be the very reason
            self.enter("paused")
        while True:
            again = time.monotonic() + ATTEMPT_SECONDS
            while time.monotonic() < again and "resume" not in self._look():
                time.sleep(LOOK_SECONDS)
            self._asked -= {"resume", "pause"}
            result = attempt()
            if result is not None:
                return result

    def warn(self, code: str, message: str, hint: str = "") -> None:
        """Tell a warning, and write it to the log."""
        _log.warning("%s %s", message, hint)
        self.events.emit("warning", self._step, code=code, message=message, hint=hint)

    def end(self, state: State, exit_code: int, problems: tuple[Problem, ...] = ()) -> None:
        """Write down how the run ended."""
        for problem in problems:
            self.events.emit("error", self._step, code=problem.code, message=problem.message, hint=problem.hint)
        error = "\n".join(str(problem) for problem in problems) or None
        self.enter(state, pid=None, pid_started=None, ended=time.time(), exit_code=exit_code, error=error)

    def end_at_once(self, problem: Problem) -> None:
        """Write down, from another thread, that the run failed: its own one is held up."""
        self.end("failed", 1, (problem,))

    def on_signal(self, number: int, frame: object) -> None:
        """The first Ctrl+C, SIGTERM or SIGHUP asks for a stop that saves; the second ends at once.

        A launcher sends one too when another process is lost: that is no stop.
        """
        if self._ranks.lost() is not None:
            return
        self._signals += 1
        if self._signals > 1:
            raise KeyboardInterrupt(f"stopped at once near step {self._step}, without saving")

    def _look(self) -> set[Request]:
        self.sign()
        self._asked |= control.take(self.run.control_dir)
        if self._signals:
            self._asked.add("stop")
        return set(self._asked)


@contextlib.contextmanager
def open_session(
    run: Run, workspace: Workspace, events: EventSink, share_gpu: bool | None = None, ranks: Ranks = ALONE
) -> Iterator[Session]:
    """Hold the run and a device, and see to it that every end is written down.

    With ``share_gpu`` the run computes beside whatever has the GPU; None where that cannot be asked for. Of several
    processes, ``ranks``, this is the first one's, which holds the devices of all.

    Raises:
        UserError: another process has the run, or what the user gave turned out wrong.
        StoppedOnRequest: the user asked for it.
        JobFailed: anything else; the traceback is in the run's log.
    """
    device = ranks.device() or pick_device()
    for folder in (run.control_dir, run.samples_dir, run.output_dir):
        clear_left(folder)
    with run.only_process(), log_kept(run) as log_events, contextlib.closing(EventLog(run.events_path)) as own_events:
        minutes = read_settings(workspace).hung_run_minutes
        watchdog = Watchdog(run.log_path, end_after_seconds=60 * minutes if minutes else None)
        sinks = Events(own_events, events, *log_events, watchdog)
        what = f"training of {run.read().name}"
        turn, hint = turn_on(device, workspace, what, share_gpu=share_gpu, also=ranks.gpus())
        session = Session(run, device, turn, sinks, hint, watchdog.sign, ranks)
        ranks.on_loss(session.end_at_once)
        with _signals_to(session.on_signal), watchdog.watching(session.warn, session.end_at_once):
            try:
                before = run.read()
                session.enter("starting", **_beginning(run, device, ranks))
                if before.step and before.processes != ranks.size:
                    _tell_other_number(session, before.processes, ranks.size)
                if ranks.size > 1:
                    _tell_left_idle(session)
                session.hold_device()
                yield session
            except (StoppedOnRequest, KeyboardInterrupt):
                session.end("stopped", 3)
                raise
            except UserError as error:
                session.end("failed", 2, error.problems)
                raise
            except Exception as error:
                _log.exception("The run failed.")
                problem = ranks.cause(error) or _explain(error, in_steps=session.in_steps)
                session.end("failed", 1, (problem,))
                raise JobFailed(problem, run.log_path) from error
            finally:
                session.let_device_go()


def _tell_other_number(session: Session, before: int, now: int) -> None:
    pictures = session.run.config().train.batch_size
    message = (
        f"The run was trained by {before} process{'' if before == 1 else 'es'} and goes on with {now}: its batches "
    )
    message += f"are now of {pictures * now} pictures, {pictures} for each process."
    session.warn("processes.changed", message, "It learns as before where train.batch_size x processes is the same.")


def _tell_left_idle(session: Session) -> None:
    """Say it where several processes train on the CPU beside an accelerator."""
    found = accelerator()
    if found is not None and not features_of(found).process_groups:
        name = device_name(found)
        message = f"The processes compute on the processor: training together on the {name} is not known to work."
        session.warn("processes.device", message, "One process would use it: leave out --processes.")


def _beginning(run: Run, device: torch.device, ranks: Ranks) -> dict[str, Any]:
    packages = ("torch", "diffusers", "transformers", "peft")
    return {
        **this_process(),
        "started": run.read().started or time.time(),
        "ended": None,
        "exit_code": None,
        "error": None,
        "interrupted": None,
        "first_step_s": None,
        "device": device_name(device),
        "gpu": gpu_uuid(device),
        "processes": ranks.size,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def _explain(error: Exception, *, in_steps: bool) -> Problem:
    """A failure in words that help; ``in_steps``: it came after the preparations."""
    if isinstance(error, JobFailed):
        return error.problem
    if is_out_of_memory(error):
        return Problem(
            "memory",
            f"There is not enough memory {'for a training step' if in_steps else 'to prepare the training'}.",
            "Set train.gradient_checkpointing to all, or lower train.batch_size, dataset.resolution or lora.rank; "
            "model.quantize and model.offload make room, too.",
        )
    if lacks_determinism(error):
        name = str(error).partition(" ")[0]
        message = f"This model needs {name}, which cannot be computed deterministically on this device."
        return Problem("train.deterministic", message, "Turn off train.deterministic.", "train.deterministic")
    if isinstance(error, OSError) and error.errno is not None:
        message = f"A file could not be written or read: {error.strerror} ({error.filename or 'no name'})."
        return Problem("files", message, "Check the disk's free space and rights; then resume the run.")
    return Problem("internal", f"{type(error).__name__}: {error}", "The log has the details.")


@contextlib.contextmanager
def log_kept(run: Run) -> Iterator[list[EventSink]]:
    """Write the program's log to ``train.log``; yields the sinks that events need to get there too.

    A process started by the queue has it as its stderr already; in the foreground it is opened beside the terminal.
    """
    in_background = _is_stderr(run.log_path)
    with contextlib.ExitStack() as stack:
        stream = sys.stderr if in_background else stack.enter_context(run.log_path.open("a", encoding="utf-8"))
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        root, before = logging.getLogger(), _log.level
        root.addHandler(handler)
        _log.setLevel(logging.INFO)
        logging.captureWarnings(True)
        try:
            yield [] if in_background else [TerminalEvents(stream)]
        finally:
            logging.captureWarnings(False)
            _log.setLevel(before)
            root.removeHandler(handler)


def _is_stderr(path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(2), path.stat())
    except OSError:
        return False


@contextlib.contextmanager
def _signals_to(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Have the signals that ask for an end go to ``handler``; only a main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ending_signals()}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)

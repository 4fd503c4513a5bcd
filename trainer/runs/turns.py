"""Turns on a device: one job at a time, whichever workspace, terminal or program part it belongs to.

Both locks end with the process that holds them, however it ends. What a job is stands beside them, for those who wait.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel

from trainer.files import read_json, write_json
from trainer.runs.events import EventSink
from trainer.runs.store import Workspace, process_is_alive, this_process

BUSY = "device.busy"
"""The code of the warning that tells what a job waits for."""

WAITING_HINT = "This one starts when it ends. Pause or stop the other one to go on sooner."

_PATIENCE_SECONDS = 0.5  # looking whether a device is free takes it for a moment: that is no other job
_GIVE_WAY_SECONDS = 3.0  # what only keeps a model ready looks four times a second, and then has to unload it
_LOOK_SECONDS = 0.2
_A_DAY_SECONDS = 86_400


class Holder(BaseModel):
    """Who has a device: ``what`` in words such as "training of cats", since when (Unix seconds), which process.

    ``gives_way`` says that it only keeps something ready there, and goes as soon as the device is asked for.
    """

    what: str
    gives_way: bool = False
    since: float
    pid: int
    pid_started: float | None
    pid_mark: int | None = None

    def __str__(self) -> str:
        ago = time.time() - self.since
        form = "%H:%M" if ago < _A_DAY_SECONDS else "%b %d, %H:%M"
        return f"{self.what}, since {time.strftime(form, time.localtime(self.since))}"


class Turn:
    """The right to compute on a device, and the wish for it.

    Who waits for a turn says so by a second lock, so that a job that could let go, such as a loaded picture model that
    nobody uses now, does.

    Args:
        path: the lock's file; all who name the same take turns.
        what: what the job that takes it is, for ``holder``; without, it is not told.
        gives_way: whether it leaves the device when another job asks for it.
    """

    def __init__(self, path: Path, what: str = "", *, gives_way: bool = False) -> None:
        self._held = FileLock(path, mode=0o666)
        self._wish = FileLock(path.with_suffix(".wanted"), mode=0o666)
        self._holder_path = path.with_suffix(".holder")
        self._what = what
        self._gives_way = gives_way

    def take(self, patience_seconds: float = _PATIENCE_SECONDS) -> bool:
        """Take the device unless another process has it; then go on asking for it until it is taken or given up."""
        try:
            self._held.acquire(timeout=patience_seconds)
        except Timeout:
            self._ask()
            return False
        self._wish.release()
        self._tell()
        return True

    def take_if_idle(self) -> bool:
        """Take the device unless another job computes there, and ask no longer for it: a model that is only kept ready
        is given a moment to go."""
        if self.take(0) or self.take(_GIVE_WAY_SECONDS):
            return True
        self.give_back()
        return False

    def give_back(self) -> None:
        """Let others have the device, and ask for it no longer."""
        if self.held and self._what:
            with suppress(OSError):
                self._holder_path.unlink(missing_ok=True)
        self._held.release(force=True)
        self._wish.release(force=True)

    @property
    def held(self) -> bool:
        """Whether this object has the device."""
        return self._held.is_locked

    @property
    def holder(self) -> Holder | None:
        """Who has the device; None where nobody has, or it is not told. Asking does not touch the locks."""
        try:
            found = Holder.model_validate(read_json(self._holder_path))
        except (OSError, ValueError):
            return None
        return found if process_is_alive(found.pid, found.pid_started, found.pid_mark) else None

    @property
    def wanted(self) -> bool:
        """Whether another process asks for the device."""
        if self._wish.is_locked:
            return False
        try:
            with self._wish.acquire(timeout=0):
                return False
        except Timeout:
            return True

    def _ask(self) -> None:
        if self._wish.is_locked:
            return
        try:
            self._wish.acquire(timeout=0)
        except Timeout:
            return  # somebody asks already: that is enough

    def _tell(self) -> None:
        if not self._what:
            return
        me = Holder(what=self._what, gives_way=self._gives_way, since=time.time(), **this_process())
        with suppress(OSError):  # another user's file may be in the way, and the lock alone is what counts
            write_json(self._holder_path, me.model_dump())


class AllTurns:
    """The right to compute on several devices at once: all of them, or none yet.

    They are taken one after the other in one order for everybody, so that no two jobs wait for each other; those that
    were got are held while the next one is asked for.
    """

    def __init__(self, turns: Sequence[Turn]) -> None:
        """``turns`` in that order."""
        self._turns = turns

    def take(self) -> bool:
        """Take what is still to be taken. Whether all are held."""
        return all(turn.held or turn.take() for turn in self._turns)

    def give_back(self) -> None:
        """Let others have the devices."""
        for turn in self._turns:
            turn.give_back()

    @property
    def holder(self) -> Holder | None:
        """Who has the device that is waited for."""
        return next((turn.holder for turn in self._turns if not turn.held), None)


def gpu_turn(uuid: str, what: str = "", *, gives_way: bool = False) -> Turn:
    """Turns on a GPU are of the whole machine. The UUID may be with or without ``GPU-`` in front."""
    path = Path(tempfile.gettempdir()) / f"lora-atelier-{uuid.removeprefix('GPU-')}.lock"
    return Turn(path, what, gives_way=gives_way)


def cpu_turn(workspace: Workspace, what: str = "") -> Turn:
    """Turns on the CPU are of the workspace: runs of two workspaces only slow each other down."""
    workspace.locks_dir.mkdir(parents=True, exist_ok=True)
    return Turn(workspace.locks_dir / "device-cpu.lock", what)


def wait_for(turn: Turn | AllTurns, tell: Callable[[Holder | None], object], look: Callable[[], object]) -> None:
    """Take a turn, however long that takes.

    Args:
        turn: what to wait for.
        tell: hears who has the device, first and whenever somebody else has.
        look: called all the time between; what it raises ends the waiting.
    """
    told: list[Holder | None] = []
    while not turn.take():
        holder = turn.holder
        if not told or holder not in (None, told[-1]):
            tell(holder)
            told.append(holder)
        look()
        time.sleep(_LOOK_SECONDS)


@contextmanager
def holding(turn: Turn | AllTurns, device: str, events: EventSink, hint: str = WAITING_HINT) -> Iterator[None]:
    """Have a turn meanwhile: waits for it, telling what it waits for by warnings, and gives it back in the end."""

    def tell(holder: Holder | None) -> None:
        events.emit("warning", code=BUSY, message=busy_words(device, holder), hint=hint)

    try:
        wait_for(turn, tell, lambda: None)
        yield
    finally:
        turn.give_back()


def waiting_hint(share: bool | None) -> str:
    """What can be done about it. ``share``: None where to compute beside the other job cannot be asked for."""
    return WAITING_HINT if share is None else f"{WAITING_HINT} --share-gpu goes on beside it."


def busy_words(device: str, holder: Holder | None) -> str:
    """That a job has to wait, and for what."""
    return f"Another job is using {device}{'' if holder is None else f' ({holder})'}."

"""Several processes that train one run, joined by Accelerate: see ``ranks.py`` for what they are to each other.

Two groups: gradients go through NCCL between GPUs, else gloo, and have to be there within minutes. What the first
process says goes through gloo, from host to host: no GPU waits for it, and it may be silent for days, as in a pause.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn

from trainer.block_fetching import Fetching
from trainer.data.rows import Rows, rounds_of, rows_in_step
from trainer.devices import accelerator, features_of, gpu_uuid, is_out_of_memory
from trainer.errors import Problem
from trainer.gradient_sum import GradientSum
from trainer.machines import Lifelines, choose_interface, this_machine
from trainer.processes import is_running
from trainer.ranks import CALLS, Call, OutOfStep, Ranks, starter
from trainer.runs.store import process_is_alive, this_process
from trainer.shared_out import Parts, share_out_blocks

T = TypeVar("T")

_log = logging.getLogger("trainer")
_COMPUTING = timedelta(minutes=30)
_WAITING = timedelta(days=30)
_LOOK_SECONDS = 0.25
_NOTICE_SECONDS = 3.0
"""How long a process has to notice by itself that another one is lost: most are told by their next reduction."""
_MEETING_SECONDS = 30.0
"""How long one that failed in step waits for the others to fail too, who may be in need of its parts."""


@contextmanager
def joined() -> Iterator[RankGroup]:
    """Find the other processes, by the environment of ``torchrun``, and leave them in the end."""
    choose_interface()
    found = accelerator()
    state = PartialState(cpu=found is None or not features_of(found).process_groups, timeout=_COMPUTING)
    group = RankGroup(state.process_index, state.num_processes, state.device)
    try:
        yield group
    finally:
        group.close()


class RankGroup(Ranks):
    """See ``Ranks``."""

    def __init__(self, index: int, size: int, device: torch.device) -> None:
        """Meet the others, and watch from then on whether they are there."""
        self.index, self.size = index, size
        self._device = device if features_of(device).process_groups else torch.device("cpu")
        self._said = dist.new_group(backend="gloo", timeout=_WAITING)
        self._people = self._everyone({"host": this_machine(), "gpu": gpu_uuid(self._device), **this_process()})
        elsewhere = [number for number in range(size) if self._host(number) != self._host(0)]
        self._lines = Lifelines(index, elsewhere, self.share)
        self._above = [os.getppid(), *filter(None, [starter()])]
        self._fetching: Fetching | None = None
        self._end: Callable[[Problem], None] = lambda problem: None
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="other processes", daemon=True).start()

    def device(self) -> torch.device:
        """This process's own."""
        return self._device

    def gpus(self) -> list[str]:
        """Those of the other processes on this machine."""
        here = self._people[self.index]["host"]
        return [each["gpu"] for each in self._people if each["host"] == here and each["gpu"] is not None]

    def share_out(self, denoiser: nn.Module, device: torch.device, *, wanted: bool) -> None:
        """See ``Ranks``. The parts go through a group of their own, so that gradients do not hold them up."""
        if not wanted:
            return
        parts = Parts(self.index, self.size, device, dist.new_group(timeout=_COMPUTING))
        self._fetching = share_out_blocks(denoiser, parts, device)
        self.in_step = True

    def rows(self, whole: int) -> Rows:
        """See ``Ranks``."""
        return rows_in_step(self.index, self.size, whole) if self.in_step else super().rows(whole)

    def share(self, find: Callable[[], T]) -> T:
        """See ``Ranks``. Where the first process raises, the others are told that it ended."""
        told: list[Any] = [None]
        if self.leads:
            told = [find()]
        dist.broadcast_object_list(told, 0, group=self._said)
        result: T = told[0]
        return result

    def shares(self, pieces: Sequence[T]) -> Iterator[Sequence[T]]:
        """See ``Ranks``."""
        own = range(self.index, len(pieces), self.size)
        yield [pieces[number] for number in own]
        dist.barrier(group=self._said)
        yield [piece for number, piece in enumerate(pieces) if number not in own]

    def rounds(self, pieces: Sequence[T]) -> Iterator[tuple[T, bool]]:
        """See ``Ranks``."""
        return rounds_of(self.index, self.size, pieces, in_step=self.in_step)

    def total(self, numbers: Tensor) -> Tensor:
        """See ``Ranks``."""
        dist.all_reduce(numbers)
        return numbers

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """See ``Ranks``."""
        failures: list[Exception] = []
        try:
            yield
        except Exception as error:
            if not (self.in_step or is_out_of_memory(error)):
                raise
            failures.append(error)
        told = self._outcomes(bool(failures))
        if told is None or (told[:, 0].any() and len(told[:, 1].unique()) > 1):
            message = "A process failed in a pass of the model that the others went on with; often it is memory."
            raise OutOfStep(message) from next(iter(failures), None)
        if failures:
            raise failures[0]
        if told[:, 0].any():
            raise MemoryError("another process has no memory")

    def union(self, items: set[T]) -> set[T]:
        """See ``Ranks``."""
        return set[T]().union(*self._everyone(items))

    def add_up(self, parameters: Sequence[nn.Parameter], passes: int) -> GradientSum:
        """See ``Ranks``."""
        return GradientSum(parameters, passes)

    def call(self, call: Call) -> None:
        """See ``Ranks``."""
        if call == "end":
            self._closed.set()
        dist.broadcast(torch.tensor([CALLS.index(call)]), 0, group=self._said)

    def calls(self) -> Iterator[Call]:
        """See ``Ranks``."""
        heard = torch.zeros(1, dtype=torch.int64)
        while True:
            dist.broadcast(heard, 0, group=self._said)
            call = CALLS[int(heard)]
            if call == "end":
                self._closed.set()
                return
            yield call

    def lost(self) -> Problem | None:
        """See ``Ranks``. On other machines the first process knows of all, and the others of the first."""
        gone = [number for number in range(self.size) if not self._is_there(number)]
        return self._about(gone) if gone else None

    def cause(self, error: Exception) -> Problem | None:
        """See ``Ranks``."""
        until = time.monotonic() + (_NOTICE_SECONDS if isinstance(error, RuntimeError) else 0)
        while (problem := self.lost()) is None and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS / 2)
        return self._about_silence() if problem is None and _is_of_an_exchange(error) else problem

    def on_loss(self, end: Callable[[Problem], None]) -> None:
        """See ``Ranks``."""
        self._end = end

    def close(self) -> None:
        """Look no longer; after an orderly end let go of what connects them, which waits for the others."""
        orderly = self._closed.is_set()
        self._closed.set()
        self._lines.close()
        if orderly:
            dist.destroy_process_group()
        PartialState._reset_state()

    def _everyone(self, own: Any) -> list[Any]:
        """What each process has, in their order."""
        told: list[Any] = [None] * self.size
        dist.all_gather_object(told, own, group=self._said)
        return told

    def _outcomes(self, failed: bool) -> Tensor | None:
        """Whether each process failed in what all have done, and how far it has come in the model's passes: (size, 2).

        None where the others do not come: they wait for parts of this one, which failed, or are gone.
        """
        place = 0 if self._fetching is None else self._fetching.asked
        told = torch.empty(self.size, 2, dtype=torch.int64)
        meeting = dist.all_gather_single(told, torch.tensor([[int(failed), place]]), group=self._said, async_op=True)
        until = time.monotonic() + _MEETING_SECONDS
        while failed and self.in_step and not meeting.is_completed():
            if time.monotonic() > until:
                return None
            time.sleep(_LOOK_SECONDS / 2)
        try:
            meeting.wait()
        except RuntimeError as error:
            _log.warning("The other processes cannot be asked how they are: %s", error)
            return None
        return told

    def _host(self, number: int) -> str:
        host: str = self._people[number]["host"]
        return host

    def _is_there(self, number: int) -> bool:
        if number in self._lines:
            return not self._lines.is_broken(number)
        person = self._people[number]
        if person["host"] != self._host(self.index):
            return True
        return process_is_alive(person["pid"], person["pid_started"], person["pid_mark"])

    def _about(self, gone: list[int]) -> Problem:
        where = self._machines_of(gone)
        what = f"ended, or cannot be reached on {where}, so" if where else "ended, so"
        hint = "The log may say why; often it is memory. Resume goes on from the newest checkpoint, with any number of "
        return Problem("processes.lost", f"{self._named(gone)} {what} the others could not go on.", f"{hint}processes.")

    def _about_silence(self) -> Problem:
        """Of an exchange that failed while all seem to be there."""
        others = [number for number in range(self.size) if number != self.index]
        where = self._machines_of(others)
        message = f"The exchange with {self._named(others).lower()}{f' on {where}' if where else ''} failed, or took "
        message += f"more than {_COMPUTING.seconds // 60} minutes, so the run could not go on."
        hint = "The log has the details; it may be the network, or a process that hangs. Resume goes on from the newest"
        return Problem("processes.lost", message, f"{hint} checkpoint, with any number of processes.")

    def _named(self, numbers: list[int]) -> str:
        names = " and ".join(str(number + 1) for number in numbers)
        return f"Process{'es' if len(numbers) > 1 else ''} {names} of {self.size}"

    def _machines_of(self, numbers: list[int]) -> str:
        """The names of the other machines among theirs; empty where there are none."""
        hosts = {self._host(number) for number in numbers} - {self._host(self.index)}
        return " and ".join(sorted(host.partition("/")[0] for host in hosts))

    def _watch(self) -> None:
        """End with the others, however this process is held up; and have the run stopped when a launcher is gone."""
        told = False
        while not self._closed.wait(_LOOK_SECONDS):
            problem = self.lost()
            if problem is not None:
                if self._closed.wait(_NOTICE_SECONDS):
                    return
                self._end(problem)
                os._exit(1)
            if not told and not all(map(is_running, self._above)):
                told = True
                os.kill(os.getpid(), signal.SIGTERM)  # nobody else would stop it, and have it saved


def _is_of_an_exchange(error: Exception) -> bool:
    """Whether an error is of ``torch.distributed``; gloo's are but told by the places in its source that they name."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))

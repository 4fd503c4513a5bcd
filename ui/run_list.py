"""All runs of a workspace, read again only where their ``run.json`` has changed. No gradio in here."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.errors import UserError
from trainer.file_states import Mark, mark_of
from trainer.remote.hosts import host_devices
from trainer.runs.queue import in_order, read_queue
from trainer.runs.store import ALIVE, Run, RunInfo, Workspace


@dataclass(frozen=True)
class RunList:
    """Newest first; ``queue`` holds the ids of waiting runs, next one first.

    ``version`` tells lists apart, also from those of a process before this one, which an open page may show.
    """

    version: int
    infos: tuple[RunInfo, ...]
    queue: tuple[str, ...]
    paused: bool = False
    """Whether the queue is: waiting runs stay waiting."""
    hosts: tuple[str, ...] = ()
    """Other machines that runs can wait for, as devices."""
    newer: int = 0
    """How many runs are left out as a newer version of this program made them."""


class RunListReader:
    """Follows the runs folder of a workspace; shared by all open pages."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[Mark, RunInfo]] = {}
        self._list = RunList(time.time_ns(), (), ())

    def read(self) -> RunList:
        """The list as it is now; the same object as before while nothing has changed."""
        with self._lock:
            known: dict[Path, tuple[Mark, RunInfo]] = {}
            newer = 0
            for run in self._runs():
                try:
                    known[run.dir] = self._read(run)
                except UserError:  # gone meanwhile, no folder, not ours to read, or newer
                    newer += run.is_newer
            self._known = known
            infos = tuple(sorted((info for _, info in known.values()), key=lambda info: -info.created))
            state = read_queue(self._workspace)
            queue = tuple(info.id for info in in_order(infos, state.order))
            now = RunList(self._list.version, infos, queue, state.paused, host_devices(self._workspace), newer)
            if now != self._list:
                self._list = replace(now, version=now.version + 1)
            return self._list

    def _runs(self) -> list[Run]:
        return [Run(path) for path in self._workspace.run_folders()]

    def _read(self, run: Run) -> tuple[Mark, RunInfo]:
        """A run whose process lives is asked each time whether it still does. Raises UserError."""
        mark, old = mark_of(run.info_path), self._known.get(run.dir)
        if old is not None and old[0] == mark and old[1].state not in ALIVE:
            return old
        try:
            return mark, run.status()
        except OSError:  # that its process is gone cannot be written down
            return mark, run.read()

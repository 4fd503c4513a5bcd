"""Two runs brought into a pair of states, and held there while processes are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from playwright.sync_api import BrowserContext, Page, Playwright

from tests.browser.conftest import App, open_browser, wait_until_open
from tests.browser.example_runs import open_tab
from tests.browser.test_dataset_tab import eventually
from tests.running_app import processes_of
from trainer.config import Config
from trainer.runs import actions, control, queue
from trainer.runs.control import Request
from trainer.runs.store import ALIVE, COMPUTING, ENDED, Run, State, Workspace
from trainer.runs.worker import ensure_workers

PATIENCE_SECONDS = 600
MORE_STEPS = 30
ON_THE_WAY: dict[State, tuple[State, Request]] = {"paused": ("preparing", "pause"), "stopping": ("training", "stop")}
"""In which state what has to be asked of a run so that it comes into another. One that has learned nothing yet has
nothing to save, and stops without ever stopping."""


@dataclass
class Scene:
    """Two runs, the app and a browser that shows the list of runs.

    Attributes:
        held: ids of runs whose trainer was told to stand still, with its process.
        killed: ids of runs whose trainer was killed.
    """

    app: App
    playwright: Playwright
    profile: Path
    runs: tuple[Run, Run]
    held: dict[str, int] = field(default_factory=dict)
    killed: set[str] = field(default_factory=set)
    _browser: BrowserContext | None = None

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.app.workspace)

    def page(self) -> Page:
        """The list of runs, in a browser that is opened where there is none."""
        if self._browser is None:
            self._browser = open_browser(self.playwright, self.profile)
        page = self._browser.new_page()
        page.goto(self.app.url)
        wait_until_open(page)
        open_tab(page, "Runs")
        return page

    def bring(self, run: Run, state: State) -> None:
        """Have a run in this state, its process standing still in it; one that waits or has ended has none.

        The queue goes on then, unless something waits for which the device is free.
        """
        if state == "queued":
            return
        while not self._try(run, state):  # its moment was missed
            actions.extend(run, MORE_STEPS)
        if state in COMPUTING:
            queue.go_on(self.workspace)

    def _try(self, run: Run, state: State) -> bool:
        queue.go_on(self.workspace)
        ensure_workers(self.workspace)
        eventually(lambda: run.status().state != "queued", PATIENCE_SECONDS)
        queue.pause(self.workspace)
        if state in ON_THE_WAY:
            before, request = ON_THE_WAY[state]
            if not self._hold(run, before):
                return False
            control.ask(run.control_dir, request)
            self._let_go(run)
        return self._hold(run, state)

    def _hold(self, run: Run, state: State) -> bool:
        """Have a run's process stand still in a state, without a lock that others wait for. False when it has ended."""
        while (info := run.status()).state != state:
            if info.state in ENDED:
                return False
            time.sleep(0.001)
        if state in ENDED:
            return True
        assert info.pid is not None
        os.kill(info.pid, signal.SIGSTOP)
        self.held[run.id] = info.pid
        if run.read().state == state and _is_free(run):
            return True
        self._let_go(run)
        return self._hold(run, state)

    def _let_go(self, run: Run) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.held.pop(run.id), signal.SIGCONT)

    def kill(self, victim: str) -> None:
        """End the app, the worker, the browser or the trainers the hard way."""
        if victim == "app":
            self.app.process.kill()
            self.app.process.wait()
        elif victim == "worker":
            for process in processes_of(self.app.workspace, "worker"):
                _kill(process.pid)
        elif victim == "browser":
            self._kill_browser()
        else:
            for run in self.runs:
                info = run.read()
                if info.state in ALIVE and info.pid is not None:
                    self.killed.add(run.id)
                    self.held.pop(run.id, None)
                    _kill(info.pid)

    def _kill_browser(self) -> None:
        for process in processes_of(self.profile):
            _kill(process.pid)
        if self._browser is not None:
            with contextlib.suppress(Exception):  # it knows that its browser is gone in many ways
                self._browser.close()
        self._browser = None

    def start_what_is_gone(self) -> None:
        """A new app for one that was killed."""
        if self.app.process.poll() is not None:
            self.app.restart()

    def let_end(self) -> None:
        """Have everything go on, and each run come to its end. Never do two compute."""
        for run in self.runs:
            if run.id in self.held:
                self._let_go(run)
        queue.go_on(self.workspace)
        eventually(self._all_finished, PATIENCE_SECONDS)

    def _all_finished(self) -> bool:
        before, states = self._states(), self._states()
        assert sum({was, now} <= {*COMPUTING} for was, now in zip(before, states, strict=True)) <= 1, states
        if not any(state in (*COMPUTING, "queued") for state in states):
            waiting = [run for run, state in zip(self.runs, states, strict=True) if state != "finished"]
            for run in waiting[:1]:  # one after the other: there are no turns of a processor for what was paused
                actions.ask(run, "resume")
        return states == ["finished", "finished"]

    def _states(self) -> list[State]:
        return [run.status().state for run in self.runs]

    def end(self) -> None:
        """Leave nothing of it behind."""
        for run in self.runs:
            if run.id in self.held:
                self._let_go(run)
        if self._browser is not None:
            self._browser.close()


@contextlib.contextmanager
def scene(app: App, playwright: Playwright, profile: Path, config: Config) -> Iterator[Scene]:
    """Two runs that wait in a queue that is paused."""
    workspace = Workspace(app.workspace)
    queue.pause(workspace)
    runs = (workspace.create_run(config), workspace.create_run(config))
    made = Scene(app, playwright, profile, runs)
    try:
        yield made
    finally:
        made.end()


def _is_free(run: Run) -> bool:
    """Whether nobody holds the lock of a run or of the queue."""
    try:
        for path in (run.dir / ".run.lock", run.workspace.locks_dir / "queue.lock"):
            with FileLock(path, timeout=0.2):
                pass
    except Timeout:
        return False
    return True


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(20)

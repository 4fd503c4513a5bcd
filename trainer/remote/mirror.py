"""A run that is trained on another machine, kept here as it is there: one process follows it to its end.

The run's folder is the interface there as here. What is in it is fetched every two seconds; requests are passed on by
the command line there. So the process here can end at any time, and another one follows later: the run goes on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from trainer.config_io import save_config
from trainer.errors import StoppedOnRequest, UserError
from trainer.files import write_text
from trainer.plan_disk import LEFT_BYTES, free_disk_bytes
from trainer.remote.hosts import Host
from trainer.remote.sending import WITHOUT_OWN, There, config_there, program_digest, send_files, send_program, send_run
from trainer.remote.ssh import Connection, Refused, Unreachable
from trainer.runs import control
from trainer.runs.events import EventSink, EventTail
from trainer.runs.store import ENDED, Run, RunInfo

T = TypeVar("T")

EVERY_SECONDS = 2.0
STILL_SECONDS = 30.0
"""After so long without a change it is asked whether the run's process lives."""
AGAIN_SECONDS = (2.0, 4.0, 8.0, 15.0)
"""Between attempts to reach the host again; the last one from then on."""
_PERCENT = re.compile(r"(\d+)%")
TOLD = (
    "step", "max_steps", "epoch", "batches_per_epoch", "started", "error", "device", "processes", "rollbacks",
    "extended", "versions", "first_step_s",
)  # fmt: skip
"""What ``run.json`` says here as there."""
_NO_FIELDS = ("time", "type", "step", "self", "kind")
"""Of an event, as ``EventSink.emit`` takes it."""
_LARGEST_TOLD = "--max-size=4m"
"""Of ``run.json`` and ``config.yaml`` of a host: they are read as a whole."""


class Unreadable(UserError):
    """What a host has in a run's folder is not what a run tells."""


class Mirror:
    """Follows one run on one host."""

    def __init__(self, run: Run, host: Host, events: EventSink) -> None:
        self._run = run
        self._host = host
        self._events = events
        self._tail = EventTail(run.events_path)
        self._apart = run.dir / ".there"
        self._begun_by = self._apart / "program"
        self._was_there = self._apart / "told"
        self._words = ""
        self._seen: object = None
        self._seen_at = time.monotonic()

    def follow(self) -> RunInfo:
        """Have the run trained there, unless it is under way there already, and follow it to its end.

        Raises UserError and StoppedOnRequest before it has begun there.
        """
        connection = Connection(self._host, self._look)
        try:
            for _ in self._tail.read():  # told before
                pass
            self._say(f"Connecting to {self._host.name}")
            there = self._reach(lambda: There(connection))
            if not self._goes_on(there):
                self._start(there)
            return self._to_its_end(there)
        finally:
            connection.close()

    def _reach(self, attempt: Callable[[], T]) -> T:
        """The attempt's answer. For a run that is under way there it is tried again and again."""
        began, number = time.strftime("%H:%M"), 0
        while True:
            try:
                return attempt()
            except (Unreachable, Unreadable, Refused, OSError) as error:
                if self._run.read().host is None:
                    raise
                name = self._host.name
                lost = "No answer from" if isinstance(error, Unreachable) else "Cannot keep up with"
                reason = str(error).removeprefix(f"{name}: ")
                self._say(f"{lost} {name} since {began}; the run goes on there. {reason}")
            time.sleep(AGAIN_SECONDS[min(number, len(AGAIN_SECONDS) - 1)])
            number += 1

    def _goes_on(self, there: There) -> bool:
        """Whether the run is under way there, or has ended there and is not to go further."""
        known = self._run.read()
        info = self._reach(lambda: self._told(there))
        if info is None:
            if known.host is not None and self._was_there.exists():
                raise self._gone(there)
            self._run.update(host=None)
            return False
        if self._begun_by.exists():
            there.program = self._begun_by.read_text()
        if info.state in ENDED and known.host is None:
            return False
        if info.state in ENDED and self._is_to_go_further(info):
            self._reach(lambda: self._fetch(there))  # before what is here goes there again
            self._tell(info)
            return False
        self._run.update(host=self._host.name)
        return True

    def _is_to_go_further(self, info: RunInfo) -> bool:
        """Whether more steps are asked for here than a run has that is finished there."""
        asked = self._run.config().train.max_steps
        return info.state == "finished" and asked is not None and asked > (info.max_steps or 0)

    def _start(self, there: There) -> None:
        config, files = config_there(self._run.config(), there.folder)
        name = self._host.name
        self._say(f"Bringing the program to {name}, and installing it there where that is not done: some minutes")
        send_program(there)
        self._say(f"Bringing pictures and models to {name}")
        send_files(there, files)
        self._say(f"Bringing the run to {name}")
        send_run(there, self._run, config, self._is_there)
        self._reach(lambda: self._have_it_taken(there))

    def _is_there(self) -> None:
        """From now on the run may be trained there, whatever becomes of this process."""
        self._was_there.unlink(missing_ok=True)
        write_text(self._begun_by, program_digest())
        self._run.update(host=self._host.name)

    def _to_its_end(self, there: There) -> RunInfo:
        self._say("")
        while True:
            info = self._reach(lambda: self._look_there(there))
            if info.state in ENDED:
                return self._end(info)
            time.sleep(EVERY_SECONDS)

    def _look_there(self, there: There) -> RunInfo:
        """Pass requests on, and fetch what there is."""
        self._pass_on(there)
        info = self._told(there)
        if info is None:
            raise self._gone(there)
        self._fetch(there)
        self._say(f"Waiting in the queue of {self._host.name}" if info.state == "queued" else "")
        if info.state not in ENDED:
            self._tell(info, state="starting" if info.state == "queued" else info.state)
            self._see_that_it_lives(there, info)
        return info

    def _gone(self, there: There) -> UserError:
        """The run was there and is not: it is this machine's again, and nothing is sent before somebody says so."""
        self._run.update(host=None)
        message = f"The run is not in {there.folder} of {self._host.name} any more."
        return UserError("remote.gone", message, "Resume brings it there again, as it is here.")

    def _see_that_it_lives(self, there: There, info: RunInfo) -> None:
        """What changes, lives. Of what has been still the program there says whether its process is gone."""
        now = (info, self._run.events_path.stat().st_size if self._run.events_path.exists() else 0)
        if now != self._seen:
            self._seen, self._seen_at = now, time.monotonic()
        elif time.monotonic() - self._seen_at > STILL_SECONDS:
            self._seen_at = time.monotonic()
            if info.state == "queued":
                self._have_it_taken(there)
            else:
                there.trainer("runs", "list")

    def _have_it_taken(self, there: There) -> None:
        """See to it that there is a worker for the run; one that has just ended its last run may have taken it."""
        try:
            there.trainer("runs", "resume", self._run.id)
        except (Unreachable, Refused):
            raise
        except UserError:
            info = self._told(there)
            if info is not None and info.state != "queued":
                return
            if info is not None:  # it would wait for ever
                there.trainer("runs", "stop", self._run.id)
            self._run.update(host=None)
            raise

    def _told(self, there: There) -> RunInfo | None:
        """The run as that machine tells; None where it has no such run."""
        theirs = Run(self._apart / "now")
        theirs.dir.mkdir(parents=True, exist_ok=True)
        for copy in (theirs.info_path, theirs.config_path):
            copy.unlink(missing_ok=True)  # what does not come is not told
            path = f"{there.run_dir(self._run)}/{copy.name}"
            try:
                there.connection.fetch(path, copy, _LARGEST_TOLD)
            except Refused:
                if there.has(path):
                    raise
                return None
        try:
            info, prompts = theirs.read(), theirs.config().samples.prompts
        except UserError as error:
            raise Unreadable("remote.unreadable", f"What it tells of the run cannot be read: {error}") from error
        with self._run.lock():
            ours = self._run.config()
            if self._run.read().host is not None and prompts != ours.samples.prompts:  # changed while it goes
                ours.samples.prompts = prompts
                save_config(ours, self._run.config_path)
        self._was_there.touch()
        return info

    def _fetch(self, there: There) -> None:
        """All of the run's folder. Checkpoints that are gone there go here too, once newer ones are whole; nothing else
        does."""
        if free_disk_bytes(self._run.dir) < LEFT_BYTES:
            raise Refused("remote.no_room", f"The disk of {self._run.dir} is nearly full. Free some space.")
        keep = ["--delete-after", "--filter=R /checkpoints/***", "--filter=P *"]
        there.connection.fetch(f"{there.run_dir(self._run)}/", self._run.dir, *WITHOUT_OWN, *keep)
        for event in self._tail.read():
            fields = {name: value for name, value in event.items() if name not in _NO_FIELDS}
            self._events.emit(str(event["type"]), event.get("step", 0), **fields)

    def _pass_on(self, there: There) -> None:
        """Requests made here. One that cannot be passed on waits for the next attempt."""
        prompts = control.waiting_prompts(self._run.control_dir)
        if prompts is not None:
            target = f"{there.run_dir(self._run)}/control/"
            there.connection.send([str(self._run.control_dir / control.PROMPTS)], target, "--remove-source-files")
        for request in control.waiting(self._run.control_dir):
            try:
                there.trainer("runs", request, self._run.id)
            except (Unreachable, Refused):
                raise
            except UserError as error:  # it is too late for it there
                self._events.emit("warning", message=str(error))
            (self._run.control_dir / request).unlink(missing_ok=True)

    def _end(self, info: RunInfo) -> RunInfo:
        """The run has ended there and all of it is here."""
        if self._run.read().name != info.name:  # it has another name here meanwhile
            for theirs in self._run.output_dir.glob("*.safetensors"):
                if theirs.stem == info.name:
                    theirs.replace(self._run.output_path)
        return self._tell(info, state=info.state, ended=info.ended, exit_code=info.exit_code, host=None, host_words="")

    def _tell(self, info: RunInfo, **changes: Any) -> RunInfo:
        values = {name: getattr(info, name) for name in TOLD}
        return self._run.update(durable="ended" in changes, **values, **changes)

    def _say(self, words: str) -> None:
        """What goes on between the machines, for whoever looks at the run."""
        if words != self._words:
            self._words = words
            self._run.update(durable=False, host_words=words)

    def _look(self, said: str) -> None:
        """While something is brought there: how far it is, and whether the run is to be stopped."""
        if self._run.read().host is not None:
            return
        if "stop" in control.waiting(self._run.control_dir):
            control.clear(self._run.control_dir)
            raise StoppedOnRequest("stopped before it began")
        percent = _PERCENT.search(said)
        if percent and self._words:
            self._say(f"{self._words.partition(':')[0]}: {percent[1]} %")

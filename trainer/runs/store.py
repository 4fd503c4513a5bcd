"""The workspace and its run folders: where things lie, and what state a run is in.

A run folder has one writer at a time: the trainer process while it lives, otherwise whoever holds the run's lock.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field

from trainer.checkpoint_folders import step_of
from trainer.config import Config
from trainer.config_base import FileName
from trainer.config_io import load_config, save_config
from trainer.config_paths import config_with_full_paths
from trainer.errors import Problem, UserError
from trainer.files import json_bytes, last_log_line, read_json, write_json
from trainer.outputs import new_output
from trainer.processes import process_facts, start_mark
from trainer.unfinished import remove, unfinished
from trainer.versions import RUN

State = Literal["queued", "starting", "preparing", "training", "paused", "stopping", "finished", "stopped", "failed"]
ALIVE: tuple[State, ...] = ("starting", "preparing", "training", "paused", "stopping")
COMPUTING: tuple[State, ...] = ("starting", "preparing", "training", "stopping")
"""Those of ``ALIVE`` in which a run has its device, or waits for it: a paused one leaves it to others."""
ENDED: tuple[State, ...] = ("finished", "stopped", "failed")
STATES: tuple[State, ...] = get_args(State)


_LAST_SECOND = 253_402_300_799
"""Of the year 9999: later times have no date."""
Count = Annotated[int, Field(ge=0, le=2**53)]
"""Of steps and the like; larger numbers are not exact on the page."""
Time = Annotated[float, Field(ge=0, le=_LAST_SECOND)]
"""Unix seconds."""


class RunInfo(BaseModel):
    """``run.json``, which may be a stranger's: what is out of bounds makes it a broken one."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)  # a later version's extra keys survive a rewrite

    version: Literal[1] = 1
    id: str
    name: FileName
    state: State = "queued"
    pid: Annotated[int, Field(ge=0, le=2**32)] | None = None
    pid_started: Time | None = None
    pid_mark: Count | None = None
    """Of the process, by ``processes.start_mark``; None in what older versions wrote."""
    step: Count = 0
    max_steps: Count | None = None
    epoch: Count = 0
    batches_per_epoch: Count | None = None
    """Micro-batches of an epoch; None before the pictures were prepared."""
    created: Time
    queued: Time | None = None
    started: Time | None = None
    ended: Time | None = None
    exit_code: Annotated[int, Field(ge=-(2**32), le=2**32)] | None = None
    error: str | None = None
    device: str | None = None
    queue_device: str | None = None
    """The device of the queue worker that started the run; None for a run started from a terminal."""
    wanted_device: str | None = None
    """The device that the run is queued for: ``cpu``, ``cuda:0`` ...; None for any GPU that is free."""
    gpu: str | None = None
    """The UUID of the GPU that the run's process computes on."""
    processes: Annotated[Count, Field(ge=1)] = 1
    """How many processes train the run together; each has a device of its own."""
    interrupted: Literal["machine", "process"] | None = None
    """What a failed run's process ended with: the machine, or by itself and without a word; None for a told reason."""
    rollbacks: Count = 0
    """How often the run went back to a checkpoint by itself, because its numbers went bad."""
    extend_to: Count | None = None
    """Steps that the queue was asked to go on to."""
    extended: Time | None = None
    """When the run was last given another length than that of its first config."""
    versions: dict[str, str] = {}
    note: str = ""
    """What the user wrote about the run."""
    first_step_s: Annotated[float, Field(ge=-_LAST_SECOND, le=_LAST_SECOND)] | None = None
    """Seconds from the start of the run's latest process, or from ``launched``, to the end of its first step; None
    before that."""
    launched: Time | None = None
    """When the queue's worker had a process begin with the run, which may have been loaded before; None for a run
    started from a terminal."""
    changed_from: str | None = None
    """Id of the run whose settings this one's were made of."""
    host: str | None = None
    """The host on which the run is under way; None for this machine, and once all of it is here."""
    host_words: str = ""
    """What goes on between this machine and the host, where that is worth telling."""
    begun_from: str | None = None
    """The run and step whose checkpoint this one goes on from: ``20261123-081500-my-lora-3f2a91c7 step 40``."""

    @property
    def length_asked(self) -> float:
        """When somebody last said how many steps it is to have."""
        return self.extended or self.created


@dataclass(frozen=True)
class Run:
    """One run folder: the paths in it, and reading and changing ``run.json``."""

    dir: Path

    @property
    def id(self) -> str:
        return self.dir.name

    @property
    def config_path(self) -> Path:
        return self.dir / "config.yaml"

    @property
    def info_path(self) -> Path:
        return self.dir / "run.json"

    @property
    def events_path(self) -> Path:
        return self.dir / "events.jsonl"

    @property
    def log_path(self) -> Path:
        return self.dir / "train.log"

    @property
    def connection_log_path(self) -> Path:
        """What the process says that follows the run on another machine."""
        return self.dir / "connection.log"

    @property
    def control_dir(self) -> Path:
        return self.dir / "control"

    @property
    def samples_dir(self) -> Path:
        return self.dir / "samples"

    @property
    def checkpoints_dir(self) -> Path:
        return self.dir / "checkpoints"

    @property
    def output_dir(self) -> Path:
        return self.dir / "output"

    @property
    def output_path(self) -> Path:
        """The finished LoRA."""
        return self.output_dir / f"{self.read().name}.safetensors"

    def config(self) -> Config:
        """The run's resolved config. Raises UserError when the file is missing or wrong."""
        return load_config(self.config_path)

    def read(self) -> RunInfo:
        """``run.json`` as written; the id is the folder's name, also where a folder was copied or is a stranger's.

        Raises UserError when the folder is not a run, or one of a newer program.
        """
        try:
            values = RUN.read(read_json(self.info_path))
            json_bytes(values)  # what could not be written again is broken
            return RunInfo.model_validate(values).model_copy(update={"id": self.id})
        except (OSError, ValueError) as error:
            raise UserError(
                "run.unreadable",
                f"{self.dir} is not a run folder: {error}.",
                "Choose a folder under runs/ of the workspace.",
            ) from error

    @property
    def is_newer(self) -> bool:
        """Whether ``run.json`` is of a newer version of this program."""
        try:
            self.read()
        except UserError as error:
            return error.problems[0].code == RUN.newer
        return False

    @property
    def workspace(self) -> Workspace:
        """The workspace of a run that lies in one."""
        return Workspace(self.dir.parent.parent)

    def update(self, *, durable: bool = True, **changes: Any) -> RunInfo:
        """Change some of ``run.json`` atomically and return the whole.

        What may be lost with the power need not wait for the disk: not ``durable``.
        """
        with self.lock():
            return self.update_locked(durable=durable, **changes)

    def update_locked(self, *, durable: bool = True, **changes: Any) -> RunInfo:
        """``update`` for a caller that holds the run's lock."""
        info = self.read().model_copy(update=changes)
        write_json(self.info_path, info.model_dump(), durable=durable)
        return info

    def status(self) -> RunInfo:
        """``run.json``, with a run whose process is gone told (and written down) as failed."""
        info = self.read()
        if info.state not in ALIVE or process_is_alive(info.pid, info.pid_started, info.pid_mark):
            return info
        with self.lock():
            return self.status_locked()

    def status_locked(self) -> RunInfo:
        """``status`` for a caller that holds the run's lock."""
        info = self.read()
        if info.state not in ALIVE or process_is_alive(info.pid, info.pid_started, info.pid_mark):
            return info
        with_machine = info.pid_started is not None and info.pid_started < psutil.boot_time() - 2.0
        if with_machine:
            error = "The machine was restarted while this run was going. Resume goes on from its newest checkpoint."
        else:
            reason = last_log_line(self.log_path)
            error = "The process ended without saying why." + (f" Its last words: {reason}" if reason else "")
        if info.host is not None:
            error = on_its_own(info.host)
        interrupted = "machine" if with_machine else "process"
        return self.update_locked(state="failed", pid=None, ended=time.time(), error=error, interrupted=interrupted)

    @contextmanager
    def only_process(self) -> Iterator[None]:
        """Two processes on one run would ruin it. Raises UserError where there is one."""
        lock = FileLock(self.dir / ".process.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            message = f"Another process is working on the run {self.id}."
            raise UserError("run.alive", message, "Wait for its end, or stop it first.") from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def lock(self, timeout_seconds: float = 30) -> Iterator[None]:
        """Keep other processes from changing ``run.json`` meanwhile.

        Raises UserError when the run is gone, and filelock.Timeout when another process does not let go.
        """
        if not self.dir.is_dir():  # the lock would make the folder again
            raise UserError("run.unreadable", f"There is no run folder {self.dir}.", "It may have been deleted.")
        with FileLock(self.dir / ".run.lock", timeout=timeout_seconds):
            yield


@dataclass(frozen=True)
class Workspace:
    """The folder that holds runs, jobs and caches."""

    dir: Path

    @property
    def runs_dir(self) -> Path:
        return self.dir / "runs"

    @property
    def jobs_dir(self) -> Path:
        return self.dir / "jobs"

    @property
    def cache_dir(self) -> Path:
        return self.dir / "cache"

    @property
    def datasets_dir(self) -> Path:
        """Uploaded and generated datasets."""
        return self.dir / "datasets"

    @property
    def models_dir(self) -> Path:
        """Merged models and LoRAs."""
        return self.dir / "models"

    @property
    def pictures_dir(self) -> Path:
        """Pictures made on the Generate tab."""
        return self.dir / "pictures"

    @property
    def inputs_dir(self) -> Path:
        """Pictures and masks that others start from, by ``trainer.inputs.keep_input``."""
        return self.dir / "inputs"

    @property
    def locks_dir(self) -> Path:
        return self.dir / "locks"

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Keep what goes by this name as it is meanwhile, for all processes and threads."""
        self.locks_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(self.locks_dir / f"{name}.lock", timeout=30):
            yield

    def create_run(
        self,
        config: Config,
        run_dir: Path | None = None,
        *,
        queued: bool = True,
        wanted_device: str | None = None,
        checkpoint: Path | None = None,
        changed_from: str | None = None,
    ) -> Run:
        """Make a new run folder with its config: for the queue, or started by the calling process at once.

        Paths in it are full ones from then on, so that the run does not depend on the folder it is started from.
        Where a ``checkpoint`` of another run is given, a copy of it is this run's first: it goes on exactly there.
        ``changed_from`` is kept with the run.

        Raises UserError when ``run_dir`` is taken.
        """
        run = Run(run_dir or self.runs_dir / new_run_id(config.name))
        if run.dir.exists() and any(run.dir.iterdir()):
            raise UserError(
                "run.exists", f"The folder {run.dir} is not empty.", "Choose another --run-dir, or resume that run."
            )
        now = time.time()
        info = RunInfo(
            id=run.id,
            name=config.name,
            created=now,
            queued=now,
            max_steps=config.train.max_steps,
            wanted_device=wanted_device,
            changed_from=changed_from,
        )
        if not queued:  # never queued for a moment, or a worker could take it
            info = info.model_copy(update={"state": "starting", "started": now, **this_process()})
        with new_output(run.dir) as folder:  # whole, or not there: half a run could neither be resumed nor deleted
            made = Run(folder)
            for part in (made.control_dir, made.samples_dir, made.checkpoints_dir, made.output_dir):
                part.mkdir(parents=True)
            save_config(config_with_full_paths(config, Path.cwd()), made.config_path)
            if checkpoint is not None:
                shutil.copytree(checkpoint, made.checkpoints_dir / checkpoint.name)
                begun_from = f"{checkpoint.parent.parent.name} step {step_of(checkpoint)}"
                info = info.model_copy(update={"step": step_of(checkpoint), "begun_from": begun_from})
            write_json(made.info_path, info.model_dump())
        return run

    def run_folders(self) -> Iterator[Path]:
        """What may be run folders, in no order: all but those that are being made."""
        with suppress(FileNotFoundError):
            yield from (folder for folder in self.runs_dir.iterdir() if not folder.name.startswith("."))

    def runs(self) -> list[Run]:
        """All readable run folders, newest first."""
        created: dict[Run, float] = {}
        for folder in self.run_folders():
            with suppress(UserError):  # a damaged or half-deleted folder must not hide the others
                created[Run(folder)] = Run(folder).read().created
        return sorted(created, key=lambda run: created[run], reverse=True)

    def newer_runs(self) -> list[Run]:
        """Run folders that only a newer version of this program can read; ``runs`` leaves them out."""
        return [run for run in map(Run, self.run_folders()) if run.is_newer]

    def run(self, run_id: str) -> Run:
        """The run of this id. Raises UserError when there is none; an id cannot lead out of the workspace."""
        run = Run(self.runs_dir / run_id)
        if Path(run_id).name != run_id or not run.info_path.is_file():
            message = f"There is no run {run_id!r} in {self.runs_dir}."
            raise UserError("run.unknown", message, "`runs list` shows the runs there are.")
        return run

    def delete_run(self, run: Run) -> None:
        """Delete an ended run's folder. Raises UserError while its process lives.

        It is gone at once for others, who may just look at it, and write down how they found it.
        """
        with run.lock():
            if run.status_locked().state in ALIVE:
                raise UserError("run.alive", f"The run {run.id} is still going.", "Stop it first.")
        gone = unfinished(run.dir)
        run.dir.rename(gone)
        remove(gone)


def new_run_id(name: str) -> str:
    """A folder name that sorts by time and is never given twice: ``20261123-081500-my-lora-3f2a91c7``."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "run"
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}-{secrets.token_hex(4)}"


def on_its_own(host: str) -> str:
    """What is told of a run that goes on on a host while no process here follows it."""
    return f"The run goes on on {host}, but nothing follows it here any more. Resume follows it again."


def about_newer(count: int) -> Problem:
    """Says that so many runs, one or more, cannot be shown as a newer version of this program made them."""
    which = "1 run was" if count == 1 else f"{count} runs were"
    left_out = "is" if count == 1 else "are"
    return Problem(RUN.newer, f"{which} made by a newer LoRA Atelier and {left_out} not listed.", "Update the program.")


def process_is_alive(pid: int | None, started: float | None, mark: int | None = None) -> bool:
    """Whether the process that wrote this pid still runs; a recycled pid does not count.

    By its ``mark`` that is told whatever happens to the machine's clock; without, by when it ``started``.
    """
    if pid is None:
        return False
    if mark is not None:
        return start_mark(pid) == mark
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and (
            started is None or abs(process.create_time() - started) < 2.0
        )
    except psutil.NoSuchProcess:
        return False


def this_process() -> dict[str, Any]:
    """``pid``, ``pid_started`` and ``pid_mark`` of the calling process, for ``Run.update``."""
    return process_facts(os.getpid())

"""Starting several processes that train one run together, through Accelerate's launcher, and seeing to their end."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from trainer.accelerators import DEVICE_VARIABLE
from trainer.errors import JobFailed, Problem, StoppedOnRequest, UserError
from trainer.processes import ROOT, ending_signals, signal_group
from trainer.ranks import STARTER, is_launched
from trainer.runs import control
from trainer.runs.events import read_events
from trainer.runs.gpus import CPU, VISIBLE_VARIABLES, chosen_gpus
from trainer.runs.store import ENDED, Run, RunInfo, Workspace

_LOOK_SECONDS = 0.2
_SETTINGS = ROOT / "trainer" / "accelerate_launch.yaml"
"""For Accelerate's launcher, which would read the user's own file otherwise."""


@dataclass(frozen=True)
class Launch:
    """Processes of this machine: each on its GPU of ``gpus``, named as CUDA knows it, or all on the CPU."""

    processes: int
    gpus: Sequence[str] = ()

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which PyTorch finds these devices and no others."""
        visible = dict.fromkeys(VISIBLE_VARIABLES, ",".join(self.gpus))
        return {**visible, DEVICE_VARIABLE: "cuda" if self.gpus else CPU}


def add_processes(parser: argparse.ArgumentParser) -> None:
    """``--processes N`` and ``--devices 0,1``: without them one process trains."""
    parser.add_argument("--processes", type=int, default=None, metavar="N", help="train with N processes, a GPU each")
    parser.add_argument(
        "--devices", default=None, metavar="0,1", help="the GPUs to train on together, or cpu; a process for each"
    )


def launch_of(args: argparse.Namespace) -> Launch | None:
    """The processes to start; None where this one is to train: as one of those already launched, or alone.

    Where one is asked for on some device, that is this process, which sees only that device from then on: to be called
    before torch looks for devices. Raises UserError as ``launch_asked`` does.
    """
    launch = launch_asked(args)
    if launch is None or launch.processes > 1:
        return launch
    os.environ.update(launch.environment)
    return None


def launch_asked(args: argparse.Namespace) -> Launch | None:
    """The processes that are asked for; None for this one as it is, and in one of those already launched.

    Raises UserError for a number that is none, for a GPU that is not here, and for fewer GPUs than processes.
    """
    if is_launched() or (args.processes is None and args.devices is None):
        return None
    names = [name.strip() for name in (args.devices or "").split(",") if name.strip()]
    processes = args.processes or len(names)
    if processes < 1 or (args.processes is not None and args.processes < 1):
        message = f"--processes {args.processes}: give the number of processes, from 1 on."
        raise UserError("processes.number", message, "Without it one process trains.", "processes")
    if names and set(names) == {CPU}:
        return Launch(processes)
    if processes == 1 and not names:
        return None
    return Launch(processes, chosen_gpus(names, processes))


def train_together(run: Run, workspace: Workspace, launch: Launch, *, share_gpu: bool = False) -> RunInfo:
    """Have a run trained by several processes, and wait for its end.

    A signal that asks for an end becomes a request to stop; the second one ends all at once.

    Raises:
        UserError: what the user gave is wrong.
        StoppedOnRequest: stopped; everything is saved.
        JobFailed: anything else.
    """
    sharing = ["--share-gpu"] if share_gpu else []
    arguments = ["resume", str(run.dir), "--workspace", str(workspace.dir), *sharing]
    process = subprocess.Popen(
        launcher_command(launch.processes, arguments),
        cwd=ROOT,
        env=_environment(launch),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=os.name != "nt",
    )
    with _signals_to_requests(run, process):
        while process.poll() is None:
            time.sleep(_LOOK_SECONDS)
    return outcome_of(run, process.returncode)


def launcher_command(processes: int, arguments: Sequence[str]) -> list[str]:
    """The argument list that runs a trainer command in so many processes, two or more."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(_SETTINGS)]
    return [*launch, "--num_processes", str(processes), "--module", "trainer", *arguments]


def _environment(launch: Launch) -> dict[str, str]:
    """Each process has its share of the processor's cores, unless the user says otherwise."""
    threads = str(max(1, (os.cpu_count() or 1) // launch.processes))
    return {"OMP_NUM_THREADS": threads, **os.environ, **launch.environment, STARTER: str(os.getpid())}


@contextmanager
def _signals_to_requests(run: Run, process: subprocess.Popen[bytes]) -> Iterator[None]:
    asked = 0

    def answer(number: int, frame: object) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            control.ask(run.control_dir, "stop")
        else:
            signal_group(process.pid)

    before = {number: signal.signal(number, answer) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outcome_of(run: Run, code: int) -> RunInfo:
    """How the run ended, told as if this process had trained it."""
    info = run.status()
    if info.state == "finished" and code == 0:
        return info
    if info.state == "stopped":
        raise StoppedOnRequest(f"stopped at step {info.step} of {info.max_steps}; saved as {run.output_path}")
    told = [event for event in read_events(run.events_path) if event["type"] == "error"]
    problems = [
        Problem(each["code"], each["message"], each["hint"]) for each in told if each["message"] in (info.error or "")
    ]
    if not problems:
        why = info.error or f"The processes ended with exit code {code}, without saying why."
        problems = [Problem("processes.failed", why, "Resume goes on from the newest checkpoint.")]
    if info.state not in ENDED:  # they did not even begin: as long as this process lives the run would seem to
        run.update(state="failed", pid=None, pid_started=None, ended=time.time(), exit_code=1, error=str(problems[0]))
    if info.exit_code == 2:
        raise UserError.many(problems)
    raise JobFailed(problems[-1], run.log_path)

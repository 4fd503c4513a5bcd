"""A run of two machines: network namespaces with names of their own and a cable between them, on a shared disk."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests import forked
from tests.recipe.several import all_end, assert_same, start_several, wait_for_event, wait_for_state
from tests.recipe.tiny_runs import train_here
from trainer.config import Config
from trainer.config_io import save_config
from trainer.machines import SILENT_SECONDS
from trainer.runs import control
from trainer.runs.store import Run, Workspace

ADDRESSES = ("10.213.77.1", "10.213.77.2")
STEPS = 40
PORT = 29517
"""Each machine has all of its ports."""
NOTICED_SECONDS = 10

ConfigOf = Callable[..., Config]


def be_on(names: tuple[str, str], machine: int | None = None) -> None:
    """Have this process, and those it starts, be on one of the machines: by ``RANK`` where none is given."""
    name = names[int(os.environ["RANK"]) if machine is None else machine]
    system = ctypes.CDLL(None, use_errno=True)
    new_names, network = 0x04000000, 0x40000000  # CLONE_NEWUTS, CLONE_NEWNET of <sched.h>
    with Path("/run/netns", name).open() as place:
        for failed in (system.setns(place.fileno(), network), system.unshare(new_names)):
            assert not failed, os.strerror(ctypes.get_errno())
    socket.sethostname(name)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Machines:
    """Two machines, by their names, with a cable that can be pulled out."""

    names: tuple[str, str]

    def start(self, run: Run) -> list[forked.Command]:
        """A run resumed by a process on each."""
        here = {"MASTER_ADDR": ADDRESSES[0], "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        return start_several(2, "resume", str(run.dir), first=partial(be_on, self.names), **here)

    def launch(self, machine: int, *arguments: str) -> subprocess.Popen[str]:
        """A command launched on one of them, as ``docs/multi-gpu.md`` says."""
        places = ["--num_machines", "2", "--machine_rank", str(machine), "--num_processes", "2"]
        meeting = ["--main_process_ip", ADDRESSES[0], "--main_process_port", str(PORT)]
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", *places, *meeting]
        return subprocess.Popen(
            [*launcher, "-m", "trainer", *arguments],
            cwd=forked.ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=partial(be_on, self.names, machine),
        )

    def cable(self, state: str) -> None:
        """Have the second one's end of the cable ``down`` or ``up``."""
        ip("-n", self.names[1], "link", "set", "cable", state)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need Linux, root and the program ip")
    names = (f"first-{os.getpid()}", f"second-{os.getpid()}")
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr}")
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for link in ("cable", "lo"):
                ip("-n", name, "link", "set", link, "up")
        yield Machines(names)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.fixture(scope="module")
def half(tiny: ConfigOf) -> ConfigOf:
    """A run of so many pictures a process."""

    def make(batch_size: int) -> Config:
        return tiny(train__max_steps=STEPS, train__batch_size=batch_size, output__save_every_steps=3)

    return make


@pytest.fixture(scope="module")
def alone(half: ConfigOf, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run in one process, with the batch of both."""
    run = Workspace(tmp_path_factory.mktemp("alone")).create_run(half(2))
    train_here(run)
    return run


def ends_as_lost(run: Run, since: float, within_seconds: float) -> None:
    """That a run has told within a time that the second machine is lost."""
    wait_for_state(run, "failed")
    info = run.read()
    assert info.ended is not None and info.ended - since < within_seconds
    assert info.error is not None and "Process 2 of 2 ended, or cannot be reached on second-" in info.error
    assert "Resume goes on" in info.error


def goes_on_as(run: Run, alone: Run, half: ConfigOf) -> None:
    """That a run, resumed by one process with the batch of both, learns what it would have learned."""
    save_config(half(2), run.config_path)
    train_here(run)
    assert_same(run, alone)


def test_accelerates_launch_on_each_trains_one_run_and_each_can_stop_it(
    machines: Machines, alone: Run, half: ConfigOf, workspace: Workspace
) -> None:
    run = workspace.create_run(half(1))
    launchers = [machines.launch(number, "resume", str(run.dir)) for number in range(2)]
    wait_for_event(run, "checkpoint", 3)
    control.ask(run.control_dir, "pause")
    wait_for_state(run, "paused")
    launchers[1].send_signal(signal.SIGTERM)
    told = [launcher.communicate(timeout=120)[1] for launcher in launchers]
    assert run.read().state == "stopped", told
    assert (run.read().processes, run.output_path.is_file()) == (2, True)

    processes = machines.start(run)
    all_end(processes, seconds=240)
    assert [process.poll() for process in processes] == [0, 0]
    assert_same(run, alone)


def test_a_process_killed_on_the_other_machine(
    machines: Machines, alone: Run, half: ConfigOf, workspace: Workspace
) -> None:
    run = workspace.create_run(half(1))
    processes = machines.start(run)
    wait_for_event(run, "checkpoint", 3)
    killed = time.time()
    os.kill(processes[1].pid, signal.SIGKILL)
    ends_as_lost(run, killed, NOTICED_SECONDS)
    all_end(processes, seconds=60)
    goes_on_as(run, alone, half)


@pytest.mark.parametrize(
    "when",
    [
        "paused",  # nothing is said then, maybe for days
        pytest.param(
            "training",
            marks=pytest.mark.skipif(
                "LORA_ATELIER_MEASURE" not in os.environ, reason="more of the same: set LORA_ATELIER_MEASURE"
            ),
        ),
    ],
)
def test_a_cable_that_is_cut(machines: Machines, alone: Run, half: ConfigOf, workspace: Workspace, when: str) -> None:
    """Both sides notice it and end."""
    run = workspace.create_run(half(1))
    processes = machines.start(run)
    wait_for_event(run, "checkpoint", 3)
    if when == "paused":
        control.ask(run.control_dir, "pause")
        wait_for_state(run, "paused")
    cut = time.time()
    machines.cable("down")
    try:
        ends_as_lost(run, cut, SILENT_SECONDS + NOTICED_SECONDS)
        all_end(processes, seconds=60)
    finally:
        machines.cable("up")
    goes_on_as(run, alone, half)


def test_the_network_of_the_first_process_is_used(machines: Machines) -> None:
    """A machine's own name leads back to itself, here and on many: gloo would listen there."""
    code = "from trainer.machines import interface_to, own_address_to as own; "
    code += f"print(interface_to('{ADDRESSES[0]}'), own('{ADDRESSES[0]}'))"
    for number in range(2):
        asked = subprocess.run(
            [sys.executable, "-c", code],
            cwd=forked.ROOT,
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=partial(be_on, machines.names, number),
        )
        assert asked.stdout.split() == ["cable", ADDRESSES[number]]

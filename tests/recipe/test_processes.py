"""A run of several processes: real ones, which find each other as launched ones do, on the processor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from tests import forked
from tests.recipe.several import (
    CLOSE,
    all_end,
    assert_same,
    assert_same_numbers,
    start_several,
    train_several,
    wait_for_event,
    wait_for_state,
)
from tests.recipe.test_resume import EVERYTHING_RANDOM
from tests.recipe.tiny_runs import SIDE, make_pictures, of_type, states_of, train_here
from tests.tiny_models import tiny_model
from trainer import rank_group, recipe
from trainer.config import Config
from trainer.config_io import save_config
from trainer.data.training_set import Batch
from trainer.runs import control
from trainer.runs.store import Run, Workspace
from trainer.step_inputs import StepInputs

MEASURES = "LORA_ATELIER_MEASURE" in os.environ

ConfigOf = Callable[..., Config]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("sd1", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tiny_of(model: Path, config_of: ConfigOf) -> ConfigOf:
    """A run of the smallest model, with a batch for each process."""

    def make(batch_size: int, **changes: object) -> Config:
        given = {"model": {"base": str(model)}, "train__max_steps": 6, **changes, "train__batch_size": batch_size}
        return config_of(**given)

    return make


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_of: ConfigOf) -> Run:
    """The run in one process, of batches of four: three pictures, so that no two processes have the same number."""
    run = Workspace(tmp_path_factory.mktemp("alone")).create_run(tiny_of(4))
    train_here(run)
    return run


LONG = {"train__max_steps": 40, "train__gradient_accumulation_steps": 1}
"""Long enough that steps are replayed in the end, and that a request comes in between."""


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, tiny_of: ConfigOf) -> Run:
    """The same, for longer."""
    run = Workspace(tmp_path_factory.mktemp("long")).create_run(tiny_of(4, **LONG))
    train_here(run)
    return run


def started(count: int, run: Run) -> list[forked.Command]:
    return start_several(count, "resume", str(run.dir))


def test_two_processes_learn_what_one_does_and_only_the_first_writes(
    alone: Run, workspace: Workspace, tiny_of: ConfigOf
) -> None:
    run = train_several(2, tiny_of(2), workspace)
    assert_same(run, alone)
    info = run.read()
    assert (info.state, info.processes, info.step, info.batches_per_epoch) == ("finished", 2, 6, 1)
    assert states_of(run) == ["starting", "preparing", "training", "finished"]
    assert [event["step"] for event in of_type(run, "metric")] == list(range(1, 7)), "each told once"
    assert [event["step"] for event in of_type(run, "checkpoint")] == [3, 6]
    encoded = [event["encoded"] for event in of_type(run, "progress") if "encoded" in event]
    assert encoded == [3, 3], "pictures and captions of both, each counted once"


def test_chance_belongs_to_the_place_in_the_whole_batch(
    workspace: Workspace, tiny_of: ConfigOf, tmp_path: Path
) -> None:
    """Dropouts, noise, captions, crops and colours of the whole batch; and a validation that is shared out."""
    random = {**EVERYTHING_RANDOM, "dataset__cache": {"latents": False}}
    one = Workspace(tmp_path / "one").create_run(tiny_of(**{**random, "batch_size": 2}))
    train_here(one)
    run = train_several(2, tiny_of(**{**random, "batch_size": 1}), workspace)
    assert_same(run, one)
    losses = [[event["loss"] for event in of_type(each, "validation")] for each in (one, run)]
    assert losses[0] == pytest.approx(losses[1], abs=CLOSE) and len(losses[0]) == 4


FOUR = pytest.param(4, marks=pytest.mark.skipif(not MEASURES, reason="four on two cores: set LORA_ATELIER_MEASURE"))


def note_pictures(folder: Path) -> None:
    """Have this process write the pictures of each batch that it computes."""
    real, notes = recipe.batch_inputs, folder / f"{os.environ['RANK']}.txt"

    def noted(ingredients: Any, batch: Batch, index: int) -> StepInputs:
        with notes.open("a") as file:
            file.writelines(f"{index} {path.name}\n" for path in batch.paths)
        return real(ingredients, batch, index)

    recipe.batch_inputs = noted


def pictures_seen(folder: Path) -> list[str]:
    """What the processes have noted: each showing of a picture, with the number of its batch."""
    return sorted(line for path in folder.glob("*.txt") for line in path.read_text().splitlines())


@pytest.fixture(scope="module")
def demo_of(config_of: ConfigOf, tmp_path_factory: pytest.TempPathFactory) -> ConfigOf:
    """Two epochs of the demo model with seven pictures, with a batch for each process."""
    pictures = make_pictures(tmp_path_factory.mktemp("seven"), count=7)
    dataset = {"sources": [{"path": str(pictures)}], "resolution": SIDE, "buckets": {"min": 64, "step": 8}}

    def make(batch_size: int) -> Config:
        return config_of(dataset=dataset, train__max_steps=4, train__batch_size=batch_size)

    return make


def demo_trained(count: int, demo_of: ConfigOf, folder: Path) -> tuple[Run, list[str]]:
    """The run of the demo model, with four pictures a step, and what its processes saw."""
    notes, run = folder / "notes", Workspace(folder).create_run(demo_of(4 // count))
    notes.mkdir()
    all_end(start_several(count, "resume", str(run.dir), first=partial(note_pictures, notes)), seconds=300)
    assert (run.read().state, run.read().processes) == ("finished", count)
    return run, pictures_seen(notes)


@pytest.fixture(scope="module")
def demo_alone(demo_of: ConfigOf, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[str]]:
    return demo_trained(1, demo_of, tmp_path_factory.mktemp("demo"))


@pytest.mark.parametrize("count", [2, FOUR])
def test_the_demo_learns_the_same_from_the_same_pictures(
    demo_alone: tuple[Run, list[str]], demo_of: ConfigOf, tmp_path: Path, count: int
) -> None:
    """In an epoch each picture is seen once, by one process: four in a batch, then three.

    A few weights differ more than losses do: where gradients are next to nothing, AdamW divides rounding by itself.
    """
    run, seen = demo_trained(count, demo_of, tmp_path)
    assert_same_numbers(run, demo_alone[0])
    assert seen == demo_alone[1]
    names = [f"{number}.png" for number in range(7)]
    for epoch in (("0", "1"), ("2", "3")):
        assert sorted(name for batch, name in map(str.split, seen) if batch in epoch) == names


@pytest.mark.parametrize("count", [FOUR])
def test_of_four_processes_one_has_no_picture(alone: Run, workspace: Workspace, tiny_of: ConfigOf, count: int) -> None:
    assert_same(train_several(count, tiny_of(1), workspace), alone)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_run_which_goes_on_in_one(
    long: Run, workspace: Workspace, tiny_of: ConfigOf, lost: int
) -> None:
    """With another number of processes and the same batch of all, what follows is what it would have been."""
    run = workspace.create_run(tiny_of(2, **LONG))
    processes = started(2, run)
    wait_for_event(run, "checkpoint", 3)
    killed = time.time()
    os.kill(processes[lost].pid, signal.SIGKILL)
    all_end(processes, seconds=60)
    all_ended = time.time()
    info = run.status()
    assert ((lost and info.ended) or all_ended) - killed < 10
    assert (info.state, processes[1 - lost].poll()) == ("failed", 1)
    told = "Process 2 of 2 ended, so" if lost else "The process ended without saying why"  # who looks at the run says
    assert info.error is not None and told in info.error and (not lost or "Resume goes on" in info.error)

    save_config(tiny_of(4, **LONG), run.config_path)
    train_here(run)
    assert run.read().processes == 1
    assert_same(run, long)


def wait_ten_seconds() -> None:
    """Have this process wait for the others no longer than that, in place of half an hour."""
    rank_group._COMPUTING = timedelta(seconds=10)


def test_a_process_that_is_there_and_does_nothing_ends_the_run(workspace: Workspace, tiny_of: ConfigOf) -> None:
    run = workspace.create_run(tiny_of(2, **LONG))
    processes = start_several(2, "resume", str(run.dir), first=wait_ten_seconds)
    wait_for_event(run, "checkpoint", 3)
    os.kill(processes[1].pid, signal.SIGSTOP)
    try:
        wait_for_state(run, "failed")
        told = of_type(run, "error")[-1]
        assert told["code"] == "processes.lost" and "The exchange with process 2 of 2 failed" in told["message"]
    finally:
        os.kill(processes[1].pid, signal.SIGKILL)
    all_end(processes, seconds=60)


@pytest.mark.parametrize("count", [FOUR])
def test_four_processes_are_followed_by_two(long: Run, workspace: Workspace, tiny_of: ConfigOf, count: int) -> None:
    run = workspace.create_run(tiny_of(1, **LONG))
    processes = started(count, run)
    wait_for_event(run, "checkpoint", 3)
    control.ask(run.control_dir, "stop")
    all_end(processes, seconds=300)
    assert (run.read().state, run.read().processes) == ("stopped", 4)

    save_config(tiny_of(2, **LONG), run.config_path)
    all_end(started(2, run), seconds=300)
    assert (run.read().state, run.read().processes) == ("finished", 2)
    assert_same(run, long)


def test_stop_go_on_and_pause(long: Run, workspace: Workspace, tiny_of: ConfigOf) -> None:
    run = workspace.create_run(tiny_of(2, **LONG))
    processes = started(2, run)
    wait_for_event(run, "checkpoint", 3)
    control.ask(run.control_dir, "stop")
    all_end(processes, seconds=120)
    assert [process.poll() for process in processes] == [3, 0]
    assert run.read().state == "stopped" and 3 <= run.read().step < LONG["train__max_steps"]

    processes = started(2, run)
    wait_for_state(run, "training")
    control.ask(run.control_dir, "pause")
    wait_for_state(run, "paused")
    with FileLock(workspace.locks_dir / "device-cpu.lock").acquire(timeout=30):
        assert run.status().state == "paused"
    control.ask(run.control_dir, "resume")
    all_end(processes, seconds=120)
    assert [process.poll() for process in processes] == [0, 0]
    assert_same(run, long)


def test_a_run_whose_launcher_is_gone_is_stopped_and_saved(workspace: Workspace, tiny_of: ConfigOf) -> None:
    run = workspace.create_run(tiny_of(2, **LONG))
    launcher = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    processes = start_several(2, "resume", str(run.dir), LORA_ATELIER_STARTER=str(launcher.pid))
    wait_for_event(run, "checkpoint", 3)
    launcher.kill()
    launcher.wait()
    all_end(processes, seconds=120)
    assert run.read().state == "stopped" and run.output_path.is_file()


def test_wrong_settings_are_told_once(workspace: Workspace, tiny_of: ConfigOf) -> None:
    run = workspace.create_run(tiny_of(2, samples__prompts=[{"prompt": "a circle", "clip_skip": 12}]))
    processes = started(2, run)
    all_end(processes, seconds=120)
    assert processes[0].poll() == 2 and run.read().exit_code == 2
    assert len(of_type(run, "error")) == 1 and "clip_skip" in str(run.read().error)
    out, err = processes[1].communicate()
    assert out == "" and "error:" not in err


OTHER_PROGRAMS = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config: {fsdp_version: 2, fsdp_reshard_after_forward: true}
dynamo_config: {dynamo_backend: INDUCTOR}
gpu_ids: "0"
machine_rank: 1
main_process_ip: 192.0.2.1
main_process_port: 29500
mixed_precision: fp16
num_machines: 2
num_processes: 16
use_cpu: true
"""
"""What ``accelerate config`` may have written, for trainings that are not ours."""


def test_our_own_launch_and_accelerates(long: Run, workspace: Workspace, tiny_of: ConfigOf, tmp_path: Path) -> None:
    """SIGTERM to the first stops and saves, and it does not ask what other programs want of Accelerate; the run is
    then ended by the second."""
    config, here = tmp_path / "config.yaml", ["--workspace", str(workspace.dir)]
    save_config(tiny_of(2, **LONG), config)
    settings = tmp_path / "home" / "accelerate" / "default_config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(OTHER_PROGRAMS)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    asked = ["train", str(config), *here, "--processes", "2", "--devices", "cpu", "--json"]
    command = [sys.executable, "-m", "trainer", *asked]
    launch = subprocess.Popen(command, cwd=forked.ROOT, stdout=subprocess.PIPE, env=environment)
    run = the_run_of(workspace)
    wait_for_event(run, "checkpoint", 3)
    given = [process.environ() for process in processes_of(run) if "RANK" in process.environ()]
    assert sorted(each["RANK"] for each in given) == ["0", "1"]
    for each in given:
        assert (each["CUDA_VISIBLE_DEVICES"], each["MASTER_ADDR"]) == ("", "127.0.0.1")
        assert (each["ACCELERATE_MIXED_PRECISION"], each["ACCELERATE_DYNAMO_BACKEND"]) == ("no", "NO")
        assert "ACCELERATE_USE_FSDP" not in each
    launch.send_signal(signal.SIGTERM)
    answer = json.loads(launch.communicate(timeout=60)[0])
    assert (launch.returncode, run.read().state) == (3, "stopped")
    assert f"stopped at step {run.read().step} of 40" in answer["stopped"]
    assert processes_of(run) == [], "nobody is left behind"

    accelerate = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    command = [sys.executable, *accelerate, "-m", "trainer", "resume", str(run.dir)]
    told = subprocess.run(command, cwd=forked.ROOT, capture_output=True, text=True, timeout=240)
    assert told.returncode == 0 and told.stdout.count("finished at step 40") == 1, told.stderr
    assert_same(run, long)


def test_one_process_is_started_as_several_are_and_goes_on_in_two(
    long: Run, workspace: Workspace, tiny_of: ConfigOf, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    save_config(tiny_of(4, **LONG), config)
    asked = ["train", str(config), "--workspace", str(workspace.dir), "--devices", "cpu", "--processes", "1"]
    one = subprocess.Popen([sys.executable, "-m", "trainer", *asked], cwd=forked.ROOT, stderr=subprocess.PIPE)
    run = the_run_of(workspace)
    wait_for_event(run, "checkpoint", 3)
    one.send_signal(signal.SIGTERM)
    assert one.communicate(timeout=60) and one.returncode == 3
    assert (run.read().state, run.read().processes) == ("stopped", 1)

    save_config(tiny_of(2, **LONG), run.config_path)
    processes = started(2, run)
    all_end(processes, seconds=120)
    assert [process.poll() for process in processes] == [0, 0]
    assert run.read().processes == 2
    assert_same(run, long)


def the_run_of(workspace: Workspace, seconds: float = 120) -> Run:
    """The first run of a workspace, once a command has made it."""
    until = time.monotonic() + seconds
    while not workspace.runs():
        assert time.monotonic() < until
        time.sleep(0.05)
    return workspace.runs()[0]


def processes_of(run: Run) -> list[psutil.Process]:
    """Those that were started for a run."""
    return [each for each in psutil.process_iter(["cmdline"]) if str(run.dir) in (each.info["cmdline"] or [])]

"""Which processes are asked for, and how they are started."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.listed_gpus import list_two_gpus
from trainer.config import Config
from trainer.errors import JobFailed, StoppedOnRequest, UserError
from trainer.launching import Launch, add_processes, launch_asked, launch_of, launcher_command, outcome_of
from trainer.runs.events import EventLog
from trainer.runs.gpus import gpus
from trainer.runs.store import Run, Workspace
from trainer.runs.worker import resume_command
from ui.runs.waiting import device_choices
from ui.train_view import command_line


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A driver that lists two GPUs."""
    list_two_gpus(monkeypatch, tmp_path)
    gpus.cache_clear()
    yield
    gpus.cache_clear()


def arguments_of(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_processes(parser)
    return parser.parse_args(arguments)


def asked(*arguments: str) -> Launch | None:
    return launch_asked(arguments_of(*arguments))


def test_devices_are_named_counted_or_the_first_ones(two_gpus: None) -> None:
    assert asked() is None
    assert asked("--processes", "2") == Launch(2, ["GPU-aaaa", "GPU-bbbb"])
    assert asked("--devices", "1,0") == asked("--devices", "cuda:1,cuda:0") == Launch(2, ["GPU-bbbb", "GPU-aaaa"])
    assert asked("--processes", "1") is None
    assert asked("--devices", "0") == asked("--processes", "1", "--devices", "0") == Launch(1, ["GPU-aaaa"])
    assert asked("--devices", "cpu,cpu") == asked("--processes", "2", "--devices", "cpu") == Launch(2)
    for wrong in (["--processes", "3"], ["--devices", "0,7"], ["--devices", "0,0"], ["--processes", "0"]):
        with pytest.raises(UserError) as caught:
            asked(*wrong)
        assert caught.value.problems[0].code.startswith("processes.")


def test_a_process_that_was_launched_launches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert asked("--processes", "2", "--devices", "cpu") is None


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (["--processes", "1", "--devices", "0"], ("GPU-aaaa", "cuda")),
        (["--devices", "1"], ("GPU-bbbb", "cuda")),
        (["--devices", "cpu"], ("", "cpu")),
        (["--processes", "1", "--devices", "cpu"], ("", "cpu")),
    ],
)
def test_one_process_is_this_one_which_sees_its_device_only(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch, given: list[str], seen: tuple[str, str]
) -> None:
    variables = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "LORA_ATELIER_DEVICE")
    for name in variables:
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert launch_of(arguments_of(*given)) is None
    gpu, kind = seen
    assert [os.environ[name] for name in variables] == [gpu, gpu, kind]


def test_several_are_started_and_this_one_is_left_as_it_is(two_gpus: None) -> None:
    before = dict(os.environ)
    assert launch_of(arguments_of("--processes", "2")) == Launch(2, ["GPU-aaaa", "GPU-bbbb"])
    assert launch_of(arguments_of()) is launch_of(arguments_of("--processes", "1")) is None
    assert dict(os.environ) == before


def test_accelerate_is_what_launches() -> None:
    command = launcher_command(3, ["resume", "RUN"])
    assert command[1:3] == ["-m", "accelerate.commands.launch"]
    assert command[command.index("--num_processes") + 1] == "3"
    assert command[-4:] == ["--module", "trainer", "resume", "RUN"]


def test_the_page_and_the_queue_offer_all_gpus_together(two_gpus: None, tmp_path: Path) -> None:
    values = dict(device_choices())
    assert values["cuda:0,cuda:1"] == "all 2 GPUs together"
    assert command_line(Config(), tmp_path, "cuda:0,cuda:1").endswith(" --devices cuda:0,cuda:1")
    assert "--devices" not in command_line(Config(), tmp_path, "cuda:1")


def test_a_queued_run_names_its_devices(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    together = workspace.create_run(Config(), wanted_device="cpu,cpu")
    assert resume_command(together, workspace)[-2:] == ["--devices", "cpu,cpu"]
    assert "--devices" not in resume_command(workspace.create_run(Config(), wanted_device="cpu"), workspace)


def test_how_the_processes_ended_is_told_as_if_there_was_one(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)

    def ended(**changes: object) -> Run:
        run = workspace.create_run(Config())
        run.update(**changes)
        return run

    assert outcome_of(ended(state="finished"), 0).state == "finished"
    with pytest.raises(StoppedOnRequest, match="stopped at step 4 of 9"):
        outcome_of(ended(state="stopped", step=4, max_steps=9), 0)
    wrong = ended(state="failed", exit_code=2, error="One. Do this.")
    log = EventLog(wrong.events_path)
    log.emit("error", code="old", message="Long ago.", hint="")
    log.emit("error", code="a.one", message="One.", hint="Do this.")
    log.close()
    with pytest.raises(UserError) as caught:
        outcome_of(wrong, 0)
    assert [problem.code for problem in caught.value.problems] == ["a.one"]
    lost = ended(state="starting", pid=os.getpid())
    with pytest.raises(JobFailed, match="exit code 1"):
        outcome_of(lost, 1)
    assert lost.read().state == "failed" and lost.read().pid is None

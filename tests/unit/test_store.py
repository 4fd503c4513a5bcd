"""Run folders and the truth about their state."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trainer.config import Config
from trainer.errors import UserError
from trainer.files import read_json, write_json
from trainer.processes import started_at
from trainer.runs import store
from trainer.runs.store import Run, Workspace, new_run_id, process_is_alive, this_process
from trainer.unfinished import remove


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_a_new_run_is_queued_and_complete(workspace: Workspace) -> None:
    config = Config.model_validate({"name": "Red Fox!", "train": {"max_steps": 7}})
    run = workspace.create_run(config)
    info = run.read()
    assert (info.state, info.name, info.max_steps, info.pid) == ("queued", "Red Fox!", 7, None)
    assert info.id == run.dir.name
    assert "red-fox" in info.id
    assert run.config() == config
    for folder in (run.control_dir, run.samples_dir, run.checkpoints_dir, run.output_dir):
        assert folder.is_dir()
    assert run.output_path == run.dir / "output" / "Red Fox!.safetensors"
    assert run.workspace == workspace
    assert set(read_json(run.info_path)) >= {
        "id", "name", "state", "pid", "step", "max_steps", "epoch", "created", "started", "ended", "exit_code", "error",
        "device", "versions",
    }  # fmt: skip


def test_a_run_of_the_calling_process_is_never_queued(workspace: Workspace) -> None:
    info = workspace.create_run(Config(), queued=False).status()
    assert (info.state, info.pid) == ("starting", os.getpid())


def test_a_folder_in_use_is_not_taken(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    run = workspace.create_run(Config(), tmp_path / "mine")
    assert run.dir == tmp_path / "mine"
    with pytest.raises(UserError, match="not empty"):
        workspace.create_run(Config(), tmp_path / "mine")


def test_runs_come_newest_first_and_damaged_ones_do_not_hide_the_others(workspace: Workspace) -> None:
    assert workspace.runs() == []
    runs = [workspace.create_run(Config(name=name)) for name in "abc"]
    for number, run in enumerate(runs):
        run.update(created=float(number))
    for name, content in (("broken", "{"), ("wrong", "[]"), ("other", '{"id": 5}')):
        (workspace.runs_dir / name).mkdir()
        (workspace.runs_dir / name / "run.json").write_text(content)
    (workspace.runs_dir / "empty").mkdir()
    (workspace.runs_dir / "file").touch()
    assert workspace.runs() == runs[::-1]


@pytest.mark.parametrize("name", ["none", "..", "../runs", "", "a/b", "."])
def test_ids_lead_to_runs_only(workspace: Workspace, name: str) -> None:
    workspace.create_run(Config())
    with pytest.raises(UserError, match="There is no run"):
        workspace.run(name)


def test_unknown_keys_of_a_later_version_survive(workspace: Workspace) -> None:
    run = workspace.create_run(Config())
    write_json(run.info_path, {**read_json(run.info_path), "favourite": True})
    run.update(step=3)
    assert read_json(run.info_path)["favourite"] is True


def test_a_run_whose_process_is_gone_is_failed_with_its_last_words(workspace: Workspace) -> None:
    run = workspace.create_run(Config())
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run.update(state="training", pid=process.pid, pid_started=started_at(process.pid))
    run.log_path.write_text("step 5\nCUDA error: out of luck\n\n")
    assert run.status().state == "training"
    process.kill()
    while process_is_alive(process.pid, None):
        time.sleep(0.01)
    info = run.status()  # a zombie still: nobody has waited for it
    assert info.state == "failed"
    assert info.error == "The process ended without saying why. Its last words: CUDA error: out of luck"
    assert (info.pid, info.ended is not None) == (None, True)
    assert run.read().state == "failed"
    process.wait()


def test_a_recycled_pid_is_not_the_trainer(workspace: Workspace) -> None:
    run = workspace.create_run(Config())
    run.update(state="training", pid=os.getpid(), pid_started=this_process()["pid_started"] - 1000)
    assert run.status().state == "failed"


def test_states_without_a_process_stay(workspace: Workspace) -> None:
    run = workspace.create_run(Config())
    for state in ("queued", "finished", "stopped", "failed"):
        run.update(state=state, error="as told")
        assert (run.status().state, run.status().error) == (state, "as told")


def test_changes_of_several_writers_are_all_kept(workspace: Workspace) -> None:
    run = workspace.create_run(Config())

    def count() -> None:
        for _ in range(20):
            with run.lock():
                run.update_locked(step=run.read().step + 1)

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.read().step == 60


def test_deleting(workspace: Workspace) -> None:
    run = workspace.create_run(Config(), queued=False)
    with pytest.raises(UserError, match="still going"):
        workspace.delete_run(run)
    run.update(state="finished")
    workspace.delete_run(run)
    assert not run.dir.exists()
    with pytest.raises(UserError, match="is not a run folder"):
        run.read()
    with pytest.raises(UserError, match="no run folder"):
        run.update(step=1)


def test_a_run_is_gone_for_others_before_its_files_are(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run = workspace.create_run(Config())
    run.update(state="finished")
    seen: list[object] = []

    def look_and_remove(path: Path) -> None:
        seen.extend([run.dir.exists(), workspace.runs(), (path / "run.json").is_file()])
        remove(path)

    monkeypatch.setattr(store, "remove", look_and_remove)
    workspace.delete_run(run)
    assert seen == [False, [], True]
    assert list(workspace.runs_dir.iterdir()) == []
    assert not run.dir.exists()


def test_run_ids_sort_by_time_and_never_collide() -> None:
    ids = {new_run_id("Größe / x") for _ in range(200)}
    assert len(ids) == 200
    assert all(part.isascii() and "/" not in part for part in ids)
    assert new_run_id("???").split("-")[2] == "run"


def test_no_pid_is_not_alive() -> None:
    assert not process_is_alive(None, None)
    assert not process_is_alive(2**22 + 5, None)
    assert process_is_alive(os.getpid(), None)
    assert Run(Path("/x")).id == "x"

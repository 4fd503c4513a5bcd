"""The order of the queue, its pause, and what a run waits for."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from trainer.config import Config
from trainer.errors import UserError
from trainer.runs import queue
from trainer.runs.gpus import Gpu
from trainer.runs.queue import Move, move, queued_runs, read_queue, set_device, suits
from trainer.runs.store import Run, Workspace

TWO_GPUS = (Gpu("cuda:0", "GPU-a", "A"), Gpu("cuda:1", "GPU-b", "B"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def _add(workspace: Workspace, *names: str) -> list[Run]:
    return [workspace.create_run(Config(name=name)) for name in names]


def _names(workspace: Workspace) -> str:
    return " ".join(run.read().name for run in queued_runs(workspace))


@pytest.mark.parametrize(
    ("name", "to", "order"),
    [
        ("c", "first", "c a b d"),
        ("c", "earlier", "a c b d"),
        ("b", "later", "a c b d"),
        ("b", "last", "a c d b"),
        ("a", "earlier", "a b c d"),
        ("d", "later", "a b c d"),
        ("a", 3, "b c a d"),
        ("d", 1, "d a b c"),
        ("b", 99, "a c d b"),
        ("b", -5, "b a c d"),
    ],
)
def test_moving(workspace: Workspace, name: str, to: Move | int, order: str) -> None:
    runs = dict(zip("abcd", _add(workspace, *"abcd"), strict=True))
    assert move(runs[name], to) == order.split().index(name) + 1
    assert _names(workspace) == order


def test_new_runs_come_behind_an_order_that_was_given_and_ended_ones_drop_out(workspace: Workspace) -> None:
    a, b, c = _add(workspace, *"abc")
    move(c, "first")
    _add(workspace, "d")
    assert _names(workspace) == "c a b d"
    c.update(state="finished")
    a.update(state="training")
    assert _names(workspace) == "b d"
    with pytest.raises(UserError, match="is training, not waiting"):
        move(a, "first")
    queue.forget_place(c)
    c.update(state="queued", queued=c.read().created + 60)
    assert _names(workspace) == "b d c"
    assert b.id in read_queue(workspace).order


def test_folders_that_are_broken_or_copied_do_not_disturb(workspace: Workspace) -> None:
    a, b = _add(workspace, *"ab")
    copy = workspace.runs_dir / "copy"
    copy.mkdir()
    (copy / "run.json").write_bytes(b.info_path.read_bytes())
    b.info_path.write_text("{")
    assert queued_runs(workspace) == [a, Run(copy)]
    assert move(Run(copy), "first") == 1
    assert queued_runs(workspace) == [Run(copy), a]


def test_a_pause_is_kept_and_a_damaged_file_is_a_new_queue(workspace: Workspace) -> None:
    assert not read_queue(workspace).paused
    b = _add(workspace, *"ab")[1]
    move(b, "first")
    queue.pause(workspace)
    assert read_queue(Workspace(workspace.dir)).paused
    assert _names(workspace) == "b a"
    queue.go_on(workspace)
    assert not read_queue(workspace).paused
    assert _names(workspace) == "b a"
    (workspace.dir / "queue.json").write_text("[1")
    assert _names(workspace) == "a b"
    assert move(b, 1) == 1


def test_moves_of_several_windows_are_all_made(workspace: Workspace) -> None:
    """Each window puts its own run to the end: whatever the turn, no move may bring back an older order."""
    runs = _add(workspace, *"abcdef")
    threads = [threading.Thread(target=move, args=(run, "last")) for run in runs[:3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = _names(workspace).split()
    assert names[:3] == ["d", "e", "f"]
    assert sorted(names[3:]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("present", "wanted", "devices"),
    [
        ((), None, ["cpu"]),
        ((), "cuda:0", ["cuda:0"]),
        (TWO_GPUS, None, ["cuda:0", "cuda:1"]),
        (TWO_GPUS, "cuda:1", ["cuda:1"]),
        (TWO_GPUS, "cpu", ["cpu"]),
    ],
)
def test_what_suits_a_run(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    present: tuple[Gpu, ...],
    wanted: str | None,
    devices: list[str],
) -> None:
    monkeypatch.setattr(queue, "gpus", lambda: present)
    info = workspace.create_run(Config(), wanted_device=wanted).read()
    every_device = [*(gpu.device for gpu in TWO_GPUS), "cpu"]
    assert [device for device in every_device if suits(info, device)] == devices


def test_another_device_for_a_waiting_run(workspace: Workspace) -> None:
    (run,) = _add(workspace, "a")
    assert set_device(run, "cpu").wanted_device == "cpu"
    assert set_device(run, None).wanted_device is None
    with pytest.raises(UserError, match="no device 'cuda:77' here"):
        set_device(run, "cuda:77")
    run.update(state="finished")
    with pytest.raises(UserError, match="is finished, not waiting"):
        set_device(run, "cpu")


def test_a_run_that_has_begun_is_not_taken_out(workspace: Workspace) -> None:
    a, b = _add(workspace, *"ab")
    assert queue.remove(a).state == "stopped"
    assert _names(workspace) == "b"
    b.update(state="training")
    with pytest.raises(UserError, match="is training, not waiting"):
        queue.remove(b)
    assert not list(b.control_dir.iterdir())

"""What the queue panel says, against times worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.config import Config
from trainer.errors import UserError
from trainer.measurements import keep_measurement
from trainer.pace import Costs
from trainer.runs import gpus, turns, worker
from trainer.runs import queue as run_queue
from trainer.runs.gpus import Gpu
from trainer.runs.queue import queued_runs, read_queue
from trainer.runs.store import Run, Workspace, this_process
from ui.run_list import RunListReader
from ui.runs import queue as panel
from ui.runs import waiting
from ui.runs.paces import Paces
from ui.runs.waiting import about, device_choices, queue_view, runs_before, start_word

NO_PREVIEWS = {"samples": {"every_steps": 0, "at_start": False}, "output": {"save_every_steps": 0}}
TWO_GPUS = (Gpu("cuda:0", "GPU-a", "Fast"), Gpu("cuda:1", "GPU-b", "Slow"))


@pytest.fixture(params=[()])
def devices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which GPUs there are, for all who ask."""
    for module in (gpus, waiting, run_queue):
        monkeypatch.setattr(module, "gpus", lambda: request.param)


@pytest.fixture
def workspace(tmp_path: Path, devices: None, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(worker, "ensure_workers", lambda space: None)
    monkeypatch.setattr(panel, "ensure_workers", lambda space: None)
    return Workspace(tmp_path)


def _add(workspace: Workspace, name: str, steps: int = 100, *, on: str = "", done: int = 0, step_ms: float = 0) -> Run:
    """A run of some steps that waits, or is going ``on`` a device, and took ``step_ms`` for each step, else nothing."""
    run = workspace.create_run(Config.model_validate({"name": name, "train": {"max_steps": steps}, **NO_PREVIEWS}))
    if on:
        run.update(state="training", queue_device=on, step=done, **this_process())
    elif done:
        run.update(step=done, state="finished")
    if step_ms:
        _tell(run, step_ms)
    return run


def _tell(run: Run, step_ms: float, steps: int = 9) -> None:
    """Steps that were told, and a checkpoint that took no time."""
    events = [{"type": "metric", "step": step, "time": step * step_ms / 1000} for step in range(1, steps + 1)]
    events.append({**events[-1], "type": "checkpoint"})
    run.events_path.write_text("".join(json.dumps(event) + "\n" for event in events) + '{"type": "metr')


def _view(workspace: Workspace) -> waiting.QueueView:
    runs, paces = RunListReader(workspace).read(), Paces(workspace)
    return queue_view(runs, lambda info: paces.seconds_left(info, runs.infos))


def test_starts_add_up(workspace: Workspace) -> None:
    """60 steps of 3 s are left of the first; the others take 100 steps of 3 s, as the first is of their kind."""
    going = _add(workspace, "going", 100, on="cpu", done=40, step_ms=3000)
    others = [_add(workspace, name) for name in ("second", "third")]
    view = _view(workspace)
    assert [(run.name, run.word, run.device, run.percent, run.left) for run in view.going] == [
        ("going", "Training", "processor", 40, "about 3 min left")
    ]
    assert [(run.name, run.start) for run in view.waiting] == [
        ("second", "starts in about 3 min"),
        ("third", "starts in about 8 min"),
    ]
    run_queue.move(others[1], "first")
    run_queue.pause(workspace)
    view = _view(workspace)
    assert (view.paused, [(run.name, run.start) for run in view.waiting]) == (True, [("third", ""), ("second", "")])
    going.update(state="failed", interrupted="machine")
    assert _view(workspace).interrupted == ("going",)


def test_what_lies_between_steps_counts_and_a_measurement_helps(workspace: Workspace) -> None:
    """100 steps, 3 checkpoints and 3 previews like those of a run alike; then a run that was only measured."""
    rhythm = {"samples": {"every_steps": 40, "prompts": ["a"], "at_start": False}, "output": {"save_every_steps": 40}}
    alike = workspace.create_run(Config.model_validate({"name": "alike", **rhythm}))
    alike.update(state="finished", step=100)
    told = [("metric", 1.0 * step) for step in range(1, 11)] + [("checkpoint", 13.0), ("sample", 20.0)]
    events = [{"type": kind, "step": 10, "time": time, "index": 0} for kind, time in told]
    alike.events_path.write_text("".join(json.dumps(event) + "\n" for event in events))
    config = Config.model_validate({"name": "next", "train": {"max_steps": 100}, **rhythm})
    run, paces = workspace.create_run(config), Paces(workspace)
    infos = RunListReader(workspace).read().infos
    assert paces.seconds_left(run.read(), infos) == pytest.approx(100 + 3 * 3 + 3 * 7)
    other = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": 7})})
    run = workspace.create_run(other)
    assert paces.seconds_left(run.read(), infos) is None
    keep_measurement(workspace, other, Costs(2.0, checkpoint=0.0, drawing=0.0, beginning=5.0), None)
    assert paces.seconds_left(run.read(), infos) == pytest.approx(205)


def test_what_is_not_known_is_not_said(workspace: Workspace) -> None:
    """No run of this kind has been measured: the first starts now, when the next does nobody knows."""
    _add(workspace, "first")
    _add(workspace, "second")
    assert [run.start for run in _view(workspace).waiting] == ["starts now", "waits for what is before it"]


def test_a_run_of_other_work_per_step_says_nothing_and_a_finished_one_alike_does(workspace: Workspace) -> None:
    other = workspace.create_run(Config.model_validate({"name": "x", "train": {"batch_size": 4, "max_steps": 10}}))
    other.update(state="finished", step=10)
    _tell(other, 9000)
    first, paces = _add(workspace, "first"), Paces(workspace)
    infos = RunListReader(workspace).read().infos
    assert paces.seconds_left(first.read(), infos) is None
    _add(workspace, "alike", done=100, step_ms=500)
    infos = RunListReader(workspace).read().infos
    assert paces.seconds_left(first.read(), infos) == 50
    first.update(step=90, extend_to=200)
    assert paces.seconds_left(first.read(), infos) == 55


@pytest.mark.parametrize("devices", [TWO_GPUS], indirect=True)
def test_two_gpus_take_turns_and_each_run_can_wait_for_its_own(workspace: Workspace) -> None:
    _add(workspace, "a", 100, on="cuda:0", done=40, step_ms=3000)  # 3 min left
    _add(workspace, "b", 100, on="cuda:1", done=0, step_ms=3000)  # 5 min left
    third, fourth, cpu = (_add(workspace, name) for name in ("third", "fourth", "cpu"))
    fourth.update(wanted_device="cuda:1")
    cpu.update(wanted_device="cpu")
    view = _view(workspace)
    assert [run.device for run in view.going] == ["Fast (cuda:0)", "Slow (cuda:1)"]
    assert [(run.device, run.start) for run in view.waiting] == [
        ("", "starts in about 3 min"),
        ("cuda:1", "starts in about 5 min"),
        ("cpu", "starts now"),
    ]
    assert view.devices == (
        ("", "any free GPU"),
        ("cuda:0", "Fast (0)"),
        ("cuda:1", "Slow (1)"),
        ("cuda:0,cuda:1", "all 2 GPUs together"),
        ("cpu", "the processor"),
    )
    runs = RunListReader(workspace).read()
    assert [runs_before(runs, run.id) for run in (third, fourth, cpu)] == [2, 2, 0]
    third.update(wanted_device="cuda:7")
    assert _view(workspace).waiting[0].start == "waits for cuda:7, which is not here"


@pytest.mark.parametrize("devices", [TWO_GPUS], indirect=True)
def test_why_a_run_waits_that_is_behind_no_run(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captioning has one GPU, a paused run has left the other one."""
    monkeypatch.setattr(turns.tempfile, "gettempdir", lambda: str(workspace.dir))
    captioning = turns.gpu_turn("GPU-a", "captioning of <dogs>")
    assert captioning.take()
    _add(workspace, "resting", 100, on="cuda:1", done=40, step_ms=3000).update(state="paused")
    first, second, third = (_add(workspace, name) for name in ("first", "second", "third"))
    first.update(wanted_device="cuda:0")
    view = _view(workspace)
    assert [run.word for run in view.going] == ["Paused"]
    words = [run.start for run in view.waiting]
    assert words[0].startswith("the GPU is in use: captioning of <dogs>, since ")
    assert words[1:] == ["starts now", "starts in about 5 min"]
    runs = RunListReader(workspace).read()
    assert [runs_before(runs, run.id) for run in (first, second, third)] == [0, 0, 2]
    words = [start_word(runs, run.id) for run in (first, second)]
    assert words[0].startswith("It starts by itself when the GPU is free: captioning of <dogs>, since ")
    assert words[1] == "It starts now."
    captioning.give_back()
    previews = turns.gpu_turn("GPU-a", "the picture model", gives_way=True)
    assert previews.take()
    assert _view(workspace).waiting[0].start == "starts now"
    run_queue.pause(workspace)
    assert {run.start for run in _view(workspace).waiting} == {""}


def test_what_is_said_after_a_start(workspace: Workspace) -> None:
    first = _add(workspace, "first")

    def word(run: Run) -> str:
        return start_word(RunListReader(workspace).read(), run.id)

    assert word(first) == "It starts now."
    second, third = _add(workspace, "second"), _add(workspace, "third")
    assert word(second) == "It waits behind 1 other run, and starts by itself."
    first.update(state="training", queue_device="cpu", **this_process())
    assert word(first) == "It starts now."
    assert word(third) == "It waits behind 2 other runs, and starts by itself."
    run_queue.pause(workspace)
    assert "paused" in word(third)
    assert device_choices() == ()


def test_orders_of_the_page(workspace: Workspace) -> None:
    a, b, c = (_add(workspace, name) for name in "abc")
    panel.obey(workspace, {"act": "move", "run": c.id, "to": "first"})
    panel.obey(workspace, {"act": "move", "run": a.id, "to": 3})
    assert queued_runs(workspace) == [c, b, a]
    panel.obey(workspace, {"act": "pause"})
    assert read_queue(workspace).paused
    panel.obey(workspace, {"act": "go_on"})
    assert not read_queue(workspace).paused
    panel.obey(workspace, {"act": "device", "run": a.id, "device": "cpu"})
    assert a.read().wanted_device == "cpu"
    panel.obey(workspace, {"act": "device", "run": a.id, "device": ""})
    assert a.read().wanted_device is None
    panel.obey(workspace, {"act": "remove", "run": b.id})
    assert (b.read().state, queued_runs(workspace)) == ("stopped", [c, a])
    with pytest.raises(UserError, match="is stopped, not waiting"):
        panel.obey(workspace, {"act": "remove", "run": b.id})
    b.update(state="failed", interrupted="process")
    panel.obey(workspace, {"act": "put_back"})
    assert queued_runs(workspace) == [b, c, a]
    c.update(state="failed", interrupted="process")
    panel.obey(workspace, {"act": "leave"})
    assert c.read().interrupted is None


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"act": "burn"},
        {"act": "move", "run": "", "to": "first"},
        {"act": "move", "run": "../x", "to": "first"},
        {"act": "move", "run": "RUN", "to": "up"},
        {"act": "move", "run": "RUN", "to": True},
        {"act": "move", "run": "RUN"},
        {"act": "device", "run": "RUN", "device": "cuda:99"},
        {"act": "device", "run": "RUN", "device": ["cpu"]},
        {"act": "remove", "run": None},
    ],
)
def test_orders_that_are_none_change_nothing(workspace: Workspace, order: dict[str, object]) -> None:
    runs = [_add(workspace, name) for name in "ab"]
    before = [run.info_path.read_bytes() for run in runs]
    with pytest.raises(UserError):
        panel.obey(workspace, {name: runs[1].id if value == "RUN" else value for name, value in order.items()})
    assert [run.info_path.read_bytes() for run in runs] == before
    assert queued_runs(workspace) == runs


@pytest.mark.parametrize(
    ("seconds", "word"),
    [(5, "a minute"), (89, "a minute"), (120, "2 min"), (5000, "83 min"), (7200, "2 h"), (9000, "2.5 h")],
)
def test_rough_times(seconds: float, word: str) -> None:
    assert about(seconds) == word

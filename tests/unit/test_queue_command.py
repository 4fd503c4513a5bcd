"""``trainer queue`` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.__main__ import main
from trainer.config import Config
from trainer.config_io import save_config
from trainer.runs import worker
from trainer.runs.gpus import worker_devices
from trainer.runs.store import Workspace, this_process


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(worker, "ensure_workers", lambda space: None)
    monkeypatch.setattr("trainer.commands.queue.ensure_workers", lambda space: None)
    return Workspace(tmp_path / "workspace")


def test_adding_moving_and_pausing(workspace: Workspace, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def queue(*arguments: str) -> dict[str, Any]:
        assert main(["queue", *arguments, "--workspace", str(workspace.dir), "--json"]) == 0
        return json.loads(capfd.readouterr().out)

    def names(answer: dict[str, Any]) -> str:
        assert [item["place"] for item in answer["waiting"]] == list(range(1, len(answer["waiting"]) + 1))
        return " ".join(item["name"] for item in answer["waiting"])

    config = tmp_path / "a.yaml"
    save_config(Config(name="a"), config)
    assert queue() == {"paused": False, "devices": worker_devices(), "going": [], "waiting": []}
    for name in "abc":
        answer = queue("add", str(config), "--set", f"name={name}", *(["--device", "cpu"] if name == "b" else []))
    assert names(answer) == "a b c"
    assert [item["device"] for item in answer["waiting"]] == ["any", "cpu", "any"]
    a, b, c = (item["run"] for item in answer["waiting"])
    assert names(queue("first", c)) == "c a b"
    assert names(queue("later", c)) == "a c b"
    assert names(queue("earlier", b)) == "a b c"
    assert names(queue("last", a)) == "b c a"
    assert names(queue("remove", b)) == "c a"
    assert [item["device"] for item in queue("device", c, "--device", "cpu")["waiting"]] == ["cpu", "any"]
    assert queue("pause")["paused"]
    assert not queue("resume")["paused"]
    workspace.run(b).update(state="training", queue_device="cpu", **this_process())
    assert queue("list")["going"] == [{"run": b, "name": "b", "state": "training", "device": "cpu"}]
    workspace.run(a).update(state="failed", interrupted="process")
    assert names(queue("put-back")) == "a c"

    queue("pause")
    main(["queue", "--workspace", str(workspace.dir)])
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "The queue is paused: `queue resume` lets it go on."
    assert lines[1:] == [f"going  {b}  training on cpu", f"    1  {a}  for any", f"    2  {c}  for cpu"]
    main(["runs", "list", "--workspace", str(workspace.dir)])
    lines = capfd.readouterr().out.splitlines()
    assert lines == [
        f"{c}  queued    0/1000  number 2, for cpu",
        f"{b}  training  0/1000  on cpu",
        f"{a}  queued    0/1000  number 1, for any device",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add"], "needs a config file"),
        (["first"], "needs a waiting run"),
        (["first", "../x"], "no run '../x'"),
        (["pause", "some-run"], "is about the whole queue"),
        (["add", "CONFIG", "--device", "cuda:77"], "no device 'cuda:77' here"),
        (["add", "missing.yaml"], "missing.yaml"),
        (["dance"], "invalid choice"),
    ],
)
def test_wrong_input_is_told_and_changes_nothing(
    workspace: Workspace, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    config = tmp_path / "a.yaml"
    save_config(Config(name="a"), config)
    arguments = [str(config) if each == "CONFIG" else each for each in arguments]
    assert main(["queue", *arguments, "--workspace", str(workspace.dir)]) == 2
    assert words in capfd.readouterr().err
    assert not list(workspace.runs_dir.glob("*"))
    assert not (workspace.dir / "queue.json").exists()

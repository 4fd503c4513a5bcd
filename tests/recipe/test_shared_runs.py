"""A run whose settings name a repository sends its LoRA there at its end, and is finished whether that works or not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hub_server import Fault, Hub, hub_environment, hub_server, use_hub
from tests.recipe.tiny_runs import QUICK_PROMPT, Watcher, of_type, train_here
from tests.running_app import ROOT
from trainer.config import Config
from trainer.config_io import save_config
from trainer.runs import control
from trainer.runs.store import Run, Workspace

REPO = "someone/tiny"
SECRET = "hf_ThisIsTheSecretOfThisMachine"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as running:
        running.users = {SECRET: "someone"}
        use_hub(monkeypatch, running.address, tmp_path / "hub")
        monkeypatch.setenv("HF_TOKEN", SECRET)
        yield running


@pytest.fixture
def run(config_of: Callable[..., Config], workspace: Workspace) -> Run:
    return workspace.create_run(config_of(train__max_steps=1, output__hub_repo=REPO))


@pytest.mark.parametrize("case", ["no right", "a stop", "a broken hub"])
def test_a_run_is_finished_though_nothing_was_sent(hub: Hub, run: Run, case: str) -> None:
    watcher = Watcher()
    if case == "no right":
        hub.users[SECRET] = "another"
    elif case == "a stop":
        watcher = Watcher({("finished", 1): lambda: control.ask(run.control_dir, "stop")})
    else:
        hub.faults.append(Fault("/api/validate-yaml", status=200))  # no JSON
    train_here(run, watcher)
    assert run.read().state == "finished" and run.read().exit_code == 0 and run.output_path.is_file()
    (warning,) = [event for event in of_type(run, "warning") if event["code"] == "share.failed"]
    assert REPO in warning["message"] and f"trainer push {run.id} --repo {REPO}" in warning["hint"]
    assert not of_type(run, "shared") and SECRET not in run.events_path.read_text()


def test_the_token_is_in_no_file_that_a_run_leaves(
    hub: Hub, config_of: Callable[..., Config], workspace: Workspace, tmp_path: Path
) -> None:
    previews = {"samples__prompts": [QUICK_PROMPT], "samples__every_steps": 1}
    config = config_of(train__max_steps=1, output__hub_repo=REPO, **previews)
    save_config(config, tmp_path / "config.yaml")
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "trainer", "train", "config.yaml", "--workspace", str(workspace.dir)]
    environment = {**os.environ, **hub_environment(hub, home, SECRET), "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (run,) = workspace.runs()
    assert not of_type(run, "warning")
    (shared,) = of_type(run, "shared")
    assert shared == {**shared, "repo": REPO, "visibility": "private", "url": f"{hub.address}/{REPO}"}
    files = hub.repositories[REPO].files
    assert files["tiny.safetensors"] == run.output_path.read_bytes()
    assert {"README.md", "settings.yaml", "samples/step-000001-p00-s42.png"} < files.keys()

    assert f"Bearer {SECRET}" in hub.tokens
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) > 10 and run.log_path in left
    told = [result.stdout.encode(), result.stderr.encode()]
    for data in [*files.values(), *told, *(path.read_bytes() for path in left)]:
        assert SECRET.encode() not in data

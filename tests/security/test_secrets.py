"""Tokens and passwords stay where they are: in no file of the workspace, no log, no picture, no command line."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.hub_server import hub_server
from tests.recipe.tiny_runs import QUICK_PROMPT, SIDE, make_pictures, quick_settings
from tests.running_app import ROOT, processes_of
from tests.security.conftest import Attacked, Starter
from tests.tiny_models import tiny_model
from tests.unit.queue_trainer import wait
from trainer.__main__ import main
from trainer.config_io import parse_config, save_config
from trainer.jobs import start_job
from trainer.runs.store import Workspace

TOKEN, KEY, PASSWORD = "hf_CanaryTokenCanaryToken", "c0ffee" * 6 + "c0ff", "canary pass word"
SECRETS = (TOKEN, KEY, PASSWORD, base64.b64encode(f"anna:{PASSWORD}".encode()).decode())
ENVIRONMENT = {"HF_TOKEN": TOKEN, "WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}
HUB_MODEL = "someone/gated"


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def guarded(start: Starter, patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Attacked:
    """The app with a password, and with tokens in its environment."""
    for name, value in ENVIRONMENT.items():
        patch.setenv(name, value)
    users = tmp_path_factory.mktemp("users") / "users.txt"
    users.write_text(f"anna:{PASSWORD}\n", encoding="utf-8")
    users.chmod(0o600)
    return start("--auth-file", str(users))


def found_in(folder: Path) -> list[Path]:
    """Files that hold a secret, as text of one or two bytes a letter."""
    wanted = [secret.encode(coding) for secret in SECRETS for coding in ("utf-8", "utf-16-le")]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(secret in path.read_bytes() for secret in wanted)]


def test_they_are_nowhere(guarded: Attacked, tmp_path: Path) -> None:
    """The page with right and wrong passwords; a run with trackers, one of a model that is refused; a job."""
    with httpx.Client(base_url=guarded.url, timeout=60) as visitor:
        for auth in (None, ("anna", PASSWORD + "x"), ("anna", PASSWORD)):
            visitor.get("/config", auth=auth)
        page = visitor.get("/", auth=("anna", PASSWORD)).text
    workspace = Workspace(guarded.workspace)
    pictures = make_pictures(workspace.datasets_dir / "three")
    model = tiny_model("sd1", workspace.models_dir / "tiny")
    trained = train(tmp_path, workspace, pictures, model, trackers=["tensorboard", "wandb"])
    assert trained.returncode == 0, trained.stderr
    with hub_server() as hub:
        hub.users[TOKEN] = "anna"
        hub.add(HUB_MODEL, model, refuses_all=(401, "GatedRepo"))
        refused = train(tmp_path, workspace, pictures, Path(HUB_MODEL), endpoint=hub.address)
    assert refused.returncode == 2 and HUB_MODEL in refused.stderr
    assert f"Bearer {TOKEN}" in hub.tokens, "the hub was not asked"
    job = start_job(workspace, ["export", str(pictures), "--to=csv", f"--out={workspace.dir / 'out'}"], "Export")
    lines = [
        " ".join(process.cmdline()) for process in [*processes_of(workspace.dir), psutil.Process(guarded.process.pid)]
    ]
    wait(lambda: job.read().state != "running")
    told = [page, trained.stdout, trained.stderr, refused.stdout, refused.stderr, *lines]
    assert len(lines) >= 2 and not [text for text in told if any(secret in text for secret in SECRETS)]
    assert job.read().state == "finished" and len(list(workspace.dir.rglob("*.*"))) > 30
    assert found_in(guarded.root) == []
    (tmp_path / "known.bin").write_bytes(b"x" + TOKEN.encode("utf-16-le"))
    assert found_in(tmp_path) == [tmp_path / "known.bin"], "the search finds what is there"


def test_a_packed_folder_holds_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tokens in the environment, in the files of the tools that keep them, and in a hidden one of the data set."""
    for name, value in {**ENVIRONMENT, "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hub")}.items():
        monkeypatch.setenv(name, value)
    login, netrc = tmp_path / "hub" / "token", tmp_path / ".netrc"
    login.parent.mkdir()
    login.write_text(TOKEN)
    netrc.write_text(f"machine api.wandb.ai login user password {KEY}\n")
    pictures = make_pictures(tmp_path / "data" / "three")
    (pictures / ".env").write_text(f"HF_TOKEN={TOKEN}\n")
    values = {
        "model": {"base": HUB_MODEL, "vae": str(tiny_model("sd1", tmp_path / "tiny") / "vae")},
        "dataset": {"sources": [{"path": str(pictures)}]},
        "trackers": ["wandb"],
    }
    save_config(parse_config(values), tmp_path / "config.yaml")
    out = tmp_path / "packed"
    assert main(["pack", str(tmp_path / "config.yaml"), "--out", str(out), "--with-data", "--with-model"]) == 0
    assert len([path for path in (out / "data").rglob("*") if path.is_file()]) >= 3
    assert found_in(out) == [] and {login, netrc} <= set(found_in(tmp_path))


def train(
    folder: Path,
    workspace: Workspace,
    pictures: Path,
    model: Path,
    *,
    endpoint: str = "",
    trackers: list[str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the trainer's command, with an address of the hub where there is one."""
    config = parse_config(
        {
            **quick_settings(model, 2),
            "dataset": {"sources": [{"path": str(pictures)}], "resolution": SIDE, "buckets": {"min": 64, "step": 8}},
            "samples": {"every_steps": 2, "at_start": False, "prompts": [QUICK_PROMPT]},
            "trackers": trackers or [],
        }
    )
    save_config(config, folder / "config.yaml")
    hub = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"} if endpoint else {}
    command = [sys.executable, "-m", "trainer", "train", str(folder / "config.yaml"), "--workspace", str(workspace.dir)]
    environment = {**os.environ, **hub, "HF_HOME": str(folder / "hub"), "HOME": str(folder)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)

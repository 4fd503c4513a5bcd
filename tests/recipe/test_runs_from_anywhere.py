"""A run means the same wherever it is started and gone on with; a hub's model trains with and without a network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.hub_server import hub_server, use_hub
from tests.recipe.tiny_runs import losses_of, make_pictures, of_type
from tests.tiny_models import tiny_model
from trainer.__main__ import main
from trainer.config import Config
from trainer.config_io import load_config
from trainer.demo import MODEL_DIR
from trainer.runs.store import Workspace


def test_relative_paths_start_at_the_config_wherever_the_command_runs(
    config_of: Callable[..., Config], workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    shutil.copytree(MODEL_DIR, project / "models" / "base")
    make_pictures(project / "pictures")
    values = config_of(train__max_steps=1).model_dump(mode="json")
    values["model"]["base"] = "models/base"
    values["dataset"]["sources"] = [{"path": "pictures"}]
    (project / "config.yaml").write_text(yaml.safe_dump(values))

    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    assert main(["train", "../project/config.yaml", "--workspace", str(workspace.dir)]) == 0
    (run,) = workspace.runs()
    stored = yaml.safe_load(run.config_path.read_text())
    assert stored["model"]["base"] == str(project / "models" / "base")
    assert stored["dataset"]["sources"][0]["path"] == str(project / "pictures")

    monkeypatch.chdir(project)
    assert main(["resume", str(run.dir), "--max-steps", "2"]) == 0
    assert sorted(losses_of(run)) == [1, 2]
    assert load_config(run.config_path) == run.config()
    assert list(away.iterdir()) == []


def test_a_hub_model_trains_and_goes_on_without_a_network(
    config_of: Callable[..., Config], workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = "someone/tiny"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config_of(train__max_steps=1).model_dump(mode="json")))
    arguments = ["train", str(tmp_path / "config.yaml"), "--set", f"model.base={repo}"]
    with hub_server() as hub:
        use_hub(monkeypatch, hub.address, tmp_path / "hub")
        hub.add(repo, tiny_model("sd1", tmp_path / "model"))
        assert main([*arguments, "--workspace", str(workspace.dir)]) == 0
    (run,) = workspace.runs()
    assert any(event["what"].startswith(f"downloading {repo}") for event in of_type(run, "progress"))

    assert main(["resume", str(run.dir), "--max-steps", "2"]) == 0  # the hub is gone
    assert sorted(losses_of(run)) == [1, 2]
    assert [event["code"] for event in of_type(run, "warning")] == ["model.no_network"]

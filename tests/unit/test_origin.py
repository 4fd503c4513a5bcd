"""What a run was made of, and which settings were changed."""

from __future__ import annotations

import os
from pathlib import Path

from trainer.config import Config
from trainer.config_io import save_config
from trainer.runs.store import Run, Workspace
from ui.runs.origin import origin_of


def test_the_changed_settings_are_told_and_follow_the_files(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first = workspace.create_run(Config.model_validate({"name": "first", "lora": {"rank": 8}}))
    assert origin_of(workspace, first.read()) is None
    changed = Config.model_validate({"name": "second", "lora": {"rank": 32}})
    second = workspace.create_run(changed, changed_from=first.id)

    told = origin_of(workspace, second.read())
    assert told == {
        "run": first.id,
        "name": "first",
        "there": True,
        "differences": [{"label": "Rank", "name": "lora.rank", "before": "8", "now": "32"}],
    }
    _write(second, Config.model_validate({"name": "second", "lora": {"rank": 8}}))
    assert origin_of(workspace, second.read()) == told | {"differences": []}

    workspace.delete_run(first)
    gone = origin_of(workspace, second.read())
    assert gone is not None and (gone["there"], gone["name"]) == (False, first.id)


def _write(run: Run, config: Config) -> None:
    stamp = run.config_path.stat().st_mtime_ns
    save_config(config, run.config_path)
    os.utime(run.config_path, ns=(stamp, stamp + 1_000_000))

"""Files of other trainers on the page: what is read, what is kept, and what is told of paths that are not here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.import_samples import FOLDER, imported
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.train import import_panel


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    workspace = Workspace(tmp_path / "workspace")
    workspace.dir.mkdir()
    return AppContext(workspace)


def test_our_own_files_are_left_to_the_config(context: AppContext, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("lora: {rank: 24}")
    assert import_panel.settings_in_file(context, tmp_path / "mine.yaml", "mine.yaml") is None
    found = import_panel.settings_in_file(context, FOLDER / "sd_scripts" / "flat_keys.toml", "flat_keys.toml")
    assert found is not None
    assert found.config.lora.rank == 32


def test_files_that_are_named_are_read_only_where_the_page_may(context: AppContext, tmp_path: Path) -> None:
    for folder in (context.workspace.dir, tmp_path):
        (folder / "prompts.txt").write_text("a cat")
        text = f'network_dim = 4\nsample_prompts = "{folder / "prompts.txt"}"\n'
        found = import_panel.settings_in_text(context, text, "text")
        assert found is not None
        assert len(found.config.samples.prompts) == (1 if folder == context.workspace.dir else 0)


def test_missing_folders_are_told_by_their_fields(context: AppContext) -> None:
    config = imported("kohya_gui", "sd15_character_reg").config
    fields = [problem.field for problem in import_panel.missing_paths(context, config)]
    assert fields == ["model.base", "dataset.sources.0.path", "dataset.sources.1.path"]
    config = imported("command_line", "powershell").config
    assert all("path of Windows" in problem.message for problem in import_panel.missing_paths(context, config))


def test_the_report_is_there_after_a_reload(context: AppContext) -> None:
    assert import_panel.last_report(context) == ""
    shown = import_panel.keep_report(context, imported("kohya_gui", "lycoris_loha").report, "a.json")
    assert import_panel.last_report(context) == shown
    (context.workspace.dir / "last_import.json").write_text('{"name": 3}')
    assert import_panel.last_report(context) == ""

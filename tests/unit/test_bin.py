"""The bin: what is deleted can be had back, and nothing leads out of the workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config import Config
from trainer.errors import UserError
from trainer.files import read_json, write_json
from trainer.runs.bin import ITEM, Bin
from trainer.runs.store import Run, Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def run(workspace: Workspace) -> Run:
    run = workspace.create_run(Config(name="my-cat"))
    (run.checkpoints_dir / "step-000040").mkdir()
    (run.checkpoints_dir / "step-000040" / "lora.safetensors").write_bytes(b"x" * 1000)
    return run


def test_a_run_goes_and_comes_back_whole(workspace: Workspace, run: Run) -> None:
    before = {path.relative_to(run.dir): path.read_bytes() for path in run.dir.rglob("*") if path.is_file()}
    size = sum(len(content) for content in before.values())
    rubbish = Bin(workspace.dir)
    item = rubbish.put(run.dir, "run", "my-cat")
    assert workspace.runs() == []
    assert [(one.title, one.kind, one.size_bytes) for one in rubbish.items()] == [("my-cat", "run", size)]
    assert rubbish.restore(item.id) == run.dir
    assert {path.relative_to(run.dir): path.read_bytes() for path in run.dir.rglob("*") if path.is_file()} == before
    assert rubbish.items() == []
    assert list(rubbish.dir.iterdir()) == []


def test_what_another_window_has_deleted_leaves_no_item(workspace: Workspace, run: Run) -> None:
    """The second of two that both saw it; nothing is in the bin that could not be restored."""
    rubbish = Bin(workspace.dir)
    first = rubbish.put(run.dir, "run", "my-cat")
    with pytest.raises(UserError, match="my-cat is not there any more"):
        rubbish.put(run.dir, "run", "my-cat")
    assert rubbish.items() == [first]
    assert [path.name for path in rubbish.dir.iterdir()] == [first.id]


def test_a_checkpoint_needs_its_run_and_a_free_place(workspace: Workspace, run: Run) -> None:
    rubbish = Bin(workspace.dir)
    checkpoint = run.checkpoints_dir / "step-000040"
    saved = rubbish.put(checkpoint, "checkpoint", "my-cat, step 40")
    gone = rubbish.put(run.dir, "run", "my-cat")
    assert [item.id for item in rubbish.items()] == [gone.id, saved.id], "deleted last first"
    with pytest.raises(UserError, match="its run is not there"):
        rubbish.restore(saved.id)
    rubbish.restore(gone.id)
    rubbish.restore(saved.id)
    assert (checkpoint / "lora.safetensors").stat().st_size == 1000
    again = rubbish.put(checkpoint, "checkpoint", "my-cat, step 40")
    checkpoint.mkdir()
    with pytest.raises(UserError, match="another one at"):
        rubbish.restore(again.id)
    assert [item.id for item in rubbish.items()] == [again.id], "a refused item stays"


def test_emptying_tells_what_it_freed(workspace: Workspace, run: Run) -> None:
    rubbish = Bin(workspace.dir)
    item = rubbish.put(run.checkpoints_dir / "step-000040", "checkpoint", "my-cat, step 40")
    rubbish.put(run.dir, "run", "my-cat")
    assert rubbish.remove(item.id) == 1000
    assert rubbish.empty() > 0
    assert rubbish.empty() == 0
    assert rubbish.items() == []


@pytest.mark.parametrize("place", ["../outside", "runs/../../outside", "runs", "runs/a/b", "/etc/outside", "models/x"])
def test_items_belong_under_runs(workspace: Workspace, run: Run, place: str) -> None:
    rubbish = Bin(workspace.dir)
    item = rubbish.put(run.dir, "run", "my-cat")
    path = rubbish.dir / item.id / ITEM
    write_json(path, read_json(path) | {"place": place})
    with pytest.raises(UserError, match="where it belongs"):
        rubbish.restore(item.id)
    assert len(rubbish.items()) == 1


@pytest.mark.parametrize("item_id", ["", ".", "..", "../runs", "missing", "a/b"])
def test_ids_do_not_lead_elsewhere(workspace: Workspace, run: Run, item_id: str) -> None:
    rubbish = Bin(workspace.dir)
    rubbish.put(run.dir, "run", "my-cat")
    for ask in (rubbish.restore, rubbish.remove):
        with pytest.raises(UserError, match="in the bin"):
            ask(item_id)

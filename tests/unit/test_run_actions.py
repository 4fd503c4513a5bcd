"""What can be asked of a run beside its controls: names, notes, checkpoints, prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.__main__ import main
from trainer.checkpoint_folders import LORA, MANIFEST, STATE, checkpoints, file_hash
from trainer.config import Config
from trainer.errors import UserError
from trainer.files import write_json
from trainer.runs import actions, control, worker
from trainer.runs.bin import Bin
from trainer.runs.store import Run, Workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(worker, "ensure_workers", lambda *_: True)  # nothing is trained here
    return Workspace(tmp_path)


@pytest.fixture
def run(workspace: Workspace) -> Run:
    run = workspace.create_run(Config.model_validate({"name": "my-cat", "train": {"max_steps": 80}}))
    run.update(state="finished", step=80, max_steps=80)
    for step in (40, 80):
        add_checkpoint(run, step)
    run.output_path.write_bytes(b"the LoRA")
    return run


def add_checkpoint(run: Run, step: int) -> None:
    folder = run.checkpoints_dir / f"step-{step:06d}"
    folder.mkdir()
    for name in (LORA, STATE):
        (folder / name).write_bytes(f"{name} of {step}".encode())
    files = {name: {"sha256": file_hash(folder / name)} for name in (LORA, STATE)}
    write_json(folder / MANIFEST, {"step": step, "files": files})


def test_a_new_name_is_that_of_the_lora_and_the_config_too(run: Run) -> None:
    assert actions.rename(run, "My Cat 2").name == "My Cat 2"
    assert run.output_path.name == "My Cat 2.safetensors"
    assert run.output_path.read_bytes() == b"the LoRA"
    assert len(list(run.output_dir.iterdir())) == 1
    assert run.config().name == "My Cat 2"
    actions.rename(run, "My Cat 2")
    assert run.output_path.read_bytes() == b"the LoRA"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", " x", "x" * 81, 'say "hi"'])
def test_names_that_are_no_file_names_are_refused(run: Run, name: str) -> None:
    with pytest.raises(UserError) as caught:
        actions.rename(run, name)
    assert caught.value.problems[0].field == "name"
    assert run.read().name == run.config().name == "my-cat"
    assert run.output_path.is_file()


def test_a_name_that_another_file_has_is_refused(run: Run) -> None:
    (run.output_dir / "taken.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"taken\.safetensors"):
        actions.rename(run, "taken")
    assert (run.output_dir / "taken.safetensors").read_bytes() == b"mine"


def test_a_note_replaces_the_one_before(run: Run) -> None:
    actions.note(run, "  lr too high\nsee step 40 ")
    assert run.read().note == "lr too high\nsee step 40"
    with pytest.raises(UserError, match="2001 characters"):
        actions.note(run, "x" * 2001)
    actions.note(run, "")
    assert run.read().note == ""


def test_a_checkpoint_goes_to_the_bin(run: Run, workspace: Workspace) -> None:
    item = actions.delete_checkpoint(run, 40)
    assert item.title == "my-cat, step 40"
    assert [path.name for path in checkpoints(run.checkpoints_dir)] == ["step-000080"]
    with pytest.raises(UserError, match="it has 80"):
        actions.delete_checkpoint(run, 40)
    Bin(workspace.dir).restore(item.id)
    assert [path.name for path in checkpoints(run.checkpoints_dir)] == ["step-000040", "step-000080"]


def test_a_new_run_goes_on_from_a_checkpoint(run: Run) -> None:
    new = actions.continue_from(run, 40, 60)
    info = new.read()
    assert (info.state, info.step, info.max_steps, info.begun_from) == ("queued", 40, 60, f"{run.id} step 40")
    assert [path.name for path in checkpoints(new.checkpoints_dir)] == ["step-000040"]
    copied, original = (one.checkpoints_dir / "step-000040" / STATE for one in (new, run))
    assert copied.read_bytes() == original.read_bytes()
    assert new.config().model_dump() == run.config().model_dump() | {
        "train": run.config().train.model_dump() | {"max_steps": 60, "epochs": None}
    }
    assert len(checkpoints(run.checkpoints_dir)) == 2


def test_extending_counts_from_where_the_run_stands(run: Run) -> None:
    run.update(state="stopped", step=120, max_steps=500)
    info = actions.extend(run, 100).read()
    assert (info.state, info.step, info.extend_to) == ("queued", 120, 220)
    with pytest.raises(UserError, match="0 given, 1 or more"):
        actions.extend(run, 0)


def test_what_cannot_go_on_is_refused(run: Run, workspace: Workspace) -> None:
    with pytest.raises(UserError, match="has 40 behind it"):
        actions.continue_from(run, 40, 40)
    with pytest.raises(UserError, match="no checkpoint of step 50; it has 40, 80"):
        actions.continue_from(run, 50, 100)
    (run.checkpoints_dir / "step-000040" / STATE).write_bytes(b"half")
    with pytest.raises(UserError, match="damaged"):
        actions.continue_from(run, 40, 100)
    assert workspace.runs() == [run]


def test_prompts_of_a_run_that_is_over_are_changed_at_once(run: Run) -> None:
    actions.change_prompts(run, ["a cat --d 7", "a dog"])
    assert [(one.prompt, one.seed) for one in run.config().samples.prompts] == [("a cat", 7), ("a dog", 42)]
    assert actions.prompts_of(run) == run.config().samples.prompts


def test_a_run_that_goes_is_asked_for_other_prompts(workspace: Workspace) -> None:
    run = workspace.create_run(Config(), queued=False)
    actions.change_prompts(run, ["a cat"])
    actions.change_prompts(run, ["a dog --w 128 --h 128"])
    assert run.config().samples.prompts == [], "the trainer writes it: it knows what the model can draw"
    assert [one.prompt for one in actions.prompts_of(run)] == ["a dog"]
    taken = control.take_prompts(run.control_dir)
    assert [(one["prompt"], one["width"]) for one in taken] == [("a dog", 128)]
    assert control.take_prompts(run.control_dir) is None
    assert list(run.control_dir.iterdir()) == []


def test_wrong_prompts_change_nothing(run: Run) -> None:
    with pytest.raises(UserError) as caught:
        actions.change_prompts(run, ["a cat --w nonsense", "a dog --zz 3"])
    assert [problem.field for problem in caught.value.problems] == ["prompts.0.width", "prompts.1.--zz"]
    assert run.config().samples.prompts == []


def test_prompts_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    (tmp_path / control.PROMPTS).write_text("{half")
    assert control.take_prompts(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_same_from_a_terminal(run: Run, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(*arguments: str, code: int = 0) -> str:
        assert main(["runs", *arguments, "--workspace", str(workspace.dir)]) == code
        printed = capsys.readouterr()
        return printed.out if code == 0 else printed.err

    answer("rename", run.id, "Tom")
    answer("note", run.id, "too orange")
    assert (run.read().name, run.read().note) == ("Tom", "too orange")
    assert "needs a text" in answer("rename", run.id, code=2)
    assert "deleted" in answer("delete", run.id)
    assert "No runs yet" in answer("list")
    listed = answer("bin")
    assert "Tom" in listed
    assert run.id in answer("restore", listed.split()[0])
    assert run.id in answer("list")
    answer("delete", run.id)
    assert "MB freed" in answer("empty-bin")
    assert "empty" in answer("bin")

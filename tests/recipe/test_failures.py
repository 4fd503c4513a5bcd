"""What goes wrong, and what the user is told: one sentence, the run's state, an exit code, and nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.forked import ROOT
from tests.recipe.test_kill import start
from tests.recipe.tiny_runs import Watcher, losses_of, make_pictures, of_type, train_here
from trainer import recipe, sampling
from trainer.__main__ import main
from trainer.checkpoint_folders import step_of
from trainer.config_io import save_config
from trainer.errors import JobFailed, UserError
from trainer.lora.file import read_lora
from trainer.runs.store import Workspace

PROMPT = {"prompt": "a red circle", "steps": 2}


def messages(watcher: Watcher, kind: str = "warning") -> list[str]:
    return [f"{event['message']} {event['hint']}" for event in watcher.events if event["type"] == kind]


def test_one_corrupt_picture_is_named_and_the_run_goes_on(tmp_path: Path, config_of, workspace: Workspace) -> None:
    folder = make_pictures(tmp_path / "pictures", 2)
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:40])
    run = workspace.create_run(config_of(dataset__sources=[{"path": str(folder)}], train__max_steps=1))
    watcher = Watcher()
    train_here(run, watcher)
    assert any("broken.png" in message for message in messages(watcher))
    assert run.read().state == "finished"


def test_what_the_user_gave_is_wrong(tmp_path: Path, config_of, workspace: Workspace) -> None:
    for change in ({"model__base": str(tmp_path)}, {"dataset__sources": [{"path": str(tmp_path / "none")}]}):
        run = workspace.create_run(config_of(**change))
        watcher = Watcher()
        with pytest.raises(UserError) as caught:
            train_here(run, watcher)
        info = run.read()
        assert (info.state, info.exit_code, info.pid) == ("failed", 2, None)
        assert caught.value.problems[0].message in (info.error or "")
        assert messages(watcher, "error")


def test_the_command_line_says_it_in_json_with_exit_code_2(tmp_path: Path, config_of, workspace: Workspace) -> None:
    save_config(config_of(model__base=str(tmp_path)), tmp_path / "config.yaml")
    process = start("train", str(tmp_path / "config.yaml"), "--workspace", str(workspace.dir))
    answer, log = process.communicate(timeout=300)
    assert process.poll() == 2
    assert json.loads(answer)["error"][0]["field"] == "model.base"
    assert "Traceback" not in log
    assert log.count("error: model.base") == 1, log
    assert workspace.runs() == [], "a run that could not begin leaves nothing behind"


def test_settings_that_were_broken_since_are_told_by_the_run(
    config_of, workspace: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    run = workspace.create_run(config_of())
    run.config_path.write_text("train: {max_steps: none}")
    assert main(["resume", str(run.dir)]) == 2
    assert "max_steps" in capfd.readouterr().err
    info = run.read()
    assert (info.state, info.exit_code, info.pid) == ("failed", 2, None) and "max_steps" in (info.error or "")


def test_a_run_that_diverges_ends_with_its_last_good_state(config_of, workspace: Workspace) -> None:
    config = config_of(
        train__learning_rate=100.0,
        train__lr_scheduler="constant",
        train__max_steps=40,
        train__mixed_precision="fp16",
        output__save_every_steps=1,
    )
    run = workspace.create_run(config)
    watcher = Watcher()
    with pytest.raises(JobFailed):
        train_here(run, watcher)
    info = run.read()
    assert (info.state, info.exit_code) == ("failed", 1)
    assert "train.learning_rate" in (info.error or "") and "not a number" in (info.error or "")
    bad = [event["step"] for event in of_type(run, "metric") if isinstance(event["grad_norm"], str)]
    assert bad[-12:] == list(range(bad[-12], info.step + 1)) and info.step < 40
    assert len(messages(watcher)) < len(bad) - 10, "only the first of several bad steps is told"
    saved = sorted(run.checkpoints_dir.glob("step-*"))[-1]
    assert saved.name in (info.error or "") and step_of(saved) < bad[-12]
    assert all(torch.isfinite(layer.up).all() for layer in read_lora(saved / "lora.safetensors").layers.values())


def test_running_out_of_memory_names_what_to_change(config_of, workspace: Workspace, monkeypatch) -> None:
    def no_memory(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(recipe, "batch_losses", no_memory)
    run = workspace.create_run(config_of())
    watcher = Watcher()
    with pytest.raises(JobFailed) as caught:
        train_here(run, watcher)
    told = messages(watcher, "error")[0]
    assert all(name in told for name in ("gradient_checkpointing", "batch_size", "resolution", "rank"))
    assert caught.value.log_path == run.log_path
    assert "Traceback" in run.log_path.read_text()


def test_previews_never_end_a_run(config_of, workspace: Workspace, monkeypatch) -> None:
    """Too little memory: drawn smaller. Anything else: a warning."""
    real_draw = sampling.draw

    def draw(family, settings, seeds, **others):
        if settings.prompt == "broken":
            raise RuntimeError("no kernel for this")
        if settings.width > 128:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real_draw(family, settings, seeds, **others)

    monkeypatch.setattr(sampling, "draw", draw)
    prompts = [{**PROMPT, "width": 256, "height": 256}, {**PROMPT, "prompt": "broken"}]
    run = workspace.create_run(config_of(train__max_steps=1, samples__at_start=True, samples__prompts=prompts))
    watcher = Watcher()
    train_here(run, watcher)
    told = messages(watcher)
    assert any("128 x 128" in message for message in told) and any("no kernel for this" in message for message in told)
    with Image.open(run.dir / of_type(run, "sample")[0]["path"]) as picture:
        assert picture.size == (128, 128)
    assert run.read().state == "finished"


def test_previews_are_asked_for_without_prompts(config_of, workspace: Workspace) -> None:
    watcher = Watcher()
    train_here(workspace.create_run(config_of(train__max_steps=1, samples__every_steps=1)), watcher)
    assert any("No preview prompts" in message for message in messages(watcher))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_full_disk_leaves_nothing_half_written(config_of, workspace: Workspace, tmp_path: Path) -> None:
    save_config(config_of(train__max_steps=2, output__save_every_steps=1), tmp_path / "config.yaml")
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000,) * 2); sys.path[:0] = ['.']\n"
    code = limited + "from trainer.__main__ import main; sys.exit(main(sys.argv[1:]))"
    folder = workspace.runs_dir / "one"
    arguments = ["train", str(tmp_path / "config.yaml"), "--workspace", str(workspace.dir), "--run-dir", str(folder)]
    command = [sys.executable, "-c", code, *arguments, "--json"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1, result.stderr
    assert json.loads(result.stdout)["error"][0]["code"] == "files"
    run = workspace.run("one")
    assert run.read().state == "failed" and len(losses_of(run)) == 2, "the first checkpoint is not worth the run"
    assert [event["code"] for event in of_type(run, "warning")][-1] == "checkpoint.failed"
    assert not list(run.checkpoints_dir.iterdir()) and not list(run.output_dir.iterdir())


def test_a_preview_that_cannot_be_written_does_not_end_the_run(config_of, workspace: Workspace, monkeypatch) -> None:
    def full_disk(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.sampling.save_png", full_disk)
    config = config_of(train__max_steps=2, samples__every_steps=1, samples__prompts=[PROMPT])
    run, watcher = workspace.create_run(config), Watcher()
    train_here(run, watcher)
    assert run.read().state == "finished"
    assert any("No space left" in message for message in messages(watcher))


def test_a_validation_loss_that_is_no_number_does_not_end_the_run(config_of, workspace: Workspace, monkeypatch) -> None:
    from trainer import together
    from trainer.validation import ValidationLoss

    def diverged(*arguments: object) -> ValidationLoss:
        return ValidationLoss(float("nan"), [float("nan")] * 4)

    monkeypatch.setattr(together, "validation_loss", diverged)
    config = config_of(train__max_steps=2, validation__split=0.3, output__save_every_steps=1)
    run, watcher = workspace.create_run(config), Watcher()
    train_here(run, watcher)
    assert any(event["type"] == "validation" for event in watcher.events)
    assert run.read().state == "finished"
    assert (run.checkpoints_dir / "step-000002" / "manifest.json").is_file()

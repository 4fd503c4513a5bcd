"""Stopped, paused, extended or interrupted: the same losses and the same bytes as an undisturbed run."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from tests.recipe.tiny_runs import Watcher, losses_of, of_type, states_of, stop_at, train_here
from trainer.__main__ import main
from trainer.checkpoint_folders import checkpoints, is_valid
from trainer.config import Config
from trainer.errors import StoppedOnRequest, UserError
from trainer.lora.file import read_lora
from trainer.runs import control
from trainer.runs.store import Run, Workspace

EVERYTHING_RANDOM = {
    "lora__train": "both",
    "lora__dropout": 0.3,
    "lora__rank_dropout": 0.3,
    "lora__module_dropout": 0.3,
    "lora__max_norm": 0.02,
    "lora__block_lrs": {"^unet.mid_block": 0.5},
    "train__loraplus_lr_ratio": 4,
    "train__ema": 0.9,
    "train__gradient_accumulation_steps": 2,
    "train__batch_size": 1,
    "dataset__captions": {"shuffle": True, "dropout": 0.3},
    "dataset__augment": {"flip": True, "color": True},
    "loss__noise_offset": 0.1,
    "loss__noise_offset_random_strength": True,
    "loss__input_perturbation": 0.1,
    "loss__multires_noise": {"iterations": 3, "discount": 0.5},
    "loss__timestep_sampling": "logit_normal",
    "validation__split": 0.34,
    "validation__every_steps": 2,
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, config_of: Callable[..., Config]) -> Run:
    """An undisturbed run of 8 steps."""
    run = Workspace(tmp_path_factory.mktemp("plain")).create_run(config_of())
    train_here(run)
    return run


def lora_bytes(run: Run) -> bytes:
    return run.output_path.read_bytes()


def test_a_run_from_start_to_end(plain: Run) -> None:
    info = plain.read()
    assert (info.state, info.step, info.epoch, info.exit_code, info.pid) == ("finished", 8, 4, 0, None)
    assert states_of(plain) == ["starting", "preparing", "training", "finished"]
    metrics = of_type(plain, "metric")
    assert [event["step"] for event in metrics] == list(range(1, 9))
    assert all({"loss", "lr", "grad_norm", "step_ms"} <= set(event) for event in metrics)
    assert metrics[0]["lr"] == 1e-3 and 0 < metrics[-1]["lr"] < 1e-4
    assert [path.name for path in checkpoints(plain.checkpoints_dir)] == ["step-000003", "step-000006", "step-000008"]
    assert "finished" in plain.log_path.read_text()
    assert {"torch", "diffusers"} <= set(info.versions) and info.device == "cpu"


def test_two_runs_of_one_config_are_the_same(plain: Run, workspace: Workspace, config_of) -> None:
    again = workspace.create_run(config_of())
    train_here(again)
    assert losses_of(again) == losses_of(plain)
    assert lora_bytes(again) == lora_bytes(plain)
    other = workspace.create_run(config_of(train__seed=43, train__max_steps=2))
    train_here(other)
    assert losses_of(other)[1] != losses_of(plain)[1]


def test_stop_and_resume(plain: Run, workspace: Workspace, config_of) -> None:
    run = workspace.create_run(config_of())
    stop_at(run, ("checkpoint", 3))
    info = run.read()
    assert (info.state, info.step, info.exit_code, info.pid) == ("stopped", 3, 3, None)
    assert states_of(run)[-2:] == ["stopping", "stopped"]
    assert len(read_lora(run.output_path).layers) == 192, "a stopped run has a usable LoRA"
    assert max(losses_of(run)) == 3
    train_here(run)
    assert losses_of(run) == losses_of(plain)
    assert lora_bytes(run) == lora_bytes(plain)


def test_stop_and_resume_with_everything_that_is_random(workspace: Workspace, config_of) -> None:
    undisturbed, stopped = (workspace.create_run(config_of(**EVERYTHING_RANDOM)) for _ in range(2))
    train_here(undisturbed)
    stop_at(stopped, ("checkpoint", 3))
    train_here(stopped)
    assert losses_of(stopped) == losses_of(undisturbed)
    assert lora_bytes(stopped) == lora_bytes(undisturbed)
    validations = [[(e["step"], e["loss"]) for e in of_type(run, "validation")] for run in (stopped, undisturbed)]
    assert validations[0] == validations[1]
    assert [step for step, _ in validations[0]] == [0, 2, 4, 6, 8]


def test_stop_while_preparing_leaves_a_run_that_starts_again(plain: Run, workspace: Workspace, config_of) -> None:
    run = workspace.create_run(config_of())
    stop_at(run, ("preparing", 0))
    assert run.read().state == "stopped" and not checkpoints(run.checkpoints_dir)
    train_here(run)
    assert lora_bytes(run) == lora_bytes(plain)


def test_pause_gives_the_device_back_and_changes_nothing(plain: Run, workspace: Workspace, config_of) -> None:
    run = workspace.create_run(config_of())
    device_lock = FileLock(workspace.locks_dir / "device-cpu.lock")
    seen: dict[str, object] = {}

    def another_job_meanwhile() -> None:
        with device_lock.acquire(timeout=60):
            seen.update(state=run.read().state, saved=is_valid(run.checkpoints_dir / "step-000001"))
        control.ask(run.control_dir, "resume")

    control.ask(run.control_dir, "pause")
    train_here(run, Watcher({("paused", 1): threading.Thread(target=another_job_meanwhile).start}))
    assert seen == {"state": "paused", "saved": True}
    assert states_of(run)[2:6] == ["training", "paused", "starting", "training"]
    assert losses_of(run) == losses_of(plain)
    assert lora_bytes(run) == lora_bytes(plain)


def test_stop_while_paused(workspace: Workspace, config_of) -> None:
    run = workspace.create_run(config_of())
    control.ask(run.control_dir, "pause")
    with pytest.raises(StoppedOnRequest):
        train_here(run, Watcher({("paused", 1): lambda: control.ask(run.control_dir, "stop")}))
    assert run.read().state == "stopped" and run.read().step == 1
    assert run.output_path.is_file()


def test_save_and_sample_on_request(workspace: Workspace, config_of) -> None:
    prompt = {"prompt": "a red circle", "steps": 2, "width": 64, "height": 64}
    run = workspace.create_run(config_of(train__max_steps=2, samples__prompts=[prompt]))
    control.ask(run.control_dir, "save")
    control.ask(run.control_dir, "sample")
    train_here(run)
    assert is_valid(run.checkpoints_dir / "step-000001")
    assert [path.name for path in run.samples_dir.iterdir()] == ["step-000001-p00-s42.png"]


def test_a_longer_run_is_the_same_as_a_finished_one_that_was_extended(workspace: Workspace, config_of) -> None:
    whole = workspace.create_run(config_of(train__lr_scheduler="constant", train__max_steps=5))
    short = workspace.create_run(config_of(train__lr_scheduler="constant", train__epochs=1))
    train_here(whole)
    train_here(short)
    assert (short.read().step, short.read().max_steps) == (2, 2)
    assert main(["resume", str(short.dir)]) == 2, "nothing left to do"
    assert main(["resume", str(short.dir), "--max-steps", "2"]) == 2
    assert main(["resume", str(short.dir), "--max-steps", "5", "--json"]) == 0
    assert losses_of(short) == losses_of(whole)
    assert lora_bytes(short) == lora_bytes(whole)
    assert short.config().train.max_steps == 5 and short.config().train.epochs is None
    assert short.read().max_steps == 5


@pytest.mark.parametrize("damage", ["truncated state", "no manifest", "half-written manifest", "changed lora"])
def test_a_damaged_checkpoint_is_passed_over(
    plain: Run, workspace: Workspace, config_of, damage: str, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(plain.dir, tmp_path / "copy"))
    shutil.rmtree(run.checkpoints_dir / "step-000008")
    run.output_path.unlink()
    newest = run.checkpoints_dir / "step-000006"
    if damage == "truncated state":
        state = newest / "state.pt"
        state.write_bytes(state.read_bytes()[:-10])
    elif damage == "no manifest":
        (newest / "manifest.json").unlink()
    elif damage == "half-written manifest":
        (newest / "manifest.json").write_text('{"step": 6, "fil')
    else:
        lora = bytearray((newest / "lora.safetensors").read_bytes())
        lora[-1] ^= 1
        (newest / "lora.safetensors").write_bytes(lora)
    (run.checkpoints_dir / ".unfinished-step-000009").mkdir()
    watcher = Watcher()
    train_here(run, watcher)
    warnings = [event["message"] for event in watcher.events if event["type"] == "warning"]
    assert any("step-000006 is damaged" in message for message in warnings)
    assert min(event["step"] for event in watcher.events if event["type"] == "metric") == 4
    assert lora_bytes(run) == lora_bytes(plain)
    assert not list(run.checkpoints_dir.glob(".unfinished*"))


def test_old_checkpoints_go(workspace: Workspace, config_of) -> None:
    config = config_of(output__save_every_steps=1, output__keep_last=2, train__max_steps=4)
    run = workspace.create_run(config)
    train_here(run)
    assert [path.name for path in checkpoints(run.checkpoints_dir)] == ["step-000003", "step-000004"]
    assert [event["step"] for event in of_type(run, "checkpoint")] == [1, 2, 3, 4]


def test_two_processes_never_have_one_run(plain: Run) -> None:
    with FileLock(plain.dir / ".process.lock"), pytest.raises(UserError, match="Another process"):
        train_here(plain)
    assert plain.read().state == "finished"


def test_one_job_at_a_time_and_waiting_can_be_stopped(workspace: Workspace, config_of) -> None:
    run = workspace.create_run(config_of())
    workspace.locks_dir.mkdir(parents=True)
    with FileLock(workspace.locks_dir / "device-cpu.lock"):
        watcher = Watcher({("warning", 0): lambda: control.ask(run.control_dir, "stop")})
        with pytest.raises(StoppedOnRequest):
            train_here(run, watcher)
    assert [event["code"] for event in watcher.events if event["type"] == "warning"] == ["device.busy"]
    assert states_of(run) == ["starting", "stopped"]


def test_a_checkpoint_of_another_config_is_refused(plain: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(plain.dir, tmp_path / "copy"))
    text = run.config_path.read_text()
    run.config_path.write_text(text.replace("  rank: 4", "  rank: 8"))
    with pytest.raises(UserError, match="does not fit config"):
        train_here(run)
    assert run.read().state == "failed" and run.read().exit_code == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("  target: full", "36 layers are not in it, such as lora_unet_down_blocks_0_resnets_0"),
        ("  target: attention", "64 layers are in the checkpoint only, such as lora_unet_down"),
    ],
)
def test_layers_that_a_checkpoint_has_or_lacks_are_named(change: str, message: str, plain: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(plain.dir, tmp_path / "copy"))
    text = run.config_path.read_text()
    run.config_path.write_text(text.replace("  target: attention_ff", change))
    with pytest.raises(UserError, match=message) as caught:
        train_here(run)
    assert "init_from" in caught.value.problems[0].hint


def test_checkpoints_are_plain_data(plain: Run) -> None:
    state = torch.load(plain.checkpoints_dir / "step-000008" / "state.pt", weights_only=True)
    assert state["step"] == 8 and all(torch.isfinite(parameter).all() for parameter in state["parameters"])

"""``kill -9`` at any moment, then resume: the same losses and the same bytes as a run that nobody touched."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import forked
from tests.recipe.tiny_runs import losses_of, of_type, states_of, train_here
from trainer.config_io import save_config
from trainer.lora.file import read_lora
from trainer.runs.store import Run, Workspace

PROMPT = {"prompt": "a red circle", "steps": 6, "width": 64, "height": 64}
DEADLINE_SECONDS = 300


@pytest.fixture
def configured(config_of, tmp_path: Path) -> Path:
    config = config_of(
        lora__train="both",
        train__max_steps=20,
        train__batch_size=1,
        output__save_every_steps=4,
        samples__every_steps=10,
        samples__prompts=[PROMPT],
    )
    save_config(config, tmp_path / "config.yaml")
    return tmp_path / "config.yaml"


def start(*arguments: str) -> forked.Command:
    return forked.start(*arguments, "--json", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")


def kill_when(process: forked.Command, moment: Callable[[], bool]) -> None:
    """Kill the process at a moment; it must not have ended by itself before."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not moment():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_killed_again_and_again(configured: Path, workspace: Workspace, tmp_path: Path) -> None:
    undisturbed = Run(workspace.runs_dir / "undisturbed")
    killed = Run(workspace.runs_dir / "killed")
    process = start("train", str(configured), "--workspace", str(workspace.dir), "--run-dir", str(killed.dir))

    def written(name: str) -> bool:
        return any(killed.checkpoints_dir.glob(name))

    kill_when(process, lambda: written("step-000004") and max(losses_of(killed), default=0) >= 6)
    assert killed.status().state == "failed", "a run whose process is gone is not running"
    first = max(losses_of(killed))
    kill_when(start("resume", str(killed.dir)), lambda: written(".unfinished-step-000012/*"))
    assert not written("step-000012") and killed.status().step < 20
    kill_when(start("resume", str(killed.dir)), lambda: any(killed.samples_dir.glob(".step-000020*")))
    kill_when(start("resume", str(killed.dir)), lambda: any(killed.output_dir.iterdir()))

    train_here(killed)
    train_here(workspace.create_run(killed.config(), undisturbed.dir))
    assert first < 12
    assert losses_of(killed) == losses_of(undisturbed) and len(losses_of(killed)) == 20
    assert killed.output_path.read_bytes() == undisturbed.output_path.read_bytes()
    for kind in ("samples", "output", "checkpoints"):
        names = [sorted(path.name for path in (run.dir / kind).iterdir()) for run in (killed, undisturbed)]
        assert [name for name in names[0] if not name.startswith(".")] == names[1], kind


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_the_answer_is_json(number: signal.Signals, configured: Path, workspace: Workspace) -> None:
    run = Run(workspace.runs_dir / "one")
    long = ("--set", "train.max_steps=1000")  # not over before the signal comes
    process = start("train", str(configured), *long, "--workspace", str(workspace.dir), "--run-dir", str(run.dir))
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (run.dir / "events.jsonl").exists() or max(losses_of(run), default=0) < 3:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    answer, log = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.poll() == 3, log
    assert "stopped at step" in json.loads(answer)["stopped"]
    info = run.read()
    assert (info.state, info.exit_code, info.error) == ("stopped", 3, None)
    assert states_of(run)[-2:] == ["stopping", "stopped"]
    assert info.step == max(losses_of(run)) and of_type(run, "checkpoint")[-1]["step"] == info.step
    assert read_lora(run.output_path).metadata["ss_steps"] == str(info.step)
    assert "Traceback" not in log

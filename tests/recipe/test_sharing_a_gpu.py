"""Commands and a GPU that another process has, with a stand-in for the GPU: its UUID, and the computing on the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.recipe.tiny_runs import make_pictures
from tests.unit.lora_samples import lora
from trainer import devices
from trainer.__main__ import main
from trainer.devices import gpu_held
from trainer.lora.file import write_lora
from trainer.runs.events import Events, read_events
from trainer.runs.turns import gpu_turn

ROOT = Path(__file__).resolve().parents[2]
UUID = "aaaa"

UNTIL_ASKED = "while not turn.wanted: time.sleep(0.02)\nturn.give_back()"
UNTIL_KILLED = "time.sleep(600)"

WAITING: dict[str, Callable[[Path], list[str]]] = {
    "bench": lambda folder: ["bench", "--steps", "1", "--resolution", "64"],
    "generate": lambda folder: [
        *("generate", "--prompt", "a red star", "--out", str(folder / "out")),
        *("--steps", "1", "--width", "64", "--height", "64"),
    ],
    "caption": lambda folder: [
        *("caption", str(make_pictures(folder / "cats", 1)), "--captioner", "demo"),
        *("--workspace", str(folder / "workspace")),
    ],
}


@pytest.fixture(autouse=True)
def a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What computes on the CPU passes for a GPU; its lock is the test's own."""
    monkeypatch.setattr(devices, "gpu_uuid", lambda device: UUID)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture
def holder() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts another process that has the GPU, and then does something."""
    processes: list[subprocess.Popen[str]] = []

    def start(then: str) -> subprocess.Popen[str]:
        code = (
            f"import time; from trainer.runs.turns import gpu_turn\nturn = gpu_turn({UUID!r}, 'training of cats')\n"
            f"assert turn.take()\nprint('mine', flush=True)\n{then}"
        )
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None and process.stdout.readline() == "mine\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def _told(tmp_path: Path) -> list[str]:
    return [f"{e['code']}: {e['message']}" for e in read_events(tmp_path / "events") if e["type"] == "warning"]


def _run(tmp_path: Path, command: list[str]) -> list[str]:
    """Run a command to its good end in this process; answers with its warnings."""
    assert main([*command, "--events", str(tmp_path / "events")]) == 0
    return _told(tmp_path)


@pytest.mark.parametrize("name", WAITING)
def test_a_command_waits_for_a_gpu_and_then_has_it_alone(
    name: str, tmp_path: Path, holder: Callable[[str], subprocess.Popen[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    since = time.strftime("%H:%M")
    other = holder(UNTIL_ASKED)
    (told,) = _run(tmp_path, WAITING[name](tmp_path))
    assert told.startswith("device.busy: Another job is using c") and f"(training of cats, since {since[:3]}" in told
    assert "This one starts when it ends." in capfd.readouterr().err
    assert other.wait(30) == 0, "it was not asked for the GPU"
    free = gpu_turn(UUID)
    assert free.take(0) and free.holder is None
    free.give_back()


def test_who_waits_goes_on_when_the_other_is_killed_and_keeps_third_ones_off(
    tmp_path: Path, holder: Callable[[str], subprocess.Popen[str]]
) -> None:
    other, third = holder(UNTIL_KILLED), gpu_turn(UUID)

    class Killing(Events):
        def emit(self, kind: str, step: int = 0, **fields: object) -> None:
            other.kill()

    device = devices.pick_device()
    with gpu_held(device, "captioning of dogs", Killing()):
        assert not third.take(0)
        assert third.holder is not None and third.holder.what == "captioning of dogs"
        with gpu_held(device, "drawing", Events(), share=True):
            pass  # beside it, as asked for
    assert third.take(0)
    third.give_back()


def test_a_training_and_its_evaluation_go_on_beside_it_when_asked_to(
    tmp_path: Path, holder: Callable[[str], subprocess.Popen[str]]
) -> None:
    other, folder = holder(UNTIL_KILLED), tmp_path / "run"
    settings = {"train.max_steps": 1, "train.batch_size": 1, "dataset.resolution": 64, "samples.every_steps": 0}
    config = tmp_path / "config.yaml"
    config.write_text(f"dataset: {{sources: [{{path: {make_pictures(tmp_path / 'cats', 1)}}}]}}\n")
    place = ["--workspace", str(tmp_path / "workspace"), "--share-gpu"]
    given = [f"--set={name}={value}" for name, value in settings.items()]
    assert _run(tmp_path, ["train", str(config), "--run-dir", str(folder), *given, *place]) == []
    assert _run(tmp_path, ["resume", str(folder), "--max-steps", "2", *place]) == []
    assert _run(tmp_path, ["evaluate", str(folder), "--metrics", "validation", *place]) == []
    assert other.poll() is None


def test_a_training_says_that_it_need_not_wait(
    tmp_path: Path, holder: Callable[[str], subprocess.Popen[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    config, other = tmp_path / "config.yaml", holder(UNTIL_ASKED)
    config.write_text(f"dataset: {{sources: [{{path: {make_pictures(tmp_path / 'cats', 1)}}}]}}\n")
    place = ["--workspace", str(tmp_path / "workspace"), "--set=train.max_steps=1", "--set=dataset.resolution=64"]
    told = _run(tmp_path, ["train", str(config), *place])
    assert told[0].startswith("device.busy:") and other.wait(30) == 0
    assert "--share-gpu goes on beside it." in capfd.readouterr().err


def test_a_tool_takes_the_processor_where_the_gpu_is_in_use_and_the_gpu_where_it_is_not(
    tmp_path: Path, holder: Callable[[str], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.runs.turns._GIVE_WAY_SECONDS", 0.1)
    write_lora(tmp_path / "in.safetensors", lora(), precision="float")
    command = ["resize", "--lora", str(tmp_path / "in.safetensors"), "--rank", "2", "--out"]
    other = holder(UNTIL_KILLED)
    (told,) = _run(tmp_path, [*command, str(tmp_path / "beside.safetensors")])
    assert told.startswith("device.processor: Another job") and told.endswith("This is computed on the processor.")
    other.kill()
    other.wait()
    assert len(_run(tmp_path, [*command, str(tmp_path / "alone.safetensors")])) == 1, "nothing more to wait for"
    merging = ["merge", "--lora", f"{tmp_path / 'in.safetensors'}=1", "--out", str(tmp_path / "merged.safetensors")]
    assert len(_run(tmp_path, merging)) == 1


def test_a_wait_can_be_cancelled(
    tmp_path: Path, holder: Callable[[str], subprocess.Popen[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM, as the page's Cancel sends it, ends a job that waits; it asks for the GPU no longer."""
    holder(UNTIL_KILLED)

    def cancel() -> None:
        while not ((tmp_path / "events").is_file() and _told(tmp_path)):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=cancel, daemon=True).start()
    assert main([*WAITING["bench"](tmp_path), "--json", "--events", str(tmp_path / "events")]) == 3
    assert json.loads(capfd.readouterr().out) == {"stopped": "stopped on request"}
    assert not gpu_turn(UUID).wanted

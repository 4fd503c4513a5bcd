"""From the start to the first step: how long it takes, what is loaded for it, and what is not read again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from diffusers import UNet2DConditionModel

from tests.recipe.tiny_runs import train_here
from tests.unit.queue_trainer import loaded_in, wait
from trainer import file_states
from trainer.config import Config
from trainer.families.parts import demo_config, load_unet
from trainer.runs.spare import note_expected
from trainer.runs.store import Workspace
from trainer.runs.worker import enqueue, ensure_worker, worker_log

ROOT = Path(__file__).resolve().parents[2]
MOST_SECONDS = 5 if "LORA_ATELIER_MEASURE" in os.environ else 100
"""From Start on the page to the first step of the demo model, whose pictures and captions are cached."""
UNUSED = "pandas sklearn matplotlib onnx onnxruntime gradio fastapi datasets torchvision bitsandbytes wandb tensorboard"


def test_a_loaded_trainer_starts_at_once_and_learns_the_same(
    config_of: Callable[..., Config], workspace: Workspace
) -> None:
    config = config_of(train__max_steps=2)
    here = workspace.create_run(config, queued=False)
    train_here(here)
    assert note_expected(workspace, "cpu")
    assert ensure_worker(workspace, "cpu", idle_seconds=0.1)
    try:
        wait(lambda: "loaded" in worker_log(workspace, "cpu").read_text())
        (loaded,) = loaded_in(workspace)
        begun = time.time()
        run = enqueue(workspace, config, device="cpu")
        wait(lambda: run.read().exit_code is not None)
        wait(lambda: not loaded.is_running())
    finally:
        os.utime(workspace.locks_dir / "expected-cpu", (1, 1))
    info = run.read()
    assert (info.state, info.exit_code, info.step) == ("finished", 0, 2), info.error
    assert info.launched is not None
    assert info.first_step_s is not None
    assert info.launched - begun + info.first_step_s < MOST_SECONDS
    assert run.output_path.read_bytes() == here.output_path.read_bytes()


def test_a_training_loads_no_library_that_it_does_not_use() -> None:
    script = (
        "import gc, sys; from trainer.loading import load_train; load_train();"
        "assert gc.isenabled() and gc.get_freeze_count() > 100_000, gc.get_freeze_count();"
        "assert not sys.modules['torch'].cuda.is_initialized(), 'it would hold memory of the GPU while it waits';"
        f"sys.exit(' '.join(set({UNUSED!r}.split()) & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is told by Linux alone")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_come_into_memory_once(tmp_path: Path, dtype: torch.dtype) -> None:
    """Those in the wanted format stay the file's own pages; of others there is one copy, and none in float32."""
    with torch.device("meta"):
        model = UNet2DConditionModel.from_config({**demo_config("unet"), "block_out_channels": (64, 128, 192, 192)})
    model = model.to_empty(device="cpu").to(torch.float16)
    for parameter in model.parameters():
        parameter.data.zero_()
    model.save_pretrained(tmp_path / "unet")
    size = sum(parameter.numel() * 2 for parameter in model.parameters())
    del model
    with _most_memory_of_its_own() as most:
        loaded = load_unet(tmp_path, dtype)
    assert loaded.dtype == dtype
    assert most[0] < (0.3 if dtype == torch.float16 else 1.2) * size


@contextmanager
def _most_memory_of_its_own() -> Iterator[list[int]]:
    """By how many bytes this process's own memory, without mapped files, grew at most; filled in at the end."""
    most, ended, before = [0], threading.Event(), _own_bytes()

    def watch() -> None:
        while not ended.wait(0.001):
            most[0] = max(most[0], _own_bytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        ended.set()
        watcher.join()
        most[0] = max(most[0], _own_bytes() - before)


def _own_bytes() -> int:
    words = Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()
    return int(words[0]) * 1024


def test_a_second_run_reads_no_picture_and_no_weights_to_know_them(
    config_of: Callable[..., Config], workspace: Workspace, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace.dir / "cache-home"))
    monkeypatch.setattr(file_states, "SETTLED_NS", -1)
    read: list[Path] = []
    opened = Path.open

    def opening(path: Path, mode: str = "r", *more: object, **named: object) -> object:
        if mode == "rb":
            read.append(path)
        return opened(path, mode, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", opening)
    counts = []
    for _ in range(2):
        run = workspace.create_run(config_of(train__max_steps=1), queued=False)
        read.clear()
        train_here(run)
        weights = [
            path for path in read if path.suffix == ".safetensors" and path.parent.name in ("vae", "text_encoder")
        ]
        counts.append((len(weights), sum(path.parent == pictures and path.suffix == ".png" for path in read)))
    assert counts == [(4, 9), (2, 3)], "two parts and three pictures: header, contents and pixels; then headers alone"

    info = run.read()
    age = time.time() - psutil.Process().create_time()
    assert info.first_step_s is not None and 0 < info.first_step_s < age

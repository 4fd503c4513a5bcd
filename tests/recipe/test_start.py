"""From the start to the first step: how long it took is written down, and what is known is not read again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.recipe.tiny_runs import train_here
from trainer import file_states
from trainer.config import Config
from trainer.runs.store import Workspace


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
    assert counts == [(2, 9), (0, 3)], "three pictures: header, contents and pixels; then headers alone"

    info = run.read()
    age = time.time() - psutil.Process().create_time()
    assert info.first_step_s is not None and 0 < info.first_step_s < age

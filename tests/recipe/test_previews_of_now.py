"""Previews show the weights as they are at that step: those of the running mean, where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from tests.recipe.tiny_runs import QUICK_PROMPT, train_here
from trainer import step_calls
from trainer.config import Config
from trainer.runs.store import Workspace

PREVIEWS = {"samples__every_steps": 1, "samples__at_start": True, "samples__prompts": [QUICK_PROMPT]}
FAST = {"train__learning_rate": 0.05, "train__lr_scheduler": "constant", "lora__rank": 4}


@pytest.fixture
def pictures_of(
    tiny: Callable[..., Config], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[bytes]]:
    """Pixels of the previews of a run of a tiny model that is replayed from its third step on."""
    monkeypatch.setattr(step_calls, "CALLED_FIRST_ON_CPU", 2)

    def draw(**changes: Any) -> list[bytes]:
        run = workspace.create_run(tiny(**{**PREVIEWS, **FAST, **changes}), queued=False)
        train_here(run)
        return [Image.open(path).tobytes() for path in sorted(run.samples_dir.glob("*.png"))]

    return draw


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_each_preview_is_of_its_step(precision: str, pictures_of: Callable[..., list[bytes]]) -> None:
    pictures = pictures_of(train__max_steps=6, train__mixed_precision=precision)
    assert len(pictures) == len(set(pictures)) == 7


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_running_mean_is_what_is_shown(precision: str, pictures_of: Callable[..., list[bytes]]) -> None:
    settings = {"train__max_steps": 4, "train__mixed_precision": precision}
    plain, mean = pictures_of(**settings), pictures_of(**settings, train__ema=0.9)
    assert plain[0] == mean[0]
    assert all(one != other for one, other in zip(plain[2:], mean[2:], strict=True))

"""Text encoders that training does not need leave the GPU, come back for previews, and stay where they are needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.recipe.tiny_runs import train_here
from trainer import recipe, sampling
from trainer.runs.store import Workspace

PROMPT = {"prompt": "a red circle", "steps": 1, "width": 64, "height": 64, "guidance": 1}
DEVICE = torch.device("cpu")


def text_moves(config: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Where the text encoders went in the course of a run, and when a preview was drawn."""
    found: list[Any] = []
    load, draw = recipe.load_family, sampling.draw

    def watched(*arguments: Any, **named: Any) -> Any:
        family = load(*arguments, **named)
        move = family.move

        def moved(**parts: Any) -> None:
            found.extend(parts[part] for part in ("text",) if parts.get(part) is not None)
            move(**parts)

        monkeypatch.setattr(family, "move", moved)
        return family

    def drawn(*arguments: Any, **named: Any) -> Any:
        found.append("drawn")
        return draw(*arguments, **named)

    monkeypatch.setattr(recipe, "load_family", watched)
    monkeypatch.setattr(sampling, "draw", drawn)
    train_here(workspace.create_run(config))
    return found


def test_they_are_away_except_for_previews(config_of, workspace: Workspace, monkeypatch) -> None:
    config = config_of(train__max_steps=1, samples__every_steps=1, samples__at_start=False, samples__prompts=[PROMPT])
    assert text_moves(config, workspace, monkeypatch) == [
        DEVICE,  # to encode the captions
        "cpu",
        DEVICE,
        "drawn",
        "cpu",
    ]


@pytest.mark.parametrize(
    "needed",
    [{"lora__train": "both"}, {"dataset__captions": {"shuffle": True}}, {"dataset__cache": {"text": False}}],
    ids=["they learn", "captions vary", "not cached"],
)
def test_they_stay_where_they_are_needed(config_of, workspace: Workspace, monkeypatch, needed: dict[str, Any]) -> None:
    assert "cpu" not in text_moves(config_of(train__max_steps=1, **needed), workspace, monkeypatch)

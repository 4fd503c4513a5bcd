"""Fixtures of the recipe's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.recipe.tiny_runs import SIDE, make_pictures
from tests.tiny_models import tiny_model
from trainer.config import Config
from trainer.config_io import parse_config
from trainer.runs.store import Workspace


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # the same bytes as the subprocesses, and no waiting for a busy core


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def config_of(pictures: Path) -> Callable[..., Config]:
    """A small config; ``train__max_steps=4`` changes ``train.max_steps``."""

    def make(**changes: Any) -> Config:
        values: dict[str, Any] = {
            "name": "tiny",
            "dataset": {"sources": [{"path": str(pictures)}], "resolution": SIDE, "buckets": {"min": 64, "step": 8}},
            "lora": {"rank": 4, "alpha": 2},
            "train": {"max_steps": 8, "batch_size": 2, "learning_rate": 1e-3},
            "samples": {"every_steps": 0, "at_start": False},
            "output": {"save_every_steps": 3, "precision": "float"},
        }
        for name, value in changes.items():
            section, _, key = name.rpartition("__")
            (values.setdefault(section, {}) if section else values)[key] = value
        return parse_config(values)

    return make


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture(scope="session")
def tiny(config_of: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Config]:
    """Configs of short runs with a tiny model, saved at every second step."""
    model = {"base": str(tiny_model("sd1", tmp_path_factory.mktemp("model")))}

    def make(**changes: Any) -> Config:
        short = {"train__max_steps": 6, "train__batch_size": 1, "output__save_every_steps": 2, "lora__rank": 2}
        return config_of(**{"model": model, **short, **changes})

    return make

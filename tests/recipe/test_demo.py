"""``trainer demo`` in small: the promised keys, real pictures, a trained file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from trainer.config import Config
from trainer.demo import showcase
from trainer.demo.concepts import CONCEPTS
from trainer.lora.file import read_lora
from trainer.runs.events import Events
from trainer.runs.store import Run, Workspace

KEYS = "run_dir lora picture train_seconds total_seconds score_before score_after score_unprompted"


@pytest.mark.parametrize("kind", ["style", "character"])
def test_the_preset_and_its_pictures(kind, tmp_path: Path) -> None:
    config = showcase.showcase_config(kind, tmp_path)
    concept = CONCEPTS[showcase.CONCEPT_OF[kind]]
    pictures, plain = config.dataset.sources
    counts = [len(list(Path(source.path).glob("*.png"))) * source.repeats for source in (pictures, plain)]
    assert counts[0] == counts[1] > 0, "concept and plain pictures are seen equally often"
    assert plain.is_regularization and not pictures.is_regularization
    assert config.output.trigger == concept.trigger
    assert len(concept.prompts) >= 32 and len(concept.plain_prompts) >= 32


def test_a_short_showcase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_config = showcase.showcase_config

    def short_config(kind: showcase.Kind, folder: Path) -> Config:
        config = whole_config(kind, folder)
        config.train.max_steps = 1
        return config

    concept = CONCEPTS["neon"]
    few = dataclasses.replace(concept, prompts=concept.prompts[:3], plain_prompts=concept.plain_prompts[:3])
    monkeypatch.setattr(showcase, "showcase_config", short_config)
    monkeypatch.setattr(showcase, "DRAWING", showcase.DRAWING.model_copy(update={"steps": 3}))
    monkeypatch.setitem(CONCEPTS, "neon", few)
    shown = showcase.show("style", Workspace(tmp_path), Events())
    assert list(vars(shown)) == KEYS.split()
    assert Run(Path(shown.run_dir)).read().state == "finished"
    assert read_lora(Path(shown.lora)).metadata["ss_steps"] == "1"
    assert 0 < shown.train_seconds <= shown.total_seconds
    assert shown.score_before == shown.score_after == 0.0
    with Image.open(shown.picture) as picture:
        assert picture.height == 3 * 132

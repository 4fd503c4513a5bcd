"""The demo from start to end: make pictures, train, and show and count what the LoRA changed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw

from trainer.config import Config, Source
from trainer.config_io import PRESETS_DIR, load_config
from trainer.demo.concepts import CONCEPT_REPEATS, CONCEPTS, PICTURES, PICTURES_SEED, Concept, make_dataset
from trainer.demo.world import SIDE_PX
from trainer.devices import gpu_held, pick_device
from trainer.drawing import draw
from trainer.generate import Painter
from trainer.pictures import LoraUse, PictureSettings
from trainer.recipe import train
from trainer.runs.events import EventSink
from trainer.runs.store import Workspace

Kind = Literal["style", "character"]

CONCEPT_OF: dict[Kind, str] = {"style": "neon", "character": "robot"}

DRAWING = PictureSettings.model_validate({"steps": 20, "guidance": 2.0, "width": SIDE_PX, "height": SIDE_PX})
BATCH = 16
SHOWN = 6
"""Columns of the before and after picture."""


@dataclass(frozen=True)
class Showcase:
    """What the demo answers.

    Attributes:
        run_dir: the run's folder.
        lora: the finished LoRA.
        picture: before and after, side by side.
        train_seconds: training alone.
        total_seconds: everything.
        score_before: share of pictures with the trigger that show the concept before training.
        score_after: the same after.
        score_unprompted: share of pictures without the trigger that show it after training.
    """

    run_dir: str
    lora: str
    picture: str
    train_seconds: float
    total_seconds: float
    score_before: float
    score_after: float
    score_unprompted: float


def show(kind: Kind, workspace: Workspace, events: EventSink) -> Showcase:
    """Train the demo LoRA of a kind and judge it. Raises what ``recipe.train`` raises."""
    begun = time.monotonic()
    concept = CONCEPTS[CONCEPT_OF[kind]]
    device = pick_device()
    with gpu_held(device, "the demo", events):
        painter = Painter("demo", device)
        before = _draw(painter, concept.prompts, "before", events)

    config = showcase_config(kind, workspace.datasets_dir / f"demo-{concept.name}")
    run = workspace.create_run(config, queued=False)
    outcome = train(run, workspace=workspace, events=events)

    with gpu_held(device, "the demo", events):
        painter.use([LoraUse(path=str(outcome.lora_path), weight=1.0)])
        after = _draw(painter, concept.prompts, "after", events)
        plain = _draw(painter, concept.plain_prompts, "without the trigger", events)
    picture = run.dir / "before-after.png"
    _before_and_after({"before": before, "after": after, "no trigger": plain}).save(picture)
    return Showcase(
        run_dir=str(run.dir),
        lora=str(outcome.lora_path),
        picture=str(picture),
        train_seconds=round(outcome.seconds, 1),
        total_seconds=round(time.monotonic() - begun, 1),
        score_before=_share(concept, before),
        score_after=_share(concept, after),
        score_unprompted=_share(concept, plain),
    )


def showcase_config(kind: Kind, folder: Path) -> Config:
    """The demo preset of a kind, with its pictures made in ``folder`` where they are missing, and no previews."""
    config = load_config(PRESETS_DIR / f"demo_{kind}.yaml", ["samples.every_steps=0", "samples.at_start=false"])
    made = make_dataset(CONCEPTS[CONCEPT_OF[kind]], folder, PICTURES, PICTURES_SEED)
    config.dataset.sources = [
        Source(path=str(made.pictures), repeats=CONCEPT_REPEATS),
        Source(path=str(made.regularization), is_regularization=True),
    ]
    return config


def _draw(painter: Painter, prompts: Sequence[str], what: str, events: EventSink) -> list[Image.Image]:
    """A picture for each prompt, its seed the prompt's number."""
    pictures: list[Image.Image] = []
    for first in range(0, len(prompts), BATCH):
        group = list(prompts[first : first + BATCH])
        seeds = list(range(first, first + len(group)))
        pictures += draw(painter.family, DRAWING, seeds, prompts=group)
        events.emit("progress", what=f"drawing {what}", done=len(pictures), total=len(prompts))
    return pictures


def _share(concept: Concept, pictures: list[Image.Image]) -> float:
    return sum(concept.shows(picture) for picture in pictures) / len(pictures)


def _before_and_after(rows: dict[str, list[Image.Image]]) -> Image.Image:
    """One labelled row of pictures for each entry."""
    label_px, gap_px = 80, 4
    step = SIDE_PX + gap_px
    sheet = Image.new("RGB", (label_px + SHOWN * step, len(rows) * step), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (label, pictures) in enumerate(rows.items()):
        pen.text((8, row * step + SIDE_PX // 2), label, fill="black")
        for column, picture in enumerate(pictures[:: max(1, len(pictures) // SHOWN)][:SHOWN]):
            sheet.paste(picture, (label_px + column * step, row * step))
    return sheet

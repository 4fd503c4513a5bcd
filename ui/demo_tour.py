"""Trying the demo: practice pictures, a run, and how far it has come. No Gradio.

``WORKSPACE/demo.json`` remembers which run it is, so that a reloaded page, or a restarted app, goes on telling.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trainer.config import Config, Source
from trainer.demo.concepts import CONCEPT_REPEATS, CONCEPTS, PICTURES, PICTURES_SEED, make_dataset
from trainer.errors import UserError
from trainer.files import read_json, write_json
from trainer.runs.store import Run, Workspace
from trainer.runs.worker import enqueue
from ui import presets
from ui.run_view import readers_of

Stage = Literal["offer", "waiting", "preparing", "training", "finished", "stopped"]

PRESETS: dict[str, str] = {"neon": "demo_style", "robot": "demo_character"}
"""Concept to the preset that teaches it."""


class _Memory(BaseModel):
    model_config = ConfigDict(extra="ignore")

    run: str | None = None
    concept: str = "neon"
    hidden: bool = False


@dataclass(frozen=True)
class Tour:
    """How far the demo has come. ``key`` changes whenever anything shown does."""

    key: str
    shown: bool
    stage: Stage
    concept: str
    run: Run | None
    step: int
    max_steps: int
    seconds_left: float | None
    error: str


def read_tour(workspace: Workspace) -> Tour:
    """The tour as it is now. It is shown until hidden: unasked only where there are no runs yet."""
    memory = _read(workspace)
    run = _run(workspace, memory)
    if run is None:
        shown = not memory.hidden and (memory.run is not None or not workspace.runs())
        return Tour(f"offer {shown}", shown, "offer", memory.concept, None, 0, 0, None, "")
    view = readers_of(workspace.dir).of(run).view()
    stage = _stage(view.info.state)
    return Tour(
        key=f"{run.id} {stage} {view.info.step} {view.info.state} {memory.hidden}",
        shown=not memory.hidden,
        stage=stage,
        concept=memory.concept,
        run=run,
        step=view.info.step,
        max_steps=view.info.max_steps or 0,
        seconds_left=view.seconds_left,
        error=view.info.error or "",
    )


def start(workspace: Workspace, concept: str) -> Run:
    """Make the practice pictures and put the demo run into the queue."""
    run = enqueue(workspace, demo_config(workspace, concept))
    _write(workspace, _Memory(run=run.id, concept=concept))
    return run


def demo_config(workspace: Workspace, concept: str) -> Config:
    """The demo's preset with its practice pictures, which are made where they are missing."""
    pictures, plain = _practice_pictures(workspace, concept)
    config = presets.load(presets.find(workspace, PRESETS[concept]))
    config.dataset.sources = [
        Source(path=str(pictures), repeats=CONCEPT_REPEATS),
        Source(path=str(plain), is_regularization=True),
    ]
    return config


def hide(workspace: Workspace) -> None:
    """Put the card away until it is asked for."""
    _write(workspace, _read(workspace).model_copy(update={"hidden": True}))


def offer(workspace: Workspace) -> None:
    """Bring the card back: with the run that is going on, else with the offer to try the demo."""
    memory = _read(workspace)
    run = _run(workspace, memory)
    going = run is not None and _stage(run.status().state) in ("waiting", "preparing", "training")
    _write(workspace, _Memory(run=memory.run if going else "", concept=memory.concept))


def prompt_of(concept: str) -> str:
    """A prompt that shows what was learned."""
    return CONCEPTS[concept].prompts[0]


def _practice_pictures(workspace: Workspace, concept: str) -> tuple[Path, Path]:
    folder = workspace.datasets_dir / f"demo-{concept}"
    pictures, plain = folder / "pictures", folder / "regularization"
    if len(list(pictures.glob("*.png"))) < PICTURES or not any(plain.glob("*.png")):
        made = make_dataset(CONCEPTS[concept], folder, PICTURES, PICTURES_SEED)
        pictures, plain = made.pictures, made.regularization
    return pictures, plain


def _stage(state: str) -> Stage:
    stages: dict[str, Stage] = {
        "queued": "waiting",
        "starting": "preparing",
        "preparing": "preparing",
        "finished": "finished",
        "stopped": "stopped",
        "failed": "stopped",
    }
    return stages.get(state, "training")


def _run(workspace: Workspace, memory: _Memory) -> Run | None:
    if not memory.run:
        return None
    try:
        return workspace.run(memory.run)
    except UserError:  # deleted since
        return None


def _read(workspace: Workspace) -> _Memory:
    try:
        return _Memory.model_validate(read_json(workspace.dir / "demo.json"))
    except (FileNotFoundError, ValueError):
        return _Memory()


def _write(workspace: Workspace, memory: _Memory) -> None:
    write_json(workspace.dir / "demo.json", memory.model_dump())

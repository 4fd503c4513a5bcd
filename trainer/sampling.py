"""Preview pictures of a model that is being trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from trainer.config import Config, SamplePrompt
from trainer.data.buckets import resolutions
from trainer.devices import give_back_cached_memory, is_out_of_memory
from trainer.drawing import OnStep, draw
from trainer.errors import StoppedOnRequest, UserError
from trainer.evaluation import without_dropout
from trainer.families.base import Family, clip_skip_problem
from trainer.pictures import PictureSettings, save_png
from trainer.ranks import OutOfStep
from trainer.runs.events import paths_told
from trainer.session import Session

SMALLEST_PREVIEW_PX = 128

Draw = Callable[[SamplePrompt, tuple[int, int]], Image.Image]
"""Draws a prompt in a size. Raises StoppedOnRequest when a stop is asked for meanwhile."""


def draw_previews(draw_one: Draw, config: Config, session: Session, step: int) -> None:
    """Draw the prompts of the settings into the run's samples, with ``sample`` events.

    Pictures that are there already are not drawn again, only told where a kill came in between. A picture that fails is
    a warning: a preview ends a run only where processes that hold the model together are out of step.
    A stop request ends them at once.
    """
    for index, prompt in enumerate(config.samples.prompts):
        path = session.run.samples_dir / preview_name(step, index, prompt.seed)
        name = path.relative_to(session.run.dir).as_posix()
        try:
            if path.exists():
                if name in paths_told(session.run.events_path):
                    continue
            else:
                session.check_stop()
                picture = _draw_smaller_if_need_be(draw_one, config, prompt, session)
                save_png(picture, path, settings_of(config, prompt, picture, step))
        except StoppedOnRequest:
            return
        except OutOfStep:
            raise
        except Exception as error:  # whatever it is, the training is worth more than its preview
            reason = f"{type(error).__name__}: {error}"
            session.warn("preview.failed", f"Preview {index + 1} could not be drawn: {reason}.", "Training goes on.")
            continue
        session.events.emit("sample", step, path=name, prompt=prompt.prompt, seed=prompt.seed, index=index)


def check_prompts(prompts: list[SamplePrompt], family: Family) -> None:
    """Raise UserError for every prompt whose clip skip is more than the model's text encoders have layers for."""
    most = family.max_clip_skip
    problems = [
        clip_skip_problem(f"samples.prompts.{index}.clip_skip", prompt.clip_skip, most)
        for index, prompt in enumerate(prompts)
        if prompt.clip_skip is not None and prompt.clip_skip > most
    ]
    if problems:
        raise UserError.many(problems)


def preview_name(step: int, index: int, seed: int) -> str:
    """``step-000100-p00-s42.png``: sorts by step, then by prompt."""
    return f"step-{step:06d}-p{index:02d}-s{seed}.png"


def remove_previews_after(step: int, folder: Path) -> None:
    """Remove the previews of later steps, which are going to be done anew in another way."""
    for path in folder.glob("step-*.png"):
        if int(path.name.split("-")[1]) > step:
            path.unlink()


def draw_prompt(
    family: Family,
    config: Config,
    prompt: SamplePrompt,
    size: tuple[int, int],
    on_step: OnStep | None = None,
) -> Image.Image:
    """A preview of ``size`` pixels, as the Generate tab draws it. ``on_step`` may raise to end it there."""
    values = {**prompt.model_dump(), **reading_of(config, prompt), "width": size[0], "height": size[1]}
    with without_dropout(family):
        return draw(family, PictureSettings.model_validate(values), [prompt.seed], on_step=on_step)[0]


def _draw_smaller_if_need_be(draw_one: Draw, config: Config, prompt: SamplePrompt, session: Session) -> Image.Image:
    """Half the size, and half again, where memory does not suffice. Raises when even the smallest does not fit."""
    native = resolutions(config.dataset)[0]
    width, height = prompt.width or native[0], prompt.height or native[1]
    while True:
        try:
            return draw_one(prompt, (width, height))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or min(width, height) < 2 * SMALLEST_PREVIEW_PX:
                raise
        give_back_cached_memory()
        width, height = width // 16 * 8, height // 16 * 8
        session.warn("preview.memory", "Not enough memory for the preview.", f"Drawn at {width} x {height} instead.")


def settings_of(config: Config, prompt: SamplePrompt, picture: Image.Image, step: int) -> dict[str, Any]:
    """What the picture's file tells of how it was made."""
    size = {"width": picture.width, "height": picture.height}
    shared = {"model": config.model.base, "step": step, "run": config.name}
    return {**prompt.model_dump(), **reading_of(config, prompt), **size, **shared}


def reading_of(config: Config, prompt: SamplePrompt) -> dict[str, Any]:
    """How the prompt is read: as captions are, unless it says otherwise itself."""
    captions = config.dataset.captions
    return {
        "clip_skip": config.train.clip_skip if prompt.clip_skip is None else prompt.clip_skip,
        "max_token_length": captions.max_token_length,
        "weighted": captions.weighted,
    }

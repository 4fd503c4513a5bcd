"""What the Generate tab keeps between page loads, and how its requests stand. No gradio in here.

``WORKSPACE/last_generate.json`` holds the form as it was last used and the request that was made of it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.config import Config
from trainer.errors import UserError
from trainer.files import read_json, write_json
from trainer.pictures import PictureSettings
from trainer.runs.store import Workspace
from trainer.studio import Answer, Queued, Studio

_BIGGEST_DRAWN_SEED = 2**32
_STEPS_TO_TELL = 2
"""Steps that are measured before a time left is told."""


class LastUse(BaseModel):
    """The form as it was last used."""

    model_config = ConfigDict(extra="ignore")

    settings: PictureSettings = Field(default_factory=lambda: PictureSettings.model_validate({}))
    new_seed: bool = True
    request: str = ""


@dataclass(frozen=True)
class Standing:
    """What is being drawn, and all that waits.

    Attributes:
        answer: to the request that is being drawn, else to the newest one; None where nothing was asked for yet.
        queue: the requests without a final answer, next one first, the one being drawn included.
    """

    answer: Answer | None
    queue: list[Queued]

    def seconds_left(self, now: float) -> float | None:
        """How long all requests take that are not done, going by the one that is being drawn; None before it tells."""
        answer = self.answer
        if answer is None or answer.state != "running" or answer.step < _STEPS_TO_TELL or answer.started is None:
            return None
        steps = sum(_steps_left(queued) for queued in self.queue)
        return (now - answer.started) / answer.step * steps


class GenerateDesk:
    """Takes picture requests of the page and says how the newest one stands."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._workspace: Workspace = studio.workspace
        self._memory = studio.workspace.dir / "last_generate.json"

    def last(self) -> LastUse:
        """The form as it was last used, or the defaults."""
        try:
            return LastUse.model_validate(read_json(self._memory))
        except (OSError, ValueError, ValidationError):
            return LastUse()

    def ask(self, settings: PictureSettings, *, new_seed: bool) -> PictureSettings:
        """Ask for pictures; with ``new_seed`` the seed is drawn. Returns the settings as asked for."""
        if new_seed:
            seed = random.SystemRandom().randrange(_BIGGEST_DRAWN_SEED)
            settings = settings.model_copy(update={"seed": seed})
        request = self._studio.generate(settings)
        write_json(self._memory, LastUse(settings=settings, new_seed=new_seed, request=request).model_dump())
        return settings

    def cancel(self, request_id: str = "") -> None:
        """End a request that waits or is being drawn; without an id all of them."""
        for queued in self._queue():
            if request_id in ("", queued.request.id):
                self._studio.cancel(queued.request.id)

    def move_to_front(self, request_id: str) -> None:
        """Have a waiting request drawn next."""
        self._studio.move_to_front(request_id)

    def standing(self) -> Standing:
        """How the request that is being drawn stands, else the newest one; and what waits."""
        newest = self._newest()
        queue = self._queue()
        drawn = next((each.answer for each in queue if each.answer.state == "running"), newest)
        return Standing(drawn, queue)

    def _newest(self) -> Answer | None:
        request = self.last().request
        try:
            return self._studio.answer(request) if request else None
        except UserError:
            return None  # its answer was cleared away

    def _queue(self) -> list[Queued]:
        return [queued for queued in self._studio.queue() if queued.request.kind == "generate"]


def _steps_left(queued: Queued) -> int:
    steps = queued.answer.steps or queued.request.settings.steps * queued.request.settings.count
    return max(0, steps - queued.answer.step)


def settings_like(config: Config) -> PictureSettings | None:
    """How a run drew its own previews: the first of its prompts; None where it had none."""
    if not config.samples.prompts:
        return None
    prompt, captions = config.samples.prompts[0], config.dataset.captions
    reading = {
        "clip_skip": prompt.clip_skip or config.train.clip_skip,
        "max_token_length": captions.max_token_length,
        "weighted": captions.weighted,
    }
    return PictureSettings.model_validate({**prompt.model_dump(), "model": config.model.base, **reading})

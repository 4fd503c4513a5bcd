"""What the Generate tab keeps between page loads, and how its requests stand. No gradio in here.

``WORKSPACE/last_generate.json`` holds the form as it was last used and the request that was made of it.
"""

from __future__ import annotations

import random

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.config import Config
from trainer.errors import UserError
from trainer.files import read_json, write_json
from trainer.pictures import PictureSettings
from trainer.runs.store import Workspace
from trainer.studio import Answer, Studio

_BIGGEST_DRAWN_SEED = 2**32


class LastUse(BaseModel):
    """The form as it was last used."""

    model_config = ConfigDict(extra="ignore")

    settings: PictureSettings = Field(default_factory=lambda: PictureSettings.model_validate({}))
    new_seed: bool = True
    request: str = ""


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

    def cancel(self) -> None:
        """End every request that waits or is being drawn."""
        for request in self._studio.pending():
            if request.kind == "generate":
                self._studio.cancel(request.id)

    def answer(self) -> tuple[Answer | None, int]:
        """How the newest request stands, and how many wait, itself included."""
        request = self.last().request
        try:
            answer = self._studio.answer(request) if request else None
        except UserError:
            return None, 0  # its answer was cleared away
        waiting = 0 if answer is None or answer.final else sum(r.kind == "generate" for r in self._studio.pending())
        return answer, waiting


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

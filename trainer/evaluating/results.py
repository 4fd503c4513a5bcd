"""``RUN/evaluation``: what was found out of each checkpoint, one JSON file for each. Never torch.

A file is written when its checkpoint is done, so that an evaluation that was interrupted goes on where it was. What was
measured with other settings, or of a LoRA that has changed, does not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from trainer.errors import UserError
from trainer.evaluating.settings import EvaluationSettings
from trainer.files import read_json, write_json

BASE_STEP = 0
"""The step under which the model without the LoRA is told, to compare with."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class Nearest(_Record):
    """The training picture that a picture is nearest to.

    Attributes:
        picture: name of a small copy in ``evaluation/pictures``.
        source: the training picture's file.
        similarity: see ``nearest.Match``.
        copied: see ``nearest.Match``.
    """

    picture: str
    source: str
    similarity: float
    copied: bool


class Drawn(_Record):
    """A picture that was drawn to be judged; ``picture`` is its name in ``evaluation/pictures``."""

    picture: str
    prompt: str
    seed: int
    nearest: Nearest | None = None


class Evaluated(_Record):
    """What was measured of a checkpoint; None for what was not.

    Attributes:
        key: of the settings and everything else that the numbers depend on, but for the LoRA.
        lora_sha256: of the LoRA; empty for the base model.
        validation_loss: mean squared error, see ``validation.validation_loss``.
        bands: the same for each band of noise levels, little noise first.
        drift: see ``drift``; a share, 0 for none.
        image_similarity: mean cosine of pictures drawn and training pictures.
        prompt_similarity: mean cosine of pictures drawn and their prompts.
        copies: pictures drawn that look the same as one of the training pictures.
        seconds: what it took.
    """

    step: int
    key: str
    lora_sha256: str = ""
    validation_loss: float | None = None
    bands: list[float] = []
    drift: float | None = None
    image_similarity: float | None = None
    prompt_similarity: float | None = None
    copies: int | None = None
    drawn: list[Drawn] = []
    seconds: float = 0.0


class Evaluation(_Record):
    """An evaluation of a run's checkpoints.

    Attributes:
        key: as of its checkpoints.
        settings: with which it was made.
        held_out: whether the validation loss is of held-out pictures. Of pictures that are trained on it falls all the
            same when a LoRA learns them by heart.
        validated_pictures: how many it is of.
        checkpoints: what was measured, by step; the base model first, as step 0.
        best: the best checkpoint; None where nothing tells.
        why: the reason, a sentence.
        hints: what else the numbers say, a sentence each.
    """

    key: str
    settings: EvaluationSettings
    held_out: bool = False
    validated_pictures: int = 0
    checkpoints: list[Evaluated] = []
    best: int | None = None
    why: str = ""
    hints: list[str] = []


@dataclass(frozen=True)
class EvaluationFolder:
    """The folder ``evaluation`` of a run."""

    dir: Path

    @property
    def pictures(self) -> Path:
        """Pictures drawn, and small copies of the training pictures nearest to them."""
        return self.dir / "pictures"

    @property
    def summary_path(self) -> Path:
        """The latest evaluation as a whole."""
        return self.dir / "summary.json"

    def lock(self) -> FileLock:
        """Held by the one process that evaluates. Raises UserError where another one does."""
        self.dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.dir / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            message = f"The run {self.dir.parent.name} is being evaluated already."
            raise UserError("evaluation.running", message, "Wait for its end, or cancel it.") from error
        return lock

    def check_run(self) -> None:
        """Raise UserError when the run was deleted meanwhile: writing would make its folder again."""
        if not self.dir.is_dir():
            message = f"The run {self.dir.parent.name} was deleted while it was evaluated."
            raise UserError("evaluation.run_gone", message, "Restore it to evaluate it.")

    def known(self, key: str) -> dict[int, Evaluated]:
        """What was measured under this key, by step."""
        found = [_read(path) for path in sorted(self.dir.glob("step-*.json"))]
        return {each.step: each for each in found if each is not None and each.key == key}

    def write(self, evaluated: Evaluated) -> None:
        """Keep what was measured of a checkpoint. Raises UserError when the run is gone."""
        self.check_run()
        write_json(self.dir / f"step-{evaluated.step:06d}.json", evaluated.model_dump())

    def read_summary(self) -> Evaluation | None:
        """The latest evaluation; None where there is none that can be read."""
        try:
            return Evaluation.model_validate(read_json(self.summary_path))
        except (OSError, ValueError):
            return None

    def write_summary(self, evaluation: Evaluation) -> None:
        """Keep an evaluation as the latest, and remove pictures that it does not name.

        Raises UserError when the run is gone.
        """
        self.check_run()
        write_json(self.summary_path, evaluation.model_dump())
        drawn = [picture for each in evaluation.checkpoints for picture in each.drawn]
        named = {each.picture for each in drawn} | {each.nearest.picture for each in drawn if each.nearest}
        for picture in self.pictures.glob("*.png"):
            if picture.name not in named:
                picture.unlink(missing_ok=True)


def evaluation_of(run_dir: Path) -> EvaluationFolder:
    """Where a run's evaluation lies, or would."""
    return EvaluationFolder(run_dir / "evaluation")


def _read(path: Path) -> Evaluated | None:
    try:
        return Evaluated.model_validate(read_json(path))
    except (OSError, ValueError):
        return None

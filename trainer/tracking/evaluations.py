"""What an evaluation found on its way to the trackers of a run."""

from __future__ import annotations

import secrets
from pathlib import Path

from trainer.config import Config
from trainer.errors import Problem
from trainer.evaluating.results import Evaluation, evaluation_of
from trainer.runs.events import EventSink
from trainer.tracking.backends import Start
from trainer.tracking.plain_settings import plain_settings
from trainer.tracking.recorder import Numbers, Picture
from trainer.tracking.tracking import FOLDER, identity_of, numbers, start_recorders

_TOLD = {"validation_loss", "drift", "image_similarity", "prompt_similarity", "copies"}


def track_evaluation(run_dir: Path, config: Config, evaluation: Evaluation, events: EventSink) -> None:
    """Tell the trackers of a run's settings what was measured of each checkpoint; warn of those that fail.

    Each time it is a tracker run of its own, "NAME evaluation": the training may be writing to its own meanwhile, and
    W&B takes no step that lies before its last one.
    """
    if not config.trackers:
        return

    def warn(problem: Problem) -> None:
        events.emit("warning", code=problem.code, message=problem.message, hint=problem.hint)

    folder = run_dir / FOLDER
    start = Start(
        folder=folder / f"evaluation-{evaluation.key[:8]}",
        project=config.tracking.project,
        name=f"{identity_of(folder, config.name)['name']} evaluation",
        id=secrets.token_hex(4),
        step=0,
        settings=plain_settings(config),
    )
    recorders = start_recorders(config, start, warn)
    for recorder in recorders:
        for record in _records(run_dir, evaluation, pictures=config.tracking.pictures):
            recorder.put(record)
    for recorder in recorders:
        recorder.close()
        if recorder.problem is not None:
            warn(recorder.problem)


def _records(run_dir: Path, evaluation: Evaluation, *, pictures: bool) -> list[Numbers | Picture]:
    """Numbers and pictures by step; of a picture that was removed meanwhile nothing is told."""
    records: list[Numbers | Picture] = []
    for each in evaluation.checkpoints:
        records.append(Numbers(each.step, numbers("evaluation", each.model_dump(include=_TOLD))))
        for number, drawn in enumerate(each.drawn if pictures else (), start=1):
            path = evaluation_of(run_dir).pictures / drawn.picture
            if path.is_file():
                records.append(Picture(each.step, f"evaluation {number}", path, drawn.prompt))
    return records

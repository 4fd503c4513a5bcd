"""About how long an evaluation takes, from the one before or else from the run's own steps. No Gradio."""

from __future__ import annotations

from functools import lru_cache

from trainer.config import Config
from trainer.errors import UserError
from trainer.evaluating.results import BASE_STEP, Evaluation
from trainer.evaluating.settings import MOST_VALIDATED, parse_evaluation
from trainer.evaluating.work import work_of
from trainer.pace import pace_of, pass_seconds
from trainer.runs.store import Run
from ui.step_maths import count_pictures


def costs(run: Run, found: Evaluation | None) -> dict[str, float] | None:
    """Seconds that each part of an evaluation takes, see ``Work``; None where nothing is known of the run's speed.

    Loading the model and looking at the pictures come on top.
    """
    config = _config(run, run.config_path.stat().st_mtime_ns) if run.config_path.is_file() else None
    if config is None:
        return None
    validated = found.validated_pictures if found and found.validated_pictures else _validated(config)
    work = work_of(config, found.settings if found else parse_evaluation({}), validated)
    measured = _measured(found)
    if found is not None and measured is not None:
        seconds_a_pass = measured / (work.of_checkpoint(found.settings) or 1)
    else:
        taken = pace_of(run.events_path).costs(config)
        if taken is None:
            return None
        seconds_a_pass = pass_seconds(config, taken.step)
    return {
        "once": work.once * seconds_a_pass,
        "validation": work.validation * seconds_a_pass,
        "drift": work.drift * seconds_a_pass,
        "picture": work.picture * seconds_a_pass,
    }


def _measured(found: Evaluation | None) -> float | None:
    """Seconds that a checkpoint took before, on average; None where none did."""
    times = [each.seconds for each in found.checkpoints if each.step != BASE_STEP and each.seconds] if found else []
    return sum(times) / len(times) if times else None


def _validated(config: Config) -> int:
    """About how many pictures the validation loss is of, by the names of files."""
    if config.validation.path:
        return count_pictures(config.validation.path)[0] or MOST_VALIDATED
    pictures = sum(count_pictures(source.path)[0] for source in config.dataset.sources)
    held_out = round(pictures * config.validation.split)
    return held_out or min(MOST_VALIDATED, pictures)


@lru_cache(maxsize=32)
def _config(run: Run, stamp: int) -> Config | None:
    """Read once as long as the file does not change: an open page asks again and again."""
    try:
        return run.config()
    except UserError:
        return None

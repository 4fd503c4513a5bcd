"""A run whose numbers went bad goes back to its newest checkpoint, and on from there at a lower learning rate.

The rate is what makes it another run: the same steps with the same noise would end in the same place. It is halved, as
was done by hand in the training of OPT (Zhang et al. 2022, 2205.01068, section 2.5).
"""

from __future__ import annotations

from pathlib import Path

from trainer.checkpoint import load_state
from trainer.checkpoint_folders import checkpoints, step_of
from trainer.continuing import newest_of
from trainer.data.contents import Contents
from trainer.errors import JobFailed, Problem, UserError
from trainer.learning import Learning
from trainer.sampling import remove_previews_after
from trainer.session import Session
from trainer.validation_history import ValidationHistory

BAD_STEPS_IN_A_ROW = 12
"""Steps without a finite gradient after which the numbers are bad; fp16 may need ten to find its loss scale."""
MOST_ROLLBACKS = 2
"""In the whole life of a run, however often it is resumed."""

_FIELD = "train.learning_rate"
_REMEDY = "Lower train.learning_rate, or set train.mixed_precision to bf16 or no."


def trouble_of(learning: Learning) -> str | None:
    """What is wrong with the numbers of a run, as a sentence; None where it can go on. Waits for the device."""
    broken = learning.not_finite()
    if broken is not None:
        return f"After step {learning.step} {broken} are not finite any more."
    if learning.skipped >= BAD_STEPS_IN_A_ROW:
        steps = f"{learning.skipped} steps in a row, up to step {learning.step}"
        return f"The loss or its gradient was not a number for {steps}."
    return None


def go_back(session: Session, trouble: str) -> Path:
    """Decide that a run goes back, and tell it. Returns the checkpoint to go on from.

    The decision is in ``run.json`` before anything follows from it: a run that is killed here goes on as it would have.
    Raises JobFailed where there is no checkpoint, or the run went back often enough.
    """
    run = session.run
    done = run.read().rollbacks
    checkpoint = newest_of(session) if done < MOST_ROLLBACKS else None
    if checkpoint is None:
        raise JobFailed(Problem("training.diverged", trouble, f"{_last_state(session, done)} {_REMEDY}", _FIELD))
    remove_previews_after(step_of(checkpoint), run.samples_dir)
    run.update(rollbacks=done + 1)
    went = f"The run went back to {checkpoint.name} and goes on from there at half of the learning rate it had."
    left = MOST_ROLLBACKS - done - 1
    hint = f"It can do so {left} more time{'s'[: left != 1]}." if left else "The next time it ends."
    session.warn("training.rolled_back", f"{trouble} {went}", f"{hint} {_REMEDY}")
    return checkpoint


def load_checkpoint(checkpoint: Path, session: Session, learning: Learning, history: ValidationHistory) -> Contents:
    """Be as the run was at a checkpoint, and as slow as it has become by going back.

    Returns what was trained on, nothing where the checkpoint does not know. Raises ValueError, KeyError or RuntimeError
    for one of another kind of run, and UserError for one with values that are not finite, as version 0.1 kept them.
    """
    state = load_state(checkpoint)
    learning.load_state(state)
    learning.rate_share = 0.5 ** session.run.read().rollbacks
    if state["validation"] is not None:
        history.load_state(state["validation"])
    broken = learning.not_finite()
    if broken is not None:
        message = f"In {checkpoint.name} {broken} are not finite."
        hint = "Remove its folder: resumed, the run goes on from the checkpoint before it."
        raise UserError("checkpoint.not_finite", message, hint)
    contents: Contents = state["contents"]
    return contents


def _last_state(session: Session, rollbacks: int) -> str:
    saved = checkpoints(session.run.checkpoints_dir)
    where = f"The last good state is {saved[-1].name}." if saved else "Nothing had been saved yet."
    return f"The run went back {rollbacks} times already, at half the rate each. {where}" if rollbacks else where
